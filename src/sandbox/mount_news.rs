//! Tells whether the mounts of this process have changed.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

use crate::sys::above_two;

/// The kernel's list of mounts, open.
#[derive(Debug)]
pub(crate) struct MountNews(OwnedFd);

impl MountNews {
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        open("/proc/self/mountinfo", flags, Mode::empty()).and_then(above_two).map(Self)
    }

    /// Whether a mount has come or gone since it was opened, or since this was asked last.
    pub(crate) fn has_come(&self) -> bool {
        let mut news = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        poll(&mut news, PollTimeout::ZERO).is_ok_and(|changed| changed > 0)
    }
}
