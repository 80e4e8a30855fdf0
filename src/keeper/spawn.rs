//! Starts a keeper, which starts the main process.

use std::io::{PipeReader, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::cgroup::teardown::{TEARDOWN_PATIENCE, signal_all};
use crate::error::{Error, Result, Step, errno_of};
use crate::exec::launch::{Failed, Launch, last_word, read_word, while_text_is_busy};
use crate::exec::orders::{RUNNING, UNBORN};
use crate::exec::overdue::{Answer, Late, Overdue};
use crate::keeper::birth::{self, Charge};
use crate::keeper::ground::Ground;
use crate::keeper::handle::Kept;
use crate::sys::clone::AllBlocked;
use crate::sys::{self, Newborn, above_two};

/// The time for a keeper from its exec to its first message. It may be stopped meanwhile.
const STANDS_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no child of a keeper that was to be executed.
enum Refused {
    /// It cannot be executed, or not be born in this process's memory; nothing has run.
    Program(Errno),
    Failed(Failed),
}

impl Launch<'_> {
    /// Starts the child under a keeper; on return it has executed.
    pub(crate) fn hire(&mut self, ground: &Arc<Ground>) -> Result<(Newborn, Kept)> {
        while_text_is_busy(|| self.attempt_kept(ground)).map_err(|failed| self.failure(failed))
    }

    fn attempt_kept(&mut self, ground: &Arc<Ground>) -> Result<(Newborn, Kept), Failed> {
        let sends_pidfd = sys::refuses_pidfds();
        if self.may_share() && !sends_pidfd {
            match self.bear_kept(ground) {
                Err(Refused::Program(errno)) => ground.refused(errno),
                Err(Refused::Failed(failed)) => return Err(failed),
                Ok(done) => return Ok(done),
            }
        }
        self.image.keep_environment().map_err(Failed::Known)?;
        let (kept, errors) = self.fork_keeper(ground, sends_pidfd)?;
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

    /// Starts both in this process's memory, where the keeper's program can be executed.
    fn bear_kept(&mut self, ground: &Arc<Ground>) -> Result<(Newborn, Kept), Refused> {
        let Some(program) = ground.program() else { return Err(Refused::Program(Errno::ENOEXEC)) };
        let failed = |errno| Refused::Failed(Failed::At(Step::Keeper, errno));
        let [line, theirs] = line().map_err(failed)?;
        let mut overdue = self.overdue();
        let orders = self.orders(-1, -1);
        let charge = Charge {
            orders: &orders,
            share: true,
            sends_pidfd: false,
            owner: std::process::id().cast_signed(),
            proc: ground.proc.as_fd(),
            line: theirs.as_raw_fd(),
            owners_end: line.as_raw_fd(),
        };
        let help = &mut |late: &Late<'_>| overdue.help(late) != Answer::GiveUp;
        let birth = birth::bear(&charge, program.as_fd(), help).map_err(|errno| match errno {
            Errno::ENOSYS | Errno::EPERM | Errno::EINVAL => Refused::Program(errno),
            errno => Refused::Failed(Failed::At(Step::Fork, errno)),
        })?;
        drop(theirs);
        let word = orders.word.load(Ordering::Relaxed);
        let kept = Kept::new(birth.keeper, ground, line);
        // One that was given up has been killed, whatever its word was.
        let main = match overdue.error() {
            Some(error) => Err(Refused::Failed(Failed::Known(error))),
            None => reached(&kept, birth.main, word),
        };
        let main = main.inspect_err(|_| drop(kept.tear_down(TEARDOWN_PATIENCE)))?;
        Ok((main, kept))
    }

    /// Forks the keeper; returns its handle, and the pipe on which it and the main process report
    /// failures.
    fn fork_keeper(
        &mut self,
        ground: &Arc<Ground>,
        sends_pidfd: bool,
    ) -> Result<(Kept, PipeReader), Failed> {
        let failed = |errno| Failed::At(Step::Keeper, errno);
        let (errors, channel) = pipe().map_err(|error| failed(errno_of(&error)))?;
        let channel = above_two(channel.into()).map_err(failed)?;
        let [line, theirs] = line().map_err(failed)?;
        let share = self.may_share();
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
            proc: ground.proc.as_fd(),
            line: theirs.as_raw_fd(),
            owners_end: line.as_raw_fd(),
        };
        let at_fork = |errno| Failed::At(Step::Fork, errno);
        let blocked = AllBlocked::new().map_err(failed)?;
        if sends_pidfd {
            let keeper = birth::fork_with_pidfd(&charge).map_err(at_fork)?;
            return Ok((Kept::new(keeper, ground, line), errors));
        }
        let pid = birth::fork(&charge).map_err(at_fork)?;
        drop(blocked);
        match sys::handle(pid) {
            Ok(keeper) => Ok((Kept::new(keeper, ground, line), errors)),
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

/// The line between a keeper and its owner, whose end comes first and does not block.
fn line() -> Result<[OwnedFd; 2], Errno> {
    let (line, theirs) = UnixStream::pair().map_err(|error| errno_of(&error))?;
    line.set_nonblocking(true).map_err(|error| errno_of(&error))?;
    Ok([above_two(line.into())?, above_two(theirs.into())?])
}

/// The main process of a keeper that was born in this process's memory, if it has executed.
fn reached(
    kept: &Kept,
    main: Option<Result<Newborn, Errno>>,
    word: u32,
) -> Result<Newborn, Refused> {
    let failed = |errno| Refused::Failed(Failed::At(Step::Pidfd, errno));
    match (word, main) {
        (_, Some(Err(errno))) => Err(failed(errno)),
        (RUNNING, Some(Ok(main))) => {
            stands(kept).and_then(|()| acknowledged(kept)).map_err(Refused::Failed)?;
            Ok(main)
        }
        // Killed before its exec, as by a filter that kills who makes that call.
        (UNBORN, _) => Err(Refused::Program(Errno::ESRCH)),
        (RUNNING, _) => Err(Refused::Failed(Failed::Known(kept.lost()))),
        (word, _) => Err(match read_word(word) {
            // The main process waited for the keeper, and has not run.
            (Step::Keeper, errno) => Refused::Program(errno),
            other => Refused::Failed(other.into()),
        }),
    }
}

/// Waits until an executed keeper holds nothing of its owner's any more.
fn stands(kept: &Kept) -> Result<(), Failed> {
    let until = Instant::now() + STANDS_WITHIN;
    let wake = || {
        kept.wake();
        if Instant::now() < until { Answer::Wait } else { Answer::GiveUp }
    };
    match kept.main_pid(wake).map_err(|errno| Failed::At(Step::Wait, errno))? {
        Some(_) => Ok(()),
        None => Err(Failed::Known(kept.lost())),
    }
}

/// Tells the keeper that there is a handle on its main process: it may be reaped.
fn acknowledged(kept: &Kept) -> Result<(), Failed> {
    // A line at its end means that the keeper was killed.
    kept.acknowledge().map_err(|errno| match errno {
        Errno::EPIPE | Errno::ECONNRESET => Failed::Known(kept.lost()),
        errno => Failed::At(Step::Keeper, errno),
    })
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
    acknowledged(kept)?;
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
