//! From what is written to what is meant: names become ids, addresses and units are parsed, defaults applied. Every
//! mistake is collected.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::document::{
    BackendLong, BackendSection, Document, GlobalSection, ListenerSection, OneOrMore, PoolLong,
    PoolSection, Scalar,
};
use super::units;
use crate::control::snapshot::{
    Backend, BackendAddress, Global, ListenAddress, Listener, Pool, Snapshot,
};
use crate::health::PassiveRule;
use crate::ids::{BackendId, PoolId};
use crate::session::Rules;
use crate::sys::socket::{Bind, Keepalive};

/// Below this, splicing is not worth having.
const PIPE_MEMORY_MIN: u64 = 1 << 20;
/// Most addresses that all listeners together may have.
const ADDRESSES_MAX: usize = 16_384;
/// Longest path of a unix socket: `sun_path` with its end.
const UNIX_PATH_MAX: usize = 107;

struct Resolver {
    problems: Vec<String>,
    snapshot: Snapshot,
}

pub(super) fn resolve(document: Document) -> Result<Config, Vec<String>> {
    let snapshot = Snapshot {
        listeners: Vec::new(),
        pools: Vec::new(),
        backends: Vec::new(),
    };
    let mut resolver = Resolver {
        problems: Vec::new(),
        snapshot,
    };
    if document.version.is_some_and(|version| version != 1) {
        resolver.problem("version: this Ringway knows version 1 only".to_owned());
    }
    let global = resolver.global(&document.global);
    let pools = resolver.pools(document.pools);
    resolver.listeners(document.listeners, &pools);
    if resolver.problems.is_empty() {
        Ok(Config {
            global,
            snapshot: resolver.snapshot,
        })
    } else {
        Err(resolver.problems)
    }
}

impl Resolver {
    fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// The value, or a problem named after `key` and the default.
    fn checked<T>(&mut self, key: &str, default: T, value: Option<Result<T, String>>) -> T {
        match value {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(problem)) => {
                self.problem(format!("{key}: {problem}"));
                default
            }
        }
    }

    fn duration(&mut self, key: &str, default: Duration, text: Option<&String>) -> Duration {
        self.checked(key, default, text.map(|text| units::duration(text)))
    }

    fn duration_or_none(
        &mut self,
        key: &str,
        default: Option<Duration>,
        text: Option<&String>,
    ) -> Option<Duration> {
        let parse = |text: &String| {
            if text == "none" {
                Ok(None)
            } else {
                units::duration(text).map(Some)
            }
        };
        self.checked(key, default, text.map(parse))
    }

    fn global(&mut self, section: &GlobalSection) -> Global {
        let workers = section
            .workers
            .as_ref()
            .map(|value| number_or("auto", value, 1, 1024));
        let max_sessions = section
            .max_sessions
            .as_ref()
            .map(|value| number_or("auto", value, 1, 1 << 24));
        let pipe_memory = section
            .pipe_memory
            .as_ref()
            .map(|text| match units::size(text)? {
                size if size >= PIPE_MEMORY_MIN => Ok(size),
                _ => Err(format!("`{text}` is less than 1MiB")),
            });
        Global {
            workers: self
                .checked("global.workers", None, workers)
                .map(|workers| u16::try_from(workers).expect("checked to be small")),
            pin_workers: section.pin_workers.unwrap_or(true),
            max_sessions: self
                .checked("global.max_sessions", None, max_sessions)
                .map(|sessions| u32::try_from(sessions).expect("checked to be small")),
            pipe_memory: self.checked("global.pipe_memory", 256 << 20, pipe_memory),
            drain_timeout: self.duration_or_none(
                "global.drain_timeout",
                Some(Duration::from_secs(30)),
                section.drain_timeout.as_ref(),
            ),
        }
    }

    fn pools(&mut self, sections: BTreeMap<String, PoolSection>) -> BTreeMap<String, PoolId> {
        let mut ids = BTreeMap::new();
        for (name, section) in sections {
            let Ok(id) = u16::try_from(self.snapshot.pools.len()).map(PoolId) else {
                self.problem("pools: there are more than 65,536".to_owned());
                break;
            };
            let section = match section {
                PoolSection::Short(backends) => PoolLong {
                    backends,
                    ..PoolLong::default()
                },
                PoolSection::Long(section) => *section,
            };
            let pool = self.pool(&name, id, &section);
            self.snapshot.pools.push(pool);
            ids.insert(name, id);
        }
        ids
    }

    fn pool(&mut self, name: &str, id: PoolId, section: &PoolLong) -> Pool {
        let key = |key: &str| format!("pools.{name}.{key}");
        match section.balance.as_deref() {
            None | Some("round_robin") => {}
            Some(known @ ("least_connections" | "random" | "hash" | "least_time" | "first")) => {
                self.problem(format!(
                    "{}: `{known}` is not supported yet; use round_robin",
                    key("balance")
                ));
            }
            Some(other) => self.problem(format!(
                "{}: `{other}` is no algorithm; use round_robin",
                key("balance")
            )),
        }
        if section.backends.is_empty() {
            self.problem(format!(
                "{}: a pool needs at least one backend",
                key("backends")
            ));
        }
        let retries = section.retries.map(|retries| match u8::try_from(retries) {
            Ok(retries) if retries <= Rules::RETRIES_MAX => Ok(retries),
            _ => Err(format!("`{retries}` is more than {}", Rules::RETRIES_MAX)),
        });
        let source = section.source.as_ref().filter(|source| *source != "none");
        let source = source.map(|text| {
            let parsed = IpAddr::from_str(text);
            parsed
                .map(Some)
                .map_err(|_| format!("`{text}` is not an IP address"))
        });
        let failures = section
            .passive
            .failures
            .as_ref()
            .map(|value| number_or("none", value, 1, 1_000_000));
        let failures = self.checked(&key("passive.failures"), Some(3), failures);
        let timeouts = &section.timeouts;
        Pool {
            name: Arc::from(name),
            backends: self.backends(name, id, &section.backends),
            rules: Rules {
                retries: self.checked(&key("retries"), 2, retries),
                connect_timeout: self.duration(
                    &key("timeouts.connect"),
                    Duration::from_secs(5),
                    timeouts.connect.as_ref(),
                ),
                idle_timeout: self.duration_or_none(
                    &key("timeouts.idle"),
                    None,
                    timeouts.idle.as_ref(),
                ),
                half_close_timeout: self.duration_or_none(
                    &key("timeouts.half_close"),
                    Some(Duration::from_secs(3600)),
                    timeouts.half_close.as_ref(),
                ),
                session_timeout: self.duration_or_none(
                    &key("timeouts.session"),
                    None,
                    timeouts.session.as_ref(),
                ),
            },
            keepalive: self.keepalive(name, section),
            source: self.checked(&key("source"), None, source),
            passive: PassiveRule {
                failures: failures
                    .map(|failures| u32::try_from(failures).expect("checked to be small")),
                retry_after: self.duration(
                    &key("passive.retry_after"),
                    Duration::from_secs(10),
                    section.passive.retry_after.as_ref(),
                ),
            },
        }
    }

    fn keepalive(&mut self, pool: &str, section: &PoolLong) -> Keepalive {
        let key = |key: &str| format!("pools.{pool}.keepalive.{key}");
        let section = &section.keepalive;
        Keepalive {
            idle: self.duration(&key("idle"), Duration::from_secs(60), section.idle.as_ref()),
            interval: self.duration(
                &key("interval"),
                Duration::from_secs(10),
                section.interval.as_ref(),
            ),
            count: section.count.unwrap_or(6),
            user_timeout: self.duration_or_none(
                &key("user_timeout"),
                None,
                section.user_timeout.as_ref(),
            ),
        }
    }

    fn backends(&mut self, pool: &str, id: PoolId, sections: &[BackendSection]) -> Vec<BackendId> {
        let mut names = HashSet::new();
        let mut ids = Vec::new();
        for section in sections {
            let BackendLong { name, address } = match section {
                BackendSection::Short(address) => BackendLong {
                    name: None,
                    address: address.clone(),
                },
                BackendSection::Long(section) => section.clone(),
            };
            let name = name.unwrap_or_else(|| address.clone());
            if !names.insert(name.clone()) {
                let key = format!("pools.{pool}.backends");
                self.problem(format!(
                    "{key}: there are two backends `{name}`; names are unique in a pool"
                ));
            }
            match backend_address(&address) {
                Ok(address) => {
                    ids.push(BackendId(
                        u32::try_from(self.snapshot.backends.len()).unwrap_or(u32::MAX),
                    ));
                    self.snapshot.backends.push(Backend {
                        name: Arc::from(name),
                        pool: id,
                        address,
                    });
                }
                Err(problem) => self.problem(format!("pools.{pool}.backends: {problem}")),
            }
        }
        ids
    }

    fn listeners(&mut self, sections: Vec<ListenerSection>, pools: &BTreeMap<String, PoolId>) {
        if sections.is_empty() {
            self.problem("listeners: at least one is needed".to_owned());
        }
        let mut names = HashSet::new();
        let mut places = HashMap::new();
        for section in sections {
            let addresses = match section.bind {
                OneOrMore::One(address) => vec![address],
                OneOrMore::More(addresses) => addresses,
            };
            let name = section.name.unwrap_or_else(|| addresses.join(","));
            if !names.insert(name.clone()) {
                self.problem(format!("listeners: there are two listeners `{name}`"));
            }
            match section.protocol.as_deref() {
                None | Some("tcp") => {}
                Some("udp") => self.problem(format!(
                    "listeners.{name}.protocol: udp is not supported yet; use tcp"
                )),
                Some(other) => self.problem(format!(
                    "listeners.{name}.protocol: `{other}` is no protocol; use tcp"
                )),
            }
            let pool = pools.get(&section.pool).copied();
            if pool.is_none() {
                let known: Vec<_> = pools.keys().map(String::as_str).collect();
                let (pool, known) = (&section.pool, known.join(", "));
                self.problem(format!(
                    "listeners.{name}.pool: there is no pool `{pool}`; there is: {known}"
                ));
            }
            if addresses.is_empty() {
                self.problem(format!(
                    "listeners.{name}.bind: at least one address is needed"
                ));
            }
            let mut resolved = Vec::new();
            for address in addresses {
                match listen_address(&address) {
                    Ok(place) => {
                        if let Some(other) = clash(&mut places, &place, &name) {
                            self.problem(format!(
                                "listeners.{name}.bind: listener {other} has `{address}` already"
                            ));
                        }
                        resolved.push(place);
                    }
                    Err(problem) => self.problem(format!("listeners.{name}.bind: {problem}")),
                }
            }
            self.snapshot.listeners.push(Listener {
                name: Arc::from(name),
                addresses: resolved,
                pool: pool.unwrap_or(PoolId(0)),
                backlog: section.backlog.unwrap_or(4096),
            });
        }
        if places.len() > ADDRESSES_MAX {
            self.problem(format!("listeners: more than {ADDRESSES_MAX} addresses"));
        }
    }
}

/// Who has this address already; a port that the kernel chooses is nobody's.
fn clash(
    places: &mut HashMap<ListenAddress, String>,
    place: &ListenAddress,
    name: &str,
) -> Option<String> {
    let chosen = match place {
        ListenAddress::Tcp(Bind::Address(address)) => address.port() == 0,
        ListenAddress::Tcp(Bind::Any(port)) => *port == 0,
        ListenAddress::Unix(_) => false,
    };
    if chosen {
        None
    } else {
        places.insert(place.clone(), name.to_owned())
    }
}

/// A number in a range, or the one word that stands for none.
fn number_or(word: &str, value: &Scalar, least: u64, most: u64) -> Result<Option<u64>, String> {
    match value {
        Scalar::Number(number) if (least..=most).contains(number) => Ok(Some(*number)),
        Scalar::Word(text) if text == word => Ok(None),
        Scalar::Number(number) => Err(format!("`{number}` is not between {least} and {most}")),
        Scalar::Word(text) => Err(format!("`{text}` is neither a number nor `{word}`")),
    }
}

fn listen_address(text: &str) -> Result<ListenAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(ListenAddress::Unix(unix_path(path)?));
    }
    if let Some(port) = text.strip_prefix("*:") {
        let port = port
            .parse()
            .map_err(|_| format!("`{text}`: `{port}` is not a port"))?;
        return Ok(ListenAddress::Tcp(Bind::Any(port)));
    }
    let address = SocketAddr::from_str(text).map_err(|_| {
        format!("`{text}` is not an address: write 10.0.0.1:5432, \"[2001:db8::1]:5432\", \"*:5432\" or unix:/path")
    })?;
    Ok(ListenAddress::Tcp(Bind::Address(address)))
}

fn backend_address(text: &str) -> Result<BackendAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(BackendAddress::Unix(unix_path(path)?));
    }
    let address = SocketAddr::from_str(text).map_err(|_| {
        format!(
            "`{text}` is not an address: write 10.0.0.1:5432, \"[2001:db8::1]:5432\" or unix:/path"
        )
    })?;
    if address.port() == 0 {
        return Err(format!("`{text}`: port 0 is not a port"));
    }
    Ok(BackendAddress::Tcp(address))
}

fn unix_path(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() || path.len() > UNIX_PATH_MAX {
        return Err(format!(
            "`{path}`: the path of a unix socket has 1 to {UNIX_PATH_MAX} bytes"
        ));
    }
    Ok(PathBuf::from(path))
}
