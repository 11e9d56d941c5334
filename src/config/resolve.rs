//! From what is written to what is meant: names become ids, ranges become addresses, and what does not fit
//! together is
//! found. Every problem is collected.

mod vrrp;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::address::{BackendAt, ListenOn, Ports};
use super::document::{self, Document, HttpMethod, HttpProbe, ProbeType};
use super::kind::{Field, Kind, List, Number, OneOrMore, Or};
use super::report::{Problem, Problems};
use super::units::{Period, unusable_name};
use super::vocabulary::meant;
use super::yaml::{Key, Place};
use super::{Admin, Config, Log};
use crate::balance::Algorithm;
use crate::control::snapshot::{
    Backend, BackendAddress, Check, Freebind, Global, HttpCheck, ListenAddress, Listener, OnUp,
    Pool, Probe, Snapshot,
};
use crate::health::PassiveRule;
use crate::ids::{BackendId, PoolId};
use crate::session::Rules;
use crate::sys::socket::{Bind, Keepalive};

/// Below this, splicing is not worth having.
const PIPE_MEMORY_MIN: u64 = 1 << 20;
/// Most addresses that all listeners together may have.
const ADDRESSES_MAX: usize = 16_384;
/// Most pools, and most backends of all of them.
const POOLS_MAX: usize = 65_535;
const BACKENDS_MAX: usize = 1 << 20;
/// Where MySQL and MariaDB listen.
const MYSQL: u16 = 3306;

/// The configuration that a document means, as far as nothing is wrong with it.
pub(super) fn resolve(document: Document, problems: &mut Problems) -> Option<Config> {
    let mut resolver = Resolver {
        problems,
        snapshot: Snapshot::default(),
        taken: Taken::default(),
        addresses: 0,
        used: Vec::new(),
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
    resolver.own_listeners(&document.pools.0);
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
        snapshot,
        log: Log {
            level: *document.log.level,
            format: *document.log.format,
        },
        admin: Admin {
            socket: document.admin.socket.0.as_ref().map(|path| path.0.clone()),
        },
        document,
    })
}

struct Resolver<'a> {
    problems: &'a mut Problems,
    snapshot: Snapshot,
    taken: Taken,
    /// How many addresses the listeners have so far.
    addresses: usize,
    /// Which pools a listener leads to.
    used: Vec<bool>,
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
                .map(|workers| u16::try_from(workers).expect("at most 1024")),
            pin_workers: *section.pin_workers,
            max_sessions: number(&section.max_sessions),
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
        self.weights(key, section);
        self.probe(key, section);
        self.timeouts(key, section);
        self.sources(key, section);
        self.no_sense(key, section);
        let sources = section
            .source
            .0
            .as_ref()
            .map_or(&[][..], |sources| &sources.0);
        let user_timeout = period(&section.keepalive.user_timeout);
        let probe = probe(&section.probe);
        for backend in &backends {
            self.snapshot.backends[backend.index()].is_probed = probe.check.is_some();
        }
        let plan = self
            .snapshot
            .plan(*section.balance, *section.hash_key, &backends);
        self.snapshot.pools.push(Pool {
            name: Arc::from(key.name.as_str()),
            backends,
            rules: Rules {
                retries: u8::try_from(section.retries.0).expect("at most RETRIES_MAX"),
                connect_timeout: section.timeouts.connect.0,
                idle_timeout: period(&section.timeouts.idle),
                half_close_timeout: period(&section.timeouts.half_close),
                session_timeout: period(&section.timeouts.session),
            },
            keepalive: Keepalive {
                idle: section.keepalive.idle.0,
                interval: section.keepalive.interval.0,
                count: small(*section.keepalive.count),
                user_timeout,
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
                self.problems.push(
                    problem
                        .and(first, "the first is here")
                        .help("give one of them a `name`"),
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

    fn weights(&mut self, pool: &Key, section: &document::Pool) {
        let backends = &section.backends;
        let key = format!("pools.{}.backends", pool.name);
        if backends.0.is_empty() {
            return;
        }
        if backends.0.iter().all(|backend| backend.weight.0 == 0) {
            let message = format!(
                "all backends of pool `{}` have weight 0: it could never take a session",
                pool.name
            );
            self.problems.push(
                error(Some(pool.place), &key, message)
                    .help("give at least one a weight from 1 to 256"),
            );
        }
        if backends.0.iter().all(|backend| *backend.backup) {
            let problem = error(
                Some(pool.place),
                &key,
                format!("all backends of pool `{}` are backups", pool.name),
            );
            self.problems.push(problem.warning().help(
                "they are used as if none was; remove `backup` from those that are to be preferred",
            ));
        }
    }

    fn probe_times(&mut self, pool: &Key, probe: &document::Probe) {
        let key = |name: &str| format!("pools.{}.probe.{name}", pool.name);
        let unreadable =
            self.problems.at(probe.timeout.place) || self.problems.at(probe.interval.place);
        if probe.timeout.0 > probe.interval.0 && !unreadable {
            let place = probe.timeout.place.or(probe.interval.place);
            let name = match probe.timeout.place {
                Some(_) => "timeout",
                None => "interval",
            };
            let message = format!(
                "a probe may take {} (`timeout`) but the next one begins after {} (`interval`)",
                show(&probe.timeout),
                show(&probe.interval)
            );
            self.problems
                .push(error(place, &key(name), message).help("`timeout` is at most `interval`"));
        }
        for (name, field) in [
            ("fast_interval", &probe.fast_interval),
            ("interval", &probe.interval),
            ("down_interval", &probe.down_interval),
        ] {
            if field.0 < Duration::from_millis(10) {
                self.problems.push(error(
                    field.place,
                    &key(name),
                    format!("`{name}` is at least 10ms: probing more often would be an attack"),
                ));
            }
        }
        if probe.fast_interval.0 > probe.interval.0 && probe.fast_interval.place.is_some() {
            let problem = error(
                probe.fast_interval.place,
                &key("fast_interval"),
                format!(
                    "`fast_interval` ({}) is longer than `interval` ({})",
                    show(&probe.fast_interval),
                    show(&probe.interval)
                ),
            );
            self.problems.push(problem.warning());
        }
    }

    fn probe(&mut self, pool: &Key, section: &document::Pool) {
        let probe = &section.probe;
        let key = |name: &str| format!("pools.{}.probe.{name}", pool.name);
        let kind = *probe.r#type;
        self.probe_times(pool, probe);
        let written = |is_none: bool, place: Option<Place>| place.filter(|_| !is_none);
        for (name, place, of) in [
            ("http", probe.http.place, ProbeType::Http),
            (
                "send",
                written(probe.send.0.is_none(), probe.send.place),
                ProbeType::SendExpect,
            ),
            (
                "expect",
                written(probe.expect.0.is_none(), probe.expect.place),
                ProbeType::SendExpect,
            ),
        ] {
            if place.is_some() && kind != of {
                let (of, kind) = (word(&of), word(&kind));
                let message = format!("`{name}` belongs to `type: {of}`, but the type is {kind}");
                self.problems.push(
                    error(place, &key(name), message)
                        .help(format!("write `type: {of}`, or remove `{name}`")),
                );
            }
        }
        if kind == ProbeType::SendExpect && probe.send.0.is_none() && probe.expect.0.is_none() {
            let message = "`type: send_expect` needs `send`, `expect` or both";
            self.problems
                .push(error(probe.r#type.place, &key("type"), message));
        }
        if kind == ProbeType::None {
            for (name, place) in [
                ("interval", probe.interval.place),
                ("timeout", probe.timeout.place),
                ("port", probe.port.place),
                ("rise", probe.rise.place),
                ("fall", probe.fall.place),
            ] {
                if place.is_some() {
                    self.problems.push(
                        error(
                            place,
                            &key(name),
                            format!("`{name}` has no effect: backends are not probed"),
                        )
                        .warning(),
                    );
                }
            }
        }
        if kind == ProbeType::Http && !probe.http.path.0.starts_with('/') {
            self.problems.push(error(
                probe.http.path.place,
                &key("http.path"),
                "the path begins with /",
            ));
        }
        self.mysql(pool, section);
    }

    /// MySQL counts connections that end before its handshake, and blocks hosts with too many of them.
    fn mysql(&mut self, pool: &Key, section: &document::Pool) {
        let probe = &section.probe;
        if *probe.r#type != ProbeType::Tcp {
            return;
        }
        let own_port = probe.port.0.map(|port| port.0 == u64::from(MYSQL));
        let first = section.backends.0.iter().find(|backend| {
            own_port.unwrap_or(match &backend.address.value {
                BackendAt::Address(address) => address.port() == MYSQL,
                BackendAt::Host(_, port) => *port == MYSQL,
                BackendAt::Unix(_) => false,
            })
        });
        if let Some(backend) = first {
            let place = probe
                .r#type
                .place
                .or(backend.address.place)
                .or(backend.place);
            let problem = error(
                place,
                &format!("pools.{}.probe.type", pool.name),
                "`tcp` probes of MySQL or MariaDB (port 3306) count there as aborted handshakes",
            );
            self.problems.push(problem.warning().help(
                "after max_connect_errors of them the database blocks this host: use `type: http` with the `port` of a \
                 health checker, or set host_cache_size = 0 in the database",
            ));
        }
    }

    fn timeouts(&mut self, pool: &Key, section: &document::Pool) {
        let (timeouts, keepalive) = (&section.timeouts, &section.keepalive);
        if let (Some(idle), Some(session)) = (timeouts.idle.0, timeouts.session.0)
            && idle.0 >= session.0
        {
            let problem = error(
                timeouts.idle.place,
                &format!("pools.{}.timeouts.idle", pool.name),
                format!(
                    "`idle` ({}) is never reached: `session` ({}) is not longer",
                    show_period(idle),
                    show_period(session)
                ),
            );
            self.problems.push(problem.warning());
        }
        let needed = keepalive.idle.0 + keepalive.interval.0 * small(*keepalive.count);
        let most = Duration::from_secs(32_767);
        for (name, field) in [("idle", &keepalive.idle), ("interval", &keepalive.interval)] {
            if field.0 < Duration::from_secs(1) || field.0 > most {
                let message = format!(
                    "{} is not between 1s and 32767s: the kernel counts whole seconds",
                    show(field)
                );
                self.problems.push(error(
                    field.place,
                    &format!("pools.{}.keepalive.{name}", pool.name),
                    message,
                ));
            }
        }
        if let Some(user_timeout) = keepalive
            .user_timeout
            .0
            .filter(|timeout| timeout.0 < needed)
        {
            let message = format!(
                "`user_timeout` ({}) is shorter than keepalive needs ({})",
                show_period(user_timeout),
                show_period(Period(needed))
            );
            let problem = error(
                keepalive.user_timeout.place,
                &format!("pools.{}.keepalive.user_timeout", pool.name),
                message,
            );
            self.problems.push(problem.warning().help(
                "a silent peer that vanished counts as gone before `count` questions were asked",
            ));
        }
    }

    /// Every backend needs a source of its own family, if there are sources at all.
    fn sources(&mut self, pool: &Key, section: &document::Pool) {
        let empty: &[Field<super::address::Source>] = &[];
        let sources = section
            .source
            .0
            .as_ref()
            .map_or(empty, |sources: &OneOrMore<_>| &sources.0);
        let probe_source = section.probe.source.0.map(|source| source.0);
        for backend in &section.backends.0 {
            let BackendAt::Address(address) = &backend.address.value else {
                continue;
            };
            let fits = |source: &IpAddr| source.is_ipv4() == address.is_ipv4();
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let at = backend.address.place.or(backend.place);
            if !sources.is_empty() && !sources.iter().any(|source| fits(&source.0)) {
                let problem = error(
                    section.source.place,
                    &format!("pools.{}.source", pool.name),
                    format!(
                        "no {family} address among the sources, but there are {family} backends"
                    ),
                );
                self.problems.push(with(problem, at, "such as this one"));
                return;
            }
            if probe_source.is_some_and(|source| !fits(&source)) {
                let problem = error(
                    section.probe.source.place,
                    &format!("pools.{}.probe.source", pool.name),
                    format!("not an {family} address, but there are {family} backends"),
                );
                self.problems.push(with(problem, at, "such as this one"));
                return;
            }
        }
    }

    /// Keys that have no effect beside the others.
    fn no_sense(&mut self, pool: &Key, section: &document::Pool) {
        let key = |name: &str| format!("pools.{}.{name}", pool.name);
        if section.hash_key.place.is_some() && *section.balance != Algorithm::Hash {
            let message = format!(
                "`hash_key` has no effect with `balance: {}`",
                word(&*section.balance)
            );
            self.problems.push(
                error(section.hash_key.place, &key("hash_key"), message)
                    .warning()
                    .help("write `balance: hash`, or remove it"),
            );
        }
        if *section.on_up == OnUp::CloseBackup
            && section.backends.0.iter().all(|backend| !*backend.backup)
        {
            let problem = error(
                section.on_up.place,
                &key("on_up"),
                "`on_up: close_backup` has no effect: no backend is a backup",
            );
            self.problems.push(problem.warning());
        }
        if section.passive.failures.0.is_none() && section.passive.retry_after.place.is_some() {
            let problem = error(
                section.passive.retry_after.place,
                &key("passive.retry_after"),
                "`retry_after` has no effect with `failures: none`",
            );
            self.problems.push(problem.warning());
        }
    }

    fn listeners(
        &mut self,
        listeners: &List<document::Listener>,
        pools: &[(Key, Option<document::Pool>)],
    ) {
        self.used = vec![false; pools.len()];
        let mut names: HashMap<String, Place> = HashMap::new();
        for item in &listeners.0 {
            let binds = &item.bind.0;
            if binds.is_empty() {
                continue;
            }
            let name = name_or(&item.name, || {
                let addresses: Vec<_> = binds
                    .iter()
                    .map(|bind| text_of(bind.address.write()))
                    .collect();
                addresses.join(",").into()
            });
            let place = item.name.place.or(item.bind.place);
            let pools = self.pools_of(item, pools);
            let before = self.problems.len();
            let addresses = self.addresses(binds, &name);
            let first = place.and_then(|place| names.insert(name.clone(), place));
            // Two without a name have the same address, which has been said then.
            if let Some(first) = first.filter(|_| self.problems.len() == before) {
                let problem = error(
                    place,
                    "listeners",
                    format!("there are two listeners `{name}`"),
                );
                self.problems.push(
                    problem
                        .and(first, "the first is here")
                        .help("give each a `name` of its own"),
                );
            }
            self.snapshot.listeners.push(Listener {
                name: Arc::from(name),
                addresses,
                pools,
                when_empty: *item.when_empty,
                max_sessions: number(&item.max_sessions),
                backlog: small(*item.backlog),
            });
        }
    }

    /// The pools that a listener leads to, with their weights.
    fn pools_of(
        &mut self,
        item: &Field<document::Listener>,
        pools: &[(Key, Option<document::Pool>)],
    ) -> Vec<(PoolId, u32)> {
        let shares: Vec<(&str, Option<Place>, u32)> = match (&item.pool.0, &item.split.0) {
            (Some(pool), None) => vec![(pool.0.as_str(), item.pool.place, 1)],
            (None, Some(split)) => split
                .0
                .iter()
                .map(|share| {
                    (
                        share.pool.0.as_str(),
                        share.pool.place,
                        small(*share.weight),
                    )
                })
                .collect(),
            (Some(_), Some(_)) => {
                let problem = error(
                    item.split.place,
                    "listeners.split",
                    "a listener has either `pool` or `split`, not both",
                );
                self.problems.push(problem);
                return Vec::new();
            }
            // It is there, or something that was meant for it, and what is wrong with it has been said.
            (None, None) if item.pool.place.is_some() || item.split.place.is_some() => {
                return Vec::new();
            }
            (None, None) => {
                let names: Vec<&str> = pools.iter().map(|(key, _)| key.name.as_str()).collect();
                let problem = error(
                    item.bind.place.or(item.place),
                    "listeners.pool",
                    "the key `pool` is missing: where do its sessions go?",
                );
                self.problems
                    .push(problem.help(format!("pools: {}", some_of(&names))));
                return Vec::new();
            }
        };
        if !shares.is_empty() && shares.iter().all(|(_, _, weight)| *weight == 0) {
            self.problems.push(error(
                item.split.place,
                "listeners.split",
                "all weights are 0: no session could go anywhere",
            ));
        }
        let key = match item.split.0 {
            Some(_) => "listeners.split",
            None => "listeners.pool",
        };
        let mut found: Vec<(PoolId, u32)> = Vec::new();
        for (name, place, weight) in shares {
            let Some(index) = pools.iter().position(|(key, _)| key.name == name) else {
                let names: Vec<&str> = pools.iter().map(|(key, _)| key.name.as_str()).collect();
                let problem = error(
                    place,
                    key,
                    format!("there is no pool `{}`", super::yaml::shortened(name)),
                );
                let problem = problem.help(format!("pools: {}", some_of(&names)));
                self.problems.push(meant(problem, name, &names));
                continue;
            };
            let id = PoolId(u16::try_from(index).expect("bounded by POOLS_MAX"));
            if found.iter().any(|(other, _)| *other == id) {
                self.problems.push(
                    error(
                        place,
                        "listeners.split",
                        format!("pool `{name}` is in this split already"),
                    )
                    .help("write it once, with the sum of the weights"),
                );
            }
            self.used[index] = true;
            found.push((id, weight));
        }
        found
    }

    fn addresses(&mut self, binds: &[Field<document::Bind>], name: &str) -> Vec<ListenAddress> {
        let mut addresses = Vec::new();
        for bind in binds {
            let place = bind.address.place.or(bind.place);
            let (ports, host) = match &bind.address.value {
                ListenOn::Unix(path) => {
                    if bind.freebind.place.is_some() {
                        self.problems.push(
                            error(
                                bind.freebind.place,
                                "listeners.bind.freebind",
                                "`freebind` has no effect on a unix socket",
                            )
                            .warning(),
                        );
                    }
                    self.claim_path(path, place, name);
                    addresses.push(ListenAddress::Unix(path.clone()));
                    continue;
                }
                ListenOn::Address(address, ports) => (*ports, Some(*address)),
                ListenOn::Any(ports) => (*ports, None),
            };
            if *bind.freebind == document::Freebind::On && host.is_none() {
                self.problems.push(
                    error(
                        bind.freebind.place,
                        "listeners.bind.freebind",
                        "`freebind` has no effect on every address",
                    )
                    .warning(),
                );
            }
            let freebind = match *bind.freebind {
                document::Freebind::Auto => Freebind::Auto,
                document::Freebind::On => Freebind::On,
                document::Freebind::Off => Freebind::Off,
            };
            self.addresses += usize::from(ports.last - ports.first) + 1;
            if self.addresses > ADDRESSES_MAX {
                let message = format!("more than {ADDRESSES_MAX} listening addresses");
                self.problems
                    .push(error(place, "listeners.bind", message).help(
                        "each port of a range counts; this is the most of all listeners together",
                    ));
                return addresses;
            }
            addresses.extend((ports.first..=ports.last).map(|port| {
                let bind = match host {
                    Some(address) => Bind::Address(SocketAddr::new(address, port)),
                    None => Bind::Any(port),
                };
                ListenAddress::Tcp(bind, freebind)
            }));
            self.claim(host, ports, place, name);
        }
        addresses
    }

    fn claim(&mut self, host: Option<IpAddr>, ports: Ports, place: Option<Place>, name: &str) {
        if let Some((port, other)) =
            self.taken
                .add(host, ports, place, self.snapshot.listeners.len(), name)
        {
            let (whose, at) = (other.name.clone(), other.place);
            let whose = if other.listener == self.snapshot.listeners.len() {
                "this listener".to_owned()
            } else {
                format!("listener `{whose}`")
            };
            let what = if other.host == host {
                "this address"
            } else {
                "an address that overlaps with this one"
            };
            let problem = error(
                place,
                "listeners.bind",
                format!("{whose} has {what} already (port {port})"),
            );
            self.problems.push(with(problem, at, "it is here"));
        }
    }

    fn claim_path(&mut self, path: &Path, place: Option<Place>, name: &str) {
        if let Some((other, at)) = self
            .taken
            .paths
            .insert(path.to_path_buf(), (name.to_owned(), place))
        {
            let problem = error(
                place,
                "listeners.bind",
                format!("listener `{other}` has this path already"),
            );
            self.problems.push(with(problem, at, "it is here"));
        }
    }

    /// A backend that is a listener of this very file makes connections go round in circles.
    fn own_listeners(&mut self, pools: &[(Key, Option<document::Pool>)]) {
        let read = pools
            .iter()
            .filter_map(|(pool, section)| section.as_ref().map(|section| (pool, section)));
        for (pool, section) in read {
            for backend in &section.backends.0 {
                let BackendAt::Address(address) = &backend.address.value else {
                    continue;
                };
                if let Some(listener) = self.taken.listening_at(*address) {
                    let message = format!(
                        "this is listener `{listener}` itself: connections would go round in circles"
                    );
                    let place = backend.address.place.or(backend.place);
                    self.problems.push(error(
                        place,
                        &format!("pools.{}.backends", pool.name),
                        message,
                    ));
                }
            }
        }
    }

    fn unused(&mut self, pools: &[(Key, Option<document::Pool>)]) {
        for ((key, _), used) in pools.iter().zip(&self.used) {
            if !used {
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

/// The ports that listeners have.
#[derive(Default)]
struct Taken {
    by_port: HashMap<u16, Vec<Claim>>,
    paths: HashMap<PathBuf, (String, Option<Place>)>,
}

#[derive(Clone)]
struct Claim {
    host: Option<IpAddr>,
    place: Option<Place>,
    /// Which one it is, and what it is called.
    listener: usize,
    name: String,
}

impl Taken {
    /// Takes the ports; the first that somebody else has, and who.
    fn add(
        &mut self,
        host: Option<IpAddr>,
        ports: Ports,
        place: Option<Place>,
        listener: usize,
        name: &str,
    ) -> Option<(u16, Claim)> {
        let mut clash = None;
        // A port that the kernel chooses is nobody's.
        for port in (ports.first..=ports.last).filter(|port| *port != 0) {
            let claims = self.by_port.entry(port).or_default();
            let other = claims.iter().find(|other| overlap(other.host, host));
            clash = clash.or_else(|| other.map(|other| (port, other.clone())));
            claims.push(Claim {
                host,
                place,
                listener,
                name: name.to_owned(),
            });
        }
        clash
    }

    fn listening_at(&self, address: SocketAddr) -> Option<&str> {
        let claims = self.by_port.get(&address.port())?;
        let local = address.ip().is_loopback();
        let same = |claim: &&Claim| match claim.host {
            Some(host) => {
                host == address.ip()
                    || (host.is_unspecified() && local && host.is_ipv4() == address.is_ipv4())
            }
            None => local,
        };
        claims.iter().find(same).map(|claim| claim.name.as_str())
    }
}

/// Whether two hosts share an address; none is every one.
fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let (Some(one), Some(other)) = (one, other) else {
        return true;
    };
    let all_of_family = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    one == other
        || (one.is_ipv4() == other.is_ipv4()
            && (all_of_family.contains(&one) || all_of_family.contains(&other)))
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

fn show(field: &Field<Period>) -> String {
    show_period(field.value)
}

fn show_period(period: Period) -> String {
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
    let check = match *section.r#type {
        ProbeType::None => None,
        ProbeType::Tcp => Some(Check::Tcp),
        ProbeType::Http => Some(Check::Http(http(&section.http))),
        ProbeType::SendExpect => Some(Check::SendExpect {
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
        fast_interval: section.fast_interval.0,
        down_interval: section.down_interval.0,
        timeout: section.timeout.0,
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
