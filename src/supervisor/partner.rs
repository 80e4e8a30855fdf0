//! The process that a tree dies with: a pidfd, which is polled beside all else.
//!
//! Not `PR_SET_PDEATHSIG`: that fires when the *thread* ends that started this process, which in a
//! program with a pool of threads is any moment, and it is set too late for a parent that ends
//! meanwhile. A pidfd of the parent is readable once the whole process has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::{Pid, getpid, getppid, getsid};

use crate::error::{Error, Result, Step};
use crate::proc::read::stat_of;
use crate::sys::{self, poll};

/// The first process of a pid namespace, which adopts orphans.
const INIT: i32 = 1;

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
    /// It has ended ([`Error::is_partner_gone`]), or is outside of this pid namespace. Process 1 of
    /// another session is taken for what has adopted an orphan, unless it is named.
    pub(crate) fn parent(named: Option<u32>) -> Result<Self> {
        let of = getpid().as_raw();
        let Some(named) = named else {
            let (parent, is_outside) = Self::above(of)?;
            return parent.not_adopting(of, is_outside);
        };
        match Self::above(of) {
            Ok((parent, _)) if parent.pid() != named => Err(Error::partner_gone(named)),
            above => above.map(|(parent, _)| parent),
        }
    }

    /// The parents of this process up to the first that is outside of its session: what stands
    /// behind a command that sshd has started, however many shells are between.
    ///
    /// # Errors
    /// As [`parent`](Self::parent), for each of them.
    #[cfg(feature = "cli")]
    pub(crate) fn session() -> Result<Vec<Self>> {
        let (mut of, mut all) = (getpid().as_raw(), Vec::new());
        loop {
            let (parent, is_outside) = Self::above(of)?;
            let parent = parent.not_adopting(of, is_outside)?;
            let pid = parent.pid;
            all.push(parent);
            if is_outside || pid == INIT {
                return Ok(all);
            }
            of = pid;
        }
    }

    /// The parent of this process, or of one above it; and whether that is in another session.
    fn above(of: i32) -> Result<(Self, bool)> {
        let pid = parent_of(of)?;
        if pid == 0 {
            return Err(Error::invalid(
                Step::DieWith,
                "the parent",
                "it is outside of this pid namespace",
            ));
        }
        let parent = Self::open(pid)?;
        let is_outside = getsid(Some(Pid::from_raw(pid))) != getsid(None);
        // Another process may have got the pid of a parent that ended before the pidfd was there.
        if parent_of(of)? == pid {
            Ok((parent, is_outside))
        } else {
            Err(Error::partner_gone(pid.cast_unsigned()))
        }
    }

    /// Itself, unless it is the process that orphans get for their parent. That has a session of
    /// its own nearly always; a script that is the first process of a container shares it.
    fn not_adopting(self, of: i32, is_outside: bool) -> Result<Self> {
        if self.pid == INIT && is_outside { Err(Error::adopted(of)) } else { Ok(self) }
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

/// Asks the kernel for that of this process, and `/proc` for others.
fn parent_of(pid: i32) -> Result<i32> {
    if pid == getpid().as_raw() {
        return Ok(getppid().as_raw());
    }
    let me = std::fs::read_link("/proc/self");
    if me.is_ok_and(|me| me.as_os_str() == getpid().to_string().as_str()) {
        let parent = stat_of(pid).map(|stat| stat.ppid);
        return parent.ok_or_else(|| Error::partner_gone(pid.cast_unsigned()));
    }
    let why = "/proc is missing, or that of another pid namespace";
    Err(Error::broken(Step::DieWith, "the parents", why))
}

/// Readable once it has ended.
impl AsFd for Partner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
