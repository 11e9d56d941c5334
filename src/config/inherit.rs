//! What listeners and pools inherit from `defaults`, put into them before they are read. It knows which keys are maps
//! and what rules out what, but no value: reading is [`super::kind`]'s business, mistakes in `defaults` included.

use super::document::{
    Bind, Defaults, DnsProbe, HttpProbe, Keepalive, Listener, Passive, Pool, Probe, Timeouts, Udp,
};
use super::kind::{Kind, is_by_host};
use super::report::Problem;
use super::yaml::{Key, Node, Place, Value};

/// Values that all listeners and pools together may inherit: a bound for memory and time.
const INHERITED_MAX: usize = 1_000_000;

/// Where `defaults` stand in the text.
pub(super) fn place(root: &Node) -> Option<Place> {
    let Value::Map(entries) = &root.value else {
        return None;
    };
    let starts = || entries.iter().map(|(key, _)| key.place.start);
    let (key, _) = entries.iter().find(|(key, _)| key.name == "defaults")?;
    let start = key.place.start;
    let end = starts().filter(|other| *other > start).min();
    Some(Place {
        start,
        end: end.unwrap_or(usize::MAX),
    })
}

/// What inheriting has to know of a map.
struct Shape {
    /// Whether this is a key of it.
    knows: fn(&str) -> bool,
    /// The key that its short form stands for.
    short: Option<&'static str>,
    /// Whether it may be a list of such; else a list is its short form, or wrong.
    many: bool,
    /// Those of its keys that are maps.
    maps: &'static [(&'static str, &'static Shape)],
    /// Whether what an item says itself, for a host, rules out that it inherits a key.
    rules_out: fn(&Node, &str, &str) -> bool,
}

impl Shape {
    const fn of<T: Kind>() -> Shape {
        Shape {
            knows: T::knows,
            short: None,
            many: false,
            maps: &[],
            rules_out: |_, _, _| false,
        }
    }
}

const LISTENER: Shape = Shape {
    many: true,
    maps: &[(
        "bind",
        &Shape {
            short: Some("address"),
            many: true,
            ..Shape::of::<Bind>()
        },
    )],
    rules_out: |item, _, key| match key {
        "pool" => item.get("split").is_some(),
        "split" => item.get("pool").is_some(),
        _ => false,
    },
    ..Shape::of::<Listener>()
};

const POOL: Shape = Shape {
    short: Some("backends"),
    maps: &[
        ("probe", &PROBE),
        (
            "passive",
            &Shape {
                rules_out: |item, host, key| {
                    key == "retry_after" && says(item, "failures", host) == Some("none")
                },
                ..Shape::of::<Passive>()
            },
        ),
        ("timeouts", &Shape::of::<Timeouts>()),
        ("keepalive", &Shape::of::<Keepalive>()),
        ("udp", &Shape::of::<Udp>()),
    ],
    rules_out: |item, host, key| {
        key == "hash_key" && says(item, "balance", host).is_some_and(|balance| balance != "hash")
    },
    ..Shape::of::<Pool>()
};

const PROBE: Shape = Shape {
    short: Some("type"),
    maps: &[
        ("http", &Shape::of::<HttpProbe>()),
        ("dns", &Shape::of::<DnsProbe>()),
    ],
    rules_out: |item, host, key| {
        let Some(kind) = says(item, "type", host) else {
            return false;
        };
        match key {
            _ if kind == "none" => true,
            "http" => kind != "http",
            "dns" => kind != "dns",
            "send" | "expect" => kind != "send_expect",
            _ => false,
        }
    },
    ..Shape::of::<Probe>()
};

/// What an item has for a key, on a host.
fn says<'n>(item: &'n Node, key: &str, host: &str) -> Option<&'n str> {
    let value = item.get(key)?;
    match &value.get(host).unwrap_or(value).value {
        Value::Scalar(text) => Some(text),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// Leaves out what the format ignores, and gives every listener and pool what it inherits.
///
/// # Errors
/// That it would be too much; nobody should read on then.
pub(super) fn prepare(root: &mut Node, host: &str) -> Result<(), Box<Problem>> {
    let Value::Map(entries) = &mut root.value else {
        return Ok(());
    };
    entries.retain(|(key, _)| !key.name.starts_with("x-"));
    let Some(defaults) = root.get("defaults").cloned() else {
        return Ok(());
    };
    let mut heirs = Heirs {
        host,
        left: INHERITED_MAX,
    };
    let defaults_here = heirs.value_for(&defaults, Defaults::knows, host);
    let of = |section| defaults_here.and_then(|defaults| defaults.get(section));
    if let (Some(listeners), Some(inherited)) = (root.get_mut("listeners"), of("listener")) {
        heirs.inherit(listeners, inherited, &LISTENER, host);
    }
    let pools = root.get_mut("pools").map(|pools| &mut pools.value);
    // A pool itself is the same on every host.
    let inherited = of("pool").and_then(|pool| heirs.value_for(pool, Pool::knows, host));
    if let (Some(Value::Map(pools)), Some(inherited)) = (pools, inherited) {
        for (_, pool) in pools {
            heirs.inherit_here(pool, inherited, &POOL, host);
        }
    }
    if heirs.left > 0 {
        return Ok(());
    }
    let message =
        format!("listeners and pools would inherit more than {INHERITED_MAX} values from here");
    let problem = Problem::error(defaults.place, message);
    Err(Box::new(problem.help(
        "each gets a copy of all that it does not have itself: write long lists where they belong",
    )))
}

/// Those that inherit, on this host.
struct Heirs<'a> {
    host: &'a str,
    /// How many values may still be looked at or inherited; with 0 it was too much, and nothing is done any more.
    left: usize,
}

impl Heirs<'_> {
    fn spend(&mut self, values: usize) {
        self.left = self.left.saturating_sub(values);
    }

    /// The value itself, or the one for a host if it is a map of hosts.
    fn value_for<'n>(
        &mut self,
        node: &'n Node,
        knows: fn(&str) -> bool,
        host: &str,
    ) -> Option<&'n Node> {
        let Value::Map(entries) = &node.value else {
            return Some(node);
        };
        if self.left == 0 {
            return None;
        }
        self.spend(entries.len());
        if is_by_host(entries, self.host, knows) {
            node.get(host)
        } else {
            Some(node)
        }
    }

    /// Gives an item, each of a list or the one of each host what it does not have itself.
    fn inherit(&mut self, item: &mut Node, defaults: &Node, shape: &Shape, host: &str) {
        match &mut item.value {
            Value::Map(entries) if is_by_host(entries, self.host, shape.knows) => {
                for (host, item) in entries {
                    self.inherit(item, defaults, shape, &host.name);
                }
            }
            Value::List(items) if shape.many => {
                for item in items {
                    self.inherit(item, defaults, shape, host);
                }
            }
            Value::Null | Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
                if let Some(defaults) = self.value_for(defaults, shape.knows, host) {
                    self.inherit_here(item, defaults, shape, host);
                }
            }
        }
    }

    fn inherit_here(&mut self, item: &mut Node, defaults: &Node, shape: &Shape, host: &str) {
        if self.left == 0 {
            return;
        }
        let long;
        let inherited = match (&defaults.value, shape.short) {
            (Value::Map(entries), _) => entries,
            // Short forms are made long: what they leave out is inherited.
            (Value::Scalar(_), Some(short)) => {
                long = vec![defaults.entry(short)];
                &long
            }
            (Value::Null | Value::Scalar(_) | Value::List(_), _) => return,
        };
        match (&item.value, shape.short) {
            (Value::Null, _) => item.value = Value::Map(Vec::new()),
            (Value::Scalar(_) | Value::List(_), Some(short)) => *item = item.under(short),
            (Value::Scalar(_) | Value::List(_), None) => return,
            // A map of nothing that is known is a mistake, and better told of as it is written.
            (Value::Map(own), _)
                if !own.is_empty() && !own.iter().any(|(key, _)| (shape.knows)(&key.name)) =>
            {
                return;
            }
            (Value::Map(_), _) => {}
        }
        self.spend(inherited.len());
        // What `defaults` has and nobody knows is told of where it is written.
        let wanted = inherited.iter().filter(|(key, _)| {
            (shape.knows)(&key.name) && !(shape.rules_out)(item, host, &key.name)
        });
        let wanted: Vec<&(Key, Node)> = wanted.collect();
        for (key, value) in wanted {
            let Some(own) = item.get_mut(&key.name) else {
                self.spend(parts(value));
                if let (Value::Map(own), true) = (&mut item.value, self.left > 0) {
                    own.push((key.clone(), value.clone()));
                }
                continue;
            };
            if let Some((_, shape)) = shape.maps.iter().find(|(name, _)| *name == key.name) {
                self.inherit(own, value, shape, host);
            }
        }
    }
}

/// How many values there are in one, itself included; a long text is as much as several.
fn parts(node: &Node) -> usize {
    const SHORT: usize = 128;
    1 + match &node.value {
        Value::Null => 0,
        Value::Scalar(text) => text.len() / SHORT,
        Value::List(items) => items.iter().map(parts).sum(),
        Value::Map(entries) => entries.iter().map(|(_, value)| parts(value)).sum(),
    }
}
