//! Tells whether the mounts of this process have changed.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, stat};

use crate::sys::above_two;

/// The kernel's list of mounts of a mount namespace, open.
#[derive(Debug)]
pub(crate) struct MountNews {
    list: OwnedFd,
    namespace: Option<u64>,
}

impl MountNews {
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let list = open("/proc/thread-self/mountinfo", flags, Mode::empty())?;
        Ok(Self { list: above_two(list)?, namespace: namespace() })
    }

    /// Whether a mount has come or gone since it was opened, or since this was asked last; or this
    /// thread is among other ones.
    pub(crate) fn has_come(&self) -> bool {
        let mut news = [PollFd::new(self.list.as_fd(), PollFlags::POLLPRI)];
        let changed = poll(&mut news, PollTimeout::ZERO).is_ok_and(|changed| changed > 0);
        changed || namespace() != self.namespace
    }
}

/// This thread's mount namespace, which an unshare(2) of its own changes without any news.
fn namespace() -> Option<u64> {
    stat("/proc/thread-self/ns/mnt").ok().map(|stat| stat.st_ino)
}
