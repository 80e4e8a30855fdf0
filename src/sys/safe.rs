//! What needs no unsafe call, and is as low as those that do.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

/// All signals but libc's own blocked for this thread until dropped: a new thread inherits that,
/// and libc must reach it.
pub(crate) struct SignalsBlocked(SigSet);

impl SignalsBlocked {
    pub(crate) fn new() -> Result<Self, Errno> {
        SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map(Self)
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}

/// The same file above the standard streams. A caller that has closed those would get its own fds
/// there: what it, or a child before exec, then writes to its output must not go into a control
/// file.
pub(crate) fn above_two(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // std's clone asks for 3 at least.
    fd.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}
