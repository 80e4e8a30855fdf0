//! Forks a keeper, which forks the main process.

use std::io::{PipeReader, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::cgroup::teardown::{TEARDOWN_PATIENCE, signal_all};
use crate::error::{Error, Result, Step, errno_of};
use crate::exec::launch::{Failed, Launch, last_word, read_word, while_text_is_busy};
use crate::exec::overdue::{Answer, Late, Overdue};
use crate::keeper::birth::Charge;
use crate::keeper::handle::Kept;
use crate::keeper::process;
use crate::sys::clone::AllBlocked;
use crate::sys::{self, Newborn, above_two};

impl Launch<'_> {
    /// Starts the child under a keeper; on return it has executed.
    pub(crate) fn hire(&mut self, proc: &Arc<OwnedFd>) -> Result<(Newborn, Kept)> {
        while_text_is_busy(|| self.attempt_kept(proc)).map_err(|failed| self.failure(failed))
    }

    fn attempt_kept(&mut self, proc: &Arc<OwnedFd>) -> Result<(Newborn, Kept), Failed> {
        let (kept, errors) = self.fork_keeper(proc)?;
        let mut overdue = self.overdue();
        match met(&kept, errors, &mut overdue) {
            Ok(main) => Ok((main, kept)),
            Err(failed) => {
                if overdue.gave_up() {
                    // The keeper may be suspended until its exec.
                    let _ = signal_all(&|| Ok(kept.pids()), &[libc::SIGKILL], &|_| true);
                }
                let _ = kept.tear_down(TEARDOWN_PATIENCE);
                Err(overdue.error().map_or(failed, Failed::Known))
            }
        }
    }

    /// Forks the keeper; returns its handle, and the pipe on which it and the main process report
    /// failures.
    fn fork_keeper(&mut self, proc: &Arc<OwnedFd>) -> Result<(Kept, PipeReader), Failed> {
        let failed = |errno| Failed::At(Step::Keeper, errno);
        let no_pipe = |error| failed(errno_of(&error));
        let (errors, channel) = pipe().map_err(no_pipe)?;
        let channel = above_two(channel.into()).map_err(failed)?;
        let (line, theirs) = UnixStream::pair().map_err(no_pipe)?;
        line.set_nonblocking(true).map_err(no_pipe)?;
        let line = above_two(line.into()).map_err(failed)?;
        let theirs = above_two(theirs.into()).map_err(failed)?;
        let share = self.may_share();
        let sends_pidfd = sys::refuses_pidfds();
        if sends_pidfd && !self.closures.is_empty() {
            // They may take a lock, which another thread may hold at the fork.
            return Err(Failed::At(Step::Pidfd, Errno::EPERM));
        }
        let orders = self.orders(channel.as_raw_fd(), -1);
        let charge = Charge {
            orders: &orders,
            share,
            sends_pidfd,
            owner: std::process::id().cast_signed(),
            proc: proc.as_fd(),
            line: theirs.as_raw_fd(),
            owners_end: line.as_raw_fd(),
        };
        let at_fork = |errno| Failed::At(Step::Fork, errno);
        let blocked = AllBlocked::new().map_err(failed)?;
        if sends_pidfd {
            let keeper = process::fork_with_pidfd(&charge).map_err(at_fork)?;
            return Ok((Kept::new(keeper, proc, line), errors));
        }
        let pid = process::fork(&charge).map_err(at_fork)?;
        drop(blocked);
        match sys::handle(pid) {
            Ok(keeper) => Ok((Kept::new(keeper, proc, line), errors)),
            Err(errno) => {
                // Closing the line makes it kill all that it started, which a SIGKILL of the keeper
                // would not.
                drop(line);
                reap(pid);
                Err(match errno {
                    // It was killed, and another part of this process reaped it.
                    Errno::ESRCH | Errno::ECHILD => Failed::Known(Error::keeper_lost(pid)),
                    errno => failed(errno),
                })
            }
        }
    }
}

/// Waits for a child's end, if it is one still.
fn reap(pid: i32) {
    while waitpid(Pid::from_raw(pid), None) == Err(Errno::EINTR) {}
}

/// Waits for the main process's exec; returns the process.
fn met(kept: &Kept, errors: PipeReader, overdue: &mut Overdue<'_>) -> Result<Newborn, Failed> {
    let failed = |errno| Failed::At(Step::Keeper, errno);
    let lost = || Failed::Known(kept.lost());
    let keeper = kept.as_late();
    let sent = match sys::refuses_pidfds() {
        true => kept.main_pidfd(|| help(kept, overdue)).map_err(failed)?,
        false => None,
    };
    let Some(pid) = kept.main_pid(|| help(kept, overdue)).map_err(failed)? else {
        // Killed, if it left no error.
        return Err(last_word(errors, overdue, &keeper).map_or_else(lost, |w| read_word(w).into()));
    };
    let pidfd = sent.map_or_else(|| sys::pidfd_open(pid), Ok);
    if kept.has_ended() {
        // The main process may have been reaped then, and its pid be free or reused.
        return Err(lost());
    }
    let main = Newborn { pid, pidfd: pidfd.map_err(failed)? };
    // A line at its end means that the keeper was killed, too.
    kept.acknowledge().map_err(|errno| match errno {
        Errno::EPIPE | Errno::ECONNRESET => lost(),
        errno => failed(errno),
    })?;
    let late = Late { pid, pidfd: main.pidfd.as_fd(), parent: keeper.pid };
    match last_word(errors, overdue, &late) {
        Some(word) => Err(read_word(word).into()),
        None if overdue.gave_up() => Err(lost()),
        None => Ok(main),
    }
}

/// Helps a keeper that has not reported yet and its main process: the keeper may be suspended until
/// the exec.
fn help(kept: &Kept, overdue: &mut Overdue<'_>) -> Answer {
    let keeper = kept.as_late();
    let main = kept.pids().first().and_then(|&pid| Some((pid, sys::pidfd_open(pid).ok()?)));
    let Some((pid, pidfd)) = main else { return overdue.help(&keeper) };
    overdue.revive(&keeper);
    overdue.help(&Late { pid, pidfd: pidfd.as_fd(), parent: keeper.pid })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn a_keeper_is_reaped_once_and_then_no_more() -> std::io::Result<()> {
        let mut child = Command::new("true").spawn()?;
        reap(child.id().cast_signed());
        assert!(child.try_wait().is_err(), "it was not reaped");
        reap(child.id().cast_signed());
        Ok(())
    }
}
