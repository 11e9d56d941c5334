//! Which feature needs which capability, and what is different without it: for the doctor, for the README, and to know
//! which to keep.

use caps::Capability;

use crate::config::Config;
use crate::control::snapshot::ListenAddress;
use crate::sys::socket::Bind;

/// A feature, its capability, and what is different without it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What for.
    pub feature: &'static str,
    /// Which one.
    pub capability: Capability,
    /// What is different without it.
    pub without: &'static str,
    needed_by: Need,
}

/// Which files need a capability.
#[derive(Clone, Copy, Debug)]
enum Need {
    Routers,
    LowPorts,
    All,
}

/// All there are.
pub const ALL: [Row; 6] = [
    Row {
        feature: "virtual addresses (`vrrp`)",
        capability: Capability::CAP_NET_ADMIN,
        without: "a file with `vrrp` does not start",
        needed_by: Need::Routers,
    },
    Row {
        feature: "advertisements (`vrrp`)",
        capability: Capability::CAP_NET_RAW,
        without: "a file with `vrrp` does not start",
        needed_by: Need::Routers,
    },
    Row {
        feature: "ports below 1024",
        capability: Capability::CAP_NET_BIND_SERVICE,
        without: "a file with such a listener does not start",
        needed_by: Need::LowPorts,
    },
    Row {
        feature: "advertisements before all other work",
        capability: Capability::CAP_SYS_NICE,
        without: "a busy host may delay them, and the address moves (LimitRTPRIO=10 is enough, too)",
        needed_by: Need::Routers,
    },
    Row {
        feature: "advertisements never wait for swapped memory",
        capability: Capability::CAP_IPC_LOCK,
        without: "a swapping host may delay them, and the address moves (LimitMEMLOCK=infinity is enough, too)",
        needed_by: Need::Routers,
    },
    Row {
        feature: "splice pipes beyond fs.pipe-user-pages-soft",
        capability: Capability::CAP_SYS_RESOURCE,
        without: "those pipes are a page long, and large transfers on them cost more processor time",
        needed_by: Need::All,
    },
];

/// Those that a file needs.
pub(super) fn needed(config: &Config) -> impl Iterator<Item = Capability> {
    let has_routers = !config.snapshot.virtual_routers.is_empty();
    let has_low_ports = ports(config).any(|port| port != 0 && port < unprivileged_from());
    let is_needed = move |row: &Row| match row.needed_by {
        Need::Routers => has_routers,
        Need::LowPorts => has_low_ports,
        Need::All => true,
    };
    let rows = ALL.into_iter().filter(is_needed);
    rows.map(|row| row.capability)
}

/// Whether the file has commands, of which nobody knows what they do.
pub(super) fn runs_commands(config: &Config) -> bool {
    let mut routers = config.snapshot.virtual_routers.iter();
    routers.any(|router| router.notify.is_some() || !router.track.scripts.is_empty())
}

fn ports(config: &Config) -> impl Iterator<Item = u16> {
    let listeners = config.snapshot.listeners.iter();
    let listened = listeners.flat_map(|listener| &listener.addresses);
    let listened = listened.filter_map(|address| match address {
        ListenAddress::Tcp(bind, _) | ListenAddress::Udp(bind, _) => Some(match bind {
            Bind::Address(address) => address.port(),
            Bind::Any(port) => *port,
        }),
        ListenAddress::Unix(_) => None,
    });
    let http = config.admin.http.as_ref().map(|http| http.address.port());
    let metrics = config.admin.metrics.map(|address| address.port());
    listened.chain(http).chain(metrics)
}

/// Ports from this one on are for everybody.
fn unprivileged_from() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(text: &str) -> Vec<String> {
        let loaded = crate::config::parse(text, "test", "lb1");
        let (config, _) = loaded.into_result().unwrap();
        let mut names: Vec<String> = needed(&config).map(|one| one.to_string()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_needs_what_its_listeners_and_virtual_routers_need() {
        let pools = "pools: {p: [10.0.0.1:80]}\n";
        let listener = |port| format!("listeners: [{{bind: \"*:{port}\", pool: p}}]\n{pools}");
        assert_eq!(needs(&listener(5432)), ["CAP_SYS_RESOURCE"]);
        assert_eq!(needs(&listener(0)), ["CAP_SYS_RESOURCE"]);
        let low = ["CAP_NET_BIND_SERVICE", "CAP_SYS_RESOURCE"];
        // The host decides from where on; no host gives away the first port.
        assert_eq!(needs(&listener(1)), low);
        let routers =
            "vrrp: [{name: v, interface: eth0, vrid: 5, priority: 200, addresses: 10.9.9.9/32}]\n";
        let all = [
            "CAP_IPC_LOCK",
            "CAP_NET_ADMIN",
            "CAP_NET_RAW",
            "CAP_SYS_NICE",
            "CAP_SYS_RESOURCE",
        ];
        assert_eq!(needs(&format!("{}{routers}", listener(5432))), all);
    }
}
