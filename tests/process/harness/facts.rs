//! What `/proc` says about a process (threads, open files, memory, processor time) and about a connection. Does not
//! change anything.

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The names of all its threads, those that the kernel made for io_uring (`iou-wrk-...`) included.
pub fn threads(pid: u32) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs") {
        // A thread may end while the folder is read.
        let Ok(entry) = entry else { continue };
        if let Ok(name) = fs::read_to_string(entry.path().join("comm")) {
            names.push(name.trim_end().to_owned());
        }
    }
    names
}

/// Its thread of this name.
#[track_caller]
pub fn thread_named(pid: u32, name: &str) -> u32 {
    let all = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let mut own = all.map_while(Result::ok).filter(|one| {
        let comm = fs::read_to_string(one.path().join("comm"));
        comm.is_ok_and(|comm| comm.trim() == name)
    });
    let found = own.next().unwrap_or_else(|| panic!("no thread {name}"));
    let found = found.file_name();
    found
        .to_str()
        .and_then(|id| id.parse().ok())
        .expect("a number")
}

/// A line of what the kernel says about a thread, such as `CapEff`.
#[track_caller]
pub fn status_of(pid: u32, thread: u32, key: &str) -> String {
    let path = format!("/proc/{pid}/task/{thread}/status");
    let status = fs::read_to_string(path).expect("the thread is there");
    let mut values = status
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    values
        .next()
        .expect("the kernel knows it")
        .trim()
        .to_owned()
}

/// Whether all its threads are stopped, but for those that the kernel made for io_uring.
pub fn stand_still(pid: u32) -> bool {
    let all = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let stats = all
        .flatten()
        .filter_map(|one| fs::read_to_string(one.path().join("stat")).ok());
    let mut states = stats.filter_map(|stat| {
        let (name, rest) = stat.rsplit_once(')')?;
        (!name.contains("(iou-")).then(|| rest.trim_start().starts_with('T'))
    });
    states.all(|stopped| stopped)
}

/// A set of capabilities of a thread, such as `CapEff`.
#[track_caller]
pub fn capabilities(pid: u32, thread: u32, set: &str) -> u64 {
    u64::from_str_radix(&status_of(pid, thread, set), 16).expect("a set in hexadecimal digits")
}

/// Those of these capabilities that this process may use; not every root may use all.
pub fn own_of(wanted: u64) -> u64 {
    let own = std::process::id();
    wanted & capabilities(own, own, "CapPrm")
}

pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process runs")
        .count()
}

/// How many open files the process's table has places for.
pub fn file_table(pid: u32) -> u64 {
    let places = status_of(pid, pid, "FDSize");
    places.parse().expect("a number")
}

/// The limit of open files that leaves room for so many more.
pub fn files_limit_leaving(pid: u32, more: usize) -> u64 {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let used: HashSet<u64> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let last = (0..).filter(|number| !used.contains(number)).nth(more - 1);
    last.expect("numbers do not end") + 1
}

/// Bytes of memory that it has resident, counted exactly and not from the kernel's batched sums.
pub fn resident_bytes(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process runs");
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Rss:"))
        .expect("a line Rss");
    let kilobytes: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("a number");
    kilobytes * 1024
}

/// Processor time of all its threads since its start, the kernel's io_uring workers included.
pub fn cpu_time(pid: u32) -> Duration {
    cpu_time_of(pid, |_| true)
}

/// Processor time of its threads of this name since their start.
pub fn thread_cpu_time(pid: u32, name: &str) -> Duration {
    cpu_time_of(pid, |found| found == name)
}

fn cpu_time_of(pid: u32, is_meant: impl Fn(&str) -> bool) -> Duration {
    let mut nanoseconds = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs") {
        let Ok(entry) = entry else { continue };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if !is_meant(name.trim_end()) {
            continue;
        }
        if let Ok(line) = fs::read_to_string(entry.path().join("schedstat")) {
            nanoseconds += line
                .split_whitespace()
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    Duration::from_nanos(nanoseconds)
}

/// Bytes of an IPv4 connection that were written here and that the peer's kernel has not acknowledged; `None` when the
/// connection is gone.
pub fn unacknowledged(stream: &TcpStream) -> Option<u64> {
    let local = as_proc_writes(stream.local_addr().ok()?)?;
    let peer = as_proc_writes(stream.peer_addr().ok()?)?;
    let table =
        fs::read_to_string("/proc/thread-self/net/tcp").expect("the kernel lists its connections");
    let line = table.lines().find(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&*local) && words.next() == Some(&*peer)
    })?;
    let queues = line.split_whitespace().nth(4)?;
    u64::from_str_radix(queues.split(':').next()?, 16).ok()
}

fn as_proc_writes(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    Some(format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(address.ip().octets()),
        address.port()
    ))
}
