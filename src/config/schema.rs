//! The JSON Schema of the file, and the reference page that is made from it.

use std::fmt::Write as _;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::document::Document;
use super::kind::Kind;
use super::section::nothing_required;
use super::units::name_schema;

/// The JSON Schema (draft 2020-12) of the configuration file, with descriptions and defaults.
#[must_use]
pub fn schema() -> Value {
    let mut schema = Document::schema();
    let object = schema
        .as_object_mut()
        .expect("the schema of a section is an object");
    object.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    object.insert("title".to_owned(), json!("Ringway"));
    object.insert("patternProperties".to_owned(), json!({"^x-": true}));
    // What a listener or a pool needs may come from `defaults`.
    for inherits in [
        "/properties/listeners/anyOf/0",
        "/properties/listeners/anyOf/1/items",
        "/properties/pools/additionalProperties/anyOf/1",
    ] {
        nothing_required(
            schema.pointer_mut(inherits).expect(
                "listeners are a map or a list of maps, pools have a short and a long form",
            ),
        );
    }
    // Which are in no list, though, are something.
    schema["properties"]["listeners"]["anyOf"][0]["type"] = json!("object");
    // `ringway backend POOL/NAME` divides the two there.
    schema["properties"]["pools"]["propertyNames"] = name_schema("/");
    by_host(&mut schema, "#");
    schema
}

/// What a map gives for each host may be anywhere but at names that the user chooses. `at` is where the schema stands.
fn by_host(schema: &mut Value, at: &str) {
    for (key, part) in schema.as_object_mut().into_iter().flatten() {
        let at = format!("{at}/{key}");
        match (key.as_str(), part) {
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    or_for_each_host(property, &format!("{at}/{name}"));
                }
            }
            ("items", items) => or_for_each_host(items, &at),
            ("additionalProperties", named) => by_host(named, &at),
            ("anyOf", Value::Array(forms)) => {
                for (number, form) in forms.iter_mut().enumerate() {
                    by_host(form, &format!("{at}/{number}"));
                }
            }
            _ => {}
        }
    }
}

fn or_for_each_host(schema: &mut Value, at: &str) {
    if named(schema).is_some() {
        return by_host(schema, at);
    }
    let mut plain = schema.take();
    let annotations = ["description", "default"].map(|key| {
        let plain = plain.as_object_mut().expect("a schema is an object");
        (key, plain.shift_remove(key))
    });
    let mut hosts = json!({
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"$ref": format!("{at}/anyOf/0")},
    });
    // A map with keys of its own is none of hosts.
    if let Some(own) = long_form(&plain) {
        let own: Vec<&String> = own["properties"]
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .collect();
        hosts["propertyNames"] = json!({"not": {"enum": own}});
    }
    by_host(&mut plain, &format!("{at}/anyOf/0"));
    *schema = json!({"anyOf": [plain, hosts]});
    for (key, value) in annotations {
        if let Some(value) = value {
            schema[key] = value;
        }
    }
}

/// One key of the file.
#[derive(Clone, Debug)]
pub struct KeyDoc {
    /// Its path, as in `pools.NAME.timeouts.connect`.
    pub path: String,
    /// What it takes, in words.
    pub takes: String,
    /// Its default as written; none if it is required or has none.
    pub default: Option<String>,
    /// Whether it has to be there.
    pub required: bool,
    /// What it means.
    pub meaning: String,
}

/// Every key of the file, in the order of the page.
#[must_use]
pub fn keys() -> Vec<KeyDoc> {
    let mut keys = Vec::new();
    collect(&Document::schema(), "", &mut keys);
    keys
}

fn collect(schema: &Value, path: &str, keys: &mut Vec<KeyDoc>) {
    let Some(object) = long_form(schema) else {
        return;
    };
    let required: Vec<&str> = object["required"]
        .as_array()
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    for (name, property) in object["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let default = property.get("default").map(yaml_of);
        keys.push(KeyDoc {
            takes: takes(property),
            default: default.filter(|default| default != "{}"),
            required: required.contains(&name.as_str()),
            meaning: property["description"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            path: path.clone(),
        });
        // The same keys again: they are described once.
        if path != "defaults.listener" && path != "defaults.pool" {
            match named(property) {
                Some(named) => collect(named, &format!("{path}.NAME"), keys),
                None => collect(property, &path, keys),
            }
        }
    }
}

/// The object with `properties` among the forms of a value, of a list's items included.
fn long_form(schema: &Value) -> Option<&Value> {
    if schema.get("properties").is_some() {
        return Some(schema);
    }
    let forms = schema.get("anyOf").and_then(Value::as_array);
    let forms = || forms.into_iter().flatten();
    // The keys of a form itself come before those of what a short form holds.
    let own = forms().find(|form| form.get("properties").is_some());
    own.or_else(|| forms().chain(schema.get("items")).find_map(long_form))
}

fn named(schema: &Value) -> Option<&Value> {
    schema
        .get("additionalProperties")
        .filter(|values| values.is_object())
}

fn yaml_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// What a value may be, in words.
fn takes(schema: &Value) -> String {
    let mut forms: Vec<String> = Vec::new();
    let add = |forms: &mut Vec<String>, form: String| {
        if !forms.contains(&form) {
            forms.push(form);
        }
    };
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        // `off` and `false` mean the same, and one is enough here.
        let switch = words.contains(&json!(true));
        let told = |word: &&Value| {
            if switch {
                **word != json!("on") && **word != json!("off")
            } else {
                !word.is_boolean() && **word != json!("false")
            }
        };
        for word in words.iter().filter(told) {
            add(&mut forms, format!("`{}`", yaml_of(word)));
        }
    }
    for form in schema
        .get("anyOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        takes(form)
            .split(", ")
            .for_each(|form| add(&mut forms, form.to_owned()));
    }
    if schema.get("not").is_some() {
        add(&mut forms, "nothing else yet".to_owned());
    }
    let statuses = forms.iter().any(|form| form == "statuses");
    forms.retain(|form| !statuses || form != "100 to 599");
    // What comes with another type is the first.
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first(),
        kind => kind,
    };
    if let Some(kind) = kind.and_then(Value::as_str) {
        add(
            &mut forms,
            match (kind, schema.get("pattern").and_then(Value::as_str)) {
                ("integer", _) if schema["minimum"] == schema["maximum"] => {
                    format!("`{}`", schema["minimum"])
                }
                ("integer", _) => format!("{} to {}", schema["minimum"], schema["maximum"]),
                ("string", Some(pattern)) if pattern.contains("ms|s") => "duration".to_owned(),
                ("string", Some(pattern)) if pattern.contains("KiB") => "size".to_owned(),
                ("string", Some(pattern)) if pattern.contains("[1-5]") => "statuses".to_owned(),
                ("string", Some(pattern)) if pattern.contains("A-Fa-f") => "IP address".to_owned(),
                ("string", Some(pattern)) if pattern.starts_with("^(unix:)?/") => "path".to_owned(),
                ("string", Some(pattern)) if pattern.starts_with("^/") => "path".to_owned(),
                ("string", Some(pattern)) if pattern.contains(":[0-9]+") => "address".to_owned(),
                ("array", _) => "list".to_owned(),
                ("object", _) => "map".to_owned(),
                _ => "text".to_owned(),
            },
        );
    }
    forms.join(", ")
}

/// Where a key of this name belongs, if it is one of another section.
pub(super) fn elsewhere(name: &str) -> Option<String> {
    static KEYS: OnceLock<Vec<KeyDoc>> = OnceLock::new();
    let keys = KEYS.get_or_init(keys);
    let of = |key: &&KeyDoc| key.path.rsplit('.').next() == Some(name);
    let parents: Vec<String> = keys
        .iter()
        .filter(of)
        .map(|key| match key.path.rsplit_once('.') {
            Some((parent, _)) => format!("`{parent}`"),
            None => "the top level".to_owned(),
        })
        .collect();
    (!parents.is_empty()).then(|| parents.join(" and of "))
}

/// The reference page, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# The configuration file\n\n\
         Made by `ringway schema --reference` from the declarations that read the file; do not edit it by hand.\n\n\
         Durations carry a unit (`us`, `ms`, `s`, `m`, `h`, `d`: `250ms`, `5s`, `1h`), sizes too (`B`, `KiB`, `MiB`, \
         `GiB`). \"No limit\" is `none`. `off` may be \
         written `false`. A list of one may be written without the list. Where the table does not say `map`, a map \
         gives a value for each host: `source: {lb1: 10.0.0.5, lb2: 10.0.0.6}`; where it does, a map whose keys are \
         hosts, this one among them, does the same. Top-level keys that begin with `x-` \
         are ignored, a place for YAML anchors. `NAME` stands for a name that you choose, without \
         white space. A key that the tables do not have is refused.\n",
    );
    let mut sections: Vec<(String, String)> = Vec::new();
    for key in keys() {
        let (parent, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        let default = match (key.default, key.required) {
            (Some(default), _) => format!("`{default}`"),
            (None, true) => "(required)".to_owned(),
            (None, false) => String::new(),
        };
        let meaning = key.meaning.replace('|', "\\|");
        let row = format!("| `{name}` | {} | {default} | {meaning} |\n", key.takes);
        match sections.iter_mut().find(|(section, _)| section == parent) {
            Some((_, rows)) => rows.push_str(&row),
            None => sections.push((parent.to_owned(), row)),
        }
    }
    for (section, rows) in sections {
        let title = if section.is_empty() {
            "Top level".to_owned()
        } else {
            format!("`{section}`")
        };
        let _ = write!(
            page,
            "\n## {title}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n{rows}"
        );
    }
    page
}
