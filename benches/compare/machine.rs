//! What /proc says: CPU and memory of processes, slab memory of the kernel, the machine itself.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process::Command;

/// CPU time of a balancer: all threads of all its processes, kernel workers among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu {
    threads: HashMap<u32, (u64, u64)>,
    softirq_ns: u64,
}

/// CPU time between two readings.
pub(crate) struct Spent {
    pub(crate) ran_ns: u64,
    pub(crate) waited_ns: u64,
    pub(crate) softirq_ns: u64,
}

impl Cpu {
    pub(crate) fn of(pids: &[u32]) -> Self {
        let threads = pids.iter().flat_map(|pid| {
            numbered(&format!("/proc/{pid}/task"))
                .into_iter()
                .map(move |id| (*pid, id))
        });
        let threads = threads.filter_map(|(pid, id)| {
            Some((id, schedstat(&format!("/proc/{pid}/task/{id}/schedstat"))?))
        });
        Self {
            threads: threads.collect(),
            softirq_ns: softirq_thread().map_or(0, |(ran, _)| ran),
        }
    }

    /// A thread that is new counts from zero; what one that has ended since did is lost.
    pub(crate) fn since(&self, before: &Self) -> Spent {
        let mut spent = Spent {
            ran_ns: 0,
            waited_ns: 0,
            softirq_ns: self.softirq_ns.saturating_sub(before.softirq_ns),
        };
        for (id, (ran, waited)) in &self.threads {
            let (ran_before, waited_before) = before.threads.get(id).copied().unwrap_or_default();
            spent.ran_ns += ran.saturating_sub(ran_before);
            spent.waited_ns += waited.saturating_sub(waited_before);
        }
        spent
    }
}

/// Nanoseconds run and waited.
fn schedstat(path: &str) -> Option<(u64, u64)> {
    let text = fs::read_to_string(path).ok()?;
    let mut fields = text.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The kernel's thread for network work on core 0 that a process did not do in its own time. Its pid is low.
fn softirq_thread() -> Option<(u64, u64)> {
    let is_it = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "ksoftirqd/0")
    };
    (2..40)
        .find(is_it)
        .and_then(|pid| schedstat(&format!("/proc/{pid}/schedstat")))
}

/// Entries of a folder whose names are numbers.
fn numbered(folder: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// A process and all that descend from it.
pub(crate) fn process_tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = numbered("/proc")
        .into_iter()
        .filter_map(|pid| Some((pid, parent_of(pid)?)))
        .collect();
    let mut tree = vec![root];
    let mut next = 0;
    while next < tree.len() {
        let parent = tree[next];
        tree.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    tree
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Bytes of memory that processes would give back if they ended: their share of shared pages counts once.
pub(crate) fn proportional_memory(pids: &[u32]) -> u64 {
    let of_one = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    pids.iter().filter_map(of_one).sum::<u64>() * 1024
}

/// Slab caches that programs at work beside us fill and empty, or that hold what is left of earlier connections.
const OTHERS: &[&str] = &[
    "anon_vma",
    "bio",
    "btrfs",
    "buffer_head",
    "cred",
    "dentry",
    "ext4",
    "files_cache",
    "fs_cache",
    "inode_cache",
    "jbd2",
    "kernfs",
    "lsm",
    "maple_node",
    "mm_struct",
    "names_cache",
    "ovl",
    "page->ptl",
    "pde",
    "pid",
    "proc_inode",
    "radix_tree",
    "request_sock",
    "seq_file",
    "shmem_inode",
    "sighand",
    "signal_cache",
    "task",
    "tw_sock",
    "vm_area",
    "vma_lock",
    "xfs",
];

/// Kernel objects in use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slab {
    pub(crate) bytes: u64,
    pub(crate) tcp_sockets: u64,
}

/// The kernel objects in use now; none where only root may look.
pub(crate) fn slab() -> Option<Slab> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let mut slab = Slab::default();
    for line in text.lines().skip(2) {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        if OTHERS.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        let objects: u64 = fields.next()?.parse().ok()?;
        let size: u64 = fields.nth(1)?.parse().ok()?;
        slab.bytes += objects * size;
        if name == "TCP" {
            slab.tcp_sockets = objects;
        }
    }
    Some(slab)
}

/// Kernel, processor and number of cores.
pub(crate) fn description() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpuinfo
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(|line| line.split(": ").nth(1))
        .collect();
    let kinds: HashSet<&&str> = models.iter().collect();
    let model = kinds
        .into_iter()
        .next()
        .map_or("unknown processor", |model| *model);
    format!("kernel {}, {} x {model}", kernel.trim(), models.len())
}

/// The date and time, as the system writes it.
pub(crate) fn date() -> String {
    first_line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))
}

/// The first line that a program prints, on either output.
pub(crate) fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return "not found".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or("says nothing")
        .trim()
        .to_owned()
}
