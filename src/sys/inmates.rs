//! The two processes of a sandbox that are children of the supervisor: main, and init, the first
//! process of its pid namespace. Both have to be reaped, main first: init ends only when no process
//! of the namespace is left unreaped, and with some kernels the cgroup is not empty before.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::sys::poll::{self, lock};
use crate::sys::{self, Newborn};

/// How long a process that was killed is waited for.
const DYING: Duration = Duration::from_secs(1);

/// What is to be done once no process of the namespace is left.
pub(crate) type AtEnd = Option<Box<dyn FnOnce() + Send>>;

pub(crate) struct Inmates {
    init: Newborn,
    main: Arc<OwnedFd>,
    /// How main has ended, once it is reaped.
    status: Mutex<Option<ExitStatus>>,
    at_end: Mutex<AtEnd>,
}

impl fmt::Debug for Inmates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inmates").field("init", &self.init).finish_non_exhaustive()
    }
}

impl Inmates {
    pub(crate) fn new(init: Newborn, main: Arc<OwnedFd>, at_end: AtEnd) -> Self {
        Self { init, main, status: Mutex::default(), at_end: Mutex::new(at_end) }
    }

    /// Whether this is init's pid. It is init's as long as that is not reaped.
    pub(crate) fn is_init(&self, pid: i32) -> bool {
        self.init.pid == pid
    }

    /// The pid of init, for as long as that is not reaped.
    pub(crate) fn init(&self) -> i32 {
        self.init.pid
    }

    /// Reaps main if it has ended; the status is remembered.
    pub(crate) fn reap_main(&self) -> Result<Option<ExitStatus>, Errno> {
        let mut status = lock(&self.status);
        if status.is_none() {
            *status = sys::reap(self.main.as_fd())?;
        }
        Ok(*status)
    }

    /// As [`reap_main`](Self::reap_main), for those that do not need the status.
    pub(crate) fn collect_main(&self) {
        let _ = self.reap_main();
    }

    /// Waits until main has ended, and reaps it; false at the deadline.
    pub(crate) fn main_gone(&self, deadline: Option<Instant>) -> Result<bool, Errno> {
        if lock(&self.status).is_some() {
            return Ok(true);
        }
        let ended = poll::ended(self.main.as_fd(), deadline)?;
        if ended {
            // Another thread may have taken the status: then it is gone too.
            let _ = self.reap_main();
        }
        Ok(ended)
    }

    /// Waits until both have ended, so that no process of the namespace is left; false at the
    /// deadline.
    pub(crate) fn have_ended(&self, deadline: Option<Instant>) -> Result<bool, Errno> {
        Ok(self.main_gone(deadline)? && poll::ended(self.init.pidfd.as_fd(), deadline)?)
    }

    /// The handle of an init that has not ended.
    pub(crate) fn running_init(&self) -> Option<BorrowedFd<'_>> {
        let init = self.init.pidfd.as_fd();
        let ended = poll::ended(init, Some(Instant::now())).unwrap_or(true);
        (!ended).then_some(init)
    }

    /// Reaps what has ended; whether both have.
    pub(crate) fn are_gone(&self) -> bool {
        let gone = self.have_ended(Some(Instant::now())).unwrap_or(false);
        if gone {
            self.reap_init();
        }
        gone
    }

    /// Reaps both, which were killed.
    pub(crate) fn reap(&self) {
        let _ = self.main_gone(Some(Instant::now() + DYING));
        if poll::ended(self.init.pidfd.as_fd(), Some(Instant::now() + DYING)).unwrap_or(false) {
            self.reap_init();
        }
    }

    /// Reaps init, which has ended: so has every process of its namespace.
    fn reap_init(&self) {
        let _ = sys::reap(self.init.pidfd.as_fd());
        let at_end = lock(&self.at_end).take();
        at_end.into_iter().for_each(|act| act());
    }
}
