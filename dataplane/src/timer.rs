//! Wakes a sleeping worker shortly before a frame is due: [`Timer`].

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::clock;

/// How long before a frame is due the worker is woken, in ns: an idle CPU takes tens of microseconds
/// to wake up. For the rest of the time the worker polls the clock.
const AHEAD: u64 = 120_000;

/// The shortest sleep that is worth it, in ns: it costs two system calls and a change of threads.
const WORTH: u64 = 30_000;

/// A timerfd: the kernel makes its descriptor readable at a given time.
#[derive(Debug)]
pub(crate) struct Timer {
    timer: OwnedFd,
}

impl Timer {
    /// # Errors
    /// When the process has too many descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Timer { timer })
    }

    /// Makes the descriptor readable shortly before `time` (ns of [`clock::now`]). `false` when that
    /// is too soon to sleep until then.
    pub(crate) fn set_ahead_of(&mut self, time: u64) -> bool {
        let wake = time.saturating_sub(AHEAD);
        if wake <= clock::now() + WORTH {
            return false;
        }
        let Ok(it_value) = Timespec::try_from(Duration::from_nanos(wake)) else {
            return false;
        };
        let value = Itimerspec {
            it_interval: Timespec::default(),
            it_value,
        };
        // Setting it also makes it unreadable again: so it is never read.
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value).is_ok()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}
