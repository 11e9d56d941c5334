//! Listeners: the addresses that they have, which nobody else may have, and the pools that they lead to.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::super::address::{BackendAt, ListenOn, Ports};
use super::super::document;
use super::super::kind::{Field, Kind, List};
use super::super::report::Problem;
use super::super::vocabulary::meant;
use super::super::yaml::{Key, Place, shortened};
use super::{Resolver, error, name_or, number, small, some_of, text_of, with};
use crate::balance::Algorithm;
use crate::control::snapshot::{Freebind, ListenAddress, Listener, Protocol, Standing};
use crate::ids::PoolId;
use crate::sys::socket::Bind;

/// Most addresses that all listeners together may have.
const ADDRESSES_MAX: usize = 16_384;
/// So many names are compared with misspelt ones at most: a bound for time.
const GUESSES_MAX: usize = 100_000;

/// The pools, as listeners name them.
struct Targets<'p> {
    pools: &'p [(Key, Option<document::Pool>)],
    names: Vec<&'p str>,
    ids: HashMap<&'p str, PoolId>,
    guesses_left: usize,
}

impl<'p> Targets<'p> {
    fn new(pools: &'p [(Key, Option<document::Pool>)]) -> Targets<'p> {
        let names: Vec<&str> = pools.iter().map(|(key, _)| key.name.as_str()).collect();
        // What is beyond the last id has been reported.
        let ids = names.iter().copied().zip((0..=u16::MAX).map(PoolId));
        Targets {
            pools,
            ids: ids.collect(),
            names,
            guesses_left: GUESSES_MAX,
        }
    }

    /// With the name that was most likely meant, if that is not too much work.
    fn meant(&mut self, problem: Problem, name: &str) -> Problem {
        match self.guesses_left.checked_sub(self.names.len()) {
            Some(left) => {
                self.guesses_left = left;
                meant(problem, name, &self.names)
            }
            None => problem,
        }
    }

    /// The first of these pools that hashes clients.
    fn hashing(&self, pools: &[(PoolId, u32)]) -> Option<&'p str> {
        let hashes = |section: &document::Pool| *section.balance == Algorithm::Hash;
        let sections = pools.iter().map(|(id, _)| &self.pools[id.index()]);
        let mut hashing = sections.filter(|(_, section)| section.as_ref().is_some_and(hashes));
        hashing.next().map(|(key, _)| key.name.as_str())
    }
}

impl Resolver<'_> {
    pub(super) fn listeners(
        &mut self,
        listeners: &List<document::Listener>,
        pools: &[(Key, Option<document::Pool>)],
    ) {
        let mut targets = Targets::new(pools);
        let mut names: HashMap<Arc<str>, Place> = HashMap::new();
        for item in &listeners.0 {
            let binds = &item.bind.0;
            if binds.is_empty() {
                continue;
            }
            let name: Arc<str> = Arc::from(name_or(&item.name, || {
                let addresses: Vec<_> = binds
                    .iter()
                    .map(|bind| text_of(bind.address.write()))
                    .collect();
                addresses.join(",").into()
            }));
            let place = item.name.place.or(item.bind.place);
            let pools = self.pools_of(item, &mut targets);
            self.unix_clients(binds, targets.hashing(&pools));
            let before = self.problems.len();
            let addresses = self.addresses(binds, &name, *item.protocol);
            let first = place.and_then(|place| names.insert(Arc::clone(&name), place));
            // Two without a name have the same address, which has been said then.
            if let Some(first) = first.filter(|_| self.problems.len() == before) {
                let problem = error(
                    place,
                    "listeners",
                    format!("there are two listeners `{}`", shortened(&name)),
                );
                self.problems.push(
                    problem
                        .and(first, "the first is here")
                        .help("give each a `name` of its own"),
                );
            }
            self.snapshot.listeners.push(Listener {
                standing: Standing::Configured,
                has_moved: false,
                name,
                protocol: *item.protocol,
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
        targets: &mut Targets,
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
                let problem = error(
                    item.bind.place.or(item.place),
                    "listeners.pool",
                    "the key `pool` is missing: where do its sessions go?",
                );
                self.problems
                    .push(problem.help(format!("pools: {}", some_of(&targets.names))));
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
        let mut seen = HashSet::new();
        for (name, place, weight) in shares {
            let Some(id) = targets.ids.get(name).copied() else {
                let message = format!("there is no pool `{}`", shortened(name));
                let problem =
                    error(place, key, message).help(format!("pools: {}", some_of(&targets.names)));
                self.problems.push(targets.meant(problem, name));
                continue;
            };
            if !seen.insert(id) {
                self.problems.push(
                    error(
                        place,
                        "listeners.split",
                        format!("pool `{name}` is in this split already"),
                    )
                    .help("write it once, with the sum of the weights"),
                );
            }
            found.push((id, weight));
        }
        found
    }

    /// Clients of a unix socket are all the same to `balance: hash`.
    fn unix_clients(&mut self, binds: &[Field<document::Bind>], hashing: Option<&str>) {
        let is_unix =
            |bind: &&Field<document::Bind>| matches!(bind.address.value, ListenOn::Unix(_));
        if let (Some(bind), Some(pool)) = (binds.iter().find(is_unix), hashing) {
            let message = format!(
                "clients of a unix socket have no address: \
                 `balance: hash` of pool `{pool}` takes them all to one backend"
            );
            let place = bind.address.place.or(bind.place);
            let problem = error(place, "listeners.bind", message).warning();
            self.problems
                .push(problem.help("lead it to a pool that balances in another way"));
        }
    }

    fn addresses(
        &mut self,
        binds: &[Field<document::Bind>],
        name: &Arc<str>,
        protocol: Protocol,
    ) -> Vec<ListenAddress> {
        let mut addresses = Vec::new();
        for bind in binds {
            let place = bind.address.place.or(bind.place);
            let more = match &bind.address.value {
                ListenOn::Unix(_) => 1,
                ListenOn::Address(_, ports) | ListenOn::Any(ports) => ports.count(),
            };
            self.addresses += more;
            if self.addresses > ADDRESSES_MAX {
                let message = format!("more than {ADDRESSES_MAX} listening addresses");
                self.problems
                    .push(error(place, "listeners.bind", message).help(
                        "each port of a range counts; this is the most of all listeners together",
                    ));
                return addresses;
            }
            let (ports, host) = match &bind.address.value {
                ListenOn::Unix(path) => {
                    self.freebind_idle(bind, "a unix socket");
                    self.claim_path(path, place, name);
                    addresses.push(ListenAddress::Unix(path.clone()));
                    continue;
                }
                ListenOn::Address(address, ports) => (*ports, Some(*address)),
                ListenOn::Any(ports) => (*ports, None),
            };
            if *bind.freebind == document::Freebind::On && host.is_none() {
                self.freebind_idle(bind, "every address");
            }
            let freebind = match *bind.freebind {
                document::Freebind::Auto => Freebind::Auto,
                document::Freebind::On => Freebind::On,
                document::Freebind::Off => Freebind::Off,
            };
            addresses.extend((ports.first..=ports.last).map(|port| {
                let bind = match host {
                    Some(address) => Bind::Address(SocketAddr::new(address, port)),
                    None => Bind::Any(port),
                };
                match protocol {
                    Protocol::Tcp => ListenAddress::Tcp(bind, freebind),
                    Protocol::Udp => ListenAddress::Udp(bind, freebind),
                }
            }));
            let claim = self.claim_of(host, place, name);
            self.claim(protocol, ports, &claim);
        }
        addresses
    }

    fn freebind_idle(&mut self, bind: &Field<document::Bind>, on: &str) {
        let place = bind.freebind.place;
        if place.is_some() {
            let message = format!("`freebind` has no effect on {on}");
            let problem = error(place, "listeners.bind.freebind", message);
            self.problems.push_idle(problem);
        }
    }

    /// What a listener claims that is being read.
    fn claim_of(&self, host: Option<IpAddr>, place: Option<Place>, name: &Arc<str>) -> Claim {
        Claim {
            host,
            place,
            listener: self.snapshot.listeners.len(),
            name: Arc::clone(name),
        }
    }

    fn claim(&mut self, protocol: Protocol, ports: Ports, claim: &Claim) {
        if let Some((port, other)) = self.taken[protocol.index()].add(ports, claim) {
            let (whose, at) = (shortened(&other.name), other.place);
            let whose = if other.listener == self.snapshot.listeners.len() {
                "this listener".to_owned()
            } else {
                format!("listener `{whose}`")
            };
            let what = if other.host == claim.host {
                "this address"
            } else {
                "an address that overlaps with this one"
            };
            let problem = error(
                claim.place,
                "listeners.bind",
                format!("{whose} has {what} already (port {port})"),
            );
            self.problems.push(with(problem, at, "it is here"));
        }
    }

    fn claim_path(&mut self, path: &Path, place: Option<Place>, name: &Arc<str>) {
        let claim = self.claim_of(None, place, name);
        if let Some(other) = self.taken[0].paths.insert(plain(path), claim) {
            let message = format!(
                "listener `{}` has this path already",
                shortened(&other.name)
            );
            let problem = error(place, "listeners.bind", message);
            self.problems.push(with(problem, other.place, "it is here"));
        }
    }

    pub(super) fn admin_socket(&mut self, admin: &document::Admin) {
        let Some(socket) = &admin.socket.0 else {
            return;
        };
        let path = &socket.path;
        if let Some(claim) = self.taken[0].paths.get(&plain(&path.0)) {
            let message = format!(
                "listener `{}` has the path of `admin.socket`, {}",
                shortened(&claim.name),
                path.0.display()
            );
            let problem = error(claim.place, "listeners.bind", message)
                .help("give one of the two another path");
            let at = admin.socket.place;
            self.problems
                .push(with(problem, at, "`admin.socket` is here"));
        }
    }

    /// Who can reach more than this host has to show who he is, and nobody is to read that on the way.
    pub(super) fn admin_http(&mut self, admin: &document::Admin) {
        let Some(http) = &admin.http.0 else {
            return;
        };
        let missing = match (&http.token_file.0, &http.tls.0) {
            (Some(_), Some(_)) => return,
            (None, Some(_)) => "`token_file`",
            (Some(_), None) => "`tls`",
            (None, None) => "`token_file` and `tls`",
        };
        let address = http.address.0;
        if !address.ip().is_loopback() {
            let message =
                format!("{address} can be reached from other hosts: {missing} is needed for it");
            let problem = error(http.address.place, "admin.http", message).help(
                "127.0.0.1 needs neither; `admin.metrics` may face the network, and shows metrics only",
            );
            self.problems.push(problem);
        }
    }

    /// An address is a listener's, or the API's, or for metrics alone.
    pub(super) fn admin_ports(&mut self, admin: &document::Admin) {
        let http = admin.http.0.as_ref().map(|http| http.address.0);
        let metrics = admin.metrics.0.map(|metrics| metrics.0);
        for (key, address, place) in [
            ("admin.http", http, admin.http.place),
            ("admin.metrics", metrics, admin.metrics.place),
        ] {
            let Some(address) = address.filter(|address| address.port() != 0) else {
                continue;
            };
            let taken = self.taken[0].overlapping(address.port(), Some(address.ip()));
            if let Some(claim) = taken {
                let name = shortened(&claim.name);
                let message = format!("listener `{name}` has the address of `{key}`, {address}");
                let problem = error(claim.place, "listeners.bind", message)
                    .help("give one of the two another port");
                let told = format!("`{key}` is here");
                self.problems.push(with(problem, place, &told));
            }
        }
        if let (Some(http), Some(metrics)) = (http, metrics)
            && http.port() != 0
            && overlap(http, metrics)
        {
            let problem = error(
                admin.metrics.place,
                "admin.metrics",
                format!("`admin.http` has {http} already"),
            );
            let problem =
                problem.help("it serves /metrics, too; or give one of the two another port");
            self.problems
                .push(with(problem, admin.http.place, "it is here"));
        }
    }

    /// A backend may be a listener of this very file, unless connections would come back to where they were.
    pub(super) fn circles(&mut self, pools: &[(Key, Option<document::Pool>)]) {
        let listeners = &self.snapshot.listeners;
        let to_pools = listeners.iter().map(|listener| {
            let pools = listener.pools.iter();
            let ways = pools.map(|(pool, _)| Way {
                to: listeners.len() + pool.index(),
                backend: None,
            });
            ways.collect()
        });
        let to_listeners = pools.iter().zip(&self.used).map(|((pool, section), used)| {
            let taken = || self.taken.iter().zip(used).filter(|(_, used)| **used);
            let backends = section.iter().flat_map(|section| &section.backends.0);
            let ways = backends.filter_map(|backend| {
                let mut found =
                    taken().filter_map(|(taken, _)| taken.listening_at(&backend.address));
                Some(Way {
                    to: found.next()?.listener,
                    backend: Some((&pool.name, backend.address.place.or(backend.place))),
                })
            });
            ways.collect()
        });
        let ways: Vec<Vec<Way>> = to_pools.chain(to_listeners).collect();
        for way in closing(&ways) {
            let Some((pool, place)) = way.backend else {
                continue;
            };
            let message = format!(
                "this is listener `{}`, which leads here: connections would go round in circles",
                shortened(&listeners[way.to].name)
            );
            let key = format!("pools.{pool}.backends");
            self.problems.push(error(place, &key, message));
        }
    }
}

/// A way from a listener to a pool, or from a pool to a listener that is one of its backends.
#[derive(Clone, Copy)]
struct Way<'p> {
    to: usize,
    /// The pool and the place of the backend.
    backend: Option<(&'p str, Option<Place>)>,
}

/// How a walk along the ways stands to a listener or pool.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Not,
    /// The walk came through it to where it is.
    Before,
    Done,
}

/// The backends by which ways come back to where they were: at least one of each circle. The walk goes along each way
/// once, in the order of the file.
fn closing<'p>(ways: &[Vec<Way<'p>>]) -> Vec<Way<'p>> {
    let mut seen = vec![Seen::Not; ways.len()];
    let mut closing = Vec::new();
    for start in 0..ways.len() {
        let start = Way {
            to: start,
            backend: None,
        };
        let mut path = Vec::new();
        if seen[start.to] == Seen::Not {
            path.push((start, ways[start.to].iter()));
        }
        while let Some((came, left)) = path.last_mut() {
            seen[came.to] = Seen::Before;
            let Some(way) = left.next() else {
                seen[came.to] = Seen::Done;
                path.pop();
                continue;
            };
            match seen[way.to] {
                Seen::Not => path.push((*way, ways[way.to].iter())),
                Seen::Before => {
                    // From a listener to a pool: by the backend that this listener is.
                    closing.push(way.backend.map_or(*came, |_| *way));
                }
                Seen::Done => {}
            }
        }
    }
    closing
}

/// Whether both cannot be listened on.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_all = one.ip().is_unspecified() || other.ip().is_unspecified();
    let is_same_family = one.is_ipv4() == other.is_ipv4();
    one.port() == other.port() && (one.ip() == other.ip() || is_all && is_same_family)
}

/// The same path, without what leads nowhere.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(component);
        }
    }
    plain
}

/// The ports and paths that listeners of one protocol have.
#[derive(Default)]
pub(super) struct Taken {
    /// By port and host; none is every host.
    hosts: HashMap<(u16, Option<IpAddr>), Claim>,
    /// By port and whether it is IPv4: the first of all hosts.
    families: HashMap<(u16, bool), Claim>,
    paths: HashMap<PathBuf, Claim>,
}

#[derive(Clone)]
struct Claim {
    host: Option<IpAddr>,
    place: Option<Place>,
    /// Which one it is, and what it is called.
    listener: usize,
    name: Arc<str>,
}

impl Taken {
    /// Takes the ports; the first that somebody else has, and who.
    fn add(&mut self, ports: Ports, claim: &Claim) -> Option<(u16, Claim)> {
        let mut clash = None;
        // A port that the kernel chooses is nobody's.
        for port in (ports.first..=ports.last).filter(|port| *port != 0) {
            let other = self.overlapping(port, claim.host);
            clash = clash.or_else(|| other.map(|other| (port, other.clone())));
            let keep = || claim.clone();
            self.hosts.entry((port, claim.host)).or_insert_with(keep);
            for is_v4 in [true, false] {
                if claim.host.is_none_or(|host| host.is_ipv4() == is_v4) {
                    self.families.entry((port, is_v4)).or_insert_with(keep);
                }
            }
        }
        clash
    }

    /// Who has this port of the host, of all of its family, or of every host.
    fn overlapping(&self, port: u16, host: Option<IpAddr>) -> Option<&Claim> {
        let family = |is_v4| self.families.get(&(port, is_v4));
        match host {
            None => family(true).or_else(|| family(false)),
            Some(all) if all.is_unspecified() => family(all.is_ipv4()),
            Some(one) => self.serving(port, one),
        }
    }

    /// Who serves connects to this port of a host that is this one.
    fn serving(&self, port: u16, host: IpAddr) -> Option<&Claim> {
        [Some(host), Some(all_like(host)), None]
            .iter()
            .find_map(|host| self.hosts.get(&(port, *host)))
    }

    /// Who has this address, as far as the file tells.
    fn listening_at(&self, at: &BackendAt) -> Option<&Claim> {
        match at {
            BackendAt::Address(address) if address.ip().is_loopback() => {
                self.serving(address.port(), address.ip())
            }
            // Whether it is this host's, this host knows.
            BackendAt::Address(address) => self.hosts.get(&(address.port(), Some(address.ip()))),
            BackendAt::Unix(path) => self.paths.get(&plain(path)),
            BackendAt::Host(..) => None,
        }
    }
}

/// The address that stands for all of a family.
fn all_like(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
