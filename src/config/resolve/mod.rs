//! From what is written to what is meant: names become ids, ranges become addresses, and what does not fit together is
//! found: within a pool ([`sense`]), and between listeners, pools and backends ([`listeners`]). Every problem is
//! collected.

mod listeners;
mod sense;
mod vrrp;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::address::BackendAt;
use super::datagrams::{self, Datagrams};
use super::document::{self, Document, HttpMethod, HttpProbe, ProbeType};
use super::kind::{Field, Kind, Number, Or};
use super::report::{Problem, Problems};
use super::units::{AccessTo, FilePath, Period, unusable_name};
use super::yaml::{Key, Place};
use super::{Access, Admin, Config, Http, Log, Socket, StateFile};
use crate::control::snapshot::{
    Backend, BackendAddress, Check, Global, HttpCheck, Pool, Probe, Protocol, Snapshot, Standing,
};
use crate::health::PassiveRule;
use crate::ids::{BackendId, PoolId};
use crate::session::Rules;
use crate::sys::socket::Keepalive;
use listeners::Taken;

/// Below this, splicing is not worth having.
const PIPE_MEMORY_MIN: u64 = 1 << 20;
/// Most pools, and most backends of all of them.
const POOLS_MAX: usize = 65_535;
const BACKENDS_MAX: usize = 1 << 20;
/// From one probe to the next while the state is changing, if nothing else is written.
const FAST_INTERVAL: Duration = Duration::from_millis(500);
/// How long a probe waits for its answer, if nothing else is written.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The configuration that a document means, as far as nothing is wrong with it.
pub(super) fn resolve(mut document: Document, problems: &mut Problems) -> Option<Config> {
    let used = datagrams::used(&document);
    datagrams::forget_inherited(&mut document, &used, problems);
    let mut resolver = Resolver {
        problems,
        snapshot: Snapshot::default(),
        taken: <[Taken; 2]>::default(),
        addresses: 0,
        used,
    };
    let global = resolver.global(&document.global);
    resolver.pools(&document.pools.0);
    if document.pools.0.is_empty() {
        let problem = error(document.pools.place, "pools", "there is no pool");
        let problem = problem.help("write at least one, as in `pg: [10.0.0.11:5432]`");
        resolver.problems.push(problem);
        return None;
    }
    resolver.listeners(&document.listeners, &document.pools.0);
    resolver.snapshot.put_in_order();
    resolver.admin_socket(&document.admin);
    resolver.admin_http(&document.admin);
    resolver.admin_ports(&document.admin);
    resolver.circles(&document.pools.0);
    let datagrams = Datagrams {
        document: &document,
        used: &resolver.used,
        problems: resolver.problems,
    };
    datagrams.resolve(&mut resolver.snapshot);
    resolver.vrrp(&document.vrrp, &document.pools.0);
    // What is wrong elsewhere might be a pool's name.
    if !resolver.problems.has_errors() {
        resolver.unused(&document.pools.0);
    }
    let snapshot = resolver.snapshot;
    if problems.has_errors() {
        return None;
    }
    Some(Config {
        global,
        user: (document.global.user.0.as_ref()).map(|user| user.0.clone()),
        snapshot,
        log: Log {
            level: *document.log.level,
            format: *document.log.format,
            access: (document.log.access.0.as_ref()).map(access),
        },
        admin: admin(&document.admin),
        hash: 0,
        document,
    })
}

fn access(written: &AccessTo) -> Access {
    match written {
        AccessTo::Stdout => Access::Stdout,
        AccessTo::File(path) => Access::File(path.0.clone()),
    }
}

fn admin(section: &document::Admin) -> Admin {
    let path = |path: &FilePath| path.0.clone();
    let http = |http: &document::AdminHttp| Http {
        address: http.address.0,
        token_file: http.token_file.0.as_ref().map(path),
        tls: (http.tls.0.as_ref()).map(|tls| (path(&tls.cert), path(&tls.key))),
    };
    Admin {
        socket: section.socket.0.as_ref().map(|socket| Socket {
            path: socket.path.0.clone(),
            owner: socket.owner.0.as_ref().map(|name| name.0.clone()),
            group: socket.group.0.as_ref().map(|name| name.0.clone()),
        }),
        http: section.http.0.as_ref().map(http),
        metrics: section.metrics.0.map(|address| address.0),
        state_file: match section.state_file.0.as_ref().map(|file| &file.0) {
            None => StateFile::Auto,
            Some(None) => StateFile::Off,
            Some(Some(file)) => StateFile::At(path(file)),
        },
    }
}

struct Resolver<'a> {
    problems: &'a mut Problems,
    snapshot: Snapshot,
    /// By protocol.
    taken: [Taken; 2],
    /// How many addresses the listeners have so far.
    addresses: usize,
    /// Which pools a listener of each protocol leads to.
    used: Vec<[bool; 2]>,
}

fn error(place: Option<Place>, key: &str, message: impl Into<String>) -> Problem {
    let mut problem = Problem::of(place, message);
    problem.key = key.to_owned();
    problem
}

fn period<W>(field: &Field<Or<W, Period>>) -> Option<Duration> {
    field.0.map(|period| period.0)
}

fn number<W, const LEAST: u64, const MOST: u64>(
    field: &Field<Or<W, Number<LEAST, MOST>>>,
) -> Option<u32> {
    field.0.map(small)
}

fn small<const LEAST: u64, const MOST: u64>(number: Number<LEAST, MOST>) -> u32 {
    u32::try_from(number.0).expect("the kinds of the document allow less")
}

impl Resolver<'_> {
    fn global(&mut self, section: &document::Global) -> Global {
        if section.pipe_memory.0 < PIPE_MEMORY_MIN {
            self.problems.push(error(
                section.pipe_memory.place,
                "global.pipe_memory",
                "less than 1MiB is not enough for a pipe",
            ));
        }
        Global {
            workers: number(&section.workers)
                .map(|workers| u16::try_from(workers).expect("at most 256")),
            pin_workers: *section.pin_workers,
            max_sessions: number(&section.max_sessions),
            max_flows: number(&section.max_flows),
            pipe_memory: section.pipe_memory.0,
            drain_timeout: period(&section.drain_timeout),
        }
    }

    fn pools(&mut self, pools: &[(Key, Option<document::Pool>)]) {
        for (key, section) in pools {
            if let Some(why) = unusable_name(&key.name)
                .or_else(|| key.name.contains('/').then(|| "it contains /".to_owned()))
            {
                self.problems.push(error(
                    Some(key.place),
                    "pools",
                    format!(
                        "`{}` is no name for a pool: {why}",
                        super::yaml::shortened(&key.name)
                    ),
                ));
            }
            if self.snapshot.pools.len() >= POOLS_MAX {
                self.problems.push(error(
                    Some(key.place),
                    "pools",
                    format!("more than {POOLS_MAX} pools"),
                ));
                return;
            }
            // After an error in one, ids mean nothing any more, and nobody will use them.
            if let Some(section) = section {
                self.pool(key, section);
            }
        }
    }

    fn pool(&mut self, key: &Key, section: &document::Pool) {
        let id = PoolId(u16::try_from(self.snapshot.pools.len()).expect("bounded by POOLS_MAX"));
        let backends = self.backends(key, id, section);
        self.sense(key, section);
        let sources = section
            .source
            .0
            .as_ref()
            .map_or(&[][..], |sources| &sources.0);
        let probe = probe(&section.probe);
        for backend in &backends {
            self.snapshot.backends[backend.index()].is_probed = probe.check.is_some();
        }
        let plan = self
            .snapshot
            .plan(*section.balance, *section.hash_key, &backends);
        self.snapshot.pools.push(Pool {
            standing: Standing::Configured,
            has_moved: false,
            name: Arc::from(key.name.as_str()),
            backends,
            rules: Rules {
                retries: u8::try_from(section.retries.0).expect("at most RETRIES_MAX"),
                connect_timeout: section.timeouts.connect.0,
                idle_timeout: period(&section.timeouts.idle),
                half_close_timeout: period(&section.timeouts.half_close),
                session_timeout: period(&section.timeouts.session),
            },
            flows: datagrams::rules(&section.udp),
            keepalive: Keepalive {
                idle: section.keepalive.idle.0,
                interval: section.keepalive.interval.0,
                count: small(*section.keepalive.count),
                user_timeout: section.keepalive.user_timeout.0.map(|timeout| timeout.0),
            },
            plan,
            balance: *section.balance,
            hash_key: *section.hash_key,
            probe,
            on_down: *section.on_down,
            on_up: *section.on_up,
            slow_start: period(&section.slow_start),
            drain_timeout: period(&section.drain_timeout),
            sources: sources.iter().map(|source| source.0).collect(),
            passive: PassiveRule {
                failures: number(&section.passive.failures),
                retry_after: section.passive.retry_after.0,
            },
        });
    }

    fn backends(&mut self, pool: &Key, id: PoolId, section: &document::Pool) -> Vec<BackendId> {
        let mut names: HashMap<String, Place> = HashMap::new();
        let mut ids = Vec::new();
        for item in &section.backends.0 {
            let place = item.name.place.or(item.address.place).or(item.place);
            let name = name_or(&item.name, || item.address.write());
            if let Some(first) = place.and_then(|place| names.insert(name.clone(), place)) {
                let message =
                    format!("there are two backends `{name}`; names are unique in a pool");
                let problem = error(place, &format!("pools.{}.backends", pool.name), message);
                self.problems
                    .push(
                        problem
                            .and(first, "the first is here")
                            .help(match item.name.place {
                                Some(_) => "give one of them another name",
                                None => "give one of them a `name`",
                            }),
                    );
            }
            if self.snapshot.backends.len() >= BACKENDS_MAX {
                self.problems.push(error(
                    item.place,
                    "pools",
                    format!("more than {BACKENDS_MAX} backends"),
                ));
                return ids;
            }
            let (address, host) = match &item.address.value {
                BackendAt::Address(address) => (Some(BackendAddress::Tcp(*address)), None),
                BackendAt::Unix(path) => (Some(BackendAddress::Unix(path.clone())), None),
                BackendAt::Host(host, port) => (None, Some((Arc::from(host.as_str()), *port))),
            };
            ids.push(BackendId(
                u32::try_from(self.snapshot.backends.len()).expect("bounded by BACKENDS_MAX"),
            ));
            self.snapshot.backends.push(Backend {
                standing: Standing::Configured,
                place: u32::try_from(ids.len() - 1).expect("bounded by BACKENDS_MAX"),
                name: Arc::from(name),
                pool: id,
                address,
                host,
                weight: u16::try_from(item.weight.0).expect("at most 256"),
                backup: *item.backup,
                max_sessions: number(&item.max_sessions),
                state: *item.state,
                is_up: None,
                doubted_since: None,
                is_probed: false,
                is_drained: false,
            });
        }
        ids
    }

    fn unused(&mut self, pools: &[(Key, Option<document::Pool>)]) {
        for ((key, _), used) in pools.iter().zip(&self.used) {
            if *used == [false; 2] {
                let problem = error(
                    Some(key.place),
                    &format!("pools.{}", key.name),
                    format!("no listener leads to pool `{}`", key.name),
                );
                self.problems.push(problem.warning());
            }
        }
    }
}

fn with(problem: Problem, place: Option<Place>, what: &str) -> Problem {
    match place {
        Some(place) => problem.and(place, what),
        None => problem,
    }
}

fn name_or(
    name: &Field<super::kind::Optional<super::units::Name>>,
    address: impl FnOnce() -> serde_json::Value,
) -> String {
    match &name.value.0 {
        Some(name) => name.0.clone(),
        None => text_of(address()),
    }
}

fn text_of(value: serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn word<T: Kind>(value: &T) -> String {
    text_of(value.write())
}

fn show(period: Period) -> String {
    text_of(period.write())
}

/// A list for a message.
fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    let mut list = names
        .iter()
        .take(SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        list.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    list
}

fn probe(section: &document::Probe) -> Probe {
    let check = match section.r#type.0.unwrap_or(ProbeType::Tcp) {
        ProbeType::None => None,
        ProbeType::Tcp => Some(Check::Tcp),
        ProbeType::Http => Some(Check::Http(http(&section.http))),
        ProbeType::Dns => Some(Check::Dns(datagrams::dns(&section.dns))),
        ProbeType::SendExpect => Some(Check::SendExpect {
            protocol: Protocol::Tcp,
            send: section
                .send
                .0
                .as_ref()
                .map_or_else(Vec::new, |send| send.bytes.clone()),
            expect: section.expect.0.as_ref().map(|expect| expect.0.clone()),
        }),
    };
    Probe {
        check,
        port: section
            .port
            .0
            .map(|port| u16::try_from(port.0).expect("at most 65535")),
        source: section.source.0.map(|source| source.0),
        interval: section.interval.0,
        fast_interval: section
            .fast_interval
            .0
            .map_or(section.interval.0.min(FAST_INTERVAL), |fast| fast.0),
        down_interval: section.down_interval.0,
        timeout: section
            .timeout
            .0
            .map_or(section.interval.0.min(TIMEOUT), |timeout| timeout.0),
        rise: small(*section.rise),
        fall: small(*section.fall),
    }
}

fn http(section: &HttpProbe) -> HttpCheck {
    HttpCheck {
        path: section.path.0.clone(),
        method: match *section.method {
            HttpMethod::Get => "GET",
            HttpMethod::Head => "HEAD",
            HttpMethod::Options => "OPTIONS",
        },
        statuses: section.status.0.clone(),
        host: section.host.0.as_ref().map(|host| host.0.clone()),
        body: section.body.0.as_ref().map(|body| body.0.clone()),
    }
}
