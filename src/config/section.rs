//! Maps whose keys are fixed: [`section!`] declares one once, with key, kind, default and meaning of each. Reading, the
//! JSON Schema, the reference page and printing all come from that declaration. It knows no key itself.

use serde_json::{Map, Value as Json, json};

use super::kind::{Field, Kind, Reader, read_field};
use super::report::{Problem, Problems};
use super::vocabulary::{self, meant, translated};
use super::yaml::{Key, NO_BREAK, Node, PLAIN_SPACES, Place, Value, shortened};

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
    /// The key of which a part stands elsewhere.
    apart: Option<&'static str>,
    /// Whether something is wrong with the map itself, so that keys may be missing for that.
    is_wrong: bool,
}

/// The entries of a map whose keys are fixed; what is unknown has been reported.
pub(super) fn entries<'n>(
    node: &'n Node,
    reader: &mut Reader,
    keys: &[KeyOf],
    short: Option<&str>,
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
            let problem = reader.unexpected(node, &expected());
            reader.push(if keys.iter().any(|key| is_glued(text, key.name)) {
                problem.help("a key ends with a colon and a space, as in `key: value`")
            } else {
                problem
            });
            return None;
        }
    };
    let is_wrong = reader.problems.at(Some(node.place));
    if let Some(problem) = named(written, keys, short) {
        reader.push(problem);
        return None;
    }
    let mut misspelt = Vec::new();
    let apart = apart(written, keys);
    if let Some(apart) = &apart {
        misspelt.push((apart.whole.to_owned(), apart.port.place));
        reader.push(apart.problem());
    }
    let is_told = |key: &Key| apart.as_ref().is_some_and(|apart| apart.has(key));
    let may_be_hosts = !reader.host.is_empty()
        && written.iter().all(|(key, value)| {
            is_unknown(key, keys) && is_no_word(&key.name) && has_known(value, keys)
        });
    let unknown_keys = written.iter().filter(|(key, _)| is_unknown(key, keys));
    for (key, _) in unknown_keys.filter(|(key, _)| !is_told(key)) {
        let mut problem = unknown(key, keys);
        match &problem.nearest {
            Some(nearest) => misspelt.push((nearest.clone(), key.place)),
            None if may_be_hosts => {
                let (name, host) = (shortened(&key.name), reader.host);
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
        apart: apart.map(|apart| apart.whole),
        is_wrong,
    })
}

fn is_unknown(key: &Key, keys: &[KeyOf]) -> bool {
    keys.iter().all(|known| known.name != key.name)
}

/// Whether a value is a map with any of these keys.
fn has_known(value: &Node, keys: &[KeyOf]) -> bool {
    match &value.value {
        Value::Map(entries) => entries.iter().any(|(key, _)| !is_unknown(key, keys)),
        Value::Null | Value::Scalar(_) | Value::List(_) => false,
    }
}

/// Something whose name is written as its key.
fn named(written: &[(Key, Node)], keys: &[KeyOf], short: Option<&str>) -> Option<Problem> {
    let [(key, value)] = written else {
        return None;
    };
    let may_have_name = keys.iter().any(|known| known.name == vocabulary::NAME);
    let is_name =
        is_unknown(key, keys) && is_no_word(&key.name) && unknown(key, keys).nearest.is_none();
    if !may_have_name || !is_name {
        return None;
    }
    let name = shortened(&key.name);
    let advice = match (&value.value, short) {
        (Value::Scalar(text), Some(short)) => {
            format!("write {{name: {name}, {short}: {}}}", shortened(text))
        }
        (Value::Map(_), _) if has_known(value, keys) => {
            format!("write `name: {name}`, and the other keys beside it")
        }
        (Value::Null | Value::Scalar(_) | Value::List(_) | Value::Map(_), _) => return None,
    };
    let message = format!("there is no key `{name}` here; a name is the value of the key `name`");
    Some(Problem::error(key.place, message).help(advice))
}

/// A host and a port under a key each, where they are one value.
struct Apart<'n> {
    host: (&'n Key, &'n str),
    port: &'n Key,
    digits: &'n str,
    /// The key of the value that they are together.
    whole: &'static str,
}

impl Apart<'_> {
    fn has(&self, key: &Key) -> bool {
        *key == *self.host.0 || *key == *self.port
    }

    fn problem(&self) -> Problem {
        let (whole, host, port) = (self.whole, shortened(self.host.1), shortened(self.digits));
        let both = if host.contains(':') {
            format!("\"[{host}]:{port}\"")
        } else {
            format!("{host}:{port}")
        };
        let name = shortened(&self.port.name);
        let message =
            format!("there is no key `{name}` here: an address and its port are one value");
        Problem::error(self.port.place, message).help(format!("write `{whole}: {both}`"))
    }
}

fn apart<'n>(written: &'n [(Key, Node)], keys: &[KeyOf]) -> Option<Apart<'n>> {
    let scalars = written
        .iter()
        .filter_map(|(key, value)| match &value.value {
            Value::Scalar(text) => Some((key, text.as_str())),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        });
    let is_port = |key: &Key| key.name == vocabulary::PORT && is_unknown(key, keys);
    let (port, digits) = scalars.clone().find(|(key, _)| is_port(key))?;
    let whole = translated(&port.name).find(|word| keys.iter().any(|key| key.name == *word))?;
    let mut hosts = scalars.filter(|(key, _)| !is_port(key));
    let host = hosts.find(|(key, text)| {
        let stands_for = translated(&key.name).any(|word| word == whole);
        !text.is_empty() && (key.name == whole || is_unknown(key, keys) && stands_for)
    })?;
    Some(Apart {
        host,
        port,
        digits,
        whole,
    })
}

/// Whether a text begins with a key whose colon is wrong.
fn is_glued(text: &str, key: &str) -> bool {
    let rest = text.strip_prefix(key).map(str::trim_start);
    rest.is_some_and(|rest| rest.starts_with([':', '=']))
}

/// Whether it is nowhere a key, neither here nor in other software.
pub(super) fn is_no_word(name: &str) -> bool {
    super::schema::elsewhere(name).is_none()
        && translated(name).next().is_none()
        && vocabulary::remark(name).is_none()
}

/// What to say of a key that is not one of these.
fn unknown(key: &Key, keys: &[KeyOf]) -> Problem {
    let name = shortened(&key.name);
    let problem = Problem::error(key.place, format!("there is no key `{name}` here"));
    let problem = if key.name.contains(NO_BREAK) {
        problem.help(PLAIN_SPACES)
    } else {
        problem
    };
    if let Some(remark) = vocabulary::remark(&key.name) {
        return problem.help(remark);
    }
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
    let whole = written.filter(|_| entries.apart != Some(name));
    let read = whole.and_then(|(_, value)| reader.within(name, |reader| read_field(value, reader)));
    if read.is_some() {
        return read;
    }
    let misspelt = entries.misspelt.iter().find(|(meant, _)| meant == name);
    let place = written
        .map(|(_, value)| value.place)
        .or(misspelt.map(|(_, place)| *place));
    let value = default();
    let may_be_missing = reader.parts_missing || entries.is_wrong;
    if value.is_none() && place.is_none() && !may_be_missing {
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
            fn keys() -> &'static [$crate::config::section::KeyOf] {
                static KEYS: std::sync::OnceLock<Vec<$crate::config::section::KeyOf>> = std::sync::OnceLock::new();
                KEYS.get_or_init(|| vec![$($crate::config::section::KeyOf {
                    name: $crate::config::section::bare(stringify!($key)),
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
                        long = node.under($crate::config::section::bare(stringify!($short)));
                        &long
                    } else {
                        node
                    };
                )?
                let expected = <Self as $crate::config::kind::Kind>::expected;
                let short: &[&str] = &[$($crate::config::section::bare(stringify!($short)))?];
                let short = short.first().copied();
                let entries = $crate::config::section::entries(node, reader, Self::keys(), short, expected)?;
                // All keys are read before one that is wrong ends it: all their problems are told.
                $(let $key = {
                    let name = $crate::config::section::bare(stringify!($key));
                    let default = || section!(@value $kind, $($default)?);
                    $crate::config::section::field(&entries, reader, name, default)
                };)*
                Some($name { $($key: $key?),* })
            }

            fn knows(key: &str) -> bool {
                Self::keys().iter().any(|known| known.name == key)
            }

            fn schema() -> serde_json::Value {
                let keys = Self::keys();
                let short: &[&str] = &[$(stringify!($short))?];
                $crate::config::section::object_schema(&[$($doc),*], keys, short.first().copied())
            }

            fn expected() -> String {
                let names: Vec<&str> = Self::keys().iter().filter(|key| key.supported).map(|key| key.name).collect();
                let map = format!("a map with the keys {}", names.join(", "));
                let short: &[&str] = &[$(stringify!($short))?];
                match short {
                    [short] => format!("the {} or {map}", $crate::config::section::bare(short)),
                    _ => map,
                }
            }

            fn write(&self) -> serde_json::Value {
                let mut object = serde_json::Map::new();
                $({
                    let default = section!(@value $kind, $($default)?);
                    if default.as_ref() != Some(&self.$key.value) {
                        let name = $crate::config::section::bare(stringify!($key)).to_owned();
                        object.insert(name, $crate::config::kind::Kind::write(&self.$key.value));
                    }
                })*
                let short: &[&str] = &[$(stringify!($short))?];
                $crate::config::section::shortest(object, short)
            }
        }
    };
    (@default) => { None::<&'static str> };
    (@default $default:literal) => { Some($default) };
    (@value $kind:ty,) => { <$kind as $crate::config::kind::Kind>::absent() };
    (@value $kind:ty, $default:literal) => {{
        static VALUE: std::sync::OnceLock<$kind> = std::sync::OnceLock::new();
        Some(VALUE.get_or_init(|| $crate::config::section::default_of($default)).clone())
    }};
}
pub(super) use section;
