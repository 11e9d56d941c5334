//! The process' clock, and what the kernel says about its own.
#![allow(
    unsafe_code,
    reason = "adjtimex, which no crate offers, to read the state only"
)]

use std::io;
use std::mem::MaybeUninit;
use std::time::{Instant, SystemTime};

use crate::time::Time;

/// What time it is, for all threads alike: what one of them writes down another one can compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    begun: Instant,
    begun_at: SystemTime,
}

impl Clock {
    /// Time begins.
    #[must_use]
    pub fn start() -> Clock {
        Clock {
            begun: Instant::now(),
            begun_at: SystemTime::now(),
        }
    }

    /// The time since it began.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::ZERO + self.begun.elapsed()
    }

    /// For what waits until then.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        self.begun + (time - Time::ZERO)
    }

    /// For people; it is off by what the host's clock was set meanwhile.
    #[must_use]
    pub fn system_time(&self, time: Time) -> SystemTime {
        self.begun_at + (time - Time::ZERO)
    }
}

/// Whether something (NTP, PTP, the hypervisor's clock) keeps the clock of this host true, in the kernel's view.
///
/// # Errors
/// When the kernel does not tell; a container may be denied the call.
pub fn is_synchronised() -> io::Result<bool> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: zeroed memory is a timex with `modes` 0, which asks to change nothing; the kernel fills it in.
    let answer = unsafe { libc::adjtimex(state.as_mut_ptr()) };
    if answer == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer != libc::TIME_ERROR)
}
