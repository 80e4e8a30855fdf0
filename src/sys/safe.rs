//! Signal masks and fds by safe calls, on the same floor as the unsafe ones.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

/// Blocks all signals but libc's own for this thread until dropped: a new thread inherits the mask,
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

/// Moves an fd above the standard streams. A process that has closed those gets new fds in their
/// place: what it, or a child before exec, writes to its output must not go into a control file.
pub(crate) fn above_two(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // std's clone asks for 3 at least.
    fd.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}
