//! What the processes of a swarm have in common.

use std::fs::{File, OpenOptions};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::life::{fail, must};

/// A number that all descendants count up together.
#[derive(Clone, Copy)]
pub(super) struct Counter(&'static AtomicU32);

impl Counter {
    pub(super) fn new() -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, at a place that the kernel picks.
        let page = unsafe { libc::mmap(null_mut(), size_of::<AtomicU32>(), access, kind, -1, 0) };
        if page == libc::MAP_FAILED {
            fail("share memory", &std::io::Error::last_os_error());
        }
        // SAFETY: the page is zeroed, aligned, never unmapped, and used through this type alone.
        Self(unsafe { &*page.cast::<AtomicU32>() })
    }

    /// Counts the caller, and says which number it got, from 1.
    pub(super) fn count(self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// A fixed number of seats, each held by one live process. The holds are file locks: the kernel
/// lets go of one when its holder is dead, also when nobody has reaped it. A count in shared memory
/// would not notice.
pub(super) struct Seats(OwnedFd);

/// Passed on by fork: the child inherits the hold, and the parent drops its own copy.
pub(super) struct Seat {
    pub(super) number: u32,
    _hold: File,
}

impl Seats {
    pub(super) fn new() -> Self {
        Self(must("make a file", memfd_create("seats", MFdFlags::MFD_CLOEXEC)))
    }

    pub(super) fn take(&self, number: u32) -> Option<Seat> {
        // Opened anew, since a lock belongs to an open file. Not through `/proc/self`: that is the
        // main thread, and when it has exited it has no files.
        let path = format!("/proc/thread-self/fd/{}", self.0.as_raw_fd());
        let hold = must("open the seats", OpenOptions::new().read(true).write(true).open(path));
        // SAFETY: all zeroes is a valid `flock`.
        let mut lock: libc::flock = unsafe { zeroed() };
        lock.l_type = must("name a lock", libc::F_WRLCK.try_into());
        lock.l_start = number.into();
        lock.l_len = 1;
        let locked = fcntl(&hold, FcntlArg::F_OFD_SETLK(&lock));
        locked.ok().map(|_| Seat { number, _hold: hold })
    }
}
