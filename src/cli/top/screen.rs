//! Draws the screen: the process, what needs attention, listeners, virtual routers, pools with their backends, events,
//! keys. Pure: a model in, cells out.

use console::{Alignment, measure_text_width, pad_str, truncate_str};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::columns::{self, Columns};
use super::figures::{bars, bytes, short, span};
use super::model::{Mode, Model, Row, Sort};
use super::reading::{Listener, Router, Tone};
use crate::cli::status::span as age;
use crate::control::snapshot::OperatorState;

/// Less than this is nothing.
const WIDTH_MIN: u16 = 40;
const HEIGHT_MIN: u16 = 8;
/// From here on, columns have room between them.
pub(super) const WIDE: usize = 110;

/// What colours mean; none of them is needed to understand the screen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    pub(super) has_colours: bool,
}

impl Palette {
    fn colour(self, colour: Color) -> Style {
        match self.has_colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    pub(super) fn tone(self, tone: Tone) -> Style {
        match tone {
            Tone::Bad => self.colour(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Doubtful => self.colour(Color::Yellow),
            Tone::Good => self.colour(Color::Green),
            Tone::Plain => Style::new(),
        }
    }

    pub(super) fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn heading(self) -> Style {
        self.colour(Color::Cyan)
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn banner(self) -> Style {
        let style = self.colour(Color::Red);
        style.add_modifier(Modifier::REVERSED | Modifier::BOLD)
    }

    fn question(self) -> Style {
        self.colour(Color::Yellow)
            .add_modifier(Modifier::REVERSED | Modifier::BOLD)
    }
}

/// Draws it; so many lines of the list fit.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, palette: Palette) -> usize {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        let text = format!(
            "{}x{} is too small: {WIDTH_MIN}x{HEIGHT_MIN} at least; q quits",
            area.width, area.height
        );
        let width = usize::from(area.width);
        for (line, text) in (0..area.height).zip(textwrap::wrap(&text, width.max(1))) {
            put(frame, line, Line::from(text));
        }
        return 1;
    }
    let look = Look {
        model,
        palette,
        width: usize::from(area.width),
    };
    if model.mode == Mode::Help {
        look.lines(frame, area, &look.help());
        return 1;
    }
    let height = usize::from(area.height);
    let mut above = look.head();
    above.extend(look.banners(height / 6 + 1));
    // What is in the middle gets the most; lists around it have a share of a screen that has room for them.
    let spare = height.saturating_sub(above.len() + 1);
    let is_roomy = height >= 30;
    if spare >= 12 {
        above.extend(is_roomy.then(Line::default));
        above.extend(look.listeners((spare / 6).max(2)));
        above.extend(look.routers((spare / 6).max(2)));
        above.extend(is_roomy.then(Line::default));
    }
    let left = height.saturating_sub(above.len() + 1);
    // Titles, and a line that says so where there is none.
    let needed = 1 + model.rows().len().max(1) + usize::from(is_roomy);
    let below = match spare {
        0..12 => 0,
        _ => (height / 6).max(3).max(left.saturating_sub(needed)),
    };
    let middle = left.saturating_sub(below);
    look.lines(frame, area, &above);
    let top = to_u16(above.len());
    let list = look.list(middle);
    look.lines(frame, moved(area, top), &list);
    if below > 0 {
        let events = look.events(below);
        look.lines(frame, moved(area, to_u16(above.len() + middle)), &events);
    }
    put(frame, area.height - 1, look.foot());
    middle.saturating_sub(1)
}

/// A model, and how it is shown.
struct Look<'a> {
    model: &'a Model,
    palette: Palette,
    width: usize,
}

impl Look<'_> {
    fn lines(&self, frame: &mut Frame<'_>, area: Rect, lines: &[Line<'_>]) {
        for (y, line) in (area.y..area.bottom()).zip(lines) {
            put(frame, y, line.clone());
        }
    }

    fn is_wide(&self) -> bool {
        self.width >= WIDE
    }

    /// A count of seconds that ended at this time.
    fn since(&self, since: u64) -> String {
        age(self.seconds().saturating_sub(since))
    }

    fn seconds(&self) -> u64 {
        std::time::Duration::try_from_secs_f64(self.model.now.max(0.0))
            .map_or(0, |now| now.as_secs())
    }

    /// The process, its totals, and how they went over the last minutes.
    fn head(&self) -> Vec<Line<'static>> {
        let reading = &self.model.reading;
        let phase = match &reading.stopping {
            None => format!("{} for {}", reading.phase, self.since(reading.started)),
            Some(stopping) => {
                let until = stopping.until.map(|at| at.saturating_sub(self.seconds()));
                let left = until.map_or(String::new(), |left| format!(", {} left", age(left)));
                let phase = &reading.phase;
                format!("{phase} for {}{left}", self.since(stopping.since))
            }
        };
        let is_usual = reading.phase == "serving";
        let mut first = vec![
            Span::styled("ringway", self.palette.strong()),
            Span::raw(format!(" {}", reading.version)),
        ];
        first.extend(
            reading
                .host
                .iter()
                .map(|host| Span::styled(format!("  {host}"), self.palette.strong())),
        );
        first.push(Span::styled(
            format!("  {phase}"),
            self.palette.tone(if is_usual {
                Tone::Plain
            } else {
                Tone::Doubtful
            }),
        ));
        let pid = format!("  pid {}", reading.pid);
        first.push(Span::styled(pid, self.palette.faint()));
        vec![Line::from(first), self.totals(), self.curves()]
    }

    fn totals(&self) -> Line<'static> {
        let reading = &self.model.reading;
        let latencies = self.model.tracks.process.latencies();
        let took = |seconds: Option<f64>| seconds.map_or("-".to_owned(), span);
        let mut parts = vec![(
            "sessions",
            format!("{} of {}", reading.sessions_active, reading.max_sessions),
        )];
        if reading.flows_active + reading.flows_total > 0 {
            let flows = format!("{} of {}", reading.flows_active, reading.max_flows);
            parts.push(("flows", flows));
        }
        parts.push(("connect", took(latencies.connect)));
        parts.push(("first byte", took(latencies.first_byte)));
        let mut spans = Vec::new();
        for (label, value) in parts {
            spans.push(Span::styled(format!("{label} "), self.palette.faint()));
            spans.push(Span::raw(format!("{value}   ")));
        }
        Line::from(spans)
    }

    fn curves(&self) -> Line<'static> {
        let track = &self.model.tracks.process;
        let now = track.rates().unwrap_or_default();
        let third = self.width / 3;
        let mut spans = Vec::new();
        let sessions: Vec<f64> = track.all_rates().map(|rates| rates.sessions).collect();
        let to_backend: Vec<f64> = track.all_rates().map(|rates| rates.to_backend).collect();
        let to_client: Vec<f64> = track.all_rates().map(|rates| rates.to_client).collect();
        for (label, value, values) in [
            ("new/s", short(now.sessions), sessions),
            ("to backends/s", bytes(now.to_backend), to_backend),
            ("to clients/s", bytes(now.to_client), to_client),
        ] {
            let value = pad_str(&value, 6, Alignment::Left, None).into_owned();
            let room = third.saturating_sub(label.len() + value.len() + 4);
            spans.push(Span::styled(format!("{label} "), self.palette.faint()));
            spans.push(Span::raw(value));
            let curve = bars(values.into_iter(), room.min(60));
            spans.push(Span::styled(curve, self.palette.heading()));
            spans.push(Span::raw("   "));
        }
        Line::from(spans)
    }

    /// What cannot wait: no connection to the process, pools without a usable backend, alarms of virtual routers.
    fn banners(&self, most: usize) -> Vec<Line<'static>> {
        let mut texts = Vec::new();
        if let Some((seconds, why)) = self.model.stale() {
            texts.push(format!(
                "NOT CONNECTED for {seconds:.0}s, trying again; figures are old: {why}"
            ));
        }
        for pool in &self.model.reading.pools {
            if pool.usable() == 0 {
                let (name, why) = (&pool.name, pool.unusable());
                texts.push(format!("POOL {name} HAS NO USABLE BACKEND: {why}"));
            }
        }
        for router in &self.model.reading.virtual_routers {
            for alarm in &router.alarms {
                texts.push(format!("VIRTUAL ROUTER {}: {}", router.name, alarm.what));
            }
        }
        let over = texts.len().saturating_sub(most);
        if over > 0 {
            texts.truncate(most.saturating_sub(1));
            texts.push(format!("and {} more like these", over + 1));
        }
        let banner = |text: String| {
            let text = format!(" {text}");
            let text = pad_str(&text, self.width, Alignment::Left, Some("…")).into_owned();
            Line::styled(text, self.palette.banner())
        };
        texts.into_iter().map(banner).collect()
    }

    /// Those that refuse clients come first.
    fn listeners(&self, most: usize) -> Vec<Line<'static>> {
        let mut all: Vec<&Listener> = self.model.reading.listeners.iter().collect();
        all.sort_by_key(|listener| listener.refuses.is_none());
        let columns = columns::listeners(self.width, &all);
        let mut lines = vec![self.heading(&columns)];
        let shown = if all.len() > most { most - 1 } else { most };
        for listener in all.iter().take(shown) {
            let track = self.model.tracks.listener(&listener.name);
            let rates = track.and_then(|track| track.rates()).unwrap_or_default();
            let tone = match listener.refuses {
                Some(_) => Tone::Bad,
                None => Tone::Plain,
            };
            let cells = columns::of_listener(listener, rates);
            let mut line = columns.line(&cells);
            if let Some(refuses) = &listener.refuses {
                let since = self.since(refuses.since);
                line = format!("{}  refuses for {since}: {}", listener.name, refuses.why);
            }
            let line = truncate_str(&line, self.width, "…").into_owned();
            lines.push(Line::styled(line, self.palette.tone(tone)));
        }
        if all.len() > shown {
            let text = format!("and {} more listeners", all.len() - shown);
            lines.push(Line::styled(text, self.palette.faint()));
        }
        lines
    }

    fn routers(&self, most: usize) -> Vec<Line<'static>> {
        let all = &self.model.reading.virtual_routers;
        let shown = all.iter().take(most);
        shown
            .map(|router| {
                let tone = match (router.state.as_str(), &router.fault) {
                    ("initialize", _) => Tone::Bad,
                    (_, Some(_)) => Tone::Doubtful,
                    _ => Tone::Plain,
                };
                let state = Span::styled(router.state.clone(), self.palette.tone(tone));
                let rest = self.of_router(router);
                let name = format!("virtual router {} ", router.name);
                let room = self.width.saturating_sub(name.len() + router.state.len());
                let rest = truncate_str(&rest, room, "…").into_owned();
                Line::from(vec![Span::raw(name), state, Span::raw(rest)])
            })
            .collect()
    }

    fn of_router(&self, router: &Router) -> String {
        let since = router.since.map(|since| self.since(since));
        let since = since.map_or(String::new(), |since| format!(" for {since}"));
        let other = match (&router.active_router, router.state.as_str()) {
            (Some(other), "backup") => format!(", active is {other}"),
            _ => String::new(),
        };
        let held = if router.held_back { ", held back" } else { "" };
        let said = [&router.fault, &router.waits_for];
        let said = said.into_iter().flatten();
        let said: Vec<String> = said.map(|text| format!("; {text}")).collect();
        format!(
            "{since}{other}{held}  priority {}  {} on {}{}",
            router.priority,
            router.addresses.join(", "),
            router.interface,
            said.concat(),
        )
    }

    fn heading(&self, columns: &Columns) -> Line<'static> {
        Line::styled(columns.heading(), self.palette.heading())
    }

    /// Pools with their backends: as much of it as fits, with the selected one in it.
    fn list(&self, height: usize) -> Vec<Line<'static>> {
        let rows = self.model.rows();
        let columns = columns::backends(self.width, self.model, self.seconds());
        let mut lines = vec![self.heading(&columns)];
        if rows.is_empty() {
            let text = match (self.model.is_trouble_only, self.model.filter.is_empty()) {
                (true, true) => "no backend is in trouble; t shows all",
                (_, false) => "nothing matches the filter; Esc shows all",
                (false, true) => "there is no pool",
            };
            lines.push(Line::styled(text, self.palette.faint()));
            return lines;
        }
        let room = height.saturating_sub(1);
        let selected = rows.iter().position(
            |row| matches!(row, Row::Backend(backend) if self.model.is_selected(backend)),
        );
        let most = rows.len().saturating_sub(room);
        let first = selected.unwrap_or(0).saturating_sub(room / 2).min(most);
        for row in rows.into_iter().skip(first).take(room) {
            lines.push(self.row(row, &columns));
        }
        lines
    }

    fn row(&self, row: Row<'_>, columns: &Columns) -> Line<'static> {
        match row {
            Row::Pool(pool) => {
                let (usable, all) = (pool.usable(), pool.backends.len());
                let tone = match usable {
                    0 => Tone::Bad,
                    some if some < all => Tone::Doubtful,
                    _ => Tone::Plain,
                };
                Line::from(vec![
                    Span::styled(pool.name.clone(), self.palette.strong()),
                    Span::styled(format!("  {}, ", pool.balance), self.palette.faint()),
                    Span::styled(
                        format!("{usable} of {all} usable"),
                        self.palette.tone(tone).remove_modifier(Modifier::BOLD),
                    ),
                ])
            }
            Row::Backend(backend) => {
                let track = self.model.tracks.backend(&backend.pool, &backend.name);
                let cells = columns::of_backend(backend, track, columns.trend(), self.seconds());
                let is_selected = self.model.is_selected(backend);
                let mut spans = columns.spans(&cells, |title| match title {
                    "health" if is_selected => Style::new(),
                    "health" => self.palette.tone(backend.tone_of_health()),
                    "operator" if backend.state != "ready" && !is_selected => {
                        self.palette.tone(Tone::Doubtful)
                    }
                    "trend" if !is_selected => self.palette.heading(),
                    _ => Style::new(),
                });
                let marker = if is_selected { "> " } else { "  " };
                spans.insert(0, Span::raw(marker));
                let line = Line::from(spans);
                match is_selected {
                    true => line.style(Style::new().add_modifier(Modifier::REVERSED)),
                    false => line,
                }
            }
            Row::Why(backend) => {
                let why = backend.why().unwrap_or_default();
                let text = format!("      {why}");
                let text = truncate_str(&text, self.width, "…").into_owned();
                let style = match backend.health.state.as_str() {
                    "down" => self.palette.tone(Tone::Bad).remove_modifier(Modifier::BOLD),
                    _ => self.palette.faint(),
                };
                Line::styled(text, style)
            }
        }
    }

    /// The last ones, the newest first.
    fn events(&self, height: usize) -> Vec<Line<'static>> {
        let mut lines = vec![Line::styled("events", self.palette.heading())];
        if self.model.events.is_empty() {
            lines.push(Line::styled("none yet", self.palette.faint()));
        }
        for event in self.model.events.iter().rev().take(height - 1) {
            let (tone, text) = event.words();
            let at = format!("{:>5}  ", self.since(event.at));
            let room = self.width.saturating_sub(at.len());
            let text = truncate_str(&text, room, "…").into_owned();
            let style = match tone {
                Tone::Bad => self.palette.tone(tone).remove_modifier(Modifier::BOLD),
                Tone::Good => self.palette.tone(tone),
                Tone::Doubtful | Tone::Plain => Style::new(),
            };
            lines.push(Line::from(vec![
                Span::styled(at, self.palette.faint()),
                Span::styled(text, style),
            ]));
        }
        lines
    }

    /// What keys do now.
    fn foot(&self) -> Line<'static> {
        let model = self.model;
        match &model.mode {
            Mode::Confirm(wish) => {
                let state = wish.state.as_str();
                let keys = "   y yes  n no ";
                let question = format!(" {state} {}/{}?", wish.pool, wish.backend);
                let effect = format!(" {}", model.consequence(wish));
                let room = self.width.saturating_sub(measure_text_width(keys));
                let text = truncate_str(&(question + &effect), room, "…").into_owned();
                let text = pad_str(&(text + keys), self.width, Alignment::Left, None).into_owned();
                Line::styled(text, self.palette.question())
            }
            Mode::Filter => Line::from(vec![
                Span::styled("filter: ", self.palette.strong()),
                Span::raw(format!("{}▏", model.filter)),
                Span::styled("  Enter keeps it, Esc ends it", self.palette.faint()),
            ]),
            Mode::List | Mode::Help => self.keys(),
        }
    }

    fn keys(&self) -> Line<'static> {
        let model = self.model;
        if let Some((is_good, text)) = model.said() {
            let tone = if is_good { Tone::Good } else { Tone::Bad };
            let text = truncate_str(text, self.width, "…").into_owned();
            return Line::styled(text, self.palette.tone(tone));
        }
        let mut view = Vec::new();
        if !model.filter.is_empty() {
            view.push(format!("filter {}", model.filter));
        }
        if model.is_trouble_only {
            view.push("trouble only".to_owned());
        }
        if model.sort != Sort::File {
            view.push(model.sort.as_str().to_owned());
        }
        let keys = match self.is_wide() {
            true => {
                "q quit  up/down select  d drain  r ready  m maintenance  / filter  t trouble only  s sort  ? help"
            }
            false => "q quit  d drain  r ready  m maintenance  / filter  t trouble  s sort  ? help",
        };
        match view.is_empty() {
            true => Line::styled(keys, self.palette.faint()),
            false => Line::from(vec![
                Span::styled(
                    format!("[{}]", view.join(", ")),
                    self.palette.tone(Tone::Doubtful),
                ),
                Span::styled("  Esc shows all  s sort  ? help", self.palette.faint()),
            ]),
        }
    }

    fn help(&self) -> Vec<Line<'static>> {
        let text = [
            ("q, Ctrl-C", "quit"),
            (
                "up, down, PgUp, PgDn, Home, End",
                "select a backend (k, j, g, G too)",
            ),
            (
                "d",
                "drain it: no new sessions, those it has go on for the pool's drain_timeout",
            ),
            ("m", "maintenance: the same, and it is not probed"),
            ("r, u", "ready: in use again"),
            ("/", "show only what contains a text"),
            ("t", "show only backends in trouble"),
            ("s", "sort: file, trouble, sessions, new sessions"),
            ("Esc", "show all again"),
            ("Ctrl-L", "draw everything anew"),
        ];
        let mut lines = vec![
            Line::styled("ringway top: keys", self.palette.strong()),
            Line::default(),
        ];
        for (keys, what) in text {
            let keys = pad_str(keys, 33, Alignment::Left, None).into_owned();
            let keys = Span::styled(keys, self.palette.heading());
            for (number, what) in textwrap::wrap(what, self.width.saturating_sub(34).max(5))
                .into_iter()
                .enumerate()
            {
                let keys = match number {
                    0 => keys.clone(),
                    _ => Span::raw(" ".repeat(33)),
                };
                lines.push(Line::from(vec![keys, Span::raw(what.into_owned())]));
            }
        }
        lines.push(Line::default());
        for text in [
            "connect, 1st byte: means of the last ten seconds. What keys change holds on this node only.",
            "Any key leads back.",
        ] {
            let wrapped = textwrap::wrap(text, self.width);
            let faint = self.palette.faint();
            lines.extend(
                wrapped
                    .iter()
                    .map(|line| Line::styled(line.to_string(), faint)),
            );
        }
        lines
    }
}

fn put(frame: &mut Frame<'_>, y: u16, line: Line<'_>) {
    let area = frame.area();
    if y < area.bottom() {
        frame.render_widget(
            line,
            Rect {
                y,
                height: 1,
                ..area
            },
        );
    }
}

fn moved(area: Rect, down: u16) -> Rect {
    Rect {
        y: down.min(area.bottom()),
        height: area.height.saturating_sub(down),
        ..area
    }
}

/// A screen has fewer lines.
fn to_u16(lines: usize) -> u16 {
    u16::try_from(lines).unwrap_or(u16::MAX)
}

/// The operator's word and until when it is in force, as it stands in its column.
pub(super) fn operator(state: &str, drain_until: Option<u64>, now: u64) -> String {
    let is_drain = state == OperatorState::Drain.as_str();
    match drain_until.filter(|_| is_drain) {
        Some(until) => format!("{state} {}", age(until.saturating_sub(now))),
        None => state.to_owned(),
    }
}
