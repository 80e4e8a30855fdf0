//! A process that does nothing but stand in a process group: it leads the group of a command that
//! is not to lead it itself (setsid(2) fails for a leader), or shows that a signal was sent to the
//! whole group.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. The process is in the memory of one
//! that may have threads, or in a copy of it: it makes raw calls, which do not touch errno, and
//! stands.
#![expect(unsafe_code, reason = "a process in this memory")]

use std::ffi::c_void;
use std::fs;
use std::mem::{MaybeUninit, forget};
use std::os::fd::AsFd;
use std::ptr;
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::{Pid, setpgid};

use crate::sys::clone::{self, AllBlocked, Stack};
use crate::sys::fork;
use crate::sys::raw::{call, int};
use crate::sys::{Newborn, STAND_IN, bury, poll};

/// A process that stands in a group, deaf to every signal that can be blocked. It dies when this
/// is dropped, or with the thread that started it.
#[derive(Debug)]
pub struct StandIn {
    process: Newborn,
    /// What it uses of this process's memory, if it is in there.
    place: Option<Box<Place>>,
}

struct Place {
    stack: MaybeUninit<Stack>,
    parent: libc::pid_t,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl StandIn {
    /// Starts one in the caller's process group.
    ///
    /// # Errors
    /// No process or fd can be had.
    pub fn start() -> Result<Self, Errno> {
        let parent = std::process::id().cast_signed();
        let mut place = Box::new(Place { stack: MaybeUninit::uninit(), parent });
        let Place { stack, parent } = &mut *place;
        let parent = ptr::from_ref(parent).cast();
        // A copy of this process's memory costs several times as much.
        // SAFETY: `stand` makes raw calls only; `place` is there until the process has ended.
        match unsafe { clone::clone_beside(stack, stand, parent) } {
            Ok(process) => Ok(Self { process, place: Some(place) }),
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let _blocked = AllBlocked::new()?;
                // SAFETY: as above, with a copy of it.
                let process = unsafe { fork::fork(stand, parent) }?;
                Ok(Self { process, place: None })
            }
            Err(errno) => Err(errno),
        }
    }

    /// Makes it the leader of a new process group, and returns that.
    ///
    /// # Errors
    /// setpgid(2) fails.
    pub fn lead(&self) -> Result<i32, Errno> {
        let pid = Pid::from_raw(self.process.pid);
        setpgid(pid, pid).map(|()| self.process.pid)
    }

    /// The signals that it has got, which it keeps: a second one of a kind is not seen. None
    /// without `/proc`.
    #[must_use]
    pub fn got(&self) -> SignalMask {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.process.pid)).unwrap_or_default();
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
        bury::bury(self.process.pidfd.as_fd());
        // One that cannot be killed now may still use it.
        if poll::ended(self.process.pidfd.as_fd(), Some(Instant::now())) != Ok(true) {
            forget(self.place.take());
        }
    }
}

extern "C" fn stand(parent: *const c_void) -> ! {
    // SAFETY: `start` passes a pid, which is there for as long as this process.
    let parent: libc::pid_t = unsafe { *parent.cast() };
    let dies = [int(libc::PR_SET_PDEATHSIG), int(libc::SIGKILL), 0, 0, 0];
    // SAFETY: plain integers.
    unsafe { call(libc::SYS_prctl, dies) };
    let name = [int(libc::PR_SET_NAME), STAND_IN.as_ptr().expose_provenance(), 0, 0, 0];
    // SAFETY: a string that ends in NUL.
    unsafe { call(libc::SYS_prctl, name) };
    // SAFETY: nothing in this process uses them.
    unsafe { call(libc::SYS_close_range, [0, u32::MAX as usize, 0, 0, 0]) };
    // SAFETY: no memory is involved.
    while unsafe { call(libc::SYS_getppid, [0; 5]) } == parent as isize {
        // SAFETY: no fds, no time. Every signal is blocked: it returns never.
        unsafe { call(libc::SYS_ppoll, [0; 5]) };
    }
    loop {
        // SAFETY: ends this process without running anything of the parent's.
        unsafe { call(libc::SYS_exit_group, [0; 5]) };
    }
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
