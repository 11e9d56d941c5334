//! The file as written: keys and values, nothing resolved, nothing checked beyond its shape.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    pub(super) version: Option<u64>,
    #[serde(default)]
    pub(super) global: GlobalSection,
    pub(super) listeners: Vec<ListenerSection>,
    pub(super) pools: BTreeMap<String, PoolSection>,
}

/// `global:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GlobalSection {
    pub(super) workers: Option<Scalar>,
    pub(super) pin_workers: Option<bool>,
    pub(super) max_sessions: Option<Scalar>,
    pub(super) pipe_memory: Option<String>,
    pub(super) drain_timeout: Option<String>,
}

/// One of `listeners:`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerSection {
    pub(super) name: Option<String>,
    pub(super) bind: OneOrMore,
    pub(super) protocol: Option<String>,
    pub(super) pool: String,
    pub(super) backlog: Option<u32>,
}

/// One of `pools:`; a plain list of addresses is the short form.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum PoolSection {
    Short(Vec<BackendSection>),
    Long(Box<PoolLong>),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolLong {
    pub(super) balance: Option<String>,
    pub(super) backends: Vec<BackendSection>,
    pub(super) retries: Option<u64>,
    #[serde(default)]
    pub(super) passive: PassiveSection,
    #[serde(default)]
    pub(super) timeouts: TimeoutsSection,
    #[serde(default)]
    pub(super) keepalive: KeepaliveSection,
    pub(super) source: Option<String>,
}

/// A backend; the address alone is the short form.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum BackendSection {
    Short(String),
    Long(BackendLong),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendLong {
    pub(super) name: Option<String>,
    pub(super) address: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PassiveSection {
    pub(super) failures: Option<Scalar>,
    pub(super) retry_after: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeoutsSection {
    pub(super) connect: Option<String>,
    pub(super) idle: Option<String>,
    pub(super) half_close: Option<String>,
    pub(super) session: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeepaliveSection {
    pub(super) idle: Option<String>,
    pub(super) interval: Option<String>,
    pub(super) count: Option<u32>,
    pub(super) user_timeout: Option<String>,
}

/// A number, or a word such as `auto` or `none`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Number(u64),
    Word(String),
}

/// A list of one may be written without brackets.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Document {
    /// One pool of these backends behind listeners on these addresses.
    pub(super) fn of_addresses(listen: &[String], to: &[String]) -> Document {
        let backends = to
            .iter()
            .map(|address| BackendSection::Short(address.clone()))
            .collect();
        let listener = |bind: &String| ListenerSection {
            name: None,
            bind: OneOrMore::One(bind.clone()),
            protocol: None,
            pool: "default".to_owned(),
            backlog: None,
        };
        Document {
            listeners: listen.iter().map(listener).collect(),
            pools: BTreeMap::from([("default".to_owned(), PoolSection::Short(backends))]),
            ..Document::default()
        }
    }
}
