//! This process on this host: limits and CPUs.

use std::io;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::eventfd::EventFd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Pid, close};

/// Raises the limit of open files to what is permitted (the hard limit) and returns it.
///
/// # Errors
/// When the limit cannot be read or raised.
pub fn raise_file_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Bytes of the table are eight times as many: where the limit of open files is larger, it grows as of old.
const FILES_MADE_ROOM_FOR: u64 = 1 << 20;

/// Makes the process's table of open files large enough for so many, up to a bound. Each time that the kernel enlarges
/// the table of a process with several threads, whoever opens the file waits for a grace period of RCU
/// (`expand_files()` in fs/file.c): tens of milliseconds, and seconds on a host that starves its kernel's threads. A
/// worker that accepts would wait with all of its sessions.
///
/// # Errors
/// When the kernel has no memory for it, or permits fewer files.
pub fn make_room_for_files(count: u64) -> io::Result<()> {
    let last = count.min(FILES_MADE_ROOM_FOR).saturating_sub(1);
    let last = i32::try_from(last).expect("below the bound");
    let any = EventFd::new()?;
    let highest = fcntl(&any, FcntlArg::F_DUPFD_CLOEXEC(last))?;
    Ok(close(highest)?)
}

/// The CPUs that this process may run on, in ascending order.
///
/// # Errors
/// When the kernel does not tell.
pub fn usable_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect())
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// When the CPU is not there or not permitted.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// The name of this host.
///
/// # Errors
/// When it has none, or one that is not UTF-8.
pub fn name() -> io::Result<String> {
    let name = nix::unistd::gethostname()?;
    name.into_string()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the host's name is not UTF-8"))
}
