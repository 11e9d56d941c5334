//! What this host is like, as plain values. Reads `/proc` and `/sys` (under a root that tests choose), asks the kernel
//! a few questions, and tries out the addresses that are wanted. Judges nothing and changes nothing.

mod cgroup;
mod places;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, Uid, User, getegid, geteuid, getgroups, sysconf};

use super::wanted::Wanted;
use crate::ring::{self, SetupError};
use crate::sys::{clock, host, ports};

pub use places::{Listenable, Owner, Spot};

/// Everything that checks look at. `None` is "the host does not show it here".
#[derive(Debug)]
pub struct Facts {
    /// As in `uname -n`.
    pub host: Option<String>,
    /// As in `uname -r`.
    pub kernel: Option<String>,
    /// The name of the user that this process acts for.
    pub user: String,
    /// Its groups.
    pub groups: Vec<u32>,
    /// What io_uring can do, or why there is none.
    pub ring: Result<ring::Findings, SetupError>,
    /// Settings of the kernel.
    pub sysctls: Sysctls,
    /// RLIMIT_NOFILE.
    pub files: Option<Limit>,
    /// RLIMIT_MEMLOCK, bytes.
    pub memlock: Option<Limit>,
    /// RLIMIT_RTPRIO, the highest real-time priority.
    pub rtprio: Option<Limit>,
    /// Capabilities of this process.
    pub privileges: Privileges,
    /// Bytes of a page of memory.
    pub page_size: u64,
    /// CPUs that this process may use.
    pub cpus: Option<usize>,
    /// Processor time that the cgroups allow, in thousandths of a CPU.
    pub cpu_quota: Quota,
    /// Bytes of memory that the cgroups allow.
    pub memory_max: Quota,
    /// The host's clock.
    pub clock: Clock,
    /// For each of [`Wanted::listens`], in its order.
    pub listens: Vec<Listenable>,
    /// For each of [`Wanted::sources`]: whether connections can come from it.
    pub sources: Vec<Option<bool>>,
}

/// A limit of this process; `u64::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
}

/// A limit of the cgroups that this process is in, the tightest of all levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// The host does not show it here.
    Unknown,
    /// No limit.
    None,
    /// So much.
    At(u64),
}

/// Capabilities that are in effect.
#[derive(Clone, Copy, Debug, Default)]
pub struct Privileges {
    /// CAP_NET_ADMIN.
    pub net_admin: Option<bool>,
    /// CAP_NET_RAW.
    pub net_raw: Option<bool>,
    /// CAP_SYS_NICE.
    pub sys_nice: Option<bool>,
    /// CAP_IPC_LOCK.
    pub ipc_lock: Option<bool>,
    /// CAP_NET_BIND_SERVICE.
    pub net_bind_service: Option<bool>,
    /// CAP_SYS_RESOURCE.
    pub sys_resource: Option<bool>,
    /// CAP_SYS_ADMIN.
    pub sys_admin: Option<bool>,
}

/// Settings of the kernel, each named as under `/proc/sys`.
#[derive(Clone, Debug, Default)]
pub struct Sysctls {
    /// `kernel.io_uring_disabled` (Linux 6.6).
    pub io_uring_disabled: Option<u64>,
    /// `kernel.io_uring_group`; -1 is none.
    pub io_uring_group: Option<i64>,
    /// `fs.nr_open`
    pub nr_open: Option<u64>,
    /// `fs.file-max`
    pub file_max: Option<u64>,
    /// Open files of the whole host, the first number of `fs.file-nr`.
    pub files_open: Option<u64>,
    /// `fs.pipe-max-size`, bytes
    pub pipe_max_size: Option<u64>,
    /// `fs.pipe-user-pages-soft`; 0 is no limit.
    pub pipe_user_pages_soft: Option<u64>,
    /// `fs.pipe-user-pages-hard`; 0 is no limit.
    pub pipe_user_pages_hard: Option<u64>,
    /// `net.core.somaxconn`
    pub somaxconn: Option<u64>,
    /// `net.core.rmem_max`, bytes
    pub rmem_max: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`
    pub tcp_max_syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_syncookies`
    pub tcp_syncookies: Option<u64>,
    /// `net.ipv4.tcp_migrate_req`
    pub tcp_migrate_req: Option<u64>,
    /// `net.ipv4.ip_local_port_range`, first and last
    pub local_ports: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports` as ranges, first and last
    pub reserved_ports: Vec<(u16, u16)>,
    /// `net.ipv4.ip_unprivileged_port_start`
    pub unprivileged_port_start: Option<u64>,
}

/// The host's clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Seconds since 1970.
    pub seconds: Option<u64>,
    /// Whether something keeps it true.
    pub synchronised: Option<bool>,
    /// What the kernel counts with.
    pub source: Option<String>,
    /// What it could count with.
    pub sources: Vec<String>,
}

impl Facts {
    /// Looks at this host. `root` is `/`, but for tests.
    #[must_use]
    pub fn gather(root: &Path, wanted: &Wanted) -> Facts {
        let files = Files::below(root);
        Facts {
            host: files.text("proc/sys/kernel/hostname"),
            kernel: files.text("proc/sys/kernel/osrelease"),
            user: user_name(geteuid()),
            groups: groups(),
            ring: ring::probe(),
            sysctls: Sysctls::read(&files),
            files: limit(Resource::RLIMIT_NOFILE),
            memlock: limit(Resource::RLIMIT_MEMLOCK),
            rtprio: limit(Resource::RLIMIT_RTPRIO),
            privileges: Privileges::of_this_process(),
            page_size: page_size(),
            cpus: host::usable_cpus().ok().map(|cpus| cpus.len()),
            cpu_quota: cgroup::cpu_quota(&files),
            memory_max: cgroup::memory_max(&files),
            clock: Clock::read(&files),
            listens: places::listenable(&files, &wanted.listens),
            sources: wanted
                .sources
                .iter()
                .map(|(_, source)| can_be_source(*source))
                .collect(),
        }
    }
}

impl Sysctls {
    fn read(files: &Files) -> Sysctls {
        let number = |name: &str| files.parsed(&format!("proc/sys/{name}"));
        let text = |name: &str| files.text(&format!("proc/sys/{name}"));
        Sysctls {
            io_uring_disabled: number("kernel/io_uring_disabled"),
            io_uring_group: files.parsed("proc/sys/kernel/io_uring_group"),
            nr_open: number("fs/nr_open"),
            file_max: number("fs/file-max"),
            files_open: text("fs/file-nr").and_then(|text| first_word(&text)),
            pipe_max_size: number("fs/pipe-max-size"),
            pipe_user_pages_soft: number("fs/pipe-user-pages-soft"),
            pipe_user_pages_hard: number("fs/pipe-user-pages-hard"),
            somaxconn: number("net/core/somaxconn"),
            rmem_max: number("net/core/rmem_max"),
            tcp_max_syn_backlog: number("net/ipv4/tcp_max_syn_backlog"),
            tcp_syncookies: number("net/ipv4/tcp_syncookies"),
            tcp_migrate_req: number("net/ipv4/tcp_migrate_req"),
            local_ports: text("net/ipv4/ip_local_port_range")
                .and_then(|text| ports::parse_range(&text)),
            reserved_ports: text("net/ipv4/ip_local_reserved_ports")
                .map(|text| ports::parse_ranges(&text))
                .unwrap_or_default(),
            unprivileged_port_start: number("net/ipv4/ip_unprivileged_port_start"),
        }
    }
}

impl Privileges {
    fn of_this_process() -> Privileges {
        let has = |capability| caps::has_cap(None, CapSet::Effective, capability).ok();
        Privileges {
            net_bind_service: has(Capability::CAP_NET_BIND_SERVICE),
            sys_resource: has(Capability::CAP_SYS_RESOURCE),
            sys_admin: has(Capability::CAP_SYS_ADMIN),
            net_admin: has(Capability::CAP_NET_ADMIN),
            net_raw: has(Capability::CAP_NET_RAW),
            sys_nice: has(Capability::CAP_SYS_NICE),
            ipc_lock: has(Capability::CAP_IPC_LOCK),
        }
    }
}

impl Clock {
    fn read(files: &Files) -> Clock {
        const FOLDER: &str = "sys/devices/system/clocksource/clocksource0";
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let sources = files.text(&format!("{FOLDER}/available_clocksource"));
        Clock {
            seconds: since_1970.ok().map(|time| time.as_secs()),
            synchronised: clock::is_synchronised().ok(),
            source: files.text(&format!("{FOLDER}/current_clocksource")),
            sources: sources
                .iter()
                .flat_map(|text| text.split_whitespace().map(str::to_owned))
                .collect(),
        }
    }
}

/// Small files below a root; what cannot be read is not there.
struct Files {
    root: PathBuf,
}

impl Files {
    fn below(root: &Path) -> Files {
        Files {
            root: root.to_owned(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Without the spaces around it.
    fn text(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(name)).ok()?;
        Some(text.trim().to_owned())
    }

    fn parsed<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }
}

fn first_word<T: FromStr>(text: &str) -> Option<T> {
    text.split_whitespace().next()?.parse().ok()
}

fn two_words<T: FromStr>(text: &str) -> Option<(T, T)> {
    let mut words = text.split_whitespace().map(|word| word.parse().ok());
    Some((words.next()??, words.next()??))
}

fn user_name(id: Uid) -> String {
    match User::from_uid(id) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => id.to_string(),
    }
}

fn groups() -> Vec<u32> {
    let mut groups: Vec<u32> = getgroups()
        .unwrap_or_default()
        .iter()
        .map(|group| group.as_raw())
        .collect();
    groups.push(getegid().as_raw());
    groups
}

fn limit(resource: Resource) -> Option<Limit> {
    let (soft, hard) = getrlimit(resource).ok()?;
    Some(Limit { soft, hard })
}

fn page_size() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

fn can_be_source(source: IpAddr) -> Option<bool> {
    use crate::sys::socket::{Bind, check_free};
    match check_free(Bind::Address((source, 0).into()), false) {
        Ok(()) => Some(true),
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_below_the_root_and_missing_ones_are_not_known() {
        let root = std::env::temp_dir().join(format!("ringway-facts-{}", std::process::id()));
        for (name, text) in [
            ("kernel/io_uring_group", "-1\n"),
            ("fs/file-nr", "1837\t0\t2466183\n"),
            ("net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("net/ipv4/ip_local_reserved_ports", "5432,8000-8010\n"),
            ("net/core/somaxconn", "lots\n"),
        ] {
            let path = root.join("proc/sys").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let facts = Facts::gather(&root, &Wanted::default());
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(facts.sysctls.io_uring_group, Some(-1));
        assert_eq!(facts.sysctls.files_open, Some(1837));
        assert_eq!(facts.sysctls.local_ports, Some((32768, 60999)));
        assert_eq!(facts.sysctls.reserved_ports, [(5432, 5432), (8000, 8010)]);
        assert_eq!(facts.sysctls.somaxconn, None);
        assert_eq!(facts.sysctls.nr_open, None);
        assert_eq!(facts.kernel, None);
        assert_eq!(facts.clock.source, None);
        assert_eq!(facts.cpu_quota, Quota::Unknown);
        assert_eq!(facts.memory_max, Quota::Unknown);
    }
}
