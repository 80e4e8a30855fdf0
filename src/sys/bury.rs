//! Kills a child that has failed before its exec, and reaps it.

use std::os::fd::BorrowedFd;
#[cfg(feature = "sandbox")]
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "sandbox")]
use nix::{
    sys::signal::{Signal, kill},
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    unistd::Pid,
};

use crate::sys::{self, poll};

/// How long a process that was killed, or is about to end, is waited for.
const DYING: Duration = Duration::from_secs(1);

/// Kills the child and takes its status.
pub(crate) fn bury(pidfd: BorrowedFd<'_>) {
    let _ = sys::pidfd_send_signal(pidfd, libc::SIGKILL);
    reap_dying(pidfd);
}

/// Takes the status of a child that has ended or is about to. Where SIGCHLD is ignored there is
/// none.
pub(crate) fn reap_dying(pidfd: BorrowedFd<'_>) {
    let _ = poll::ended(pidfd, Some(Instant::now() + DYING));
    let _ = sys::reap(pidfd);
}

/// Kills a child that there is no handle on: its number is no other's until it is reaped.
#[cfg(feature = "sandbox")]
pub(crate) fn kill_child(pid: i32) {
    let pid = Pid::from_raw(pid);
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    if waitid(Id::Pid(pid), look).is_ok() {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// Takes the status of a child that [`kill_child`] has killed.
#[cfg(feature = "sandbox")]
pub(crate) fn reap_child(pid: i32) {
    let until = Instant::now() + DYING;
    let dies = || waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    while dies() == Ok(WaitStatus::StillAlive) && Instant::now() < until {
        // Nothing but a pidfd tells when, and there is none.
        thread::sleep(Duration::from_millis(1));
    }
}
