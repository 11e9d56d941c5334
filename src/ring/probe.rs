//! Can this host run us? Builds a ring with our own flags and tries what we use; each thing that can be missing has
//! one exact sentence.

use std::io;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};

use super::{ReceiveTier, Ring, Setup};

/// Oldest kernel that has everything we cannot do without: `DEFER_TASKRUN`.
const KERNEL_FLOOR: &str = "6.1";

/// What a ring of this host can do beyond what we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// Waiting is not charged as iowait (Linux 6.15).
    pub no_iowait: bool,
    /// A wait for several completions may end early with fewer (Linux 6.12).
    pub gathers: bool,
}

/// Why no ring can be had, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// ENOSYS.
    #[error(
        "this kernel has no io_uring: Ringway needs Linux {KERNEL_FLOOR} or newer, built with CONFIG_IO_URING"
    )]
    Missing,
    /// EPERM and the sysctl says so.
    #[error(
        "io_uring is switched off on this host (kernel.io_uring_disabled = {0}): set it to 0 now with \
         `sysctl -w kernel.io_uring_disabled=0`, and for every boot with the line `kernel.io_uring_disabled = 0` in \
         /etc/sysctl.d/60-ringway.conf"
    )]
    Disabled(u8),
    /// EPERM although the sysctl allows it.
    #[error(
        "io_uring is not permitted here although kernel.io_uring_disabled is 0: a seccomp filter (Docker and \
         containerd have one by default), SELinux or a container denies io_uring_setup; allow that system call"
    )]
    Denied,
    /// EINVAL for our flags.
    #[error(
        "this kernel does not know the io_uring flags that Ringway uses (SINGLE_ISSUER, DEFER_TASKRUN): it needs \
         Linux {KERNEL_FLOOR} or newer"
    )]
    Flags,
    /// ENOMEM.
    #[error(
        "no memory for an io_uring: raise RLIMIT_MEMLOCK (`ulimit -l`, LimitMEMLOCK= in the unit) or the memory limit \
         of the cgroup"
    )]
    Memory,
    /// An operation is not known.
    #[error("this kernel's io_uring lacks {0}: Ringway needs Linux {KERNEL_FLOOR} or newer")]
    Operation(&'static str),
    /// The buffer ring was refused.
    #[error(
        "the kernel refused the ring of receive buffers ({0}): Ringway needs Linux {KERNEL_FLOOR} or newer"
    )]
    Buffers(io::Error),
    /// Anything else.
    #[error("io_uring could not be set up: {0}")]
    Other(io::Error),
}

impl SetupError {
    pub(super) fn buffers(error: io::Error) -> SetupError {
        match error.raw_os_error() {
            Some(libc::ENOMEM) => SetupError::Memory,
            _ => SetupError::Buffers(error),
        }
    }

    fn setup(error: io::Error) -> SetupError {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => SetupError::Missing,
            Some(libc::EPERM) => match disabled_sysctl() {
                0 => SetupError::Denied,
                value => SetupError::Disabled(value),
            },
            Some(libc::EINVAL) => SetupError::Flags,
            Some(libc::ENOMEM) => SetupError::Memory,
            _ => SetupError::Other(error),
        }
    }
}

/// What [`probe`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Findings {
    /// The best way to receive.
    pub tier: ReceiveTier,
    /// The rest.
    pub support: Support,
}

/// Tries everything out, on the calling thread.
///
/// # Errors
/// What the host lacks.
pub fn probe() -> Result<Findings, SetupError> {
    let io = build(8, 64)?;
    check_operations(&io)?;
    let support = support(&io);
    drop(io);
    let tier = if limited_receive_works()? {
        ReceiveTier::Limited
    } else {
        ReceiveTier::Single
    };
    Ok(Findings { tier, support })
}

/// A ring with the flags we use. `NO_SQARRAY` (6.6) saves an indirection and is left out where it is not known.
pub(super) fn build(submissions: u32, completions: u32) -> Result<IoUring, SetupError> {
    let try_build = |no_sqarray: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all();
        builder.setup_cqsize(completions).dontfork();
        if no_sqarray {
            builder.setup_no_sqarray();
        }
        builder.build(submissions)
    };
    match try_build(true) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            try_build(false).map_err(SetupError::setup)
        }
        built => built.map_err(SetupError::setup),
    }
}

pub(super) fn support(io: &IoUring) -> Support {
    Support {
        no_iowait: io.params().is_feature_no_iowait(),
        gathers: io.params().is_feature_min_timeout(),
    }
}

fn check_operations(io: &IoUring) -> Result<(), SetupError> {
    let mut known = Probe::new();
    io.submitter()
        .register_probe(&mut known)
        .map_err(SetupError::setup)?;
    for (code, name) in [
        (opcode::Accept::CODE, "IORING_OP_ACCEPT"),
        (opcode::Connect::CODE, "IORING_OP_CONNECT"),
        (opcode::Recv::CODE, "IORING_OP_RECV"),
        (opcode::Send::CODE, "IORING_OP_SEND"),
        (opcode::SendMsg::CODE, "IORING_OP_SENDMSG"),
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
        (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
    ] {
        if !known.is_supported(code) {
            return Err(SetupError::Operation(name));
        }
    }
    Ok(())
}

/// Whether a multishot receive ends by itself once it has reached its byte limit (it may go beyond by less than one
/// buffer): sends more than the limit and looks. An older kernel refuses the field (EINVAL) or ignores it.
fn limited_receive_works() -> Result<bool, SetupError> {
    const LIMIT: u32 = 4;
    let setup = Setup {
        tier: ReceiveTier::Limited,
        buffers: 8,
        buffer_size: 64,
        accepts: 1,
        datagrams: 0,
    };
    let mut ring = Ring::new(setup)?;
    let (mut ours, theirs) = UnixStream::pair().map_err(SetupError::Other)?;
    ours.write_all(b"more than the limit")
        .map_err(SetupError::Other)?;
    ring.receive(theirs.as_raw_fd(), LIMIT, 1);
    let mut completions = Vec::new();
    for _ in 0..8 {
        ring.enter(Some(Duration::from_millis(100)), false)
            .map_err(SetupError::Other)?;
        ring.completions(&mut completions);
        for completion in &completions {
            // Unlimited, it would go on and wait for more.
            if completion.result > 0 {
                return Ok(!completion.more);
            }
            if !completion.more {
                return Ok(false);
            }
        }
    }
    Ok(false)
}

/// `kernel.io_uring_disabled` (Linux 6.6): 0 allowed, 1 for a group only, 2 for nobody.
fn disabled_sysctl() -> u8 {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_sentence() {
        let sentence = |errno| SetupError::setup(io::Error::from_raw_os_error(errno)).to_string();
        assert!(sentence(libc::ENOSYS).contains("has no io_uring"));
        assert!(sentence(libc::EINVAL).contains("DEFER_TASKRUN"));
        assert!(sentence(libc::ENOMEM).contains("RLIMIT_MEMLOCK"));
        assert!(
            SetupError::Disabled(2)
                .to_string()
                .contains("/etc/sysctl.d/")
        );
        assert!(SetupError::Denied.to_string().contains("seccomp"));
    }
}
