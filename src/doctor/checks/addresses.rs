//! What the file asks for: privileges, addresses that are listened on, addresses that connections come from.

use std::path::Path;

use crate::control::snapshot::Freebind;
use crate::doctor::facts::{Facts, Listenable, Owner, Spot};
use crate::doctor::finding::{Area, Check, Finding};
use crate::doctor::wanted::{Listen, Place, Wanted};

const PRIVILEGES: Check = Check {
    area: Area::Addresses,
    name: "privileges",
    why: "Ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE; without it Ringway \
          does not start.",
};
const LISTENER: Check = Check {
    area: Area::Addresses,
    name: "listener",
    why: "A listener needs its address and port for itself.",
};
const LISTENER_ABSENT: Check = Check {
    why: "Ringway listens there all the same, and clients are served as soon as the host has the address; \
          `freebind: true` says that this is meant, `freebind: false` that Ringway must not start then.",
    ..LISTENER
};
const LISTENER_FILE: Check = Check {
    why: "A unix socket is a file: its folder must be there and open to the user that runs Ringway.",
    ..LISTENER
};
const SOURCE: Check = Check {
    area: Area::Addresses,
    name: "source",
    why: "Connections to the pool's backends come from this address; without it every one of them fails.",
};

/// The name of our own processes, and of the user that they often run as.
const OURSELVES: &str = "ringway";

pub(super) fn checks(facts: &Facts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = vec![privileges(facts, wanted)];
    let listens = wanted.listens.iter().zip(&facts.listens);
    findings.extend(listens.map(|(listen, found)| listener(listen, found)));
    let sources = wanted.sources.iter().zip(&facts.sources);
    findings.extend(sources.map(|((pool, address), found)| source(pool, address, *found)));
    findings
}

fn privileges(facts: &Facts, wanted: &Wanted) -> Finding {
    let mut ports: Vec<u16> = wanted
        .listens
        .iter()
        .filter_map(|listen| listen.place.port())
        .filter(|port| *port != 0)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() {
        return PRIVILEGES.ok("none needed: no port is listened on");
    }
    let Some(start) = facts.sysctls.unprivileged_port_start else {
        return PRIVILEGES.unknown("net.ipv4.ip_unprivileged_port_start");
    };
    ports.retain(|port| u64::from(*port) < start);
    if ports.is_empty() {
        return PRIVILEGES.ok(format!("none needed: no port is below {start}"));
    }
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let needed = format!("CAP_NET_BIND_SERVICE for port {}", ports.join(", "));
    match facts.privileges.net_bind_service {
        None => PRIVILEGES.unknown("the capabilities of this process"),
        Some(true) => PRIVILEGES.ok(format!("{needed}: user {} has it", facts.user)),
        Some(false) => PRIVILEGES
            .fail(format!("{needed}: user {} does not have it", facts.user))
            .mend("# in the [Service] part of the unit")
            .mend("AmbientCapabilities=CAP_NET_BIND_SERVICE")
            .mend("# or for the program")
            .mend("setcap cap_net_bind_service=+ep \"$(command -v ringway)\""),
    }
}

fn listener(listen: &Listen, found: &Listenable) -> Finding {
    let place = &listen.place;
    let at = match listen.listener == place.to_string() {
        true => place.to_string(),
        false => format!("{} at {place}", listen.listener),
    };
    match &found.spot {
        Spot::Free => LISTENER.ok(format!("{at}: free{}", whose(listen, found))),
        Spot::Stale => LISTENER.ok(format!("{at}: left over from before; it is replaced")),
        Spot::Taken(owners) | Spot::Connected(owners)
            if !owners.is_empty() && owners.iter().all(is_ours) =>
        {
            LISTENER.ok(format!(
                "{at}: Ringway is running there ({})",
                named(owners)
            ))
        }
        Spot::Taken(owners) => taken(&at, place, owners),
        Spot::Connected(owners) => connected(&at, place, owners),
        Spot::Ended => LISTENER
            .fail(format!(
                "{at}: in use by connections that have ended, for a minute at most (TIME_WAIT)"
            ))
            .mend("# wait until none is left")
            .mend(look(place, "-tan")),
        Spot::Denied => LISTENER.unknown(&format!("{at} needs a privilege, see above")),
        Spot::Absent => {
            let text = format!("{at}: this host does not have the address");
            match listen.freebind {
                Freebind::On => {
                    LISTENER_ABSENT.ok(format!("{text} now, which `freebind: true` allows"))
                }
                Freebind::Auto => mend_absent(LISTENER_ABSENT.warn(text), place),
                Freebind::Off => {
                    let text = format!("{text}, and `freebind: false` says that it must");
                    mend_absent(LISTENER_ABSENT.fail(text), place)
                }
            }
        }
        Spot::NoFolder => LISTENER_FILE
            .fail(format!("{at}: the folder does not exist"))
            .mend(format!("mkdir -p {}", folder(place))),
        Spot::FolderClosed => LISTENER_FILE
            .fail(format!("{at}: no permission to write to the folder"))
            .mend("# with the user that runs ringway")
            .mend(format!("chown ringway {}", folder(place))),
        Spot::OtherFile => LISTENER_FILE
            .fail(format!("{at}: a file that is not a socket is there"))
            .mend("# look at it, then move it away or choose another path")
            .mend(format!("ls -l {}", path(place))),
        Spot::Other(error) => LISTENER
            .fail(format!("{at}: {error}"))
            .mend("# what there is")
            .mend("ip address"),
    }
}

/// The interface that has the address.
fn whose(listen: &Listen, found: &Listenable) -> String {
    let Some(address) = listen.place.address() else {
        return String::new();
    };
    match &found.interface {
        Some(interface) => format!(", on {interface}"),
        None if address.ip().is_unspecified() || address.ip().is_loopback() => String::new(),
        None => ", although no interface has the address now (ip_nonlocal_bind or a local route)"
            .to_owned(),
    }
}

fn taken(at: &str, place: &Place, owners: &[Owner]) -> Finding {
    LISTENER
        .fail(format!("{at}: taken by {}", named(owners)))
        .mend("# see who it is; stop it the way it was started, or choose another address")
        .mend(look(place, "-ltnp"))
}

fn connected(at: &str, place: &Place, owners: &[Owner]) -> Finding {
    LISTENER
        .fail(format!(
            "{at}: nobody listens there, but a connection of {} has the port as its own end",
            named(owners)
        ))
        .mend("# see which; end it, or choose another port")
        .mend(look(place, "-tanp"))
        .mend("# so that the kernel gives it to no connection (add the ports that are reserved already)")
        .mend(format!(
            "sysctl -w net.ipv4.ip_local_reserved_ports={}",
            place.port().unwrap_or_default()
        ))
}

/// The command that shows who is there.
fn look(place: &Place, tcp_options: &str) -> String {
    match (place, place.port()) {
        (Place::Tcp(_), Some(port)) => format!("ss {tcp_options} 'sport = :{port}'"),
        (Place::Udp(_), Some(port)) => format!("ss -uanp 'sport = :{port}'"),
        (Place::Tcp(_) | Place::Udp(_), None) | (Place::Unix(_), _) => {
            format!("ss -lxp src {}", path(place))
        }
    }
}

fn is_ours(owner: &Owner) -> bool {
    match owner {
        Owner::Process { name, .. } => name == OURSELVES,
        Owner::User(name) => name == OURSELVES,
    }
}

fn named(owners: &[Owner]) -> String {
    if owners.is_empty() {
        return "a process that this host does not show".to_owned();
    }
    let names = owners.iter().map(|owner| match owner {
        Owner::Process { id, name } => format!("{name} (process {id})"),
        Owner::User(name) => format!("a process of user {name}"),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn mend_absent(finding: Finding, place: &Place) -> Finding {
    let Some(address) = place.address() else {
        return finding.mend("ip address");
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let ip = address.ip();
    finding.mend(format!("ip address add {ip}/{bits} dev INTERFACE"))
}

fn source(pool: &str, address: &std::net::IpAddr, found: Option<bool>) -> Finding {
    let of = format!("pool {pool} from {address}");
    let bits = if address.is_ipv4() { 32 } else { 128 };
    match found {
        Some(true) => SOURCE.ok(format!("{of}: this host has the address")),
        Some(false) => SOURCE
            .warn(format!("{of}: this host does not have the address"))
            .mend(format!("ip address add {address}/{bits} dev INTERFACE")),
        None => SOURCE.unknown(&of),
    }
}

/// For a shell.
fn path(place: &Place) -> String {
    match place {
        Place::Unix(path) => quoted(path),
        Place::Tcp(_) | Place::Udp(_) => String::new(),
    }
}

fn folder(place: &Place) -> String {
    match place {
        Place::Unix(path) => path.parent().map(quoted).unwrap_or_default(),
        Place::Tcp(_) | Place::Udp(_) => String::new(),
    }
}

/// As one word for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@:".contains(letter);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expect, find, good_host};
    use super::*;
    use crate::doctor::finding::Level;
    use crate::sys::socket::Bind;

    fn listen(place: Place) -> Listen {
        Listen {
            listener: "pg".to_owned(),
            place,
            backlog: 4096,
            freebind: Freebind::Auto,
        }
    }

    fn tcp(address: &str) -> Place {
        Place::Tcp(Bind::Address(address.parse().unwrap()))
    }

    #[test]
    fn ports_that_need_a_privilege_are_found() {
        let web = || {
            vec![
                tcp("10.0.0.1:443"),
                tcp("10.0.0.2:443"),
                Place::Tcp(Bind::Any(80)),
            ]
        };
        for (places, start, has, level, text, mend) in [
            (
                vec![],
                Some(1024),
                Some(false),
                Level::Ok,
                "no port is listened on",
                "",
            ),
            (
                vec![tcp("10.0.0.1:5432")],
                Some(1024),
                Some(false),
                Level::Ok,
                "below 1024",
                "",
            ),
            (
                vec![tcp("10.0.0.1:0")],
                Some(1024),
                Some(false),
                Level::Ok,
                "none needed",
                "",
            ),
            (
                web(),
                Some(1024),
                Some(false),
                Level::Fail,
                "for port 80, 443: user ringway does not",
                "setcap",
            ),
            (
                web(),
                Some(1024),
                Some(true),
                Level::Ok,
                "ringway has it",
                "",
            ),
            (web(), Some(80), Some(false), Level::Ok, "below 80", ""),
            (web(), Some(1024), None, Level::Unknown, "capabilities", ""),
            (web(), None, Some(true), Level::Unknown, "port_start", ""),
        ] {
            let mut facts = good_host();
            facts.sysctls.unprivileged_port_start = start;
            facts.privileges.net_bind_service = has;
            let wanted = Wanted {
                listens: places.into_iter().map(listen).collect(),
                ..Wanted::default()
            };
            expect(
                &find(&checks(&facts, &wanted), "privileges"),
                level,
                text,
                mend,
            );
        }
    }

    #[test]
    fn freebind_says_what_a_missing_address_means() {
        for (freebind, level, text) in [
            (Freebind::Auto, Level::Warn, "does not have the address"),
            (Freebind::On, Level::Ok, "`freebind: true` allows"),
            (Freebind::Off, Level::Fail, "says that it must"),
        ] {
            let wanted = Listen {
                freebind,
                ..listen(tcp("10.0.0.1:5432"))
            };
            let found = Listenable {
                spot: Spot::Absent,
                interface: None,
            };
            let finding = listener(&wanted, &found);
            assert_eq!(finding.level, level);
            assert!(finding.finding.contains(text), "{}", finding.finding);
        }
    }

    #[test]
    fn every_spot_has_its_finding() {
        let unix = || Place::Unix("/run/ring way/pg.sock".into());
        let process = |name: &str| Owner::Process {
            id: 812,
            name: name.to_owned(),
        };
        let postgres = || process("postgres");
        let user = |name: &str| Owner::User(name.to_owned());
        let v6 = || tcp("[2001:db8::1]:5432");
        let v4 = || tcp("10.0.0.1:5432");
        for (place, spot, level, text, mend) in [
            (
                v4(),
                Spot::Free,
                Level::Ok,
                "pg at 10.0.0.1:5432: free, on eth0",
                "",
            ),
            (unix(), Spot::Free, Level::Ok, "pg.sock: free", ""),
            (unix(), Spot::Stale, Level::Ok, "left over", ""),
            (
                v4(),
                Spot::Taken(vec![postgres()]),
                Level::Fail,
                "postgres (process 812)",
                "another address",
            ),
            (
                v4(),
                Spot::Connected(vec![postgres()]),
                Level::Fail,
                "a connection of postgres (process 812)",
                "ss -tanp 'sport = :5432'",
            ),
            (
                v4(),
                Spot::Connected(vec![process("ringway")]),
                Level::Ok,
                "Ringway is running",
                "",
            ),
            (
                Place::Udp(Bind::Any(53)),
                Spot::Taken(vec![process("named")]),
                Level::Fail,
                "pg at *:53 (UDP): taken by named (process 812)",
                "ss -uanp 'sport = :53'",
            ),
            (v4(), Spot::Ended, Level::Fail, "have ended", "wait"),
            (
                v4(),
                Spot::Taken(vec![postgres()]),
                Level::Fail,
                "taken",
                "sport = :5432",
            ),
            (
                v4(),
                Spot::Taken(vec![user("26")]),
                Level::Fail,
                "of user 26",
                "ss -ltnp",
            ),
            (
                v4(),
                Spot::Taken(vec![user("ringway")]),
                Level::Ok,
                "Ringway is running there (a process of user ringway)",
                "",
            ),
            (
                v4(),
                Spot::Taken(vec![]),
                Level::Fail,
                "does not show",
                "ss -ltnp",
            ),
            (
                v4(),
                Spot::Taken(vec![process("ringway")]),
                Level::Ok,
                "Ringway is running",
                "",
            ),
            (
                v4(),
                Spot::Taken(vec![process("ringway"), postgres()]),
                Level::Fail,
                "postgres",
                "stop it",
            ),
            (
                unix(),
                Spot::Taken(vec![postgres()]),
                Level::Fail,
                "postgres",
                "'/run/ring way/pg.sock'",
            ),
            (v4(), Spot::Denied, Level::Unknown, "needs a privilege", ""),
            (
                v4(),
                Spot::Absent,
                Level::Warn,
                "does not have",
                "ip address add 10.0.0.1/32",
            ),
            (
                v6(),
                Spot::Absent,
                Level::Warn,
                "does not have",
                "2001:db8::1/128",
            ),
            (
                unix(),
                Spot::NoFolder,
                Level::Fail,
                "does not exist",
                "mkdir -p '/run/ring way'",
            ),
            (
                unix(),
                Spot::FolderClosed,
                Level::Fail,
                "no permission",
                "chown",
            ),
            (
                unix(),
                Spot::OtherFile,
                Level::Fail,
                "not a socket",
                "ls -l",
            ),
            (
                v6(),
                Spot::Other("no IPv6".to_owned()),
                Level::Fail,
                "no IPv6",
                "ip address",
            ),
        ] {
            let found = Listenable {
                spot,
                interface: Some("eth0".to_owned()),
            };
            let facts = Facts {
                listens: vec![found],
                ..good_host()
            };
            let wanted = Wanted {
                listens: vec![listen(place)],
                ..Wanted::default()
            };
            expect(
                &find(&checks(&facts, &wanted), "listener"),
                level,
                text,
                mend,
            );
        }
    }

    #[test]
    fn an_address_that_is_bindable_but_on_no_interface_is_told() {
        for (address, said) in [
            ("10.0.0.1:80", true),
            ("0.0.0.0:80", false),
            ("127.0.0.9:80", false),
        ] {
            let found = Listenable {
                spot: Spot::Free,
                interface: None,
            };
            let finding = listener(&listen(tcp(address)), &found);
            assert_eq!(finding.level, Level::Ok);
            assert_eq!(finding.finding.contains("no interface"), said, "{address}");
        }
    }

    #[test]
    fn a_source_that_the_host_does_not_have_is_a_warning() {
        for (found, level, text, mend) in [
            (
                Some(true),
                Level::Ok,
                "pool pg from 10.0.0.5: this host has",
                "",
            ),
            (Some(false), Level::Warn, "does not have", "10.0.0.5/32"),
            (None, Level::Unknown, "10.0.0.5", ""),
        ] {
            let facts = Facts {
                sources: vec![found],
                ..good_host()
            };
            let wanted = Wanted {
                sources: vec![("pg".to_owned(), "10.0.0.5".parse().unwrap())],
                ..Wanted::default()
            };
            expect(&find(&checks(&facts, &wanted), "source"), level, text, mend);
        }
    }
}
