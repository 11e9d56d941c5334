//! Which keys of a pool do not fit together, or have no effect beside the others.

use std::net::IpAddr;
use std::time::Duration;

use super::super::address::{BackendAt, Source};
use super::super::document::{self, ProbeType};
use super::super::kind::{Field, Or};
use super::super::units::Period;
use super::super::yaml::{Key, Place};
use super::{Resolver, error, show, small, with, word};
use crate::balance::Algorithm;
use crate::control::snapshot::{OnUp, OperatorState};

/// Probing more often would be an attack.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Where MySQL and MariaDB listen.
const MYSQL: u16 = 3306;

impl Resolver<'_> {
    /// Finds all of it.
    pub(super) fn sense(&mut self, pool: &Key, section: &document::Pool) {
        self.weights(pool, section);
        self.probe(pool, section);
        self.timeouts(pool, section);
        self.sources(pool, section);
        self.without_effect(pool, section);
    }

    /// Warns of a key that is written and does nothing.
    fn dead(&mut self, pool: &Key, key: &str, place: Option<Place>, why: &str) {
        if place.is_none() {
            return;
        }
        let name = key.rsplit('.').next().unwrap_or(key);
        let message = format!("`{name}` has no effect: {why}");
        let problem = error(place, &format!("pools.{}.{key}", pool.name), message);
        self.problems.push_idle(problem);
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
        } else if !backends.0.iter().any(takes_sessions) {
            let message = format!("no backend of pool `{}` takes sessions", pool.name);
            let problem = error(Some(pool.place), &key, message).warning();
            self.problems.push(problem.help(
                "each has a `state` other than ready, or weight 0; `ringway backend` can change that while it runs",
            ));
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
        if let Some(timeout) = probe.timeout.0
            && timeout.0 > probe.interval.0
            && !unreadable
        {
            let message = format!(
                "a probe may take {} (`timeout`) but the next one begins after {} (`interval`)",
                show(timeout),
                show(*probe.interval)
            );
            let problem = error(probe.timeout.place, &key("timeout"), message);
            self.problems
                .push(problem.help("`timeout` is at most `interval`"));
        }
        let (fast, interval, down) = (&probe.fast_interval, &probe.interval, &probe.down_interval);
        for (name, place, period) in [
            ("fast_interval", fast.place, fast.0),
            ("interval", interval.place, Some(**interval)),
            ("down_interval", down.place, Some(**down)),
        ] {
            if period.is_some_and(|period| period.0 < INTERVAL_MIN) {
                self.problems.push(error(
                    place,
                    &key(name),
                    format!("`{name}` is at least 10ms: probing more often would be an attack"),
                ));
            }
        }
        if let Some(fast) = probe.fast_interval.0
            && fast.0 > probe.interval.0
        {
            let message = format!(
                "`fast_interval` ({}) is longer than `interval` ({})",
                show(fast),
                show(*probe.interval)
            );
            let problem = error(probe.fast_interval.place, &key("fast_interval"), message);
            self.problems.push(problem.warning());
        }
    }

    fn probe(&mut self, pool: &Key, section: &document::Pool) {
        let probe = &section.probe;
        let key = |name: &str| format!("pools.{}.probe.{name}", pool.name);
        let kind = probe.r#type.0.unwrap_or(ProbeType::Tcp);
        for (name, place, of) in [
            ("http", probe.http.place, ProbeType::Http),
            ("dns", probe.dns.place, ProbeType::Dns),
            ("send", given(&probe.send), ProbeType::SendExpect),
            ("expect", given(&probe.expect), ProbeType::SendExpect),
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
        let unreadable = self.problems.at(probe.send.place) || self.problems.at(probe.expect.place);
        let says_nothing = probe.send.0.is_none() && probe.expect.0.is_none();
        if kind == ProbeType::SendExpect && says_nothing && !unreadable {
            let message = "`type: send_expect` needs `send`, `expect` or both";
            self.problems
                .push(error(probe.r#type.place, &key("type"), message));
        }
        if kind == ProbeType::None {
            self.not_probed(pool, probe);
        } else {
            self.probe_times(pool, probe);
        }
        self.mysql(pool, section);
    }

    fn not_probed(&mut self, pool: &Key, probe: &document::Probe) {
        for (key, place) in [
            ("probe.port", given(&probe.port)),
            ("probe.source", given(&probe.source)),
            ("probe.interval", probe.interval.place),
            ("probe.fast_interval", given(&probe.fast_interval)),
            ("probe.down_interval", probe.down_interval.place),
            ("probe.timeout", given(&probe.timeout)),
            ("probe.rise", probe.rise.place),
            ("probe.fall", probe.fall.place),
        ] {
            self.dead(pool, key, place, "backends are not probed");
        }
    }

    /// MySQL counts connections that end before its handshake, and blocks hosts with too many of them.
    fn mysql(&mut self, pool: &Key, section: &document::Pool) {
        let probe = &section.probe;
        if probe.r#type.0.is_some_and(|kind| kind != ProbeType::Tcp) {
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
                    show(idle),
                    show(session)
                ),
            );
            self.problems.push(problem.warning());
        }
        let needed = keepalive.idle.0 + keepalive.interval.0 * small(*keepalive.count);
        if let Some(user_timeout) = keepalive
            .user_timeout
            .0
            .filter(|timeout| timeout.0 < needed)
        {
            let message = format!(
                "`user_timeout` ({}) is shorter than keepalive needs ({})",
                show(Period(user_timeout.0)),
                show(Period(needed))
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
        let sources: &[Field<Source>] = match &section.source.0 {
            Some(sources) => &sources.0,
            None => &[],
        };
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
    fn without_effect(&mut self, pool: &Key, section: &document::Pool) {
        let key = |name: &str| format!("pools.{}.{name}", pool.name);
        if section.hash_key.place.is_some() && *section.balance != Algorithm::Hash {
            let message = format!(
                "`hash_key` has no effect with `balance: {}`",
                word(&*section.balance)
            );
            let problem = error(section.hash_key.place, &key("hash_key"), message);
            self.problems
                .push_idle(problem.help("write `balance: hash`, or remove it"));
        }
        if *section.on_up == OnUp::CloseBackup
            && section.backends.0.iter().all(|backend| !*backend.backup)
        {
            let problem = error(
                section.on_up.place,
                &key("on_up"),
                "`on_up: close_backup` has no effect: no backend is a backup",
            );
            self.problems.push_idle(problem);
        }
        if section.passive.failures.0.is_none() {
            let place = section.passive.retry_after.place;
            let why = "`failures` is none";
            self.dead(pool, "passive.retry_after", place, why);
        }
        let is_unix = |backend: &Field<document::Backend>| {
            matches!(backend.address.value, BackendAt::Unix(_))
        };
        if !section.backends.0.is_empty() && section.backends.0.iter().all(is_unix) {
            let probe =
                Some(&section.probe).filter(|probe| probe.r#type.0 != Some(ProbeType::None));
            for (key, place) in [
                ("source", given(&section.source)),
                ("probe.source", probe.and_then(|probe| given(&probe.source))),
                ("probe.port", probe.and_then(|probe| given(&probe.port))),
            ] {
                self.dead(pool, key, place, "all backends are unix sockets");
            }
        }
    }
}

/// Where a value is written, other than the word that stands for none.
fn given<W, T>(field: &Field<Or<W, T>>) -> Option<Place> {
    field.place.filter(|_| field.0.is_some())
}

/// Whether it gets new sessions, as far as the file says.
fn takes_sessions(backend: &Field<document::Backend>) -> bool {
    backend.weight.0 > 0 && *backend.state == OperatorState::Ready
}
