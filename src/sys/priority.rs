//! A thread that must not wait for others: real-time priority, and memory that is never paged out.
#![allow(
    unsafe_code,
    reason = "sched_setscheduler, which nix does not offer on Linux"
)]

use std::io;

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// The calling thread runs before all ordinary ones; programs that it starts do not.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE or RLIMIT_RTPRIO.
pub fn real_time(priority: u8) -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: i32::from(priority),
    };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread, and the kernel reads one sched_param.
    let done = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The memory that this process uses stays in memory.
///
/// # Errors
/// `EPERM` where only a part of it may: then later allocations would fail.
pub fn lock_memory() -> io::Result<()> {
    let is_capable = caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_IPC_LOCK,
    );
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    if soft != RLIM_INFINITY && !is_capable.unwrap_or(false) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault;
    Ok(mlockall(flags)?)
}
