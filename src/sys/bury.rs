//! Kills a child that has failed before its exec, and reaps it.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

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
