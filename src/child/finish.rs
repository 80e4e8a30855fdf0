//! Ends a child: tears down its tree, and makes the report.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::cgroup::teardown::{Opening, TEARDOWN_PATIENCE};
use crate::cgroup::usage::Counters;
use crate::child::Child;
use crate::error::{Error, Result, Step};
#[cfg(feature = "sandbox")]
use crate::explain::Explainer;
use crate::proc::info::Survey;
use crate::report::{Cause, Note, Report, Usage};
use crate::sys::poll::{self, lock};

/// The time that the kernel, a keeper or a tracer needs to report a death.
const SETTLING: Duration = Duration::from_millis(100);

impl Child {
    /// Tears down the tree, and reports. `named`: describes the leftovers.
    pub(crate) fn tear_down(&self, named: bool, counters: Counters) -> Result<Report> {
        if !self.tree().is_ours() {
            let why = "this process is a fork of the one that started it";
            return Err(Error::broken(Step::Teardown, format!("process {}", self.id()), why));
        }
        // Read before `try_wait`, which acts on a timeout that has passed and makes it the cause:
        // the grace still applies.
        let grace = self.grace_due();
        let taken = match self.try_wait() {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => true,
            Err(error) => {
                self.abandon();
                return Err(error);
            }
        };
        let (leftovers, opening) = match !taken && self.runs()? {
            true => (self.end_running(grace), Opening::Look),
            false => self.end_leftovers(named, counters),
        };
        self.recorded.kills(&leftovers);
        let (usage, torn) = self.tree().tear_down(opening, counters);
        let status = match taken {
            true => Ok((taken_status(), false)),
            false => self.last_status(torn.is_err()),
        };
        self.log.finish_reading();
        // An error of the teardown comes first: a missing status may follow from it.
        let (status, escaped) = match (status, torn) {
            (Ok(status), Ok(())) => status,
            (Ok((status, escaped)), Err(error)) => {
                return Err(error.with_report(self.report(status, escaped, usage, leftovers)));
            }
            (Err(error), Ok(())) | (Err(_), Err(error)) => return Err(error),
        };
        Ok(self.report(status, escaped, usage, leftovers))
    }

    /// Gives what the main process has left its time, unless nothing is left; returns what is to be
    /// killed, and how its teardown begins.
    fn end_leftovers(&self, named: bool, counters: Counters) -> (Survey, Opening) {
        let stopped = || std::mem::take(&mut *lock(&self.left));
        if counters == Counters::Unread && self.tree().vanish() {
            return (stopped(), Opening::Empty);
        }
        // What was seen before is no news: another process may have been added since.
        let before = self.left_nothing();
        self.wind_down();
        match self.left_nothing() {
            true if before => (stopped(), Opening::Look),
            true => (stopped(), Opening::Empty),
            false if named => (self.leftovers(), Opening::Look),
            false => (stopped(), Opening::Look),
        }
    }

    /// The exit status, and whether the main process was alive elsewhere when its tree was gone.
    /// `brief`: the teardown failed, so the process may be stuck, and was waited for already.
    fn last_status(&self, brief: bool) -> Result<(ExitStatus, bool)> {
        let escaped = !self.ended_within(SETTLING)?;
        let patience = if brief { SETTLING } else { TEARDOWN_PATIENCE };
        if escaped {
            let _ = self.signal(libc::SIGKILL);
            self.ended_within(patience)?;
        }
        let until = Some(Instant::now() + patience);
        let status = match brief {
            // `wait_until` would go on killing, which was given up.
            true => self.main_ended(until).map_err(|e| self.failed(Step::Wait, e)).and(self.reap()),
            false => self.wait_until(until),
        }?;
        let status = status.ok_or_else(|| self.failed(Step::Wait, Errno::ETIMEDOUT))?;
        Ok((status, escaped))
    }

    fn report(&self, status: ExitStatus, escaped: bool, usage: Usage, leftovers: Survey) -> Report {
        let interrupted = lock(&self.interrupted).clone();
        #[cfg(feature = "sandbox")]
        let denials = self.explainer.as_ref().map(Explainer::finish).unwrap_or_default();
        let cause = if escaped { Cause::Escaped } else { self.cause(status, &usage) };
        let lost = cause == Cause::Exited && !self.has_ended();
        let cause = if lost { Cause::StatusTaken } else { cause };
        Report {
            status,
            cause,
            notes: Note::of(&usage, Some(cause)),
            usage,
            wall: self.ending.spawned().elapsed(),
            leftover_count: leftovers.count,
            leftovers: leftovers.named,
            interrupted_count: interrupted.count,
            interrupted: interrupted.named,
            placement: self.placement,
            mechanism: self.tree().mechanism(),
            sandbox: self.confined.clone(),
            #[cfg(feature = "sandbox")]
            changes: self.changes.clone(),
            #[cfg(feature = "sandbox")]
            denied_count: denials.count,
            #[cfg(feature = "sandbox")]
            denied: denials.all,
        }
    }

    /// Finishes it for a caller that does not read its usage, but may get the leftovers with an
    /// error.
    pub(crate) fn finish_uncounted(&self) -> Result<Report> {
        self.finish_once(true, Counters::Unread)
    }

    /// Finishes it for a caller that reads neither its usage nor its leftovers.
    pub(crate) fn finish_unread(&self) -> Result<Report> {
        self.finish_once(self.tree().remembers(), Counters::Unread)
    }

    /// Finishes it, and adds the report to the result or the error of what was done before.
    pub(crate) fn finish_after<T>(&self, done: Result<T>) -> Result<(T, Report)> {
        with_report(done, self.finish())
    }

    /// Whether the main process runs. One that has ended with a late status (a busy keeper, a
    /// tracer) does not.
    pub(crate) fn runs(&self) -> Result<bool> {
        Ok(self.reap()?.is_none() && !self.ended_within(Duration::ZERO)?)
    }

    /// Kills all after the status of the main process was lost.
    fn abandon(&self) {
        let _ = self.tree().tear_down(Opening::Look, Counters::Unread);
        let _ = self.signal(libc::SIGKILL);
    }

    pub(crate) fn leftovers(&self) -> Survey {
        let left = std::mem::take(&mut *lock(&self.left));
        if left.is_empty() { self.tree().leftovers() } else { left }
    }

    /// Stops a running tree, which leaves no leftovers to report. One that is being stopped gets
    /// the rest of its grace.
    fn end_running(&self, grace: Option<Duration>) -> Survey {
        match (grace, self.ending.asked()) {
            (_, Some(kill_at)) => drop(self.wait_gone(kill_at)),
            (Some(grace), None) => drop(self.stop(grace)),
            (None, None) => {}
        }
        self.note_stop(Some(Instant::now()));
        Survey::default()
    }

    /// The grace to give if it is ended while it runs; None if it was asked to end already.
    pub(crate) fn grace_due(&self) -> Option<Duration> {
        self.policy().grace.filter(|_| self.ending.cause().is_none())
    }

    fn ended_within(&self, time: Duration) -> Result<bool> {
        if self.has_ended() {
            return Ok(true);
        }
        let deadline = Some(Instant::now() + time);
        poll::ended(self.pidfd.as_fd(), deadline).map_err(|e| self.failed(Step::Wait, e))
    }

    /// The cause that this process noted; else out of memory for a SIGKILL that the kernel counts
    /// as an OOM kill; else the signal of another process, or an exit.
    fn cause(&self, status: ExitStatus, usage: &Usage) -> Cause {
        match (self.ending.cause(), status.signal()) {
            (Some(cause), _) => cause,
            (None, Some(libc::SIGKILL)) if usage.main_was_oom_killed() => Cause::OutOfMemory,
            (None, Some(signal)) => Cause::Signaled(signal),
            (None, None) => Cause::Exited,
        }
    }
}

/// What is reported for a status that other code has taken: asyncio's number for it.
fn taken_status() -> ExitStatus {
    ExitStatus::from_raw(255 << 8)
}

/// Joins both results: the first error, with the report of either.
pub(crate) fn with_report<T>(done: Result<T>, ended: Result<Report>) -> Result<(T, Report)> {
    match (done, ended) {
        (Ok(done), Ok(report)) => Ok((done, report)),
        (Err(error), Ok(report)) => Err(error.with_report(report)),
        (Err(error), Err(later)) => Err(match later.into_report() {
            Some(report) => error.with_report(report),
            None => error,
        }),
        (Ok(_), Err(error)) => Err(error),
    }
}
