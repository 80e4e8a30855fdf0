//! A process that does nothing but stand in a process group: it leads the group of a command that
//! is not to lead it itself (setsid(2) fails for a leader), or shows that a signal was sent to the
//! whole group.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. The process is a fork of one that may
//! have threads: it makes raw calls, and stands.
#![expect(unsafe_code, reason = "a fork")]

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::{fs, ptr};

use nix::errno::Errno;
use nix::unistd::{Pid, setpgid};

use crate::sys::clone::{self, AllBlocked};
use crate::sys::{self, Newborn, STAND_IN, bury};

/// A process that stands in a group, deaf to every signal that can be blocked. It dies when this
/// is dropped, or with the thread that started it.
#[derive(Debug)]
pub struct StandIn(Newborn);

impl StandIn {
    /// Starts one in the caller's process group.
    ///
    /// # Errors
    /// No process or fd can be had.
    pub fn start() -> Result<Self, Errno> {
        let parent = std::process::id().cast_signed();
        let _blocked = AllBlocked::new()?;
        // SAFETY: `stand` makes raw calls only, and reads the pid that it is given a copy of.
        unsafe { clone::fork(stand, ptr::from_ref(&parent).cast()) }.map(Self)
    }

    /// Makes it the leader of a new process group, and returns that.
    ///
    /// # Errors
    /// setpgid(2) fails.
    pub fn lead(&self) -> Result<i32, Errno> {
        let pid = Pid::from_raw(self.0.pid);
        setpgid(pid, pid).map(|()| self.0.pid)
    }

    /// The signals that it has got, which it keeps: a second one of a kind is not seen. None
    /// without `/proc`.
    #[must_use]
    pub fn got(&self) -> SignalMask {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.pid)).unwrap_or_default();
        SignalMask(mask_in(&status, "ShdPnd:").0 | mask_in(&status, "SigPnd:").0)
    }
}

/// A set of signals, as the kernel writes it: bit N - 1 is signal N.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalMask(u64);

impl SignalMask {
    /// Whether the signal is in it.
    #[must_use]
    pub fn has(self, signal: i32) -> bool {
        let bit = u32::try_from(signal - 1).ok().and_then(|shift| 1_u64.checked_shl(shift));
        bit.is_some_and(|bit| self.0 & bit != 0)
    }

    /// Whether no signal is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The signals of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Reads this mask of a `/proc/PID/status`.
fn mask_in(status: &str, name: &str) -> SignalMask {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    SignalMask(mask.unwrap_or_default())
}

/// Whether a process has a handler for the signal. False without `/proc`.
#[must_use]
pub fn handles(pid: i32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    mask_in(&status, "SigCgt:").has(signal)
}

impl Drop for StandIn {
    fn drop(&mut self) {
        bury::bury(self.0.pidfd.as_fd());
    }
}

extern "C" fn stand(parent: *const c_void) -> ! {
    // SAFETY: `start` passes a pid, and this process has a copy of it for ever.
    let parent: libc::pid_t = unsafe { *parent.cast() };
    // SAFETY: plain integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: a string that ends in NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, STAND_IN.as_ptr()) };
    // SAFETY: nothing in this process uses them.
    unsafe { sys::close_all_but([-1; 3]) };
    // SAFETY: no memory is involved.
    while unsafe { libc::getppid() } == parent {
        // SAFETY: no memory is involved. Every signal is blocked: it returns never.
        unsafe { libc::pause() };
    }
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_signals_is_read() {
        let status = "Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t8000000000000001\n";
        for (signal, is_in) in [(1, true), (64, true), (2, false), (0, false), (65, false)] {
            assert_eq!(mask_in(status, "ShdPnd:").has(signal), is_in, "{signal}");
        }
        for (status, name) in [(status, "SigPnd:"), ("", "ShdPnd:"), ("ShdPnd: xyz", "ShdPnd:")] {
            assert!(mask_in(status, name).is_empty());
        }
    }
}
