//! How many source ports the sessions of each backend use, and of how many. A port is used once per source address and
//! destination, so those of all backends at one address count that can come from the same sources; the workers'
//! counts of sessions say how many that are. Pure but for those counts.
//!
//! Not counted, because only the kernel knows it: ports of probes, of other processes, and of connections that are
//! closed and in TIME_WAIT; a connect may find no port before all are used. Where a pool has no sources, what the
//! kernel chooses counts as one address of its own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::snapshot::{BackendAddress, Listener, Protocol, Snapshot, Standing};
use crate::ids::BackendId;

/// The source ports of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// By sessions, those that still connect included.
    pub(super) used: u64,
    /// Source addresses that they come from, at least 1; each has all ports of the kernel's range.
    pub(super) sources: u64,
}

/// Backends at one address whose pools share sources, or have none.
struct Group {
    sources: Vec<IpAddr>,
    members: Vec<BackendId>,
}

/// Source ports for UDP flows of all pools together: a socket of a flow has a port of its own, whatever its backend.
/// None if the kernel does not show its range.
pub(super) fn of_flows(snapshot: &Snapshot) -> Option<u32> {
    let each = crate::sys::ports::outgoing()?;
    let sources = u32::try_from(flow_sources(snapshot)).unwrap_or(u32::MAX);
    Some(each.saturating_mul(sources))
}

/// Source addresses of UDP flows, the one that the kernel chooses included.
pub(crate) fn flow_sources(snapshot: &Snapshot) -> usize {
    let is_udp = |listener: &&Listener| listener.protocol == Protocol::Udp;
    let listeners = snapshot.listeners_in_order().map(|(_, listener)| listener);
    let listeners = listeners.filter(is_udp);
    let mut sources: Vec<Option<IpAddr>> = Vec::new();
    for (pool, _) in listeners.flat_map(|listener| &listener.pools) {
        let of_pool = &snapshot.pools[pool.index()].sources;
        if of_pool.is_empty() {
            sources.push(None);
        }
        sources.extend(of_pool.iter().copied().map(Some));
    }
    sources.sort_unstable();
    sources.dedup();
    sources.len()
}

/// By backend; none for one that is no TCP address.
pub(super) fn of_backends(
    snapshot: &Snapshot,
    sessions: impl Fn(BackendId) -> u32,
) -> Vec<Option<Ports>> {
    let mut groups: HashMap<SocketAddr, Vec<Group>> = HashMap::new();
    for (id, backend) in (0..).map(BackendId).zip(&snapshot.backends) {
        if backend.standing == Standing::Free {
            continue;
        }
        if let Some(BackendAddress::Tcp(address)) = backend.address {
            let sources = snapshot.pools[backend.pool.index()].sources_of(address);
            join(groups.entry(address).or_default(), sources.collect(), id);
        }
    }
    let mut all = vec![None; snapshot.backends.len()];
    for group in groups.into_values().flatten() {
        let used = group.members.iter().map(|id| u64::from(sessions(*id)));
        let ports = Ports {
            used: used.sum(),
            sources: group.sources.len().max(1) as u64,
        };
        for id in group.members {
            all[id.index()] = Some(ports);
        }
    }
    all
}

/// A backend joins the groups that it shares sources with, and makes them one.
fn join(groups: &mut Vec<Group>, sources: Vec<IpAddr>, member: BackendId) {
    let mut joined = Group {
        sources,
        members: vec![member],
    };
    let shares = |group: &mut Group| {
        let both_any = group.sources.is_empty() && joined.sources.is_empty();
        both_any
            || group
                .sources
                .iter()
                .any(|source| joined.sources.contains(source))
    };
    let shared: Vec<Group> = groups.extract_if(.., shares).collect();
    for group in shared {
        joined.sources.extend(group.sources);
        joined.members.extend(group.members);
    }
    joined.sources.sort_unstable();
    joined.sources.dedup();
    groups.push(joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line of `used of sources` for each backend, where backend N has 10^N sessions.
    fn ports(pools: &str) -> Vec<String> {
        let listener = "listeners: [{name: in, bind: \"127.0.0.1:0\", pool: a}]";
        let text = format!("{listener}\npools: {{{pools}}}\n");
        let (config, _) = crate::config::parse(&text, "test.yaml", "lb1")
            .into_result()
            .unwrap();
        let shown = |ports: Option<Ports>| {
            ports.map_or("none".to_owned(), |ports| {
                format!("{} of {}", ports.used, ports.sources)
            })
        };
        of_backends(&config.snapshot, |id| 10_u32.pow(id.0))
            .into_iter()
            .map(shown)
            .collect()
    }

    #[test]
    fn backends_at_one_address_share_its_ports_if_they_share_a_source() {
        for (pools, expected) in [
            (
                "a: [\"10.0.0.9:1\", \"10.0.0.9:2\", \"unix:/run/x\", \"name:1\"]",
                &["1 of 1", "10 of 1", "none", "none"][..],
            ),
            (
                "a: {backends: [\"10.0.0.9:1\"], source: [10.0.0.1, 10.0.0.2]}, b: [\"10.0.0.9:1\"], c: \
                 [\"10.0.0.9:1\"]",
                &["1 of 2", "110 of 1", "110 of 1"],
            ),
            (
                "a: {backends: [\"10.0.0.9:1\"], source: 10.0.0.1}, b: {backends: [\"10.0.0.9:1\"], source: \
                 10.0.0.2}, c: {backends: [\"10.0.0.9:2\"], source: 10.0.0.1}",
                &["1 of 1", "10 of 1", "100 of 1"],
            ),
            (
                "a: {backends: [\"10.0.0.9:1\"], source: 10.0.0.1}, b: {backends: [\"10.0.0.9:1\"], source: \
                 10.0.0.2}, c: {backends: [\"10.0.0.9:1\"], source: [10.0.0.1, 10.0.0.2, 10.0.0.3]}",
                &["111 of 3", "111 of 3", "111 of 3"],
            ),
            (
                "a: {backends: [\"10.0.0.9:1\", \"[::9]:1\"], source: [10.0.0.1, \"::1\", \"::2\"]}",
                &["1 of 1", "10 of 2"],
            ),
        ] {
            assert_eq!(ports(pools), expected, "{pools}");
        }
    }
}
