//! Figures as short as people read them. Pure.

use console::{Alignment, pad_str};

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// With a thousand marked as such, and so on: four characters, five with a point.
pub(super) fn short(value: f64) -> String {
    let mut value = value;
    for unit in ["", "k", "M", "G", "T", "P"] {
        // What would round up to a thousand belongs to the next unit.
        if value < 999.5 || unit == "P" {
            let has_fraction = value < 9.95 && (!unit.is_empty() || (0.05..).contains(&value));
            return match has_fraction && value.fract() != 0.0 {
                true => format!("{value:.1}{unit}"),
                false => format!("{value:.0}{unit}"),
            };
        }
        value /= 1_000.0;
    }
    String::new()
}

/// Bytes per second, without the "per second".
pub(super) fn bytes(value: f64) -> String {
    short(value) + "B"
}

/// A duration in seconds as people write it.
pub(super) fn span(seconds: f64) -> String {
    let micros = seconds * 1e6;
    match micros {
        ..999.5 => format!("{micros:.0}us"),
        ..9_950.0 => format!("{:.1}ms", micros / 1e3),
        ..999_500.0 => format!("{:.0}ms", micros / 1e3),
        _ => format!("{seconds:.1}s"),
    }
}

/// The last values as bars, the newest at the right; the most is a full one.
pub(super) fn bars(values: impl DoubleEndedIterator<Item = f64>, width: usize) -> String {
    let newest: Vec<f64> = values.rev().take(width).collect();
    let most = newest.iter().copied().fold(0.0, f64::max);
    let bars: String = newest.iter().rev().map(|value| bar(*value, most)).collect();
    pad_str(&bars, width, Alignment::Right, None).into_owned()
}

fn bar(value: f64, most: f64) -> char {
    if value <= 0.0 || most <= 0.0 {
        return ' ';
    }
    let eighths = value / most * 8.0;
    let reached = |height: &usize| u32::try_from(*height).is_ok_and(|it| f64::from(it) >= eighths);
    let height = (1..=BARS.len()).find(reached).unwrap_or(BARS.len());
    BARS[height - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_none_is_a_thousand_of_its_unit() {
        for (value, text) in [
            (0.0, "0"),
            (0.01, "0"),
            (0.5, "0.5"),
            (3.0, "3"),
            (9.96, "10"),
            (123.4, "123"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12k"),
            (2_500_000.0, "2.5M"),
            (3e15, "3P"),
        ] {
            assert_eq!(short(value), text, "{value}");
        }
        for (seconds, text) in [
            (0.000_08, "80us"),
            (0.000_999_7, "1.0ms"),
            (0.002_34, "2.3ms"),
            (0.045, "45ms"),
            (0.9999, "1.0s"),
            (61.0, "61.0s"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn the_highest_bar_is_full_and_the_newest_value_at_the_right() {
        assert_eq!(bars([0.0, 1.0, 4.0, 8.0].into_iter(), 6), "   ▁▄█");
        assert_eq!(bars([8.0, 1.0, 2.0].into_iter(), 2), "▄█");
        assert_eq!(bars([0.0; 3].into_iter(), 3), "   ");
    }
}
