//! What is wrong with a configuration: errors and warnings with their place, and how they are shown to a person or a
//! program. It finds nothing itself.

use std::collections::HashSet;
use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};

use super::yaml::Place;

/// So many problems are shown; the rest is counted.
const SHOWN_MAX: usize = 100;
/// The same for programs.
const TOLD_MAX: usize = 1_000;
/// So many errors are kept, and so many warnings; the rest is counted, and nobody misses it.
const KEPT_MAX: usize = 10_000;
/// Longest line of a file that is shown.
const LINE_MAX: usize = 4096;

/// Whether it can run with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but somebody should look at it.
    Warning,
}

impl Severity {
    /// The word that is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where; none if it concerns the whole file.
    pub place: Option<Place>,
    /// The path of the key, as in `pools.pg.retries`; empty if it concerns the whole file.
    pub key: String,
    /// What was found, and why that is wrong.
    pub message: String,
    /// What is accepted, and what to do.
    pub help: Vec<String>,
    /// Other places that belong to it, with what they are.
    pub others: Vec<(Place, String)>,
    /// The nearest thing that would be right.
    pub nearest: Option<String>,
}

impl Problem {
    /// An error at a place, or of the whole file.
    pub(super) fn of(place: Option<Place>, message: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            place,
            key: String::new(),
            message: message.into(),
            help: Vec::new(),
            others: Vec::new(),
            nearest: None,
        }
    }

    pub(super) fn error(place: Place, message: impl Into<String>) -> Problem {
        Problem::of(Some(place), message)
    }

    pub(super) fn warning(mut self) -> Problem {
        self.severity = Severity::Warning;
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help.push(help.into());
        self
    }

    /// Parts of a file are in messages, and a terminal would act on some of them.
    fn make_printable(&mut self) {
        let texts = [&mut self.message, &mut self.key];
        let texts = texts.into_iter().chain(&mut self.help);
        let texts = texts.chain(self.others.iter_mut().map(|(_, what)| what));
        for text in texts.chain(&mut self.nearest) {
            if text.contains(is_unseen) {
                *text = printable(text);
            }
        }
    }

    pub(super) fn and(mut self, place: Place, what: impl Into<String>) -> Problem {
        self.others.push((place, what.into()));
        self
    }
}

/// The known name that was most likely meant. A long one is meant as it is.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    const LONG: usize = 64;
    if name.len() > LONG {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['-', ' ', '_'], "");
    let wanted = plain(name);
    let allowed = (wanted.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|known| known.len() <= LONG)
        .map(|known| {
            let other = plain(known);
            // One that begins like it is nearer than any that is spelt like it.
            let distance = if wanted.len() >= 4 && other.starts_with(&wanted) {
                1
            } else {
                strsim::damerau_levenshtein(&wanted, &other)
            };
            (distance, known)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known.to_owned())
}

/// Collects problems; the same one is told once.
#[derive(Debug, Default)]
pub(super) struct Problems {
    all: Vec<Problem>,
    seen: HashSet<(Option<Place>, String)>,
    wrong: HashSet<Place>,
    counts: Counts,
    /// Where the values stand that several listeners and pools have.
    pub(super) inherited: Option<Place>,
}

/// Errors and warnings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    errors: usize,
    warnings: usize,
}

impl Problems {
    pub(super) fn push(&mut self, mut problem: Problem) {
        problem.make_printable();
        match problem.severity {
            Severity::Error => self.wrong.extend(problem.place),
            // What is wrong itself is not worth another thought.
            Severity::Warning if self.at(problem.place) => return,
            Severity::Warning => {}
        }
        let count = match problem.severity {
            Severity::Error => &mut self.counts.errors,
            Severity::Warning => &mut self.counts.warnings,
        };
        if *count >= KEPT_MAX {
            *count += 1;
        } else if self.seen.insert((problem.place, problem.message.clone())) {
            *count += 1;
            self.all.push(problem);
        }
    }

    /// Whether it stands in `defaults`, so that it may be meant for others.
    pub(super) fn is_inherited(&self, place: Place) -> bool {
        let holds = |all: Place| (all.start..all.end).contains(&place.start);
        self.inherited.is_some_and(holds)
    }

    /// Warns of something that has no effect where it is. What is inherited may have one elsewhere.
    pub(super) fn push_idle(&mut self, problem: Problem) {
        let is_inherited = problem.place.is_some_and(|place| self.is_inherited(place));
        if !is_inherited {
            self.push(problem.warning());
        }
    }

    pub(super) fn kept(&self) -> usize {
        self.all.len()
    }

    /// How many there were.
    pub(super) fn len(&self) -> usize {
        self.counts.errors + self.counts.warnings
    }

    /// Whether an error has been reported at this very place.
    pub(super) fn at(&self, place: Option<Place>) -> bool {
        place.is_some_and(|place| self.wrong.contains(&place))
    }

    /// What was reported since so many were kept would have been right with this word, too, which may have been meant.
    pub(super) fn also_accepted(&mut self, since: usize, word: &str, is_meant: bool) {
        for problem in self.all.iter_mut().skip(since) {
            if is_meant {
                problem.nearest = Some(word.to_owned());
            } else {
                problem.help.push(format!("`{word}` is accepted, too"));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn messages(&self) -> Vec<&str> {
        self.all
            .iter()
            .map(|problem| problem.message.as_str())
            .collect()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.counts.errors > 0
    }
}

/// Everything that was found in one configuration, with its text to show it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the configuration is called: a path, mostly.
    pub name: String,
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
    /// In the order of the file; those without a place first. Of very many only some.
    pub problems: Vec<Problem>,
    counts: Counts,
}

impl Report {
    pub(super) fn new(name: &str, text: &str, mut problems: Problems) -> Report {
        problems.all.sort_by_key(|problem| problem.place);
        Report {
            name: name.to_owned(),
            text: text.to_owned(),
            lines: std::iter::once(0)
                .chain(text.match_indices('\n').map(|(at, _)| at + 1))
                .collect(),
            problems: problems.all,
            counts: problems.counts,
        }
    }

    /// Errors and warnings.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.counts.errors, self.counts.warnings)
    }

    /// Line and column of a place, both from 1; columns count characters.
    #[must_use]
    pub fn line_column(&self, place: Place) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= place.start);
        let start = self.lines[line - 1];
        let column = self.text[start..place.start].chars().count() + 1;
        (line, column)
    }

    /// For people: each problem with its line and a caret. `width` is where sentences are wrapped and long lines of the
    /// file cut.
    #[must_use]
    pub fn render(&self, colours: bool, width: usize) -> String {
        let renderer = if colours {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let renderer = renderer.term_width(width);
        let mut text = String::new();
        for problem in self.problems.iter().take(SHOWN_MAX) {
            text.push_str(&self.render_one(&renderer, problem, width));
            text.push_str("\n\n");
        }
        let (errors, warnings) = self.counts();
        if errors + warnings > SHOWN_MAX {
            let more = errors + warnings - SHOWN_MAX;
            text.push_str(&format!("... and {more} more\n\n"));
        }
        text
    }

    fn render_one(&self, renderer: &Renderer, problem: &Problem, width: usize) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let message = match problem.place {
            Some(_) => wrapped(&problem.message, width, "warning: "),
            None => wrapped(
                &format!("{}: {}", self.name, problem.message),
                width,
                "warning: ",
            ),
        };
        let title = level.primary_title(message);
        let nearest = problem
            .nearest
            .as_ref()
            .map(|nearest| format!("did you mean `{nearest}`?"));
        let help: Vec<String> = nearest
            .into_iter()
            .chain(problem.help.iter().cloned())
            .collect();
        let window = problem.place.map(|place| self.window(place));
        let mut group = match (&window, problem.place) {
            (Some((source, line, from)), Some(place)) => {
                let inside = |place: Place| {
                    let at = |offset: usize| {
                        source.ceil_char_boundary(offset.saturating_sub(*from).min(source.len()))
                    };
                    at(place.start)..at(place.end.max(place.start + 1))
                };
                let key = if problem.key.is_empty() {
                    None
                } else {
                    Some(problem.key.as_str())
                };
                let mut snippet = Snippet::source(source.as_str())
                    .path(self.name.as_str())
                    .line_start(*line)
                    .annotation(AnnotationKind::Primary.span(inside(place)).label(key));
                for (other, what) in &problem.others {
                    if other.start >= *from && other.start < from + source.len() {
                        snippet = snippet.annotation(
                            AnnotationKind::Context
                                .span(inside(*other))
                                .label(what.as_str()),
                        );
                    }
                }
                title.element(snippet)
            }
            _ => Group::with_title(title),
        };
        for line in help {
            group = group.element(Level::HELP.message(wrapped(&line, width, "     = help: ")));
        }
        for (other, what) in &problem.others {
            if window.as_ref().is_none_or(|(source, _, from)| {
                other.start < *from || other.start >= from + source.len()
            }) {
                let (line, column) = self.line_column(*other);
                group = group
                    .element(Level::NOTE.message(format!("{what}: {}:{line}:{column}", self.name)));
            }
        }
        renderer.render(&[group]).to_string()
    }

    /// The lines to show: that of the place, up to another place that is near. With the number of the first line and
    /// its offset in the text.
    fn window(&self, place: Place) -> (String, usize, usize) {
        const NEAR: usize = 400;
        let others = self
            .problems
            .iter()
            .filter(|problem| problem.place == Some(place));
        let near = others
            .flat_map(|problem| &problem.others)
            .map(|(other, _)| other.start)
            .filter(|other| other.abs_diff(place.start) <= NEAR);
        let (first, last) = near.fold((place.start, place.start), |(first, last), other| {
            (first.min(other), last.max(other))
        });
        let mut from = self.text[..first].rfind('\n').map_or(0, |at| at + 1);
        if place.start - from > LINE_MAX {
            from = floor_boundary(&self.text, place.start - LINE_MAX / 2);
        }
        let end = self.text[last..]
            .find('\n')
            .map_or(self.text.len(), |at| last + at);
        let end = end.min(floor_boundary(&self.text, last + LINE_MAX));
        let line = self.text[..from].matches('\n').count() + 1;
        // In as many bytes as before, so that the places stay.
        let shown = self.text[from..end].chars().map(|letter| match letter {
            '\n' | '\t' => letter,
            '\r' => ' ',
            _ if !is_unseen(letter) => letter,
            _ => match letter.len_utf8() {
                1 => '?',
                2 => '\u{b7}',
                _ => '\u{fffd}',
            },
        });
        (shown.collect(), line, from)
    }

    /// For programs: an array of objects, of the first thousand problems.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let each = self.problems.iter().take(TOLD_MAX).map(|problem| {
            let at = problem.place.map(|place| {
                (
                    self.line_column(place),
                    self.line_column(Place {
                        start: place.end,
                        end: place.end,
                    }),
                )
            });
            json!({
                "severity": problem.severity.as_str(),
                "file": self.name,
                "line": at.map(|((line, _), _)| line),
                "column": at.map(|((_, column), _)| column),
                "end_line": at.map(|(_, (line, _))| line),
                "end_column": at.map(|(_, (_, column))| column),
                "key": if problem.key.is_empty() { Value::Null } else { json!(problem.key) },
                "message": problem.message,
                "nearest": problem.nearest,
                "help": problem.help,
            })
        });
        each.collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.render(false, usize::from(u16::MAX)).trim_end())
    }
}

impl std::error::Error for Report {}

/// Whether a terminal does something with a letter other than to show it.
fn is_unseen(letter: char) -> bool {
    // Those that turn the direction of writing make a line look like another.
    letter.is_control()
        || matches!(letter, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text with escapes for what cannot be seen.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        if is_unseen(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

fn floor_boundary(text: &str, mut offset: usize) -> usize {
    offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// A sentence on as many lines as it needs, which the renderer aligns behind what stands before it.
fn wrapped(text: &str, width: usize, before: &str) -> String {
    const NARROW: usize = 40;
    let width = width.saturating_sub(before.len()).max(NARROW);
    let options = textwrap::Options::new(width)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}
