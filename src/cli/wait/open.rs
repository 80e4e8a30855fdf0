//! Opens files, which may take for ever, with signals and the timeout in force.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tidy_process::cli_support::Opening;

use crate::exit::{Failure, open_failure};
use crate::wait::signals::Signals;

/// Flags for reading, as a command's input.
pub(crate) const INPUT: OFlag = OFlag::O_RDONLY;

/// Flags for writing: the file is made, or made empty.
pub(crate) const OUTPUT: OFlag = OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_TRUNC);

/// Flags for reading, and writing at the end.
pub(crate) const APPENDING: OFlag = OFlag::O_RDWR.union(OFlag::O_APPEND);

/// Opens files until its deadline, or until a signal asks the tool to end.
pub(crate) struct Opener<'a> {
    pub(crate) signals: &'a Signals,
    pub(crate) deadline: Option<Instant>,
}

impl Opener<'_> {
    pub(crate) fn open(&self, path: &Path, how: OFlag) -> Result<File, Failure> {
        // A name like /dev/stdin means an fd, which only a process with the same fds finds.
        match self.attempt(path, how, false)? {
            Ok(file) => Ok(file),
            Err(_) => self.attempt(path, how, true)?.map_err(|error| open_failure(path, error)),
        }
    }

    fn attempt(
        &self,
        path: &Path,
        how: OFlag,
        keep_fds: bool,
    ) -> Result<io::Result<File>, Failure> {
        let opening = Opening::start(path, how.bits(), keep_fds);
        let opening = opening.map_err(|error| open_failure(path, error))?;
        loop {
            let mut fds = [opening.as_fd(), self.signals.as_fd()]
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, until(self.deadline)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if fds.first().and_then(PollFd::any) == Some(true) {
                return Ok(opening.finish().map(File::from));
            }
            self.look(path)?;
        }
    }

    /// Answers signals; an error if one, or the deadline, ends the wait.
    fn look(&self, path: &Path) -> Result<(), Failure> {
        if let Some(signal) = self.signals.answer_alone()? {
            return Err(Failure::OpenStopped { path: format!("{path:?}"), signal });
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                Err(Failure::OpenTimedOut { path: format!("{path:?}") })
            }
            _ => Ok(()),
        }
    }
}

/// Returns when a timeout that begins now ends; 0 is never.
pub(crate) fn end_of(timeout: Option<std::time::Duration>) -> Option<Instant> {
    let timeout = timeout.filter(|timeout| !timeout.is_zero());
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// Returns how long poll(2) may wait; rounded up, so that it never returns just before the
/// deadline.
fn until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
