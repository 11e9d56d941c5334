//! YAML as a tree that knows where each of its parts stands. The only module that knows the YAML library; it does not
//! know a single key.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Budget, DuplicateKeyPolicy, Location, Spanned};

use super::report::{Problem, Problems, printable};

/// Parts of a file, at most: a bound for memory and time. The largest sensible file has far fewer.
const EVENTS_MAX: usize = 2_000_000;
/// Nesting, at most. The format itself needs six levels.
const DEPTH_MAX: usize = 32;
/// Longest name of a key in bytes: what YAML allows without a question mark before it.
const KEY_MAX: usize = 1024;
/// Aliases, and what they may repeat in all.
const ALIASES_MAX: usize = 10_000;
const REPLAYED_MAX: usize = 200_000;

/// A space that no YAML is indented with.
pub(super) const NO_BREAK: &str = "\u{a0}";
pub(super) const PLAIN_SPACES: &str =
    "there is a non-breaking space (U+00A0) here, which is a letter to YAML: write plain spaces";
const QUOTE_IPV6: &str = "put IPv6 addresses into quotes, as in \"[2001:db8::1]:5432\"";

/// Where something stands in a text: bytes from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// First byte.
    pub start: usize,
    /// Byte after the last one.
    pub end: usize,
}

/// A part of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing is written there.
    Null,
    /// As written, without quotes.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.name == other.name
    }
}

/// Reads a text. Keys that occur twice are reported and the later ones left out.
pub(super) fn parse(text: &str, problems: &mut Problems) -> Option<Node> {
    let mut options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        with_snippet: false,
    };
    let mut budget = Budget::default();
    budget.max_events = EVENTS_MAX;
    budget.max_nodes = EVENTS_MAX;
    budget.max_depth = DEPTH_MAX;
    budget.max_aliases = ALIASES_MAX;
    budget.max_documents = 1;
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = REPLAYED_MAX;
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Some(node(raw, text, problems)),
        Err(error) => {
            problems.push(explained(&error, text));
            None
        }
    }
}

/// What the library gives, before what is written replaces what it made of it.
enum Raw {
    Null,
    /// A scalar that it took for a string; quotes and escapes are resolved.
    Text(String),
    /// A scalar that it took for something else: what counts is what is written.
    Plain,
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

fn node(raw: Spanned<Raw>, text: &str, problems: &mut Problems) -> Node {
    let place = place(raw.defined, text);
    let written = &text[place.start..place.end];
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(content) => Value::Scalar(content),
        Raw::Plain => Value::Scalar(written.trim().to_owned()),
        Raw::List(items) => Value::List(
            items
                .into_iter()
                .map(|item| node(item, text, problems))
                .collect(),
        ),
        Raw::Map(entries) => Value::Map(map(entries, place, text, problems)),
    };
    Node { place, value }
}

fn map(
    entries: Vec<(Spanned<Raw>, Spanned<Raw>)>,
    at: Place,
    text: &str,
    problems: &mut Problems,
) -> Vec<(Key, Node)> {
    let mut found: Vec<(Key, Node)> = Vec::with_capacity(entries.len());
    let mut seen = std::collections::HashMap::new();
    let mut repeated: Vec<Problem> = Vec::new();
    for (key, value) in entries {
        let key = node(key, text, problems);
        let value = node(value, text, problems);
        let Value::Scalar(name) = key.value else {
            // Where the map begins, it is the map that is wrong.
            let place = if key.place.start == at.start {
                at
            } else {
                key.place
            };
            let message = format!("expected the name of a key, found {}", key.found());
            let problem = Problem::error(place, message);
            let in_brackets = text[key.place.start..].split(']').next().unwrap_or("");
            problems.push(match key.value {
                Value::List(_) if in_brackets.contains(':') => problem.help(QUOTE_IPV6),
                Value::Null | Value::Scalar(_) | Value::List(_) | Value::Map(_) => problem,
            });
            continue;
        };
        let place = key.place;
        if name.len() > KEY_MAX {
            let message = format!("the name of a key has at most {KEY_MAX} bytes");
            problems.push(Problem::error(place, message));
            continue;
        }
        if let Some(first) = seen.get(&name) {
            let first: &Place = first;
            let problem = Problem::error(place, format!("`{name}` is written twice"))
                .and(*first, "it is here already");
            repeated.push(problem);
            continue;
        }
        seen.insert(name.clone(), place);
        found.push((Key { place, name }, value));
    }
    if let [first, _, ..] = repeated.as_mut_slice() {
        first
            .help
            .push("if another item of a list begins here: each begins with a dash".to_owned());
    }
    repeated
        .into_iter()
        .for_each(|problem| problems.push(problem));
    found
}

/// The library knows bytes for most places, and line and column for all.
fn place(location: Location, text: &str) -> Place {
    let span = location.span();
    let number = |value: Option<u64>| value.and_then(|value| usize::try_from(value).ok());
    let start = match number(span.byte_offset()) {
        Some(start) => start,
        None => offset(location.line(), location.column(), text),
    };
    let start = start.min(text.len());
    let end = (start + number(span.byte_len()).unwrap_or(0)).min(text.len());
    if text.is_char_boundary(start) && text.is_char_boundary(end) {
        Place { start, end }
    } else {
        Place::default()
    }
}

/// The offset of a line and column, both from 1.
fn offset(line: u64, column: u64, text: &str) -> usize {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let before: usize = text
        .split_inclusive('\n')
        .take(number(line.saturating_sub(1)))
        .map(str::len)
        .sum();
    let within = text[before..]
        .char_indices()
        .nth(number(column.saturating_sub(1)));
    before + within.map_or(0, |(at, _)| at)
}

/// The library's own words, with the mistake that most likely is behind them.
fn explained(error: &serde_saphyr::Error, text: &str) -> Problem {
    let place = error.location().map(|location| place(location, text));
    let message = error.without_snippet().to_string();
    let message = message
        .split(" at line ")
        .next()
        .unwrap_or_default()
        .trim_end_matches(" at")
        .trim_end_matches(',');
    let said = if let serde_saphyr::Error::Budget { breach, .. } = error.without_snippet() {
        exceeded(breach)
    } else if message.contains("recursion limit") {
        exceeded(&BudgetBreach::Depth { depth: DEPTH_MAX })
    } else if message.contains("alias replay") {
        format!("aliases repeat more than {REPLAYED_MAX} values")
    } else {
        format!("not valid YAML: {message}")
    };
    let problem = Problem::of(place, said);
    match likely(message, place, text) {
        Some(help) => problem.help(help),
        None => problem,
    }
}

/// Which bound of ours a file exceeds.
fn exceeded(breach: &BudgetBreach) -> String {
    if matches!(breach, BudgetBreach::Documents { .. }) {
        "a second document begins here, and a configuration is one: remove the `---`".to_owned()
    } else if matches!(breach, BudgetBreach::Depth { .. }) {
        format!("lists and maps are nested more than {DEPTH_MAX} deep")
    } else if matches!(
        breach,
        BudgetBreach::Events { .. } | BudgetBreach::Nodes { .. }
    ) {
        format!("the file has more than {EVENTS_MAX} parts")
    } else if matches!(breach, BudgetBreach::Aliases { .. }) {
        format!("the file has more than {ALIASES_MAX} aliases")
    } else {
        format!("the file exceeds a bound: {breach:?}")
    }
}

/// The mistake that most likely is behind a message of the library.
fn likely(message: &str, place: Option<Place>, text: &str) -> Option<String> {
    let place = place?;
    let line = line_at(text, place.start);
    let before = last_lines(&text[..place.start], 2);
    let near = |sign: &str| line.contains(sign) || before.contains(sign);
    let rest = &text[place.start..];
    let advice = if message.contains("unknown anchor") {
        let name = rest.trim_start_matches('*');
        if name.starts_with(|letter: char| letter.is_alphabetic() || letter == '_') {
            let name: String = name
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || "_-".contains(*letter))
                .collect();
            return Some(format!(
                "`*{name}` stands for what `&{name}` marks further up, and nothing is marked so"
            ));
        }
        "`*` begins an alias in YAML: put the value into quotes, as in \"*:5432\""
    } else if near("\t") {
        "YAML is indented with spaces; there is a tab here"
    } else if near(NO_BREAK) {
        PLAIN_SPACES
    } else if line.matches('"').count() % 2 == 1 {
        "a quote is missing before here"
    } else if near("]:") && (near(": [") || near("- [") || near("[[")) {
        QUOTE_IPV6
    } else if rest.starts_with(['%', '@', '`']) {
        "a value that begins with %, @ or ` needs quotes"
    } else if message.contains("mapping values are not allowed") {
        "this line's indentation does not fit the one above, a value with a colon needs quotes, or the line above \
         lacks its colon"
    } else if message.contains("<document start>") {
        "what stands before this is complete in itself: the whole file is one map of keys and values"
    } else if message.contains("did not find expected") {
        "keys of one map, and dashes of one list, begin in the same column; or the line above lacks its colon"
    } else {
        return None;
    };
    Some(advice.to_owned())
}

fn line_at(text: &str, offset: usize) -> &str {
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    text[start..].lines().next().unwrap_or("")
}

fn last_lines(text: &str, count: usize) -> &str {
    let start = text
        .rmatch_indices('\n')
        .nth(count)
        .map_or(0, |(at, _)| at + 1);
    &text[start..]
}

impl Node {
    /// What is written, for a message.
    pub(super) fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar(text) if text.is_empty() => "an empty text".to_owned(),
            Value::Scalar(text) => format!("`{}`", shortened(text)),
            Value::List(items) if items.is_empty() => "an empty list".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(entries) if entries.is_empty() => "an empty map".to_owned(),
            Value::Map(entries) => {
                format!("a map with the key `{}`", shortened(&entries[0].0.name))
            }
        }
    }

    /// Whether this is the short form of something whose long form is a map.
    pub(super) fn is_short(&self) -> bool {
        matches!(self.value, Value::Scalar(_) | Value::List(_))
    }

    /// The long form of a short one: a map with this as its only key.
    pub(super) fn under(&self, key: &str) -> Node {
        Node {
            place: self.place,
            value: Value::Map(vec![self.entry(key)]),
        }
    }

    /// The entry of a long form that the short one stands for.
    pub(super) fn entry(&self, key: &str) -> (Key, Node) {
        let place = self.place;
        let key = Key {
            place,
            name: key.to_owned(),
        };
        (key, self.clone())
    }

    /// The value of a key of a map.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node),
            Value::Null | Value::Scalar(_) | Value::List(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(entries) => entries
                .iter_mut()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node),
            Value::Null | Value::Scalar(_) | Value::List(_) => None,
        }
    }
}

/// Short enough for a message, and without anything that a terminal would act on.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", printable(&text[..end])),
        None => printable(text),
    }
}
