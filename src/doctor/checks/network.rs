//! Settings of the network that decide how many clients wait and how many connections to backends there can be.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::{SESSIONS_USUAL, count, workers};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Area, Check, Finding, grouped, size};
use crate::doctor::wanted::Wanted;
use crate::sys::datagram::RECEIVE_BUFFER;
use crate::sys::ports;

const BACKLOG: Check = Check {
    area: Area::Network,
    name: "backlog",
    why: "The kernel cuts every listener's backlog to net.core.somaxconn without a word; in a rush of clients those \
          beyond it wait for a second or longer.",
};
const HANDSHAKES: Check = Check {
    area: Area::Network,
    name: "handshakes",
    why: "Without syncookies, net.ipv4.tcp_max_syn_backlog bounds the handshakes that are under way; those beyond it \
          are dropped.",
};
const LOCAL_PORTS: Check = Check {
    area: Area::Network,
    name: "source ports",
    why: "Each connection to a backend takes a local port; one port serves several backend addresses, but each of \
          them only once per source address, and again a minute after it was closed (TIME_WAIT). Without a free \
          port the connect fails.",
};
const PORT_CLASH: Check = Check {
    area: Area::Network,
    name: "listener ports",
    why: "The kernel may give a port of net.ipv4.ip_local_port_range to any outgoing connection; a listener of that \
          port then does not start.",
};
const DATAGRAM_BUFFERS: Check = Check {
    area: Area::Network,
    name: "datagram buffers",
    why: "A burst of datagrams waits in the buffer of the listener's socket until a worker takes it; what does not \
          fit is lost, and counted as `overflow`.",
};
const MIGRATION: Check = Check {
    area: Area::Network,
    name: "migration",
    why: "Each worker has a listening socket of its own. With 1, handshakes of one that closes move to another; \
          Ringway closes none of them while it runs, so both values will do.",
};

/// Where a wider range of local ports may begin: above the ports of most services.
const FIRST_ADVISED: u16 = 10_240;

pub(super) fn checks(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = vec![
        backlog(facts, wanted),
        handshakes(facts, wanted),
        local_ports(facts, wanted),
    ];
    findings.extend(port_clash(facts, wanted));
    findings.extend((wanted.datagram_addresses() > 0).then(|| datagram_buffers(facts, wanted)));
    findings.push(migration(facts));
    findings
}

fn backlog(facts: &Facts, wanted: &Wanted) -> Finding {
    let Some(most) = facts.sysctls.somaxconn else {
        return BACKLOG.unknown("net.core.somaxconn");
    };
    let greatest = wanted.backlog_max();
    let each = format!("for each of {}", count(workers(facts, wanted), "worker"));
    if most < u64::from(greatest) {
        let cut = format!("{} is cut to {}", grouped(greatest), grouped(most));
        BACKLOG
            .warn(format!("{cut} (net.core.somaxconn), {each}"))
            .mend(format!("sysctl -w net.core.somaxconn={greatest}"))
    } else {
        BACKLOG.ok(format!(
            "{} {each}; net.core.somaxconn is {}",
            grouped(greatest),
            grouped(most)
        ))
    }
}

fn handshakes(facts: &Facts, wanted: &Wanted) -> Finding {
    let (Some(most), Some(cookies)) = (
        facts.sysctls.tcp_max_syn_backlog,
        facts.sysctls.tcp_syncookies,
    ) else {
        return HANDSHAKES.unknown("net.ipv4.tcp_max_syn_backlog, net.ipv4.tcp_syncookies");
    };
    let most_text = format!("tcp_max_syn_backlog is {}", grouped(most));
    if cookies != 0 {
        HANDSHAKES.ok(format!("syncookies are on; {most_text} and not needed"))
    } else if most < u64::from(wanted.backlog_max()) {
        HANDSHAKES
            .warn(format!("syncookies are off and {most_text}"))
            .mend("sysctl -w net.ipv4.tcp_syncookies=1")
    } else {
        HANDSHAKES.ok(format!("syncookies are off; {most_text}"))
    }
}

fn local_ports(facts: &Facts, wanted: &Wanted) -> Finding {
    let Some((first, last)) = facts.sysctls.local_ports else {
        return LOCAL_PORTS.unknown("net.ipv4.ip_local_port_range");
    };
    let reserved = &facts.sysctls.reserved_ports;
    let each = ports::count((first, last), reserved);
    let pairs: HashSet<_> = wanted.backends.iter().collect();
    let mut sources: HashMap<&SocketAddr, u32> = HashMap::new();
    for (_, address) in &pairs {
        *sources.entry(address).or_default() += 1;
    }
    let all = u64::from(each) * pairs.len() as u64;
    let fewest = sources.values().min().copied().unwrap_or(1) * each;
    let each_text = match pairs.len() == sources.len() {
        true => format!("{} for each backend address", grouped(each)),
        false => format!("{} from each source to each backend address", grouped(each)),
    };
    let in_all = match sources.len() {
        0 => format!("{first} to {last}: {each_text}"),
        addresses => format!(
            "{first} to {last}: {each_text}, {} for all {addresses}",
            grouped(all)
        ),
    };
    let finding = match wanted.max_sessions {
        Some(asked) if !pairs.is_empty() && all < u64::from(asked) => LOCAL_PORTS.warn(format!(
            "{in_all}; global.max_sessions is {}",
            grouped(asked)
        )),
        Some(_) => return LOCAL_PORTS.ok(in_all),
        None if fewest < SESSIONS_USUAL => LOCAL_PORTS.warn(in_all),
        None => return LOCAL_PORTS.ok(in_all),
    };
    let first = first.min(FIRST_ADVISED);
    let finding = finding.mend(format!(
        "sysctl -w net.ipv4.ip_local_port_range=\"{first} {}\"",
        u16::MAX
    ));
    let widest = ports::count((first, u16::MAX), reserved);
    let in_all = u64::from(widest) * pairs.len() as u64;
    match wanted.max_sessions {
        Some(asked) if in_all < u64::from(asked) => finding.mend(format!(
            "# that makes {}; for more, add `source` addresses to the pool or backend addresses, or lower \
             global.max_sessions",
            grouped(in_all)
        )),
        Some(_) | None => finding,
    }
}

/// Nothing to say where no port is listened on.
fn port_clash(facts: &Facts, wanted: &Wanted) -> Option<Finding> {
    let mut ports: Vec<u16> = wanted
        .listens
        .iter()
        .filter_map(|listen| listen.place.port())
        .filter(|port| *port != 0)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() {
        return None;
    }
    let Some((first, last)) = facts.sysctls.local_ports else {
        return Some(PORT_CLASH.unknown("net.ipv4.ip_local_port_range"));
    };
    let reserved = &facts.sysctls.reserved_ports;
    ports.retain(|port| {
        (first..=last).contains(port) && ports::count((*port, *port), reserved) == 1
    });
    if ports.is_empty() {
        let text = format!("none is one of {first} to {last}, or it is reserved");
        return Some(PORT_CLASH.ok(text));
    }
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ranges = reserved.iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    let all: Vec<String> = ranges.chain(ports.iter().cloned()).collect();
    let reserve = format!(
        "sysctl -w net.ipv4.ip_local_reserved_ports={}",
        all.join(",")
    );
    let text = format!("{} may be taken by a connection", ports.join(", "));
    Some(PORT_CLASH.warn(text).mend(reserve))
}

fn datagram_buffers(facts: &Facts, wanted: &Wanted) -> Finding {
    let asked = RECEIVE_BUFFER as u64;
    let each = format!("for each of {}", count(workers(facts, wanted), "worker"));
    let enough = format!("{} {each}", size(asked));
    match facts.sysctls.rmem_max {
        _ if facts.privileges.net_admin == Some(true) => {
            DATAGRAM_BUFFERS.ok(format!("{enough}; CAP_NET_ADMIN lifts net.core.rmem_max"))
        }
        None => DATAGRAM_BUFFERS.unknown("net.core.rmem_max"),
        Some(most) if most < asked => DATAGRAM_BUFFERS
            .warn(format!(
                "{} is cut to {} (net.core.rmem_max), {each}",
                size(asked),
                size(most)
            ))
            .mend(format!("sysctl -w net.core.rmem_max={asked}")),
        Some(_) => DATAGRAM_BUFFERS.ok(enough),
    }
}

fn migration(facts: &Facts) -> Finding {
    match facts.sysctls.tcp_migrate_req {
        None => MIGRATION.unknown("net.ipv4.tcp_migrate_req"),
        Some(0) => MIGRATION
            .ok("tcp_migrate_req is 0: handshakes stay with the worker that they began with"),
        Some(value) => MIGRATION.ok(format!(
            "tcp_migrate_req is {value}: handshakes may move between workers"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expect, find, good_host};
    use super::*;
    use crate::doctor::finding::Level;
    use crate::doctor::wanted::{Listen, Place};
    use crate::sys::socket::Bind;

    fn listening(port: u16, backlog: u32) -> Wanted {
        Wanted {
            listens: vec![Listen {
                listener: "pg".to_owned(),
                place: Place::Tcp(Bind::Any(port)),
                backlog,
                freebind: crate::control::snapshot::Freebind::Auto,
            }],
            ..Wanted::default()
        }
    }

    #[test]
    fn a_backlog_that_the_kernel_cuts_is_a_warning() {
        for (somaxconn, backlog, level, text, mend) in [
            (4096, 4096, Level::Ok, "4,096 for each of 4 workers", ""),
            (
                128,
                4096,
                Level::Warn,
                "4,096 is cut to 128",
                "somaxconn=4096",
            ),
            (
                4096,
                10_000,
                Level::Warn,
                "10,000 is cut to 4,096",
                "somaxconn=10000",
            ),
            (128, 100, Level::Ok, "100 for each", ""),
        ] {
            let mut facts = good_host();
            facts.sysctls.somaxconn = Some(somaxconn);
            let findings = checks(&facts, &listening(80, backlog));
            expect(&find(&findings, "backlog"), level, text, mend);
        }
    }

    #[test]
    fn handshakes_need_room_or_cookies() {
        for (cookies, most, level, text, mend) in [
            (1, 128, Level::Ok, "cookies are on", ""),
            (
                0,
                128,
                Level::Warn,
                "off and tcp_max_syn_backlog is 128",
                "syncookies=1",
            ),
            (0, 8192, Level::Ok, "8,192", ""),
        ] {
            let mut facts = good_host();
            facts.sysctls.tcp_syncookies = Some(cookies);
            facts.sysctls.tcp_max_syn_backlog = Some(most);
            let findings = checks(&facts, &listening(80, 4096));
            expect(&find(&findings, "handshakes"), level, text, mend);
        }
    }

    #[test]
    fn source_ports_are_counted_for_each_backend_address() {
        const RANGE: (u16, u16) = (32_768, 60_999);
        for (range, backends, max_sessions, level, text) in [
            (RANGE, 0, None, Level::Ok, "28,132 for each backend address"),
            (RANGE, 2, None, Level::Ok, "56,264 for all 2"),
            (RANGE, 2, Some(56_264), Level::Ok, "56,264"),
            (
                RANGE,
                2,
                Some(56_265),
                Level::Warn,
                "max_sessions is 56,265",
            ),
            (RANGE, 0, Some(56_265), Level::Ok, "28,132"),
            ((40_000, 41_000), 1, None, Level::Warn, "901"),
            ((40_000, 41_000), 1, Some(900), Level::Ok, "901"),
        ] {
            let mut facts = good_host();
            facts.sysctls.local_ports = Some(range);
            facts.sysctls.reserved_ports = vec![(80, 90), (40_001, 40_100)];
            let address = |last: u8| (None, SocketAddr::from(([10, 0, 0, last], 5432)));
            let mut backends: Vec<_> = (0..backends).map(address).collect();
            backends.extend(backends.clone());
            let wanted = Wanted {
                backends,
                max_sessions,
                ..Wanted::default()
            };
            let mend = match level {
                Level::Warn => "ip_local_port_range=\"10240 65535\"",
                Level::Ok | Level::Unknown | Level::Fail => "",
            };
            expect(
                &find(&checks(&facts, &wanted), "source ports"),
                level,
                text,
                mend,
            );
        }
    }

    #[test]
    fn each_source_has_all_ports_for_each_backend_address() {
        let source = |last: u8| Some(std::net::IpAddr::from([10, 0, 1, last]));
        let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 5432));
        for (pairs, max_sessions, level, text) in [
            (
                // Two pools that share a source.
                vec![
                    (source(1), address(1)),
                    (source(2), address(1)),
                    (source(1), address(1)),
                ],
                Some(56_464),
                Level::Ok,
                "28,232 from each source to each backend address, 56,464 for all 1",
            ),
            (
                vec![
                    (source(1), address(1)),
                    (None, address(1)),
                    (None, address(2)),
                ],
                Some(84_697),
                Level::Warn,
                "84,696 for all 2; global.max_sessions is 84,697",
            ),
            (
                vec![(source(1), address(1)), (source(1), address(2))],
                None,
                Level::Ok,
                "28,232 for each backend address, 56,464 for all 2",
            ),
        ] {
            let wanted = Wanted {
                backends: pairs,
                max_sessions,
                ..Wanted::default()
            };
            let finding = find(&checks(&good_host(), &wanted), "source ports");
            let mend = if level == Level::Warn {
                "port_range"
            } else {
                ""
            };
            expect(&finding, level, text, mend);
        }
    }

    #[test]
    fn more_sessions_than_all_ports_allow_need_more_than_a_wider_range() {
        for (max_sessions, said) in [(50_000, false), (60_000, true)] {
            let wanted = Wanted {
                backends: vec![(None, SocketAddr::from(([10, 0, 0, 1], 5432)))],
                max_sessions: Some(max_sessions),
                ..Wanted::default()
            };
            let finding = find(&checks(&good_host(), &wanted), "source ports");
            expect(&finding, Level::Warn, "28,232", "ip_local_port_range");
            let more = finding
                .mend
                .iter()
                .any(|line| line.contains("that makes 55,296"));
            assert_eq!(more, said, "{finding:?}");
        }
    }

    #[test]
    fn a_port_that_connections_may_take_is_a_warning() {
        for (port, level, text, mend) in [
            (5432, Level::Ok, "none", ""),
            (
                33_060,
                Level::Warn,
                "33060 may be taken",
                "reserved_ports=40000-40010,33060",
            ),
            (40_005, Level::Ok, "reserved", ""),
        ] {
            let mut facts = good_host();
            facts.sysctls.reserved_ports = vec![(40_000, 40_010)];
            let findings = checks(&facts, &listening(port, 4096));
            expect(&find(&findings, "listener ports"), level, text, mend);
        }
        let findings = checks(&good_host(), &listening(0, 4096));
        assert!(
            findings
                .iter()
                .all(|finding| finding.check != "listener ports")
        );
        let mut facts = good_host();
        facts.sysctls.local_ports = None;
        let findings = checks(&facts, &listening(80, 4096));
        expect(&find(&findings, "listener ports"), Level::Unknown, "", "");
    }

    #[test]
    fn the_buffer_for_datagrams_is_cut_unless_a_privilege_lifts_the_limit() {
        for (rmem_max, net_admin, level, text, mend) in [
            (4 << 20, false, Level::Ok, "4 MiB for each of 4 workers", ""),
            (
                212_992,
                false,
                Level::Warn,
                "4 MiB is cut to 208 KiB (net.core.rmem_max)",
                "rmem_max=4194304",
            ),
            (212_992, true, Level::Ok, "CAP_NET_ADMIN", ""),
        ] {
            let mut facts = good_host();
            facts.sysctls.rmem_max = Some(rmem_max);
            facts.privileges.net_admin = Some(net_admin);
            let mut wanted = listening(53, 4096);
            let without = checks(&facts, &wanted);
            assert!(without.iter().all(|one| one.check != "datagram buffers"));
            wanted.listens[0].place = Place::Udp(Bind::Any(53));
            let findings = checks(&facts, &wanted);
            expect(&find(&findings, "datagram buffers"), level, text, mend);
        }
    }

    #[test]
    fn migration_is_only_told() {
        for (value, text) in [(0, "stay"), (1, "may move")] {
            let mut facts = good_host();
            facts.sysctls.tcp_migrate_req = Some(value);
            let findings = checks(&facts, &Wanted::default());
            expect(&find(&findings, "migration"), Level::Ok, text, "");
        }
    }
}
