//! What the kernel says about its own clock.
#![allow(
    unsafe_code,
    reason = "adjtimex, which no crate offers, to read the state only"
)]

use std::io;
use std::mem::MaybeUninit;

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
