//! What the keys of `vrrp` mean together, and with those of pools.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::items::Items;
use super::super::kind::{Field, Kind, OneOrMore, Or};
use super::super::report::Problem;
use super::super::units::Period;
use super::super::virtual_router::{Auth, Checksum, TrackedScript, VirtualRouter};
use super::super::vocabulary::meant;
use super::super::yaml::{Key, Place};
use super::{Resolver, document, error, small, text_of, with};
use crate::control::snapshot::{Freebind, ListenAddress};
use crate::ids::PoolId;
use crate::sys::socket::Bind;
use crate::vrrp::machine::PRIORITY_OWNER;
use crate::vrrp::packet::{ADDRESSES_MAX, Centiseconds, ChecksumForm, Version, Vrid};
use crate::vrrp::settings::{Interval, Script, Settings, Track};

/// The kernel's limit for a name of an interface.
const INTERFACE_NAME_MAX: usize = 15;
/// Below this, a busy machine would look like a stalled one.
const PROGRESS_TIMEOUT_MIN: Duration = Duration::from_millis(200);
const LEASE_SHORT: Duration = Duration::from_secs(1);
const LEASE_LONG: Duration = Duration::from_secs(3);

/// Where each thing was written first, to find it written twice.
struct First<T>(HashMap<T, Option<Place>>);

impl<T: Eq + Hash> First<T> {
    fn new() -> First<T> {
        First(HashMap::new())
    }

    /// The problem, with the first place, if it is there already.
    fn again(&mut self, what: T, place: Option<Place>, key: &str, text: &str) -> Option<Problem> {
        let first = self.0.insert(what, place)?;
        Some(with(error(place, key, text), first, "the first is here"))
    }
}

impl Resolver<'_> {
    /// The virtual routers, and what pools have to do with their addresses.
    pub(super) fn vrrp(
        &mut self,
        routers: &Items<VirtualRouter>,
        pools: &[(Key, Option<document::Pool>)],
    ) {
        let (mut names, mut numbers) = (First::new(), First::new());
        let mut addresses: First<IpAddr> = First::new();
        for router in &routers.0 {
            let key = |name: &str| format!("vrrp.{}.{name}", router.name.0);
            let place = router.name.place;
            let is_ipv4 = router.addresses.0.iter().all(|net| net.0.addr().is_ipv4());
            let again = [
                names.again(
                    router.name.0.clone(),
                    place,
                    "vrrp",
                    "two virtual routers have this name",
                ),
                numbers.again(
                    (router.interface.0.clone(), router.vrid.0, is_ipv4),
                    router.vrid.place,
                    &key("vrid"),
                    "two virtual routers of one interface and address family have this number",
                ),
            ];
            again
                .into_iter()
                .flatten()
                .for_each(|one| self.problems.push(one));
            for net in &router.addresses.0 {
                let text = "this address is there twice";
                let again = addresses.again(net.0.addr(), net.place, &key("addresses"), text);
                again.into_iter().for_each(|one| self.problems.push(one));
            }
            if let Some(settings) = self.router(router, pools) {
                self.snapshot.virtual_routers.push(Arc::new(settings));
            }
        }
        self.groups(routers);
        self.bind_freely(&addresses);
        for (key, section) in pools {
            if let Some(section) = section {
                self.virtual_sources(key, section, &addresses);
            }
        }
    }

    fn router(
        &mut self,
        router: &VirtualRouter,
        pools: &[(Key, Option<document::Pool>)],
    ) -> Option<Settings> {
        self.interface(router, "interface", &router.interface);
        for interface in &router.track.interfaces.0 {
            self.interface(router, "track.interfaces", interface);
        }
        self.families(router);
        self.unwise_addresses(router);
        self.router_keys_without_effect(router);
        let interval = self.interval(router);
        let lease = self.lease(router);
        let password_file = self.password_file(router);
        self.times(router);
        let track = self.track(router, pools);
        let interval = interval?;
        Some(Settings {
            name: Arc::from(router.name.0.as_str()),
            interface: Arc::from(router.interface.0.as_str()),
            vrid: Vrid::new(u8::try_from(router.vrid.0).ok()?)?,
            version: version(router),
            priority: u8::try_from(router.priority.0).ok()?,
            addresses: router.addresses.0.iter().map(|net| net.0).collect(),
            interval,
            source: router.source.0.map(|source| source.0),
            preempt: *router.preempt,
            preempt_delay: router.preempt_delay.0,
            peers: router.peers.0.iter().map(|peer| peer.0).collect(),
            checksum: match *router.checksum {
                Checksum::PseudoHeader => ChecksumForm::PseudoHeader,
                Checksum::Rfc9568 => ChecksumForm::Message,
            },
            password_file,
            virtual_mac: *router.virtual_mac,
            lease,
            progress_timeout: router.progress_timeout.0,
            track,
            group: (router.group.0.as_ref()).map(|group| Arc::from(group.0.as_str())),
            notify: router.notify.0.as_ref().map(command),
        })
    }

    fn wrong(&mut self, router: &VirtualRouter, key: &str, at: Option<Place>, message: String) {
        let key = format!("vrrp.{}.{key}", router.name.0);
        self.problems.push(error(at, &key, message));
    }

    fn interface(
        &mut self,
        router: &VirtualRouter,
        key: &str,
        name: &Field<super::super::kind::Text>,
    ) {
        let unusable = |letter: char| letter == '/' || letter == ':' || letter.is_whitespace();
        if name.0.len() > INTERFACE_NAME_MAX || name.0.contains(unusable) {
            let message = format!(
                "`{}` is no name of an interface: at most {INTERFACE_NAME_MAX} bytes, without / : and spaces",
                name.0
            );
            self.wrong(router, key, name.place, message);
        }
    }

    /// One virtual router has one address family, and everything that it talks to is of that.
    fn families(&mut self, router: &VirtualRouter) {
        let addresses = &router.addresses.0;
        let Some(is_ipv4) = addresses.first().map(|first| first.0.addr().is_ipv4()) else {
            return;
        };
        let family = if is_ipv4 { "IPv4" } else { "IPv6" };
        let differs = |address: IpAddr| address.is_ipv4() != is_ipv4;
        if addresses.len() > ADDRESSES_MAX {
            let message = format!("more than {ADDRESSES_MAX} addresses do not fit");
            self.wrong(router, "addresses", router.addresses.place, message);
        }
        if let Some(other) = addresses.iter().find(|net| differs(net.0.addr())) {
            let message = "a virtual router has addresses of one family; write two, in one `group`";
            self.wrong(router, "addresses", other.place, message.to_owned());
        }
        if !is_ipv4 && version(router) == Version::V2 {
            let message = "version 2 knows IPv4 only; write `version: 3`";
            self.wrong(router, "version", router.version.place, message.to_owned());
        }
        if router.source.0.is_some_and(|source| differs(source.0)) {
            let message = format!("not an {family} address, as the virtual addresses are");
            self.wrong(router, "source", router.source.place, message);
        }
        for peer in &router.peers.0 {
            if differs(peer.0) {
                let message = format!("not an {family} address, as the virtual addresses are");
                self.wrong(router, "peers", peer.place, message);
            }
        }
        for net in addresses {
            let is_it = |source: IpAddr| source == net.0.addr();
            if router.source.0.is_some_and(|source| is_it(source.0)) && !is_owner(router)
                || router.peers.0.iter().any(|peer| is_it(peer.0))
            {
                let message = "a virtual address is nobody's own: not `source`, and not a peer";
                self.wrong(router, "addresses", net.place, message.to_owned());
            }
        }
    }

    /// What can be done, and rarely should.
    fn unwise_addresses(&mut self, router: &VirtualRouter) {
        for net in &router.addresses.0 {
            let (address, prefix_len) = (net.0.addr(), net.0.prefix_len());
            if address.is_ipv6() && prefix_len != 128 {
                let key = format!("vrrp.{}.addresses", router.name.0);
                let message = format!(
                    "with /{prefix_len} the route to the whole network comes and goes with the address; \
                     write `{address}/128`"
                );
                self.problems
                    .push(error(net.place, &key, message).warning());
            }
        }
        if is_owner(router) && *router.virtual_mac {
            let key = format!("vrrp.{}.virtual_mac", router.name.0);
            let message = "an address that the interface owns (priority 255) stays there, with that one's MAC address";
            self.problems
                .push(error(router.virtual_mac.place, &key, message).warning());
        }
    }

    fn router_keys_without_effect(&mut self, router: &VirtualRouter) {
        let is_v2 = version(router) == Version::V2;
        if router.checksum.place.is_some() && is_v2 {
            let key = format!("vrrp.{}.checksum", router.name.0);
            let message = "`checksum` has no effect with version 2: there is only one form";
            self.problems
                .push(error(router.checksum.place, &key, message).warning());
        }
        if router.auth.0.is_some() && !is_v2 {
            let message = "version 3 has no passwords (RFC 9568, section 9); remove `auth`";
            self.wrong(router, "auth", router.auth.place, message.to_owned());
        }
    }

    fn interval(&mut self, router: &VirtualRouter) -> Option<Interval> {
        let written = router.advert_interval.0.map(|period| period.0);
        let (interval, expected) = match version(router) {
            Version::V2 => {
                let interval = written.unwrap_or(Duration::from_secs(1));
                let seconds = u8::try_from(interval.as_secs()).ok();
                let seconds = seconds.filter(|_| interval.subsec_nanos() == 0);
                let interval = seconds.and_then(NonZeroU8::new).map(Interval::Seconds);
                (interval, "with version 2 it is whole seconds, 1s to 255s")
            }
            Version::V3 => {
                let interval = written.unwrap_or(Duration::from_millis(100));
                let count = u16::try_from(interval.as_micros() / 10_000).ok();
                let count = count.filter(|_| interval.as_micros().is_multiple_of(10_000));
                let interval = count.and_then(Centiseconds::new);
                let interval = interval.map(Interval::Centiseconds);
                (interval, "it is a multiple of 10ms, 10ms to 40950ms")
            }
        };
        if interval.is_none() {
            let message = format!("no `advert_interval` that can be sent: {expected}");
            self.wrong(
                router,
                "advert_interval",
                router.advert_interval.place,
                message,
            );
        }
        interval
    }

    fn lease(&mut self, router: &VirtualRouter) -> Option<Duration> {
        let written: &Option<Or<_, Period>> = &router.lease.0;
        let Some(written) = written else {
            let interval = router.advert_interval.0.map(|period| period.0);
            let is_long = interval.map_or(version(router) == Version::V2, |interval| {
                interval >= LEASE_SHORT
            });
            return Some(if is_long { LEASE_LONG } else { LEASE_SHORT });
        };
        let lease = written.0?.0;
        if lease.subsec_nanos() != 0 {
            let message = "`lease` is whole seconds: the kernel counts in those";
            self.wrong(router, "lease", router.lease.place, message.to_owned());
        }
        Some(lease)
    }

    fn password_file(&mut self, router: &VirtualRouter) -> Option<PathBuf> {
        let auth: &Auth = router.auth.0.as_ref()?;
        let path = PathBuf::from(&auth.password_file.0);
        if !path.is_absolute() {
            let message = "the path of a password file begins with /";
            let key = "auth.password_file";
            self.wrong(router, key, auth.password_file.place, message.to_owned());
        }
        Some(path)
    }

    fn times(&mut self, router: &VirtualRouter) {
        if router.progress_timeout.0 < PROGRESS_TIMEOUT_MIN {
            let least = text_of(Period(PROGRESS_TIMEOUT_MIN).write());
            let message = format!("`progress_timeout` is at least {least}");
            let place = router.progress_timeout.place;
            self.wrong(router, "progress_timeout", place, message);
        }
        for script in &router.track.scripts.0 {
            if script.timeout.0 > script.interval.0 {
                let message = "`timeout` of a script is at most its `interval`";
                let place = script.timeout.place.or(script.interval.place);
                self.wrong(router, "track.scripts", place, message.to_owned());
            }
        }
        let commands = router.track.scripts.0.iter().map(|script| &script.command);
        for command in commands
            .map(|command| &command.0)
            .chain(router.notify.0.iter().map(|notify| &notify.0))
        {
            if let Some(first) = command.first().filter(|first| !first.0.starts_with('/')) {
                let message = "the path of a program begins with /: no shell looks for it";
                self.wrong(router, "track.scripts", first.place, message.to_owned());
            }
        }
    }

    fn track(&mut self, router: &VirtualRouter, pools: &[(Key, Option<document::Pool>)]) -> Track {
        let mut tracked = Vec::new();
        for item in &router.track.pools.0 {
            let found = pools.iter().position(|(key, _)| key.name == item.pool.0);
            match found.and_then(|index| u16::try_from(index).ok()) {
                Some(index) => tracked.push((PoolId(index), small(*item.min_usable))),
                None => {
                    let names: Vec<&str> = pools.iter().map(|(key, _)| key.name.as_str()).collect();
                    let key = format!("vrrp.{}.track.pools", router.name.0);
                    let problem = error(
                        item.pool.place,
                        &key,
                        format!("there is no pool `{}`", item.pool.0),
                    );
                    self.problems.push(meant(problem, &item.pool.0, &names));
                }
            }
        }
        let interfaces = router.track.interfaces.0.iter();
        Track {
            interfaces: interfaces.map(|name| Arc::from(name.0.as_str())).collect(),
            pools: tracked,
            scripts: router.track.scripts.0.iter().map(script).collect(),
        }
    }

    fn groups(&mut self, routers: &Items<VirtualRouter>) {
        let group = |router: &VirtualRouter| router.group.0.as_ref().map(|name| name.0.clone());
        for router in &routers.0 {
            let Some(own) = group(router) else { continue };
            let members = routers
                .0
                .iter()
                .filter(|other| group(other).as_ref() == Some(&own));
            let differs = |other: &VirtualRouter| {
                (*other.priority, *other.preempt, other.preempt_delay.0)
                    != (*router.priority, *router.preempt, router.preempt_delay.0)
            };
            if members.clone().any(|other| differs(other)) {
                let key = format!("vrrp.{}.group", router.name.0);
                let message = format!(
                    "members of the group `{own}` have another `priority`, `preempt` or `preempt_delay`: \
                     what moves together decides alike"
                );
                self.problems
                    .push(error(router.group.place, &key, message).warning());
            }
            if members.count() == 1 {
                let key = format!("vrrp.{}.group", router.name.0);
                let message = format!("nothing else is in the group `{own}`");
                self.problems
                    .push(error(router.group.place, &key, message).warning());
            }
        }
    }

    /// Listeners on virtual addresses are bound on every node, whoever has the addresses.
    fn bind_freely(&mut self, virtual_addresses: &First<IpAddr>) {
        let listeners = self.snapshot.listeners.iter_mut();
        for address in listeners.flat_map(|listener| &mut listener.addresses) {
            if let ListenAddress::Tcp(Bind::Address(bind), freebind @ Freebind::Auto)
            | ListenAddress::Udp(Bind::Address(bind), freebind @ Freebind::Auto) = address
                && virtual_addresses.0.contains_key(&bind.ip())
            {
                *freebind = Freebind::On;
            }
        }
    }

    /// The standby does not have the virtual addresses, and must know its backends all the same.
    fn virtual_sources(&mut self, pool: &Key, section: &document::Pool, addresses: &First<IpAddr>) {
        let probe = &section.probe.source;
        if let Some(at) = probe.0.and_then(|source| addresses.0.get(&source.0)) {
            let key = format!("pools.{}.probe.source", pool.name);
            let message = "probes cannot come from a virtual address: the standby does not have it";
            let problem = error(probe.place, &key, message);
            self.problems.push(with(problem, *at, "it is virtual here"));
        }
        let sources = section.source.0.iter().flat_map(|sources| &sources.0);
        for source in sources {
            if let Some(at) = addresses.0.get(&source.0) {
                let key = format!("pools.{}.source", pool.name);
                let message =
                    "only the node that holds this virtual address can connect from it".to_owned();
                let problem = error(source.place, &key, message).warning();
                self.problems.push(with(problem, *at, "it is virtual here"));
            }
        }
    }
}

fn version(router: &VirtualRouter) -> Version {
    if router.version.0 == 2 {
        Version::V2
    } else {
        Version::V3
    }
}

fn is_owner(router: &VirtualRouter) -> bool {
    router.priority.0 == u64::from(PRIORITY_OWNER)
}

fn command(words: &OneOrMore<super::super::kind::Text>) -> Arc<[String]> {
    words.0.iter().map(|word| word.0.clone()).collect()
}

fn script(section: &Field<TrackedScript>) -> Script {
    Script {
        command: command(&section.command),
        interval: section.interval.0,
        timeout: section.timeout.0,
        fall: small(*section.fall),
        rise: small(*section.rise),
    }
}
