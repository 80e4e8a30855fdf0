//! Tells whether mounts have changed.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, stat};

use crate::sys::{above_two, root_mount};

/// The kernel's list of mounts of a mount namespace, open.
#[derive(Debug)]
pub(crate) struct MountList(OwnedFd);

impl MountList {
    pub(crate) fn new(list: OwnedFd) -> Self {
        Self(list)
    }

    /// Whether a mount has come or gone since it was opened, or since this was asked last.
    pub(crate) fn has_changed(&self) -> bool {
        let mut news = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        // What cannot be asked may have.
        poll(&mut news, PollTimeout::ZERO).map_or(true, |changed| changed > 0)
    }
}

/// The mounts of this process.
#[derive(Debug)]
pub(crate) struct MountNews {
    list: MountList,
    namespace: Namespace,
}

/// What tells this thread's mount namespace from others: an unshare(2) of its own changes it
/// without any news. The number of its root takes a tenth of the time.
#[derive(Debug, PartialEq, Eq)]
enum Namespace {
    Root(u64),
    Inode(Option<u64>),
}

impl MountNews {
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let list = open("/proc/thread-self/mountinfo", flags, Mode::empty())?;
        Ok(Self { list: MountList(above_two(list)?), namespace: namespace() })
    }

    /// Whether a mount has come or gone since it was opened, or since this was asked last; or this
    /// thread is among other ones.
    pub(crate) fn has_come(&self) -> bool {
        self.list.has_changed() || namespace() != self.namespace
    }
}

fn namespace() -> Namespace {
    let inode = || stat("/proc/thread-self/ns/mnt").ok().map(|stat| stat.st_ino);
    root_mount().map_or_else(|| Namespace::Inode(inode()), Namespace::Root)
}
