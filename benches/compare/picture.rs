//! The table as a picture: for each row our figure as a part of a peer's, and the bar that it is held against.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Outcome;

/// One line of the picture.
pub(crate) struct Stripe {
    /// The row, and what it is.
    pub(crate) what: String,
    pub(crate) against: &'static str,
    /// Ours divided by theirs: the median, and the least and greatest of the turns.
    pub(crate) ratio: [f64; 3],
    pub(crate) limit: f64,
}

const WIDTH: i32 = 900;
const STRIPE: i32 = 24;
const TOP: i32 = 64;
const BOTTOM: i32 = 44;
/// Where the scale begins and ends.
const LEFT: i32 = 430;
const RIGHT: i32 = 860;
/// The ratio at the end of the scale; what is more is cut.
const MOST: f64 = 1.25;

const INK: RGBColor = RGBColor(31, 41, 55);
const FAINT: RGBColor = RGBColor(209, 213, 219);
const HELD: RGBColor = RGBColor(22, 128, 87);
const MISSED: RGBColor = RGBColor(202, 103, 2);

/// Writes it as SVG.
pub(crate) fn write(file: &Path, title: &str, stripes: &[Stripe]) -> Outcome<()> {
    let height = TOP + STRIPE * stripes.len() as i32 + BOTTOM;
    let size = (WIDTH as u32, height as u32);
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE)?;
        let draw_text = |text: &str, at: (i32, i32), size: i32, pos: HPos| {
            let style = TextStyle::from(("sans-serif", size).into_font()).color(&INK);
            let style = style.pos(Pos::new(pos, VPos::Center));
            area.draw(&Text::new(text.to_owned(), at, style))
        };
        draw_text(title, (16, 20), 15, HPos::Left)?;
        draw_text(
            "CPU of Ringway divided by CPU of the other one; less is better; the black mark is the bar",
            (16, 40),
            12,
            HPos::Left,
        )?;
        let end = TOP + STRIPE * stripes.len() as i32;
        for tenths in [0, 25, 50, 75, 100, 125] {
            let ratio = f64::from(tenths) / 100.0;
            let x = place(ratio);
            let color = if tenths == 100 { INK } else { FAINT };
            area.draw(&PathElement::new(vec![(x, TOP), (x, end)], color))?;
            draw_text(&format!("{ratio:.2}"), (x, end + 14), 12, HPos::Center)?;
        }
        for (number, stripe) in (0..).zip(stripes) {
            let middle = TOP + STRIPE * number + STRIPE / 2;
            let label = format!("{}  / {}", stripe.what, stripe.against);
            draw_text(&label, (LEFT - 10, middle), 12, HPos::Right)?;
            let [ratio, least, greatest] = stripe.ratio;
            let color = if ratio <= stripe.limit { HELD } else { MISSED };
            let bar = [(LEFT, middle - 7), (place(ratio), middle + 7)];
            area.draw(&Rectangle::new(bar, color.filled()))?;
            let turns = vec![(place(least), middle), (place(greatest), middle)];
            area.draw(&PathElement::new(turns, INK))?;
            let x = place(stripe.limit);
            let mark = vec![(x, middle - 10), (x, middle + 10)];
            area.draw(&PathElement::new(mark, INK.stroke_width(3)))?;
            draw_text(&format!("{ratio:.2}"), (LEFT + 6, middle), 12, HPos::Left)?;
        }
        area.present()?;
    }
    std::fs::write(file, text)?;
    Ok(())
}

fn place(ratio: f64) -> i32 {
    LEFT + (ratio.clamp(0.0, MOST) / MOST * f64::from(RIGHT - LEFT)) as i32
}
