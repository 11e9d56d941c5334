//! What the screen knows and what keys do to it. Pure: answers, keys and the time come in, orders go out.

use std::collections::VecDeque;

use super::reading::{Backend, Event, Pool, Reading};
use super::track::Tracks;
use crate::control::snapshot::OperatorState;

/// Events that are remembered.
const EVENTS_MAX: usize = 200;
/// An answer that is older than this is no longer how things are, in seconds.
const FRESH: f64 = 3.5;
/// How long it stays on the screen what became of an order, in seconds.
const SAID_FOR: f64 = 8.0;

/// What came back from the process.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reading: Reading,
    /// Those after the last one known.
    pub(super) events: Vec<Event>,
}

/// Keys that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Interrupt,
    Redraw,
    Letter(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Quit,
    /// Draw everything anew.
    Redraw,
    /// Change what the operator says.
    Operate(Wish),
}

/// What the operator wants of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) pool: String,
    pub(super) backend: String,
    pub(super) state: OperatorState,
}

/// How backends follow each other within their pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    File,
    Trouble,
    Sessions,
    Rate,
}

impl Sort {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Sort::File => "order of the file",
            Sort::Trouble => "trouble first",
            Sort::Sessions => "most sessions first",
            Sort::Rate => "most new sessions first",
        }
    }

    fn next(self) -> Sort {
        match self {
            Sort::File => Sort::Trouble,
            Sort::Trouble => Sort::Sessions,
            Sort::Sessions => Sort::Rate,
            Sort::Rate => Sort::File,
        }
    }
}

/// What keys go to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    List,
    /// The text of the filter is typed.
    Filter,
    /// Yes or no.
    Confirm(Wish),
    Help,
}

/// A line of the list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Row<'a> {
    Pool(&'a Pool),
    Backend(&'a Backend),
    /// Why the backend above is as it is.
    Why(&'a Backend),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Model {
    /// In seconds since 1970.
    pub(super) now: f64,
    pub(super) reading: Reading,
    pub(super) tracks: Tracks,
    /// The newest last.
    pub(super) events: VecDeque<Event>,
    pub(super) mode: Mode,
    pub(super) filter: String,
    pub(super) is_trouble_only: bool,
    pub(super) sort: Sort,
    /// When the last answer came.
    answered: f64,
    /// Why there has been none since.
    lost: Option<String>,
    /// The selected backend: its place among those listed, its pool and its name.
    selected: usize,
    selected_name: Option<(String, String)>,
    /// What became of an order, and when.
    said: Option<(bool, String, f64)>,
    /// Lines of the list that fit, as last drawn.
    page: usize,
}

impl Model {
    pub(super) fn new(answer: Answer, now: f64) -> Model {
        let mut model = Model {
            now,
            reading: Reading::default(),
            tracks: Tracks::default(),
            events: VecDeque::new(),
            mode: Mode::List,
            filter: String::new(),
            is_trouble_only: false,
            sort: Sort::File,
            answered: now,
            lost: None,
            selected: 0,
            selected_name: None,
            said: None,
            page: 10,
        };
        model.answered(answer, now);
        model
    }

    /// The process has answered.
    pub(super) fn answered(&mut self, answer: Answer, now: f64) {
        let same = |one: &Reading| (one.pid, one.started);
        if same(&self.reading) != same(&answer.reading) {
            // Another process counts from nothing.
            self.tracks = Tracks::default();
            self.events.clear();
        }
        self.tick(now);
        self.answered = now;
        self.lost = None;
        self.tracks.note(&answer.reading);
        self.reading = answer.reading;
        self.events.extend(answer.events);
        let over = self.events.len().saturating_sub(EVENTS_MAX);
        self.events.drain(..over);
        self.find_selected();
    }

    /// It has not.
    pub(super) fn failed(&mut self, why: String, now: f64) {
        self.tick(now);
        self.lost = Some(why);
    }

    /// An order was carried out, or not.
    pub(super) fn operated(&mut self, result: Result<String, String>, now: f64) {
        self.tick(now);
        self.said = Some(match result {
            Ok(text) => (true, text, now),
            Err(text) => (false, text, now),
        });
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: f64) {
        self.now = now;
        let is_old = |(_, _, at): &(bool, String, f64)| now - at > SAID_FOR;
        self.said.take_if(|said| is_old(said));
    }

    /// So many lines of the list fit.
    pub(super) fn set_page(&mut self, lines: usize) {
        self.page = lines.max(1);
    }

    /// What is said about the last order, and whether it is good news.
    pub(super) fn said(&self) -> Option<(bool, &str)> {
        let said = self.said.as_ref();
        said.map(|(is_good, text, _)| (*is_good, text.as_str()))
    }

    /// Why and for how many seconds what is shown is no longer how things are.
    pub(super) fn stale(&self) -> Option<(f64, &str)> {
        let age = self.now - self.answered;
        match &self.lost {
            Some(why) => Some((age, why)),
            None if age > FRESH => Some((age, "it takes long to answer")),
            None => None,
        }
    }

    /// The lines of the list.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        for pool in &self.reading.pools {
            let backends = self.backends(pool);
            if backends.is_empty() {
                continue;
            }
            rows.push(Row::Pool(pool));
            for backend in backends {
                rows.push(Row::Backend(backend));
                if backend.why().is_some() {
                    rows.push(Row::Why(backend));
                }
            }
        }
        rows
    }

    fn backends<'a>(&self, pool: &'a Pool) -> Vec<&'a Backend> {
        let mut backends: Vec<&Backend> = pool.backends.iter().collect();
        let filter = self.filter.to_lowercase();
        backends.retain(|backend| {
            let texts = [pool.name.as_str(), &backend.name];
            let texts = texts.into_iter().chain(backend.address.as_deref());
            let mut texts = texts.chain(backend.host.as_deref());
            let is_found = texts.any(|text| text.to_lowercase().contains(&filter));
            let is_troubled = !backend.takes_sessions || backend.why().is_some();
            is_found && (is_troubled || !self.is_trouble_only)
        });
        match self.sort {
            Sort::File => {}
            Sort::Trouble => backends.sort_by_key(|backend| backend.tone()),
            Sort::Sessions => {
                backends.sort_by_key(|backend| std::cmp::Reverse(backend.active()));
            }
            Sort::Rate => {
                backends.sort_by(|one, other| self.rate(other).total_cmp(&self.rate(one)))
            }
        }
        backends
    }

    fn rate(&self, backend: &Backend) -> f64 {
        let track = self.tracks.backend(&backend.pool, &backend.name);
        let rates = track.and_then(|track| track.rates());
        rates.map_or(0.0, |rates| rates.sessions)
    }

    /// Those in the list, in its order.
    fn listed(&self) -> Vec<&Backend> {
        let pools = self.reading.pools.iter();
        pools.flat_map(|pool| self.backends(pool)).collect()
    }

    /// The backend that keys are about.
    pub(super) fn selected(&self) -> Option<&Backend> {
        let (pool, name) = self.selected_name.as_ref()?;
        let pools = self.reading.pools.iter().filter(|one| one.name == *pool);
        let mut backends = pools.flat_map(|pool| &pool.backends);
        backends.find(|one| one.name == *name)
    }

    pub(super) fn is_selected(&self, backend: &Backend) -> bool {
        let name = self.selected_name.as_ref();
        name.is_some_and(|(pool, name)| *pool == backend.pool && *name == backend.name)
    }

    fn select(&mut self, place: usize) {
        let listed = self.listed();
        let place = place.min(listed.len().saturating_sub(1));
        let name = listed
            .get(place)
            .map(|one| (one.pool.clone(), one.name.clone()));
        self.selected = place;
        self.selected_name = name;
    }

    /// The same backend as before, wherever it is now; the one at its place if it is gone.
    fn find_selected(&mut self) {
        let listed = self.listed();
        let place = listed.iter().position(|backend| self.is_selected(backend));
        self.select(place.unwrap_or(self.selected));
    }

    /// A key has been pressed.
    pub(super) fn key(&mut self, key: Key) -> Option<Order> {
        if key == Key::Interrupt {
            return Some(Order::Quit);
        }
        if key == Key::Redraw {
            return Some(Order::Redraw);
        }
        match std::mem::take(&mut self.mode) {
            Mode::List => {
                if let Key::Letter(letter) = key {
                    return self.letter_in_list(letter);
                }
                self.move_in_list(key);
            }
            Mode::Filter => self.key_in_filter(key),
            Mode::Confirm(wish) => {
                if matches!(key, Key::Letter('y' | 'Y')) {
                    return Some(Order::Operate(wish));
                }
                if !matches!(key, Key::Letter('n' | 'N' | 'q') | Key::Escape) {
                    self.mode = Mode::Confirm(wish);
                }
            }
            // Any key leads back.
            Mode::Help => {}
        }
        None
    }

    fn letter_in_list(&mut self, letter: char) -> Option<Order> {
        match letter {
            'q' => return Some(Order::Quit),
            'k' => self.move_in_list(Key::Up),
            'j' => self.move_in_list(Key::Down),
            'g' => self.move_in_list(Key::Home),
            'G' => self.move_in_list(Key::End),
            '/' => self.mode = Mode::Filter,
            't' => {
                self.is_trouble_only = !self.is_trouble_only;
                self.find_selected();
            }
            's' => {
                self.sort = self.sort.next();
                self.find_selected();
            }
            '?' | 'h' => self.mode = Mode::Help,
            'd' => self.ask(OperatorState::Drain),
            'm' => self.ask(OperatorState::Maintenance),
            'r' | 'u' => self.ask(OperatorState::Ready),
            _ => {}
        }
        None
    }

    fn move_in_list(&mut self, key: Key) {
        let at = self.selected;
        match key {
            Key::Up => self.select(at.saturating_sub(1)),
            Key::Down => self.select(at + 1),
            Key::PageUp => self.select(at.saturating_sub(self.page)),
            Key::PageDown => self.select(at + self.page),
            Key::Home => self.select(0),
            Key::End => self.select(usize::MAX),
            Key::Escape => {
                self.filter.clear();
                self.is_trouble_only = false;
                self.find_selected();
            }
            Key::Interrupt | Key::Redraw | Key::Letter(_) | Key::Enter | Key::Backspace => {}
        }
    }

    fn key_in_filter(&mut self, key: Key) {
        match key {
            Key::Enter => return,
            Key::Escape => self.filter.clear(),
            Key::Backspace => {
                self.filter.pop();
                self.mode = Mode::Filter;
            }
            Key::Letter(letter) => {
                self.filter.push(letter);
                self.mode = Mode::Filter;
            }
            Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home | Key::End => {
                self.move_in_list(key);
                self.mode = Mode::Filter;
                return;
            }
            Key::Interrupt | Key::Redraw => {}
        }
        self.find_selected();
    }

    /// Asks for a confirmation, if there is something to do.
    fn ask(&mut self, state: OperatorState) {
        let Some(backend) = self.selected() else {
            return;
        };
        let wish = Wish {
            pool: backend.pool.clone(),
            backend: backend.name.clone(),
            state,
        };
        if backend.state == state.as_str() {
            let text = format!("{}/{}: {} already", wish.pool, wish.backend, state.as_str());
            self.said = Some((true, text, self.now));
        } else {
            self.mode = Mode::Confirm(wish);
        }
    }

    /// What would happen, in words.
    pub(super) fn consequence(&self, wish: &Wish) -> String {
        let pool = self.reading.pools.iter().find(|one| one.name == wish.pool);
        let backends = pool.map_or(&[][..], |pool| &pool.backends);
        let backend = backends.iter().find(|one| one.name == wish.backend);
        let active = backend.map_or(0, Backend::active);
        let usable = pool.map_or(0, Pool::usable);
        let is_last = usable == 1 && backend.is_some_and(|one| one.takes_sessions);
        let effect = match wish.state {
            OperatorState::Ready => "it gets new sessions again, if it is up".to_owned(),
            OperatorState::Drain => format!("no new sessions; those it has ({active}) go on"),
            OperatorState::Maintenance => {
                format!("no new sessions, no probes; those it has ({active}) go on")
            }
        };
        match wish.state {
            OperatorState::Drain | OperatorState::Maintenance if is_last => {
                format!("THE LAST USABLE ONE of pool {}; {effect}", wish.pool)
            }
            OperatorState::Ready | OperatorState::Drain | OperatorState::Maintenance => effect,
        }
    }
}
