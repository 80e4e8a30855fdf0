//! The child: a main process and its tree, from exec to report.

pub(crate) mod deadline;
pub(crate) mod enforce;
pub(crate) mod finish;
pub(crate) mod output;
pub(crate) mod settle;
pub(crate) mod wind_down;

#[cfg(feature = "sandbox")]
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::cgroup::usage::Counters;
#[cfg(feature = "sandbox")]
use crate::changes::Changes;
use crate::child::deadline::{Ending, Scope, StopPolicy};
use crate::child::settle::After;
use crate::confinement::Confined;
use crate::containment::Placement;
use crate::error::{Error, Result, Step};
use crate::explain::Explainer;
use crate::log::reader::Record;
use crate::proc::info::Survey;
use crate::record::handle::Recorded;
use crate::record::timeline::EventKind;
use crate::report::{Cause, Report};
use crate::sys::inmates::{AtEnd, Inmates};
use crate::sys::poll::{self, Deadline, lock};
use crate::sys::{self, Newborn};
use crate::tree::Tree;
use crate::tree::container::stop_signals;

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
    /// The listening socket of a port that is forwarded
    /// ([`Network::Forward`](crate::Network::Forward)): each connection that the command makes to
    /// that port is accepted here (feature `sandbox`). Where it is dropped, they are refused.
    #[cfg(feature = "sandbox")]
    pub forwarded: Option<TcpListener>,
    pid: u32,
    pub(crate) pidfd: Arc<OwnedFd>,
    pub(crate) status: Mutex<Option<ExitStatus>>,
    pub(crate) ending: Ending,
    pub(crate) placement: Placement,
    pub(crate) confined: Option<Confined>,
    /// What it writes in its overlays.
    #[cfg(feature = "sandbox")]
    pub(crate) changes: Vec<Changes>,
    pub(crate) recorded: Recorded,
    /// What says what it was denied.
    pub(crate) explainer: Option<Explainer>,
    /// The processes that were stopped or killed after the main process's end.
    pub(crate) left: Mutex<Survey>,
    /// The processes that were alive when the time was over.
    pub(crate) interrupted: Mutex<Survey>,
    /// How far the time after the main process's end has come.
    pub(crate) after: Mutex<After>,
    /// Its report, once it is finished.
    report: Mutex<Option<Report>>,
    tree: Tree,
    /// Dropped after the tree, so that the last output is read.
    pub(crate) log: Record,
}

impl Child {
    pub(crate) fn new(
        newborn: Newborn,
        placement: Placement,
        policy: StopPolicy,
        spawned: Instant,
        tree: Tree,
    ) -> Self {
        Self {
            stdin: None,
            stdout: None,
            stderr: None,
            #[cfg(feature = "sandbox")]
            forwarded: None,
            pid: newborn.pid.cast_unsigned(),
            pidfd: Arc::new(newborn.pidfd),
            status: Mutex::new(None),
            ending: Ending::new(policy, spawned),
            placement,
            confined: None,
            #[cfg(feature = "sandbox")]
            changes: Vec::new(),
            recorded: Recorded::default(),
            explainer: None,
            left: Mutex::default(),
            interrupted: Mutex::default(),
            after: Mutex::new(After::Unbegun),
            report: Mutex::default(),
            tree,
            log: Record::default(),
        }
    }

    /// Notes the init of its sandbox.
    pub(crate) fn inhabit(&mut self, init: Newborn, at_end: AtEnd) {
        self.tree.inhabit(Arc::new(Inmates::new(init, Arc::clone(&self.pidfd), at_end)));
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
    /// Other code of this process took the exit status (`ECHILD`), or the keeper was killed
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

    /// The one wait path: status, timeout (of a child that runs), pidfd, deadline.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = *lock(&self.status) {
                return Ok(Some(status));
            }
            let until = self.sleep_until(Scope::Main, deadline);
            if self.main_ended(until).map_err(|e| self.failed(Step::Wait, e))? {
                if let Some(status) = self.reap()? {
                    return Ok(Some(status));
                }
                // It has ended, and its tracer has not released it yet.
                thread::sleep(Duration::from_millis(1));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
        }
    }

    fn main_ended(&self, until: Option<Instant>) -> Result<bool, Errno> {
        let partner = self.awaited(Scope::Main);
        self.tree.container().main_ended(self.pidfd.as_fd(), partner, until)
    }

    pub(crate) fn spawned(&self) -> Instant {
        self.ending.spawned()
    }

    pub(crate) fn policy(&self) -> StopPolicy {
        self.ending.policy()
    }

    /// Whether the exit status has been taken.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.status).is_some()
    }

    /// The exit status, if there is one. Never blocks, and enforces no timeout.
    pub(crate) fn reap(&self) -> Result<Option<ExitStatus>> {
        let mut status = lock(&self.status);
        if status.is_none() {
            *status = self.tree.container().reap(self.pidfd.as_fd(), self.pid)?;
            status.iter().for_each(|status| self.recorded.main_ended(*status));
        }
        Ok(*status)
    }

    /// Sends a signal to the main process alone, through its pidfd: never to a stranger with the
    /// same pid.
    ///
    /// # Errors
    /// There is no such signal (`EINVAL`), the process has ended and was waited for (`ESRCH`), or
    /// it belongs to another user (`EPERM`).
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::pidfd_send_signal(self.pidfd.as_fd(), signal).map_err(|e| self.failed(Step::Signal, e))
    }

    /// Sends a signal to the whole tree, and to the main process if that has left it.
    ///
    /// # Errors
    /// There is no such signal (`EINVAL`), or the members cannot be listed.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let reached = self.tree.signal(signal);
        if !self.tree.holds(self.pid) {
            let _ = self.signal(signal);
        }
        reached.map(drop)
    }

    /// Kills the whole tree, and the main process if that has left it; returns when nothing is
    /// left. [`wait`](Self::wait) still returns the exit status.
    ///
    /// # Errors
    /// A process outlived SIGKILL for 10 s: [`Error::is_survivors`]. Later waits go on trying.
    pub fn kill(&self) -> Result<()> {
        self.note_stop(Some(Instant::now()));
        self.kill_all()
    }

    /// Sends the stop signal to all (or to the main process,
    /// [`stop_main_only`](crate::Command::stop_main_only)), gives them `grace` to end, then kills
    /// what is left.
    ///
    /// # Errors
    /// As for [`kill`](Self::kill).
    pub fn stop(&self, grace: impl Into<Deadline>) -> Result<()> {
        let Deadline(kill_at) = grace.into();
        self.begin_stop(kill_at);
        if self.wait_gone(kill_at) { Ok(()) } else { self.kill_all() }
    }

    /// Whether all have ended by then. The tree may be empty, and the main process alive elsewhere.
    pub(crate) fn wait_gone(&self, until: Option<Instant>) -> bool {
        matches!(self.tree.wait_empty_until(until), Ok(true))
            && matches!(poll::ended(self.pidfd.as_fd(), until), Ok(true))
    }

    pub(crate) fn begin_stop(&self, kill_at: Option<Instant>) {
        self.note_stop(kill_at);
        self.send_stop_signal();
    }

    /// Sends the stop signal; ignores errors, since the kill follows when the grace is over.
    pub(crate) fn send_stop_signal(&self) {
        let StopPolicy { stop_signal, stop_main_only, .. } = self.policy();
        self.recorded.note(EventKind::StopSignal(stop_signal));
        if stop_main_only {
            let _ = self.ask_main_to_end(stop_signal);
            self.tree.thaw_all();
        } else {
            let _ = self.ask_to_end(stop_signal);
        }
    }

    /// Sends a stop signal to the whole tree, and to the main process if that has left it; then
    /// SIGCONT, since a stopped process acts on no signal. Thaws what is frozen.
    pub(crate) fn ask_to_end(&self, signal: i32) -> Result<()> {
        let reached = self.tree.ask_to_end(signal);
        if !self.tree.holds(self.pid) {
            let _ = self.ask_main_to_end(signal);
        }
        reached
    }

    fn ask_main_to_end(&self, signal: i32) -> Result<()> {
        stop_signals(signal).iter().try_for_each(|&signal| self.signal(signal))
    }

    pub(crate) fn kill_all(&self) -> Result<()> {
        self.recorded.note(EventKind::Killed);
        let killed = self.tree.kill();
        // The main process is a zombie by now, unless it had left the tree.
        let _ = self.signal(libc::SIGKILL);
        killed
    }

    /// Notes that it is being stopped, without a signal: every wait kills what is left at
    /// `kill_at`. If the main process has ended that was no stop; what it left has until then.
    pub(crate) fn note_stop(&self, kill_at: Option<Instant>) {
        if poll::ended(self.pidfd.as_fd(), Some(Instant::now())).unwrap_or(false) {
            self.note_stop_of_leftovers(kill_at);
        } else {
            self.ending.note(Cause::Stopped, kill_at);
        }
    }

    /// Ends the tree: kills what is left of it, removes its cgroup, and reports what happened.
    ///
    /// If the main process still runs it is stopped, with the command's grace; a tree that is being
    /// stopped has the rest of its grace. What a main process that ended by itself has left may
    /// [settle](crate::Command::settle) first. When this returns no descendant is left and what
    /// they held (ports, files, locks) is free. A second call returns the same report; dropping the
    /// child then does nothing.
    ///
    /// # Errors
    /// A process outlived SIGKILL for 10 s ([`Error::is_survivors`]), or the cgroup cannot be
    /// removed. The error has the report if the status is known: [`Error::report`]. A second call
    /// tries again; dropping the child does not. That other code of this process took the exit
    /// status is none: [`Cause::StatusTaken`].
    pub fn finish(&self) -> Result<Report> {
        self.finish_once(true, Counters::CpuTime)
    }

    /// Finishes it, once. `named`: describes the leftovers.
    pub(crate) fn finish_once(&self, named: bool, counters: Counters) -> Result<Report> {
        let mut report = lock(&self.report);
        match &*report {
            Some(report) => Ok(report.clone()),
            None => {
                let torn = self.tear_down(named, counters);
                self.recorded.close_with(&torn);
                Ok(report.insert(torn?).clone())
            }
        }
    }

    /// Lets the tree live on without this handle, until its [`Supervisor`](crate::Supervisor) ends.
    /// The main process is not waited for then: it stays a zombie when it ends, as with std.
    pub fn detach(self) {
        self.leave_to_supervisor();
    }

    pub(crate) fn leave_to_supervisor(&self) {
        self.tree.leave_to_supervisor();
        self.log.detach_reader();
    }

    pub(crate) fn failed(&self, step: Step, errno: Errno) -> Error {
        Error::os(step, format!("process {}", self.pid), errno)
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
            let _ = self.finish_unread();
        }
    }
}
