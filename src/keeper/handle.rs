//! The owner's handle of a keeper: reads its messages, sends it orders.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::error::{Error, Result, Step};
use crate::exec::overdue::{Answer, LATE_INTERVAL, Late};
use crate::keeper::ground::Ground;
use crate::keeper::program::{BORN, DONE, ENDED, KILL, KNOWN};
use crate::proc::survey;
use crate::proc::walk::{each_child, each_task, open, state_and_parent};
use crate::sys::bury::reap_dying;
use crate::sys::pass;
use crate::sys::poll::{self, lock, timeout_until};
use crate::sys::{self, Newborn};

/// The time that a keeper has to report the status of a main process that has ended.
const STATUS_LATENCY: Duration = Duration::from_millis(1);

/// How late a report may be before the keeper is taken for stopped.
const REPORT_PATIENCE: Duration = Duration::from_secs(1);

/// How often a keeper that is to kill is continued: a process of the tree may stop it again.
const WAKE_INTERVAL: Duration = Duration::from_millis(20);

/// One tree that a keeper holds. Dropping it closes the line: the keeper then kills the tree, and
/// Drop does not wait for that.
#[derive(Debug)]
pub(crate) struct Kept {
    keeper: Newborn,
    ground: Arc<Ground>,
    line: UnixStream,
    heard: Mutex<Heard>,
    /// Since when the main process is known to have ended without a status.
    late: Mutex<Option<Instant>>,
}

/// What the keeper has reported so far.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    main: Option<i32>,
    status: Option<ExitStatus>,
    /// No process is left.
    done: bool,
    /// The line is at its end: without `done` the keeper was killed.
    silent: bool,
}

impl Kept {
    /// `line` does not block.
    pub(crate) fn new(keeper: Newborn, ground: &Arc<Ground>, line: OwnedFd) -> Self {
        let (keeper, line) = (keeper.above_the_streams(), line.into());
        let (heard, late) = (Mutex::default(), Mutex::default());
        Self { keeper, ground: Arc::clone(ground), line, heard, late }
    }

    /// Reads the keeper's messages so far, without waiting. A record is written at once, so it is
    /// never read in parts.
    fn hear(&self) -> Result<Heard, Errno> {
        let mut heard = lock(&self.heard);
        let mut record = [0; 8];
        while !heard.silent {
            match nix::unistd::read(&self.line, &mut record) {
                Ok(0) | Err(Errno::ECONNRESET) => heard.silent = true,
                Ok(_) => heard.note(u64::from_ne_bytes(record)),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(*heard)
    }

    /// Waits for the pid of the main process; none if the keeper could not start it, or was given
    /// up. It is not reaped until [`acknowledge`](Self::acknowledge). `help` is called now and
    /// then, to keep the keeper going.
    pub(crate) fn main_pid(&self, mut help: impl FnMut() -> Answer) -> Result<Option<i32>, Errno> {
        loop {
            let heard = self.hear()?;
            if heard.main.is_some() || heard.silent {
                return Ok(heard.main);
            }
            let look = Some(Instant::now() + LATE_INTERVAL);
            if !readable(&[self.line.as_fd()], look)? && help() == Answer::GiveUp {
                return Ok(None);
            }
        }
    }

    /// Waits for the pidfd of the main process, from a keeper that sends one before all else; none
    /// if it could not start the main process, or was given up.
    pub(crate) fn main_pidfd(
        &self,
        mut help: impl FnMut() -> Answer,
    ) -> Result<Option<OwnedFd>, Errno> {
        loop {
            match pass::receive_fd(self.line.as_fd()) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(None),
                received => return received,
            }
            let look = Some(Instant::now() + LATE_INTERVAL);
            if !readable(&[self.line.as_fd()], look)? && help() == Answer::GiveUp {
                return Ok(None);
            }
        }
    }

    /// The keeper as a child whose exec is awaited.
    pub(crate) fn as_late(&self) -> Late<'_> {
        Late::ours(&self.keeper)
    }

    pub(crate) fn acknowledge(&self) -> Result<(), Errno> {
        sys::send(self.line.as_fd(), KNOWN)
    }

    /// Waits until the main process's status may be there, or the keeper has gone; false at the
    /// deadline, and when the partner has ended before.
    ///
    /// Several threads may wait, and a message reaches one of them: so all poll the pidfds. Once
    /// the main process has ended the keeper needs up to a millisecond to report it.
    pub(crate) fn main_ended(
        &self,
        main: BorrowedFd<'_>,
        partner: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> Result<bool, Errno> {
        loop {
            let heard = self.hear()?;
            if heard.status.is_some() || heard.silent {
                return Ok(true);
            }
            let either = [main, self.keeper.pidfd.as_fd()];
            let fds: Vec<_> = either.into_iter().chain(partner).collect();
            if readable(&fds, deadline)? {
                if partner.is_some() && !readable(&either, Some(Instant::now()))? {
                    return Ok(false);
                }
                let line = [self.line.as_fd()];
                if !readable(&line, Some(Instant::now() + STATUS_LATENCY))? {
                    self.urge(main);
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let heard = self.hear()?;
                return Ok(heard.status.is_some() || heard.silent);
            }
        }
    }

    /// Takes the main process's status, if it has ended and the keeper has reported it.
    pub(crate) fn take_status(&self, main: BorrowedFd<'_>) -> Result<Option<ExitStatus>> {
        let heard = self.hear().map_err(|errno| self.error(Step::Wait, errno))?;
        if heard.status.is_none() {
            if heard.silent {
                return Err(self.lost());
            }
            self.urge(main);
        }
        Ok(heard.status)
    }

    /// Continues a keeper that has not reported the end of the main process for a while: a process
    /// of the tree may have stopped it, and no other would continue it.
    fn urge(&self, main: BorrowedFd<'_>) {
        if !poll::ended(main, Some(Instant::now())).unwrap_or(false) {
            return;
        }
        let since = *lock(&self.late).get_or_insert_with(Instant::now);
        if since.elapsed() >= REPORT_PATIENCE {
            self.wake();
        }
    }

    /// Waits until no process is left; false at the deadline.
    pub(crate) fn wait_empty(&self, deadline: Option<Instant>) -> Result<bool> {
        let failed = |errno| self.error(Step::Wait, errno);
        if self.hear().map_err(failed)?.done {
            return Ok(true);
        }
        if !poll::ended(self.keeper.pidfd.as_fd(), deadline).map_err(failed)? {
            return Ok(false);
        }
        if self.hear().map_err(failed)?.done { Ok(true) } else { Err(self.lost()) }
    }

    /// Makes the keeper kill the tree, and waits until it is empty; at the deadline the error names
    /// the survivors.
    pub(crate) fn kill_until_empty(&self, patience: Duration) -> Result<()> {
        let start = Instant::now();
        let deadline = start + patience;
        self.ask_to_kill();
        while !self.wait_empty(Some(deadline.min(Instant::now() + WAKE_INTERVAL)))? {
            if Instant::now() >= deadline {
                return Err(self.survivors(start.elapsed()));
            }
            self.wake();
        }
        Ok(())
    }

    fn survivors(&self, after: Duration) -> Error {
        let left = survey::in_brief(&self.pids());
        Error::kept_survivors(self.name(), after, left)
    }

    /// Kills the tree, and reaps the keeper; a keeper with survivors goes on killing.
    pub(crate) fn tear_down(&self, patience: Duration) -> Result<()> {
        let killed = self.kill_until_empty(patience);
        if !killed.as_ref().is_err_and(Error::is_survivors) {
            self.reap_keeper();
        }
        killed
    }

    /// Orders the keeper to kill the tree, without waiting.
    pub(crate) fn ask_to_kill(&self) {
        if sys::send(self.line.as_fd(), KILL).is_err() {
            // The end of the line says the same; a keeper that has gone hears neither.
            let _ = self.line.shutdown(Shutdown::Write);
        }
        self.wake();
    }

    /// Continues a keeper that was stopped (SIGCONT).
    pub(crate) fn wake(&self) {
        let _ = sys::pidfd_send_signal(self.keeper.pidfd.as_fd(), libc::SIGCONT);
    }

    pub(crate) fn has_ended(&self) -> bool {
        poll::ended(self.keeper.pidfd.as_fd(), Some(Instant::now())).unwrap_or(false)
    }

    /// Reaps a keeper that has gone or is about to.
    pub(crate) fn reap_keeper(&self) {
        reap_dying(self.keeper.pidfd.as_fd());
    }

    /// The pids that descend from the keeper now, without zombies; a process of which only the main
    /// thread has ended is no zombie.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let keeper = self.keeper.pid;
        let mut found = vec![keeper];
        let mut at = 0;
        // A pid that was read may be reused by now: its parent must be one of ours.
        let known = |found: &[i32], process: &OwnedFd| {
            let state = state_and_parent(process);
            state.filter(|(_, parent)| found.contains(parent)).map(|(state, _)| state)
        };
        let mut dead = Vec::new();
        while let Some(&pid) = found.get(at) {
            at += 1;
            let Some(process) = open(self.ground.proc.as_fd(), pid) else { continue };
            let state = if pid == keeper { Some(b'S') } else { known(&found, &process) };
            match state {
                Some(b'Z') if threads(&process) < 2 => dead.push(pid),
                Some(_) => each_child(&process, &mut |child| found.push(child)),
                None => dead.push(pid),
            }
        }
        if self.has_ended() {
            // Its pid may have been reused all the while.
            return Vec::new();
        }
        found.retain(|pid| *pid != keeper && !dead.contains(pid));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The keeper's pidfd: readable once no process is left.
    pub(crate) fn end_fd(&self) -> BorrowedFd<'_> {
        self.keeper.pidfd.as_fd()
    }

    pub(crate) fn name(&self) -> String {
        format!("tree of keeper {}", self.keeper.pid)
    }

    pub(crate) fn error(&self, step: Step, errno: Errno) -> Error {
        Error::os(step, self.name(), errno)
    }

    pub(crate) fn lost(&self) -> Error {
        Error::keeper_lost(self.keeper.pid)
    }
}

impl Heard {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a record")]
    fn note(&mut self, record: u64) {
        let value = (record as u32).cast_signed();
        match (record >> 32) as u32 {
            BORN => self.main = Some(value),
            ENDED => self.status = Some(ExitStatus::from_raw(value)),
            DONE => self.done = true,
            _ => {}
        }
    }
}

/// Polls until one of these is readable; false at the deadline, and on a signal.
fn readable(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> Result<bool, Errno> {
    let fds = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
    let mut fds: Vec<PollFd<'_>> = fds.collect();
    match poll(&mut fds, timeout_until(deadline)) {
        Ok(number) => Ok(number > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn threads(process: &OwnedFd) -> usize {
    let mut number = 0;
    each_task(process, &mut |_| number += 1);
    number
}

#[cfg(test)]
mod tests;
