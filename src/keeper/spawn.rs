//! The fork of a keeper, which forks the main process.

use std::io::{PipeReader, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::cgroup::teardown::PATIENCE;
use crate::error::{Result, Step, errno_of};
use crate::exec::launch::{Launch, last_word, read_word};
use crate::keeper::handle::Kept;
use crate::keeper::process::{self, Charge};
use crate::sys::poll::BackOff;
use crate::sys::{self, Newborn, SignalsBlocked, above_two};

/// Why there is no main process. None: the keeper was killed, before it could say.
type Failed = Option<(Step, Errno)>;

impl Launch<'_> {
    /// Starts the child under a keeper; on return it has executed. `ETXTBSY` is tried again, as by
    /// [`launch`](Launch::launch).
    pub(crate) fn hire(&mut self, proc: &Arc<OwnedFd>) -> Result<(Newborn, Kept)> {
        let mut back_off = BackOff::doubling(Duration::from_millis(1), Duration::from_millis(256));
        loop {
            let (kept, errors) = self.fork_keeper(proc).map_err(|(step, e)| self.error(step, e))?;
            let failed = match met(&kept, errors) {
                Ok(main) => return Ok((main, kept)),
                Err(failed) => failed,
            };
            let lost = kept.lost();
            let _ = kept.end(PATIENCE);
            match failed {
                Some((Step::Exec, Errno::ETXTBSY)) if back_off.sleep(None) => {}
                Some((step, errno)) => return Err(self.error(step, errno)),
                None => return Err(lost),
            }
        }
    }

    /// Its handle, and the pipe through which it and the main process say what failed.
    fn fork_keeper(&mut self, proc: &Arc<OwnedFd>) -> Result<(Kept, PipeReader), (Step, Errno)> {
        let failed = |errno| (Step::Keeper, errno);
        let no_pipe = |error| failed(errno_of(&error));
        let (errors, channel) = pipe().map_err(no_pipe)?;
        let channel = above_two(channel.into()).map_err(failed)?;
        let (line, theirs) = UnixStream::pair().map_err(no_pipe)?;
        line.set_nonblocking(true).map_err(no_pipe)?;
        let line = above_two(line.into()).map_err(failed)?;
        let theirs = above_two(theirs.into()).map_err(failed)?;
        let share = self.may_share();
        let orders = self.orders(channel.as_raw_fd(), -1);
        let charge = Charge {
            orders: &orders,
            share,
            owner: std::process::id().cast_signed(),
            proc: proc.as_fd(),
            line: theirs.as_raw_fd(),
            owners_end: line.as_raw_fd(),
        };
        let pid = {
            let _blocked = SignalsBlocked::new().map_err(failed)?;
            process::fork(&charge).map_err(|errno| (Step::Fork, errno))?
        };
        match sys::handle(pid) {
            Ok(keeper) => Ok((Kept::new(keeper, proc, line), errors)),
            Err(errno) => {
                // No SIGKILL, which would spare what it has started: it ends all when this closes.
                drop(line);
                while waitpid(Pid::from_raw(pid), None) == Err(Errno::EINTR) {}
                Err(failed(errno))
            }
        }
    }
}

/// The main process, once it has executed.
fn met(kept: &Kept, errors: PipeReader) -> Result<Newborn, Failed> {
    let failed = |errno| Some((Step::Keeper, errno));
    let Some(pid) = kept.main_pid().map_err(failed)? else {
        return Err(last_word(errors).map(read_word));
    };
    let pidfd = sys::pidfd_open(pid).map_err(failed)?;
    if kept.has_ended() {
        // Then somebody else may have reaped the main process, and the pid be a stranger's.
        return Err(None);
    }
    // A line that is at its end already has the same reason.
    kept.acknowledge().map_err(|e| if e == Errno::EPIPE { None } else { failed(e) })?;
    match last_word(errors) {
        None => Ok(Newborn { pid, pidfd }),
        Some(word) => Err(Some(read_word(word))),
    }
}
