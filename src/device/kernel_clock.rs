//! The system's clock. Owns the question whether the wall clock can be relied upon; changes nothing.

use crate::clock::Clock;

impl Clock {
    /// A clock at cache time 0 that ticks with `CLOCK_BOOTTIME`, beside the system's wall clock.
    /// Opening a device moves it to the device's time.
    #[must_use]
    pub fn system() -> Clock {
        Clock::ticking(is_synchronised)
    }
}

/// Whether the wall clock is synchronised, by adjtimex(2). A kernel that does not answer counts as no.
fn is_synchronised() -> bool {
    // SAFETY: a timex holds only integers, for which zero is a value; no mode asks for no change.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a timex that lives until the call returns.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}
