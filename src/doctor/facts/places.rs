//! Whether the addresses that are wanted can be listened on, and who is there if not. Addresses are tried the way they
//! are bound at start, without listening; unix sockets are only looked at.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::ifaddrs::getifaddrs;
use nix::unistd::{AccessFlags, faccessat};

use super::super::wanted::{Listen, Place};
use super::{Files, user_name};
use crate::sys::datagram;
use crate::sys::socket::{Bind, check_free};

/// What there is where a listener wants to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listenable {
    /// Whether it can.
    pub spot: Spot,
    /// The interface that has the address; none for all of them, for one that no interface has, and for a unix socket.
    pub interface: Option<String>,
}

/// Whether a listener can listen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Nobody is there.
    Free,
    /// A socket's file that nobody listens on.
    Stale,
    /// Somebody is there. Empty if the host does not show who.
    Taken(Vec<Owner>),
    /// Nobody listens there, but connections have the port as their own end. Empty if the host does not show whose.
    Connected(Vec<Owner>),
    /// The kernel still remembers connections of that port that have ended.
    Ended,
    /// The port needs a privilege.
    Denied,
    /// No interface has the address.
    Absent,
    /// The folder of the unix socket does not exist.
    NoFolder,
    /// The folder of the unix socket cannot be written to.
    FolderClosed,
    /// A file that is not a socket is in the way.
    OtherFile,
    /// The kernel said something else.
    Other(String),
}

/// Who has a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A process.
    Process {
        /// Its number.
        id: u32,
        /// Its name.
        name: String,
    },
    /// A process of this user that we may not look into.
    User(String),
}

pub(super) fn listenable(files: &Files, listens: &[Listen]) -> Vec<Listenable> {
    let interfaces = interfaces();
    let spots = listens.iter().map(|listen| match &listen.place {
        Place::Tcp(bind) => Listenable {
            spot: spot(check_free(*bind, false), || {
                tcp_sockets(files, *bind).spot(files)
            }),
            interface: interface_of(&interfaces, *bind),
        },
        Place::Udp(bind) => Listenable {
            spot: spot(datagram::check_free(*bind, false), || {
                udp_sockets(files, *bind).spot(files)
            }),
            interface: interface_of(&interfaces, *bind),
        },
        Place::Unix(path) => Listenable {
            spot: unix_spot(files, path),
            interface: None,
        },
    });
    spots.collect()
}

fn interfaces() -> Vec<(IpAddr, String)> {
    let Ok(all) = getifaddrs() else {
        return Vec::new();
    };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let ip = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
            (Some(address), _) => IpAddr::V4(address.ip()),
            (None, Some(address)) => IpAddr::V6(address.ip()),
            (None, None) => return None,
        };
        Some((ip, interface.interface_name))
    };
    all.filter_map(address).collect()
}

fn interface_of(interfaces: &[(IpAddr, String)], bind: Bind) -> Option<String> {
    let Bind::Address(address) = bind else {
        return None;
    };
    let mut found = interfaces.iter().filter(|(ip, _)| *ip == address.ip());
    found.next().map(|(_, name)| name.clone())
}

fn spot(tried: io::Result<()>, who_is_there: impl FnOnce() -> Spot) -> Spot {
    let Err(error) = tried else {
        return Spot::Free;
    };
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => who_is_there(),
        Some(libc::EADDRNOTAVAIL) => Spot::Absent,
        Some(libc::EACCES | libc::EPERM) => Spot::Denied,
        _ => Spot::Other(error.to_string()),
    }
}

fn unix_spot(files: &Files, path: &Path) -> Spot {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Spot::OtherFile,
        Ok(meta) => {
            let sockets = unix_sockets(files, path, meta.uid());
            if !sockets.is_empty() {
                return Spot::Taken(owners(files, &sockets));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Spot::Other(error.to_string()),
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Spot::NoFolder;
    }
    let access = AccessFlags::W_OK | AccessFlags::X_OK;
    if faccessat(AT_FDCWD, folder, access, AtFlags::AT_EACCESS).is_err() {
        return Spot::FolderClosed;
    }
    if fs::symlink_metadata(path).is_ok() {
        Spot::Stale
    } else {
        Spot::Free
    }
}

/// A socket of some process: its inode, and the user that made it.
type SocketOf = (u64, u32);

/// Sockets that have a port as their own end.
#[derive(Debug, Default)]
struct Sockets {
    listening: Vec<SocketOf>,
    connected: Vec<SocketOf>,
    /// Connections that only the kernel still knows.
    ended: usize,
}

impl Sockets {
    fn spot(&self, files: &Files) -> Spot {
        match (&self.listening[..], &self.connected[..], self.ended) {
            ([], [], 1..) => Spot::Ended,
            ([], [_, ..], _) => Spot::Connected(owners(files, &self.connected)),
            (listening, _, _) => Spot::Taken(owners(files, listening)),
        }
    }
}

fn tcp_sockets(files: &Files, bind: Bind) -> Sockets {
    sockets_in(files, ["proc/net/tcp", "proc/net/tcp6"], "0A", bind)
}

/// One that is connected has a state of its own; all others receive from anybody.
fn udp_sockets(files: &Files, bind: Bind) -> Sockets {
    sockets_in(files, ["proc/net/udp", "proc/net/udp6"], "07", bind)
}

/// Those of two of the kernel's tables that are in the way; `listens` is the state of those that wait for anybody.
fn sockets_in(files: &Files, tables: [&str; 2], listens: &str, bind: Bind) -> Sockets {
    let mut sockets = Sockets::default();
    for table in tables {
        for line in files.text(table).iter().flat_map(|text| text.lines()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, _, _, _, user, _, inode, ..] = words[..] else {
                continue;
            };
            let (Some(local), Ok(inode), Ok(user)) =
                (table_address(local), inode.parse(), user.parse())
            else {
                continue;
            };
            if !overlaps(bind, local) {
                continue;
            }
            match (state, inode) {
                (state, _) if state == listens => sockets.listening.push((inode, user)),
                (_, 0) => sockets.ended += 1,
                (_, _) => sockets.connected.push((inode, user)),
            }
        }
    }
    sockets
}

/// `0100007F:1538`: each 32 bits of the address as a number of this machine, in hexadecimal.
fn table_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?)),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Whether a socket at `local` can be in the way. One at `[::]` may take IPv4 as well; the table does not say.
fn overlaps(bind: Bind, local: SocketAddr) -> bool {
    let every_v6 = local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match bind {
        Bind::Any(port) => local.port() == port,
        Bind::Address(wanted) => {
            let same_family = wanted.is_ipv4() == local.is_ipv4();
            let every = wanted.ip().is_unspecified() || local.ip().is_unspecified();
            local.port() == wanted.port()
                && (wanted.ip() == local.ip() || every_v6 || (same_family && every))
        }
    }
}

/// Those that listen at that path.
fn unix_sockets(files: &Files, path: &Path, user: u32) -> Vec<SocketOf> {
    const ACCEPTS: u32 = 1 << 16;
    let Some(wanted) = path.to_str() else {
        return Vec::new();
    };
    let table = files.text("proc/net/unix").unwrap_or_default();
    let socket = |line: &str| {
        let mut words = line.split_whitespace();
        let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
        let inode = words.nth(2)?.parse().ok()?;
        // A path may have spaces in it.
        let here = line.ends_with(wanted) && words.next().is_some_and(|at| wanted.starts_with(at));
        (here && flags & ACCEPTS != 0).then_some((inode, user))
    };
    table.lines().filter_map(socket).collect()
}

/// The processes that have these sockets open; the users where no process can be seen.
fn owners(files: &Files, sockets: &[SocketOf]) -> Vec<Owner> {
    let mut hidden: HashMap<u64, u32> = sockets.iter().copied().collect();
    let mut owners = Vec::new();
    if sockets.is_empty() {
        return owners;
    }
    for process in entries(&files.path("proc")) {
        let Some(id) = process.file_name().to_str().and_then(|id| id.parse().ok()) else {
            continue;
        };
        let inodes = entries(&process.path().join("fd"))
            .into_iter()
            .filter_map(|file| {
                let target = fs::read_link(file.path()).ok()?;
                let inode = target
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?;
                inode.parse::<u64>().ok()
            });
        let mut has_one = false;
        for inode in inodes.filter(|inode| sockets.iter().any(|(wanted, _)| wanted == inode)) {
            has_one = true;
            hidden.remove(&inode);
        }
        if has_one {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = name.trim_end().to_owned();
            owners.push(Owner::Process { id, name });
        }
    }
    owners.extend(
        hidden
            .into_values()
            .map(|user| Owner::User(user_name(user.into()))),
    );
    owners.sort();
    owners.dedup();
    owners
}

/// What cannot be read is empty.
fn entries(folder: &Path) -> Vec<fs::DirEntry> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tcp(text: &str) -> Bind {
        Bind::Address(text.parse().unwrap())
    }

    #[test]
    fn a_socket_is_in_the_way_of_addresses_that_overlap() {
        for (wanted, local, expected) in [
            (tcp("10.0.0.1:80"), "10.0.0.1:80", true),
            (tcp("10.0.0.1:80"), "10.0.0.1:81", false),
            (tcp("10.0.0.1:80"), "10.0.0.2:80", false),
            (tcp("10.0.0.1:80"), "0.0.0.0:80", true),
            (tcp("10.0.0.1:80"), "[::]:80", true),
            (tcp("10.0.0.1:80"), "[::1]:80", false),
            (tcp("0.0.0.0:80"), "10.0.0.2:80", true),
            (tcp("0.0.0.0:80"), "[::1]:80", false),
            (tcp("[::1]:80"), "0.0.0.0:80", false),
            (Bind::Any(80), "10.0.0.2:80", true),
        ] {
            let local = local.parse().unwrap();
            assert_eq!(overlaps(wanted, local), expected, "{wanted:?} and {local}");
        }
    }

    #[test]
    fn the_kernels_tables_lead_to_the_processes() {
        let name = format!("ringway-places-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        let files = Files::below(&root);
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n";
        let line = |address: &str, state: &str, user: u32, inode: u64| {
            format!("0: {address} 00000000:0000 {state} 0:0 00:0 0 {user} 0 {inode} 1 0 100\n")
        };
        let ip = |ip: [u8; 4]| format!("{:08X}:1538", u32::from_ne_bytes(ip));
        let table = head.to_owned()
            + &line(&ip([127, 0, 0, 1]), "0A", 0, 11)
            + &line(&ip([10, 0, 0, 1]), "0A", 26, 12)
            + &line(&ip([10, 0, 0, 1]), "01", 26, 13)
            + &line(&ip([10, 0, 0, 1]), "05", 27, 0)
            + &line(&ip([10, 0, 0, 2]), "01", 26, 13)
            + &line(&ip([10, 0, 0, 2]), "06", 0, 0)
            + &line(&ip([10, 0, 0, 3]), "06", 0, 0);
        fs::create_dir_all(root.join("proc/net")).unwrap();
        fs::write(root.join("proc/net/tcp"), table).unwrap();
        let table = head.to_owned()
            + &line(&ip([10, 0, 0, 1]), "07", 0, 11)
            + &line(&ip([10, 0, 0, 2]), "01", 0, 11);
        fs::write(root.join("proc/net/udp"), table).unwrap();
        let unix = "Num RefCount Protocol Flags Type St Inode Path\n\
            00: 00000002 00000000 00010000 0001 01 14 /run/a b\n00: 00000002 00000000 00000000 0001 03 15 /run/a b\n";
        fs::write(root.join("proc/net/unix"), unix).unwrap();
        fs::create_dir_all(root.join("proc/812/fd")).unwrap();
        fs::write(root.join("proc/812/comm"), "postgres\n").unwrap();
        symlink("socket:[11]", root.join("proc/812/fd/7")).unwrap();

        let spot = |bind| tcp_sockets(&files, bind).spot(&files);
        let postgres = Owner::Process {
            id: 812,
            name: "postgres".to_owned(),
        };
        let other = Owner::User(user_name(26.into()));
        for (bind, expected) in [
            (tcp("127.0.0.1:5432"), Spot::Taken(vec![postgres.clone()])),
            (tcp("10.0.0.1:5432"), Spot::Taken(vec![other.clone()])),
            (tcp("10.0.0.2:5432"), Spot::Connected(vec![other.clone()])),
            (tcp("10.0.0.3:5432"), Spot::Ended),
            (Bind::Any(5432), Spot::Taken(vec![postgres.clone(), other])),
            (Bind::Any(80), Spot::Taken(vec![])),
        ] {
            assert_eq!(spot(bind), expected, "{bind:?}");
        }
        for (bind, expected) in [
            (tcp("10.0.0.1:5432"), Spot::Taken(vec![postgres.clone()])),
            (tcp("10.0.0.2:5432"), Spot::Connected(vec![postgres])),
        ] {
            let found = udp_sockets(&files, bind).spot(&files);
            assert_eq!(found, expected, "{bind:?}");
        }
        assert_eq!(unix_sockets(&files, Path::new("/run/a b"), 7), [(14, 7)]);
        assert_eq!(unix_sockets(&files, Path::new("/run/b"), 7), []);
        fs::remove_dir_all(&root).unwrap();
    }
}
