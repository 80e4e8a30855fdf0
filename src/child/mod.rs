//! The main process and its tree, from exec to report.

pub(crate) mod deadline;
pub(crate) mod finish;
pub(crate) mod output;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::child::deadline::{Ending, Mortal};
use crate::command::Keep;
use crate::containment::Placement;
use crate::error::{Error, Result, Step};
use crate::log::reader::Record;
use crate::proc::info::ProcessInfo;
use crate::report::{Cause, Report};
use crate::sys::poll::{self, lock};
use crate::sys::{self, Newborn};
use crate::tree::Tree;

/// A running command: its main process and everything that descends from it.
///
/// Waiting and killing take `&self`, so one thread may kill what another waits for. `AsFd` is the
/// main process's pidfd: readable once it has ended ([pidfd_open(2)]).
///
/// # Cleanup
/// Dropping it is [`finish`](Self::finish) with the errors ignored: the whole tree is killed and
/// its cgroup removed, by a panic's unwinding too. With a [`grace`](crate::Command::grace) the tree
/// is asked to end first, and Drop may take that long.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tidy_process::Command;
///
/// let server = Command::new("sleep").arg("60").spawn()?;
/// assert_eq!(server.wait_timeout(Duration::from_millis(5))?, None);
/// let report = server.finish()?; // whatever it started is gone now
/// assert_eq!(report.cause, tidy_process::Cause::Stopped);
/// # Ok::<(), tidy_process::Error>(())
/// ```
///
/// [pidfd_open(2)]: https://man7.org/linux/man-pages/man2/pidfd_open.2.html
#[derive(Debug)]
pub struct Child {
    /// The write end of its standard input, if that was piped. Unlike std's, [`wait`](Self::wait)
    /// does not close it: take it and drop it where the child reads to the end.
    pub stdin: Option<ChildStdin>,
    /// The read end of its standard output, if that was piped.
    pub stdout: Option<ChildStdout>,
    /// The read end of its standard error, if that was piped.
    pub stderr: Option<ChildStderr>,
    pid: u32,
    pub(crate) pidfd: Arc<OwnedFd>,
    status: Mutex<Option<ExitStatus>>,
    pub(crate) ending: Ending,
    pub(crate) placement: Placement,
    /// Who was killed by a timeout that came after the main process's end.
    pub(crate) left: Mutex<Vec<ProcessInfo>>,
    tree: Tree,
    /// After the tree: what it wrote last is read when it is gone.
    pub(crate) log: Record,
}

impl Child {
    pub(crate) fn new(
        newborn: Newborn,
        placement: Placement,
        keep: Keep,
        spawned: Instant,
        tree: Tree,
    ) -> Self {
        Self {
            stdin: None,
            stdout: None,
            stderr: None,
            pid: newborn.pid.cast_unsigned(),
            pidfd: Arc::new(newborn.pidfd),
            status: Mutex::new(None),
            ending: Ending::new(keep, spawned),
            placement,
            left: Mutex::default(),
            tree,
            log: Record::default(),
        }
    }

    /// The main process's pid: a label to print. To signal it use [`signal`](Self::signal).
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// The tree that the main process lives in.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Waits until the main process has ended. The rest of the tree lives on until
    /// [`finish`](Self::finish) or Drop.
    ///
    /// # Errors
    /// The exit status was taken by somebody else (`ECHILD`), or the keeper was killed
    /// ([`Error::is_keeper_lost`]).
    pub fn wait(&self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.wait_until(None)? {
                return Ok(status);
            }
        }
    }

    /// The exit status, if the main process has ended.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.wait_until(Some(Instant::now()))
    }

    /// Waits until the main process has ended, this long at the most; then `None`, and it runs on.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// Waits until the main process has ended or the deadline has passed; then `None`, and it runs
    /// on.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<Option<ExitStatus>> {
        self.wait_until(Some(deadline))
    }

    /// The one wait path: status, timeout, pidfd, deadline.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = *lock(&self.status) {
                return Ok(Some(status));
            }
            let step = self.next_deadline();
            let until = [deadline, step].into_iter().flatten().min();
            if self.main_ended(until).map_err(|e| self.failed(Step::Wait, e))? {
                if let Some(status) = self.reap()? {
                    return Ok(Some(status));
                }
                // Ended, but a tracer has still to let it go.
                thread::sleep(Duration::from_millis(1));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
        }
    }

    /// Whether its status may be had. Where we are not its parent the keeper tells.
    fn main_ended(&self, until: Option<Instant>) -> Result<bool, Errno> {
        match self.tree.hold().kept() {
            None => poll::ended(self.pidfd.as_fd(), until),
            Some(kept) => kept.main_ended(self.pidfd.as_fd(), until),
        }
    }

    pub(crate) fn spawned(&self) -> Instant {
        self.ending.spawned()
    }

    pub(crate) fn keep(&self) -> Keep {
        self.ending.keep()
    }

    /// Whether the exit status has been taken.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.status).is_some()
    }

    /// The exit status, if there is one. Never blocks, and takes no step of a timeout.
    pub(crate) fn reap(&self) -> Result<Option<ExitStatus>> {
        let mut status = lock(&self.status);
        if status.is_none() {
            *status = match self.tree.hold().kept() {
                None => sys::reap(self.pidfd.as_fd()).map_err(|e| self.failed(Step::Wait, e))?,
                Some(kept) => kept.status()?,
            };
        }
        Ok(*status)
    }

    /// For event loops round [`AsFd`]: takes the step of the timeout that is due, if one is (stop
    /// signal, kill), and says when to look again (at once, after a kill). `None`: only the pidfd
    /// has news to come. Every `wait` does this by itself.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.ending.step(self)
    }

    /// Sends a signal to the main process alone, through its pidfd: never to a stranger with the
    /// same pid.
    ///
    /// # Errors
    /// It has ended and was waited for (`ESRCH`), or it belongs to somebody else (`EPERM`).
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::pidfd_send_signal(self.pidfd.as_fd(), signal).map_err(|e| self.failed(Step::Signal, e))
    }

    /// Sends a signal to the whole tree, and to the main process should that have left it.
    ///
    /// # Errors
    /// The members cannot be listed.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let reached = self.tree.signal(signal);
        if !self.tree.holds(self.pid) {
            let _ = self.signal(signal);
        }
        reached.map(drop)
    }

    /// Kills the whole tree, and the main process should that have left it; returns when nothing is
    /// left. The exit status is still to be had from [`wait`](Self::wait).
    ///
    /// # Errors
    /// Somebody is left after 10 s: [`Error::is_survivors`]. Later waits go on trying.
    pub fn kill(&self) -> Result<()> {
        self.asked(Duration::ZERO);
        self.kill_all()
    }

    /// Notes that it is being stopped, and sends nothing: whoever waits kills what is left after
    /// `grace`. For those who send their own signals; [`stop`](Self::stop) does it all.
    pub fn stopping(&self, grace: Duration) {
        self.asked(grace);
    }

    /// Sends the stop signal to all (or to the main process,
    /// [`stop_main_only`](crate::Command::stop_main_only)), gives them `grace` to end, then kills
    /// what is left.
    ///
    /// # Errors
    /// As for [`kill`](Self::kill).
    pub fn stop(&self, grace: Duration) -> Result<()> {
        self.begin_stop(grace);
        let deadline = Instant::now().checked_add(grace);
        let empty = matches!(self.tree.wait_empty_until(deadline), Ok(true));
        // Empty, but the main process may be alive elsewhere.
        if empty && matches!(poll::ended(self.pidfd.as_fd(), deadline), Ok(true)) {
            return Ok(());
        }
        self.kill_all()
    }

    pub(crate) fn begin_stop(&self, grace: Duration) {
        self.asked(grace);
        self.ask();
    }

    pub(crate) fn kill_all(&self) -> Result<()> {
        let killed = self.tree.kill();
        // A zombie by now, unless it had left the tree.
        let _ = self.signal(libc::SIGKILL);
        killed
    }

    /// Notes that it is being stopped, unless the main process had ended before.
    pub(crate) fn asked(&self, grace: Duration) {
        if !poll::ended(self.pidfd.as_fd(), Some(Instant::now())).unwrap_or(false) {
            self.ending.ask(Cause::Stopped, grace);
        }
    }

    /// Ends the tree: kills whatever is left of it, removes its cgroup, and says what happened.
    ///
    /// If the main process still runs it is stopped, with the command's grace. When this returns no
    /// descendant is left and what they held (ports, files, locks) is free.
    ///
    /// # Errors
    /// Somebody outlived SIGKILL for 10 s ([`Error::is_survivors`]), the cgroup cannot be removed,
    /// or the exit status was taken by somebody else. Where the status is known all the same the
    /// error has the report: [`Error::report`].
    pub fn finish(self) -> Result<Report> {
        self.end(true)
    }

    /// Lets the tree live on without this handle, until its [`Supervisor`](crate::Supervisor) ends.
    /// Nobody waits for the main process then: it stays a zombie when it ends, as with std.
    pub fn detach(self) {
        self.leave();
    }

    pub(crate) fn leave(&self) {
        self.tree.leave();
        self.log.leave();
    }

    pub(crate) fn failed(&self, step: Step, errno: Errno) -> Error {
        Error::os(step, format!("process {}", self.pid), errno)
    }
}

impl Mortal for Child {
    fn cpu_time(&self) -> Option<Duration> {
        self.tree.hold().cpu_time()
    }

    fn ask(&self) {
        let Keep { stop_signal, stop_main_only, .. } = self.ending.keep();
        let _ =
            if stop_main_only { self.signal(stop_signal) } else { self.signal_all(stop_signal) };
    }

    fn kill(&self) -> bool {
        if self.has_ended() {
            let left = self.leftovers();
            *lock(&self.left) = left;
        }
        self.kill_all().is_ok()
    }
}

/// The main process's pidfd: readable once it has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.tree.is_ours() && !self.tree.is_done() {
            let _ = self.end(self.tree.remembers());
        }
    }
}
