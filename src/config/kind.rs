//! How values are read, described and written: one [`Kind`] for each sort of value. It knows no key itself, and maps
//! whose keys are fixed are [`super::section`]'s business.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::Deref;

use serde_json::{Value as Json, json};

use super::report::{Problem, Problems};
use super::section::is_no_word;
use super::vocabulary::{self, meant, translated};
use super::yaml::{Key, Node, Place, Value};

/// A sort of value.
pub(super) trait Kind: Clone + PartialEq + Sized {
    /// Whether a map is one of its forms. Where it is none, a map gives a value for each host.
    const MAP: bool = false;
    /// Whether this version does something with it.
    const SUPPORTED: bool = true;

    /// The value of a node; none if something is wrong with it, which has been reported then.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;

    /// Its JSON Schema.
    fn schema() -> Json;

    /// What is expected, for messages.
    fn expected() -> String;

    /// As it would be written.
    fn write(&self) -> Json;

    /// Whether this is a key of it, where it is a map.
    fn knows(_key: &str) -> bool {
        false
    }

    /// Whether a value could be one, so that a map with such values is one of hosts.
    fn fits(node: &Node, parts_missing: bool) -> bool {
        let mut problems = Problems::default();
        let mut reader = Reader::new("", &mut problems);
        let read = reader.with_parts_missing(parts_missing, |reader| Self::read(node, reader));
        read.is_some() && !problems.has_errors()
    }

    /// The value when the key is not there; none if it is required.
    fn absent() -> Option<Self> {
        None
    }
}

/// What is being read, and what was found wrong so far.
pub(super) struct Reader<'a> {
    /// The host whose values are taken.
    pub(super) host: &'a str,
    /// The hosts that the file names.
    pub(super) hosts: BTreeSet<String>,
    /// Whether a value was missing for the host.
    pub(super) host_missing: bool,
    pub(super) problems: &'a mut Problems,
    path: Vec<String>,
    /// Whether keys that are required may be missing.
    pub(super) parts_missing: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(host: &'a str, problems: &'a mut Problems) -> Reader<'a> {
        Reader {
            host,
            hosts: BTreeSet::new(),
            host_missing: false,
            problems,
            path: Vec::new(),
            parts_missing: false,
        }
    }

    /// Reads what belongs to a key, or to an item of a list.
    pub(super) fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let result = read(self);
        self.path.pop();
        result
    }

    /// Reads something of which parts may be missing, or not.
    pub(super) fn with_parts_missing<T>(
        &mut self,
        may_be: bool,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let before = std::mem::replace(&mut self.parts_missing, may_be);
        let result = read(self);
        self.parts_missing = before;
        result
    }

    pub(super) fn push(&mut self, mut problem: Problem) {
        if problem.key.is_empty() {
            problem.key = self.path();
        }
        self.problems.push(problem);
    }

    /// As in `pools.pg.backends[1].weight`.
    fn path(&self) -> String {
        let mut path = String::new();
        for part in &self.path {
            if !path.is_empty() && !part.starts_with('[') {
                path.push('.');
            }
            path.push_str(part);
        }
        path
    }

    /// The path as the reference page has it, as in `pools.NAME.backends`.
    fn declared_path(&self) -> String {
        let mut parts = self.path.iter().map(String::as_str).collect::<Vec<_>>();
        parts.retain(|part| !part.starts_with('['));
        if let ["pools", name, ..] = parts.as_mut_slice() {
            *name = "NAME";
        }
        parts.join(".")
    }

    /// That something else was expected.
    pub(super) fn unexpected(&self, node: &Node, expected: &str) -> Problem {
        let found = node.found();
        let mut problem = Problem::error(node.place, format!("expected {expected}, found {found}"));
        problem
            .help
            .extend(vocabulary::example(&self.declared_path()));
        match node.value {
            Value::Null => problem.help("what belongs to a key is indented further than it"),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => problem,
        }
    }

    /// Reports that something else was expected.
    pub(super) fn expected(&mut self, node: &Node, expected: &str) {
        let problem = self.unexpected(node, expected);
        self.push(problem);
    }

    /// The text of a scalar, or a problem.
    pub(super) fn scalar<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar(text) => Some(text),
            Value::Null => {
                self.push(
                    Problem::error(node.place, format!("expected {expected}, found nothing"))
                        .help("leave the key out to get its default"),
                );
                None
            }
            Value::List(_) | Value::Map(_) => {
                self.expected(node, expected);
                None
            }
        }
    }
}

/// A value and where it was written; nowhere if it is the default.
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    pub(super) value: T,
    pub(super) place: Option<Place>,
}

impl<T> Field<T> {
    fn at(node: &Node, value: T) -> Field<T> {
        let place = Some(node.place);
        Field { value, place }
    }
}

impl<T> Deref for Field<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Field<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// Reads a value, or the one of this host from a map of hosts.
pub(super) fn read_field<T: Kind>(node: &Node, reader: &mut Reader) -> Option<Field<T>> {
    match &node.value {
        Value::Map(entries)
            if !T::MAP
                || is_by_host(entries, reader.host, T::knows)
                || is_of_other_hosts::<T>(entries, reader) =>
        {
            let (node, value) = by_host(node, entries, reader)?;
            Some(Field::at(node, value))
        }
        Value::Map(_) | Value::Null | Value::Scalar(_) | Value::List(_) => {
            T::read(node, reader).map(|value| Field::at(node, value))
        }
    }
}

/// Where a map is a form of the value itself, too: a host may be called like a key, or like a pool.
pub(super) fn is_by_host(entries: &[(Key, Node)], host: &str, knows: fn(&str) -> bool) -> bool {
    let names = || entries.iter().map(|(key, _)| key.name.as_str());
    names().any(|name| name == host) && !names().any(knows)
}

/// Whether a map can only be one of hosts, among which this one is not. A single entry of what may have a name gives
/// the name, more likely.
fn is_of_other_hosts<T: Kind>(entries: &[(Key, Node)], reader: &Reader) -> bool {
    let least = if T::knows(vocabulary::NAME) { 2 } else { 1 };
    !reader.host.is_empty()
        && entries.len() >= least
        && entries.iter().all(|(key, _)| !T::knows(&key.name))
        && entries.iter().all(|(key, _)| is_no_word(&key.name))
        && entries
            .iter()
            .all(|(_, value)| T::fits(value, reader.parts_missing))
}

fn by_host<'n, T: Kind>(
    map: &'n Node,
    entries: &'n [(Key, Node)],
    reader: &mut Reader,
) -> Option<(&'n Node, T)> {
    if entries.is_empty() {
        reader.expected(map, &T::expected());
        return None;
    }
    let mut own = None;
    for (key, node) in entries {
        reader.hosts.insert(key.name.clone());
        let value = reader.within(&key.name, |reader| T::read(node, reader));
        if key.name == reader.host {
            own = Some((node, value));
        }
    }
    let Some((node, value)) = own else {
        reader.host_missing = true;
        let hosts: Vec<&str> = entries.iter().map(|(key, _)| key.name.as_str()).collect();
        let problem = Problem::error(
            map.place,
            format!(
                "a map here gives a value for each host, and there is none for `{}`",
                reader.host
            ),
        )
        .help(format!("expected {}, or such a map", T::expected()))
        .help(format!(
            "it has {}; --node NAME says which of them this is",
            hosts.join(", ")
        ));
        reader.push(problem);
        return None;
    };
    value.map(|value| (node, value))
}

/// A word that stands for "no value": `none`, `auto` or `off`.
pub(super) trait Absence: Clone + PartialEq {
    /// The first is how it is written.
    const WORDS: &'static [&'static str];
}

macro_rules! absence {
    ($name:ident, $($word:literal),+) => {
        #[derive(Clone, Debug, PartialEq)]
        pub(super) struct $name;

        impl Absence for $name {
            const WORDS: &'static [&'static str] = &[$($word),+];
        }
    };
}

absence!(Nothing, "none");
absence!(Auto, "auto");
absence!(Off, "off", "false");

/// A value, or the word that stands for none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Or<W, T>(pub(super) Option<T>, PhantomData<W>);

impl<W: Absence, T: Kind> Kind for Or<W, T> {
    const MAP: bool = T::MAP;

    fn knows(key: &str) -> bool {
        T::knows(key)
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.value {
            Value::Scalar(text) if W::WORDS.contains(&text.as_str()) => Some(Or(None, PhantomData)),
            Value::Scalar(_) | Value::Null | Value::List(_) | Value::Map(_) => {
                let before = reader.problems.kept();
                let value = T::read(node, reader);
                if value.is_none() {
                    let is_meant = |text: &str| translated(text).any(|word| word == W::WORDS[0]);
                    let is_meant = matches!(&node.value, Value::Scalar(text) if is_meant(text));
                    reader.problems.also_accepted(before, W::WORDS[0], is_meant);
                }
                value.map(|value| Or(Some(value), PhantomData))
            }
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [words_schema(W::WORDS), T::schema()]})
    }

    fn expected() -> String {
        format!("`{}` or {}", W::WORDS[0], T::expected())
    }

    fn write(&self) -> Json {
        self.0
            .as_ref()
            .map_or_else(|| json!(W::WORDS[0]), Kind::write)
    }
}

/// A key that may be left out without a default of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Optional<T>(pub(super) Option<T>);

impl<T: Kind> Kind for Optional<T> {
    const MAP: bool = T::MAP;

    fn knows(key: &str) -> bool {
        T::knows(key)
    }

    fn fits(node: &Node, parts_missing: bool) -> bool {
        T::fits(node, parts_missing)
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        T::read(node, reader).map(|value| Optional(Some(value)))
    }

    fn schema() -> Json {
        T::schema()
    }

    fn expected() -> String {
        T::expected()
    }

    fn write(&self) -> Json {
        self.0.as_ref().map_or(Json::Null, Kind::write)
    }

    fn absent() -> Option<Self> {
        Some(Optional(None))
    }
}

/// One or more; one may be written without a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OneOrMore<T>(pub(super) Vec<Field<T>>);

impl<T: Kind> Kind for OneOrMore<T> {
    const MAP: bool = T::MAP;

    fn knows(key: &str) -> bool {
        T::knows(key)
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return T::read(node, reader).map(|item| OneOrMore(vec![Field::at(node, item)]));
        };
        if items.is_empty() {
            reader.expected(node, &Self::expected());
            return None;
        }
        Some(OneOrMore(read_items(items, reader)))
    }

    fn schema() -> Json {
        json!({"anyOf": [T::schema(), {"type": "array", "items": T::schema(), "minItems": 1}]})
    }

    fn expected() -> String {
        format!("{}, or a list of such", T::expected())
    }

    fn write(&self) -> Json {
        match self.0.as_slice() {
            [one] => one.write(),
            more => more.iter().map(|item| item.write()).collect(),
        }
    }
}

/// A list with at least one item.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct List<T>(pub(super) Vec<Field<T>>);

impl<T: Kind> Kind for List<T> {
    const MAP: bool = T::MAP;

    fn knows(key: &str) -> bool {
        T::knows(key)
    }

    /// A map of single items, rather, is a list that lacks its dashes.
    fn fits(node: &Node, parts_missing: bool) -> bool {
        let Value::List(items) = &node.value else {
            return false;
        };
        !items.is_empty() && items.iter().all(|item| T::fits(item, parts_missing))
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.value {
            Value::List(items) if !items.is_empty() => Some(List(read_items(items, reader))),
            Value::Map(entries) if !entries.iter().any(|(key, _)| T::knows(&key.name)) => {
                let problem = reader.unexpected(node, &Self::expected());
                reader.push(problem.help("items of a list begin with a dash, as in `- name: x`"));
                None
            }
            Value::Scalar(_) | Value::Map(_) => {
                T::read(node, reader).map(|item| List(vec![Field::at(node, item)]))
            }
            Value::List(_) | Value::Null => {
                reader.expected(node, &Self::expected());
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [T::schema(), {"type": "array", "items": T::schema(), "minItems": 1}]})
    }

    fn expected() -> String {
        format!("a list of items, each {}", T::expected())
    }

    fn write(&self) -> Json {
        self.0.iter().map(|item| item.write()).collect()
    }
}

/// What is wrong with an item has been reported; the others are read all the same, so that everything is told
/// at once.
fn read_items<T: Kind>(items: &[Node], reader: &mut Reader) -> Vec<Field<T>> {
    (0..)
        .zip(items)
        .filter_map(|(number, item): (usize, &Node)| {
            reader.within(&format!("[{number}]"), |reader| {
                reader.with_parts_missing(false, |reader| read_field(item, reader))
            })
        })
        .collect()
}

/// A map from names that the user chooses to values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named<T>(pub(super) Vec<(Key, Option<T>)>);

impl<T: Kind> Kind for Named<T> {
    const MAP: bool = true;

    /// Every name may be one.
    fn knows(_name: &str) -> bool {
        true
    }

    /// One that cannot be read keeps its name, so that nobody is told that there is none.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let problem = reader.unexpected(node, &Self::expected());
            reader.push(match node.value {
                Value::List(_) => problem.help("write `NAME:` instead of `- name: NAME`"),
                Value::Null | Value::Scalar(_) | Value::Map(_) => problem,
            });
            return None;
        };
        let read = entries.iter().map(|(key, value)| {
            let value = reader.within(&key.name, |reader| T::read(value, reader));
            (key.clone(), value)
        });
        Some(Named(read.collect()))
    }

    fn schema() -> Json {
        json!({"type": "object", "additionalProperties": T::schema(), "minProperties": 1})
    }

    fn expected() -> String {
        format!("a map of names, each with {}", T::expected())
    }

    fn write(&self) -> Json {
        let entries = self.0.iter().map(|(key, value)| {
            (
                key.name.clone(),
                value.as_ref().map_or(Json::Null, Kind::write),
            )
        });
        Json::Object(entries.collect())
    }
}

/// A whole number in a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number<const LEAST: u64, const MOST: u64>(pub(super) u64);

impl<const LEAST: u64, const MOST: u64> Kind for Number<LEAST, MOST> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        match text.parse::<u64>() {
            Ok(number) if (LEAST..=MOST).contains(&number) => Some(Number(number)),
            Ok(_) | Err(_) => {
                reader.expected(node, &Self::expected());
                None
            }
        }
    }

    fn schema() -> Json {
        // A number in quotes is one, too.
        json!({"type": ["integer", "string"], "minimum": LEAST, "maximum": MOST, "pattern": "^\\+?[0-9]+$"})
    }

    fn expected() -> String {
        if LEAST == MOST {
            LEAST.to_string()
        } else {
            format!("a number from {LEAST} to {MOST}")
        }
    }

    fn write(&self) -> Json {
        json!(self.0)
    }
}

impl Kind for bool {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match reader.scalar(node, &Self::expected())? {
            "true" | "on" => Some(true),
            "false" | "off" => Some(false),
            other => {
                let found = node.found();
                let expected = Self::expected();
                let mut problem =
                    Problem::error(node.place, format!("expected {expected}, found {found}"));
                problem.nearest = match other.to_lowercase().as_str() {
                    "true" | "on" | "yes" | "y" | "1" | "enabled" => Some("true".to_owned()),
                    "false" | "off" | "no" | "n" | "0" | "disabled" => Some("false".to_owned()),
                    _ => None,
                };
                reader.push(problem);
                None
            }
        }
    }

    fn schema() -> Json {
        words_schema(&["true", "false", "on", "off"])
    }

    fn expected() -> String {
        "true or false".to_owned()
    }

    fn write(&self) -> Json {
        json!(self)
    }
}

/// Any text that is not empty.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text(pub(super) String);

impl Kind for Text {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        if text.is_empty() {
            reader.expected(node, &Self::expected());
            return None;
        }
        Some(Text(text.to_owned()))
    }

    fn schema() -> Json {
        json!({"type": ["string", "number", "boolean"], "minLength": 1})
    }

    fn expected() -> String {
        "a text".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.0)
    }
}

/// Something that the format knows and this version does not do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NotYet;

impl Kind for NotYet {
    const MAP: bool = true;
    const SUPPORTED: bool = false;

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let found = node.found();
        let what = reader.path.last().map_or("this", String::as_str);
        let problem = Problem::error(
            node.place,
            format!("`{what}` is not supported yet, found {found}"),
        );
        reader.push(problem.help("leave it out: this version does not know what to do with it"));
        None
    }

    fn schema() -> Json {
        json!({"not": {}})
    }

    fn expected() -> String {
        "nothing".to_owned()
    }

    fn write(&self) -> Json {
        Json::Null
    }

    fn absent() -> Option<Self> {
        Some(NotYet)
    }
}

/// Declares a word of a fixed set, and words that are not supported yet.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident ($what:literal) { $($variant:ident = $word:literal,)+ }
        $(later $($later:literal),+)?
    ) => {
        words!(@kind $name, $what, [$($variant = $word),+], [$($($later),+)?]);

        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $name {
            $(#[doc = concat!("`", $word, "`")] $variant),+
        }
    };
    // For an enum that is declared elsewhere.
    (impl $name:ty, $what:literal { $($variant:ident = $word:literal,)+ }) => {
        words!(@kind $name, $what, [$($variant = $word),+], []);
    };
    (@kind $name:ty, $what:literal, [$($variant:ident = $word:literal),+], [$($later:literal),*]) => {
        impl $crate::config::kind::Kind for $name {
            fn read(node: &$crate::config::yaml::Node, reader: &mut $crate::config::kind::Reader) -> Option<Self> {
                let words = [$(($word, <$name>::$variant)),+];
                $crate::config::kind::read_word(node, reader, $what, &words, &[$($later),*])
            }

            fn schema() -> serde_json::Value {
                $crate::config::kind::words_schema(&[$($word),+])
            }

            fn expected() -> String {
                [$($word),+].join(" | ")
            }

            fn write(&self) -> serde_json::Value {
                serde_json::json!(match self { $(<$name>::$variant => $word),+ })
            }
        }
    };
}
pub(super) use words;

pub(super) fn read_word<T: Copy>(
    node: &Node,
    reader: &mut Reader,
    what: &str,
    words: &[(&str, T)],
    later: &[&str],
) -> Option<T> {
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let text = reader.scalar(node, &known.join(" | "))?;
    let found = words.iter().find(|(word, _)| *word == text);
    let advised = |problem: Problem| match vocabulary::advice(what, text) {
        Some(advice) => problem.help(advice),
        None => problem.help(format!("accepted: {}", known.join(", "))),
    };
    if later.contains(&text) {
        let message = format!("`{text}` is not supported yet");
        reader.push(advised(Problem::error(node.place, message)));
    } else if found.is_none() {
        let found = node.found();
        let key = reader.path.last().map(String::as_str);
        let message = match (what, key) {
            ("choice", Some(key)) => format!("{found} is no choice for `{key}`"),
            _ => format!("{found} is no {what}"),
        };
        let problem = advised(Problem::error(node.place, message));
        reader.push(meant(problem, text, &known));
    }
    found.map(|(_, value)| *value)
}

/// The schema of a word of a fixed set.
pub(super) fn words_schema(words: &[&str]) -> Json {
    // In quotes they are the same.
    let each = words.iter().flat_map(|word| match *word {
        "true" => vec![json!(true), json!("true")],
        "false" => vec![json!(false), json!("false")],
        word => vec![json!(word)],
    });
    json!({"enum": each.collect::<Vec<Json>>()})
}
