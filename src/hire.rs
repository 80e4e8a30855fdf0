//! The fork of a keeper, which forks the main process.

use std::io::{PipeReader, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::error::{Result, Step, errno_of};
use crate::keeper::{self, Charge};
use crate::kept::Kept;
use crate::launch::{Launch, last_word, read_word};
use crate::sys::{self, Newborn, SignalsBlocked, above_two};
use crate::teardown::PATIENCE;
use crate::wait::BackOff;

impl Launch<'_> {
    /// Starts the child under a keeper; on return it has executed. `ETXTBSY` is tried again, as by
    /// [`launch`](Launch::launch).
    pub(crate) fn hire(&mut self, proc: &Arc<OwnedFd>) -> Result<(Newborn, Kept)> {
        let mut back_off = BackOff::new(Duration::from_millis(1), Duration::from_millis(256));
        loop {
            match self.attempt_kept(proc) {
                Err((Step::Exec, Errno::ETXTBSY)) if back_off.sleep(None) => {}
                Err((step, errno)) => return Err(self.error(step, errno)),
                Ok(hired) => return Ok(hired),
            }
        }
    }

    fn attempt_kept(&mut self, proc: &Arc<OwnedFd>) -> Result<(Newborn, Kept), (Step, Errno)> {
        let failed = |errno| (Step::Keeper, errno);
        let (errors, channel) = pipe().map_err(|error| failed(errno_of(&error)))?;
        let channel = above_two(channel.into()).map_err(failed)?;
        let (line, theirs) = UnixStream::pair().map_err(|error| failed(errno_of(&error)))?;
        line.set_nonblocking(true).map_err(|error| failed(errno_of(&error)))?;
        let line = above_two(line.into()).map_err(failed)?;
        let theirs = above_two(theirs.into()).map_err(failed)?;
        let orders = self.orders(channel.as_raw_fd(), -1);
        let charge = Charge {
            orders: &orders,
            owner: std::process::id().cast_signed(),
            proc: proc.as_fd(),
            line: theirs.as_raw_fd(),
            owners_end: line.as_raw_fd(),
        };
        let pid = {
            let _blocked = SignalsBlocked::new().map_err(failed)?;
            keeper::fork(&charge).map_err(|errno| (Step::Fork, errno))?
        };
        drop((channel, theirs));
        let keeper = match sys::handle(pid) {
            Ok(keeper) => keeper,
            Err(errno) => {
                // No SIGKILL, which would spare what it has started: it ends all when this closes.
                drop(line);
                let _ = waitpid(Pid::from_raw(pid), None);
                return Err(failed(errno));
            }
        };
        let kept = Kept::new(keeper, proc, line);
        match met(&kept, errors) {
            Ok(main) => Ok((main, kept)),
            Err(error) => {
                let _ = kept.kill(PATIENCE);
                kept.bury();
                Err(error)
            }
        }
    }
}

/// The main process, once it has executed.
fn met(kept: &Kept, errors: PipeReader) -> Result<Newborn, (Step, Errno)> {
    let failed = |errno| (Step::Keeper, errno);
    let Some(pid) = kept.main_pid().map_err(failed)? else {
        let killed = (Step::Keeper, Errno::ESRCH);
        return Err(last_word(errors).map_or(killed, read_word));
    };
    let pidfd = sys::pidfd_open(pid).map_err(failed)?;
    kept.acknowledge();
    match last_word(errors) {
        None => Ok(Newborn { pid, pidfd }),
        Some(word) => Err(read_word(word)),
    }
}
