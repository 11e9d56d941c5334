//! How values are read, described and written: one [`Kind`] for each sort of value, and [`section!`], which declares a
//! map of the file once: key, kind, default and meaning. Reading, the JSON Schema, the reference page and printing all
//! come from that declaration. It knows no key itself.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::Deref;

use serde_json::{Map, Value as Json, json};

use super::report::{Problem, Problems};
use super::vocabulary::{meant, translated};
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
    parts_missing: bool,
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

    /// Reports that something else was expected.
    pub(super) fn expected(&mut self, node: &Node, expected: &str) {
        let found = node.found();
        self.push(Problem::error(
            node.place,
            format!("expected {expected}, found {found}"),
        ));
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
        Value::Map(entries) if !T::MAP || is_by_host(entries, reader.host, T::knows) => {
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
                    reader.problems.also_accepted(before, W::WORDS[0]);
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

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.value {
            Value::List(items) if !items.is_empty() => Some(List(read_items(items, reader))),
            Value::Map(entries) if !entries.iter().any(|(key, _)| T::knows(&key.name)) => {
                let found = node.found();
                let problem = Problem::error(
                    node.place,
                    format!("expected {}, found {found}", Self::expected()),
                );
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
            let found = node.found();
            let problem = Problem::error(
                node.place,
                format!("expected {}, found {found}", Self::expected()),
            );
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
    if later.contains(&text) {
        let problem = Problem::error(node.place, format!("`{text}` is not supported yet"))
            .help(format!("accepted: {}", known.join(", ")));
        reader.push(problem);
    } else if found.is_none() {
        let found = node.found();
        let key = reader.path.last().map(String::as_str);
        let message = match (what, key) {
            ("choice", Some(key)) => format!("{found} is no choice for `{key}`"),
            _ => format!("{found} is no {what}"),
        };
        let problem =
            Problem::error(node.place, message).help(format!("accepted: {}", known.join(", ")));
        reader.push(meant(problem, text, &known));
    }
    found.map(|(_, value)| *value)
}

/// One key of a section, for the schema and for messages.
pub(super) struct KeyOf {
    pub(super) name: &'static str,
    pub(super) docs: &'static [&'static str],
    pub(super) default: Option<&'static str>,
    pub(super) schema: fn() -> Json,
    pub(super) required: bool,
    pub(super) supported: bool,
}

/// The name of a key: a field may need `r#` before it.
pub(super) fn bare(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// The entries of a map whose keys are fixed.
pub(super) struct Entries<'n> {
    section: &'n Node,
    written: &'n [(Key, Node)],
    /// Keys that something unknown most likely was meant for, and where that stands.
    misspelt: Vec<(String, Place)>,
}

/// The entries of a map whose keys are fixed; what is unknown has been reported.
pub(super) fn entries<'n>(
    node: &'n Node,
    reader: &mut Reader,
    keys: &[KeyOf],
    expected: fn() -> String,
) -> Option<Entries<'n>> {
    let written: &[(Key, Node)] = match &node.value {
        Value::Map(entries) => entries,
        Value::Null if reader.parts_missing || keys.iter().all(|key| !key.required) => &[],
        Value::Null | Value::List(_) => {
            reader.expected(node, &expected());
            return None;
        }
        Value::Scalar(text) => {
            let message = format!("expected {}, found {}", expected(), node.found());
            let problem = Problem::error(node.place, message);
            reader.push(if keys.iter().any(|key| is_glued(text, key.name)) {
                problem.help("a key ends with a colon and a space, as in `key: value`")
            } else {
                problem
            });
            return None;
        }
    };
    let mut misspelt = Vec::new();
    let is_unknown = |key: &Key| keys.iter().all(|known| known.name != key.name);
    let all_are_unknown = written.iter().all(|(key, _)| is_unknown(key));
    for (key, _) in written.iter().filter(|(key, _)| is_unknown(key)) {
        let mut problem = unknown(key, keys);
        match &problem.nearest {
            Some(nearest) => misspelt.push((nearest.clone(), key.place)),
            None if all_are_unknown && is_no_word(&key.name) && !reader.host.is_empty() => {
                let (name, host) = (super::yaml::shortened(&key.name), reader.host);
                problem = problem.help(format!(
                    "if `{name}` is a host: this is read for `{host}`; --node NAME says which host it is"
                ));
            }
            None => {}
        }
        reader.push(problem);
    }
    Some(Entries {
        section: node,
        written,
        misspelt,
    })
}

/// Whether a text begins with a key whose colon is wrong.
fn is_glued(text: &str, key: &str) -> bool {
    let rest = text.strip_prefix(key).map(str::trim_start);
    rest.is_some_and(|rest| rest.starts_with([':', '=']))
}

/// Whether it is nowhere a key, neither here nor in other software.
fn is_no_word(name: &str) -> bool {
    super::schema::elsewhere(name).is_none() && translated(name).next().is_none()
}

/// What to say of a key that is not one of these.
fn unknown(key: &Key, keys: &[KeyOf]) -> Problem {
    let name = super::yaml::shortened(&key.name);
    let problem = Problem::error(key.place, format!("there is no key `{name}` here"));
    let here: Vec<&str> = keys.iter().map(|key| key.name).collect();
    let supported = keys.iter().filter(|key| key.supported);
    let supported: Vec<&str> = supported.map(|key| key.name).collect();
    let list = format!("keys: {}", supported.join(", "));
    let is_here = |word: &&str| here.contains(word);
    let other = translated(&key.name).find_map(|word| {
        let parents = super::schema::elsewhere(word)?;
        Some(format!("`{word}` is a key of {parents}"))
    });
    match other {
        // The same thing by another name belongs elsewhere: what is spelt alike here is something else.
        Some(other) if !translated(&key.name).any(|word| is_here(&word)) => {
            problem.help(other).help(list)
        }
        Some(_) | None => {
            let problem = meant(problem, &key.name, &here);
            match (&problem.nearest, super::schema::elsewhere(&key.name)) {
                (Some(_), _) => problem,
                (None, Some(parents)) => {
                    problem.help(format!("it is a key of {parents}")).help(list)
                }
                (None, None) => problem.help(list),
            }
        }
    }
}

/// The value of one key: written, default, or missing. What cannot be read has been reported and counts as
/// left out, but keeps its place.
pub(super) fn field<T: Kind + 'static>(
    entries: &Entries,
    reader: &mut Reader,
    name: &'static str,
    default: impl FnOnce() -> Option<T>,
) -> Option<Field<T>> {
    let written = entries.written.iter().find(|(key, _)| key.name == name);
    let read =
        written.and_then(|(_, value)| reader.within(name, |reader| read_field(value, reader)));
    if read.is_some() {
        return read;
    }
    let misspelt = entries.misspelt.iter().find(|(meant, _)| meant == name);
    let place = written
        .map(|(_, value)| value.place)
        .or(misspelt.map(|(_, place)| *place));
    let value = default();
    if value.is_none() && place.is_none() && !reader.parts_missing {
        let problem = Problem::error(
            entries.section.place,
            format!("the key `{name}` is missing"),
        )
        .help(format!("{name}: {}", T::expected()));
        reader.push(problem);
    }
    value.map(|value| Field { value, place })
}

/// A default, read from how it is written.
pub(super) fn default_of<T: Kind>(text: &str) -> T {
    let mut problems = Problems::default();
    let node = super::yaml::parse(text, &mut problems);
    let value = node.and_then(|node| T::read(&node, &mut Reader::new("", &mut problems)));
    value.expect("defaults are valid; a test reads each")
}

/// The schema of a section's keys.
pub(super) fn object_schema(docs: &[&str], keys: &[KeyOf], short: Option<&'static str>) -> Json {
    let short = keys.iter().find(|key| Some(key.name) == short.map(bare));
    let short = short.map(|key| (key.schema)());
    let mut properties = Map::new();
    for key in keys.iter().filter(|key| key.supported) {
        let mut schema = (key.schema)();
        if let Json::Object(schema) = &mut schema {
            schema.insert("description".to_owned(), json!(sentence(key.docs)));
            if let Some(default) = key.default {
                schema.insert("default".to_owned(), default_json(default));
            }
        }
        properties.insert(key.name.to_owned(), schema);
    }
    let required: Vec<&str> = keys
        .iter()
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    let needs_none = required.is_empty();
    let mut object = json!({
        "type": "object",
        "description": sentence(docs),
        "properties": properties,
        "additionalProperties": false,
        "required": required,
    });
    if needs_none {
        nothing_required(&mut object);
    }
    match short {
        Some(short) => json!({"anyOf": [short, object]}),
        None => object,
    }
}

/// Lets any key of a map be missing, and so all of them.
pub(super) fn nothing_required(object: &mut Json) {
    object["type"] = json!(["object", "null"]);
    if let Json::Object(object) = object {
        object.shift_remove("required");
    }
}

/// A section that could be written in its short form is.
pub(super) fn shortest(mut section: Map<String, Json>, short: &[&'static str]) -> Json {
    let only = short.first().filter(|_| section.len() == 1);
    let value = only.and_then(|short| section.remove(bare(short)));
    value.unwrap_or(Json::Object(section))
}

/// The text of a doc comment on one line.
pub(super) fn sentence(docs: &[&str]) -> String {
    let lines: Vec<&str> = docs.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

/// Numbers, `true`, `false` and `{}` are themselves, all else is a text.
fn default_json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
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

/// Declares a map of the file: each key once, with its kind, default (as it is written) and meaning.
///
/// `short key` names the key that the short form stands for, where the value is no map.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        $visibility:vis struct $name:ident $(short $short:ident)? {
            $($(#[doc = $key_doc:literal])* $key:ident : $kind:ty $(= $default:literal)?,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        $visibility struct $name {
            $($(#[doc = $key_doc])* $visibility $key: $crate::config::kind::Field<$kind>,)*
        }

        impl $name {
            fn keys() -> &'static [$crate::config::kind::KeyOf] {
                static KEYS: std::sync::OnceLock<Vec<$crate::config::kind::KeyOf>> = std::sync::OnceLock::new();
                KEYS.get_or_init(|| vec![$($crate::config::kind::KeyOf {
                    name: $crate::config::kind::bare(stringify!($key)),
                    docs: &[$($key_doc),*],
                    default: section!(@default $($default)?),
                    schema: <$kind as $crate::config::kind::Kind>::schema,
                    required: section!(@value $kind, $($default)?).is_none(),
                    supported: <$kind as $crate::config::kind::Kind>::SUPPORTED,
                }),*])
            }
        }

        impl $crate::config::kind::Kind for $name {
            const MAP: bool = true;

            fn read(
                node: &$crate::config::yaml::Node,
                reader: &mut $crate::config::kind::Reader,
            ) -> Option<Self> {
                $(
                    let long;
                    let node = if node.is_short() {
                        long = node.under($crate::config::kind::bare(stringify!($short)));
                        &long
                    } else {
                        node
                    };
                )?
                let expected = <Self as $crate::config::kind::Kind>::expected;
                let entries = $crate::config::kind::entries(node, reader, Self::keys(), expected)?;
                // All keys are read before one that is wrong ends it: all their problems are told.
                $(let $key = {
                    let name = $crate::config::kind::bare(stringify!($key));
                    let default = || section!(@value $kind, $($default)?);
                    $crate::config::kind::field(&entries, reader, name, default)
                };)*
                Some($name { $($key: $key?),* })
            }

            fn knows(key: &str) -> bool {
                Self::keys().iter().any(|known| known.name == key)
            }

            fn schema() -> serde_json::Value {
                let keys = Self::keys();
                let short: &[&str] = &[$(stringify!($short))?];
                $crate::config::kind::object_schema(&[$($doc),*], keys, short.first().copied())
            }

            fn expected() -> String {
                let names: Vec<&str> = Self::keys().iter().filter(|key| key.supported).map(|key| key.name).collect();
                let map = format!("a map with the keys {}", names.join(", "));
                let short: &[&str] = &[$(stringify!($short))?];
                match short {
                    [short] => format!("the {} or {map}", $crate::config::kind::bare(short)),
                    _ => map,
                }
            }

            fn write(&self) -> serde_json::Value {
                let mut object = serde_json::Map::new();
                $({
                    let default = section!(@value $kind, $($default)?);
                    if default.as_ref() != Some(&self.$key.value) {
                        let name = $crate::config::kind::bare(stringify!($key)).to_owned();
                        object.insert(name, $crate::config::kind::Kind::write(&self.$key.value));
                    }
                })*
                let short: &[&str] = &[$(stringify!($short))?];
                $crate::config::kind::shortest(object, short)
            }
        }
    };
    (@default) => { None::<&'static str> };
    (@default $default:literal) => { Some($default) };
    (@value $kind:ty,) => { <$kind as $crate::config::kind::Kind>::absent() };
    (@value $kind:ty, $default:literal) => {{
        static VALUE: std::sync::OnceLock<$kind> = std::sync::OnceLock::new();
        Some(VALUE.get_or_init(|| $crate::config::kind::default_of($default)).clone())
    }};
}
pub(super) use section;
