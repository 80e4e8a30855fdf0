//! The process that a tree dies with: a pidfd, which is polled beside all else.
//!
//! Not `PR_SET_PDEATHSIG`: that fires when the *thread* ends that started this process, which in a
//! program with a pool of threads is any moment, and it is set too late for a parent that ends
//! meanwhile. A pidfd of the parent is readable once the whole process has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::getppid;

use crate::error::{Error, Result, Step};
use crate::sys::{self, poll};

/// A process with whose end a tree is to end. Clones share the pidfd.
#[derive(Debug, Clone)]
pub(crate) struct Partner {
    pid: i32,
    pidfd: Arc<OwnedFd>,
}

impl Partner {
    /// The parent of this process; `named` is the pid that it is expected to have.
    ///
    /// # Errors
    /// It has ended ([`Error::is_partner_gone`]), or is outside of this pid namespace.
    pub(crate) fn parent(named: Option<u32>) -> Result<Self> {
        let pid = getppid().as_raw();
        if pid == 0 {
            return Err(Error::invalid(
                Step::DieWith,
                "the parent",
                "it is outside of this pid namespace",
            ));
        }
        if let Some(named) = named.filter(|named| *named != pid.cast_unsigned()) {
            return Err(Error::partner_gone(named));
        }
        let partner = Self::open(pid)?;
        // Another process may have got the pid of a parent that ended before the pidfd was there.
        if getppid().as_raw() == pid {
            Ok(partner)
        } else {
            Err(Error::partner_gone(pid.cast_unsigned()))
        }
    }

    /// The process that has this pid now.
    ///
    /// # Errors
    /// It has ended ([`Error::is_partner_gone`]), there is none, or it is only a thread.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let partner = Self::open(i32::try_from(pid).unwrap_or(0))?;
        if partner.has_ended() { Err(Error::partner_gone(pid)) } else { Ok(partner) }
    }

    fn open(pid: i32) -> Result<Self> {
        let opened = sys::pidfd_open(pid).and_then(sys::above_two);
        match opened {
            Ok(pidfd) => Ok(Self { pid, pidfd: Arc::new(pidfd) }),
            Err(Errno::ESRCH) => Err(Error::partner_gone(pid.cast_unsigned())),
            Err(errno) => Err(Error::os(Step::DieWith, format!("process {pid}"), errno)),
        }
    }

    /// A label to print.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Whether the whole process has ended, not only one of its threads.
    pub(crate) fn has_ended(&self) -> bool {
        poll::ended(self.as_fd(), Some(Instant::now())).unwrap_or(false)
    }

    /// The same process, unless it has ended.
    pub(crate) fn alive(&self) -> Result<Self> {
        if self.has_ended() { Err(Error::partner_gone(self.pid())) } else { Ok(self.clone()) }
    }
}

/// Readable once it has ended.
impl AsFd for Partner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
