//! What this process uses of its host, as `/proc` and the kernel tell it. What cannot be read is left out.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Processor time.
    pub cpu: Option<Duration>,
    /// Bytes in RAM.
    pub resident: Option<u64>,
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// File descriptors in use.
    pub files: Option<u64>,
    /// File descriptors that may be.
    pub files_max: Option<u64>,
}

impl Usage {
    /// How it is now.
    #[must_use]
    pub fn now() -> Usage {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |key| field(&status, key).map(|size| size * 1024);
        Usage {
            cpu: getrusage(UsageWho::RUSAGE_SELF).ok().and_then(|usage| {
                let both = usage.user_time() + usage.system_time();
                u64::try_from(both.num_microseconds())
                    .ok()
                    .map(Duration::from_micros)
            }),
            resident: kibibytes("VmRSS:"),
            address_space: kibibytes("VmSize:"),
            threads: field(&status, "Threads:"),
            files: files(),
            files_max: getrlimit(Resource::RLIMIT_NOFILE)
                .ok()
                .map(|(soft, _)| soft),
        }
    }
}

/// The number that belongs to a key.
fn field(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A kernel since 6.2 has their number as the size of the folder; others have to list them.
fn files() -> Option<u64> {
    let folder = Path::new("/proc/self/fd");
    match fs::metadata(folder) {
        Ok(metadata) if metadata.len() > 0 => Some(metadata.len()),
        Ok(_) | Err(_) => fs::read_dir(folder).ok().map(|files| files.count() as u64),
    }
}

/// The processor time of each thread of this process whose name is the prefix and a number, with that number.
#[must_use]
pub fn of_threads(prefix: &str) -> Vec<(u16, Duration)> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    let of_task = |task: &Path| {
        let name = fs::read_to_string(task.join("comm")).ok()?;
        let number = name.trim().strip_prefix(prefix)?.parse().ok()?;
        let times = fs::read_to_string(task.join("schedstat")).ok()?;
        let nanos = times.split_whitespace().next()?.parse().ok()?;
        Some((number, Duration::from_nanos(nanos)))
    };
    let mut all: Vec<(u16, Duration)> = tasks
        .filter_map(|task| of_task(&task.ok()?.path()))
        .collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something_of_everything() {
        let usage = Usage::now();
        assert!(usage.cpu.is_some_and(|cpu| cpu < Duration::from_secs(3600)));
        assert!(usage.resident.is_some_and(|bytes| bytes > 1 << 20));
        assert!(usage.address_space >= usage.resident);
        assert!(usage.threads.is_some_and(|threads| threads >= 1));
        assert!(
            usage
                .files
                .is_some_and(|files| files >= 3 && Some(files) <= usage.files_max)
        );
    }

    #[test]
    fn threads_are_found_by_their_names() {
        let (end, is_over) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("usage-7".to_owned());
        let (begin, has_begun) = std::sync::mpsc::channel();
        let thread = thread.spawn(move || {
            begin.send(()).unwrap();
            is_over.recv().is_err()
        });
        let thread = thread.unwrap();
        has_begun.recv().unwrap();
        let found = of_threads("usage-");
        assert_eq!(
            found.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
            [7]
        );
        drop(end);
        assert!(thread.join().unwrap());
    }
}
