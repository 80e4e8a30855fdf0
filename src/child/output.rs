//! What a child writes, collected until its tree is gone.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, poll};

use crate::child::Child;
use crate::error::{Error, Result, Step, errno_of};
use crate::exec::stdio::set_nonblocking;
use crate::report::Report;
use crate::sys::poll::timeout_until;

/// What a command has written, and how it ended; see
/// [`Command::output`](crate::Command::output).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Output {
    /// The main process's exit status.
    pub status: ExitStatus,
    /// What the tree wrote to its standard output, if that was piped.
    pub stdout: Vec<u8>,
    /// What the tree wrote to its standard error, if that was piped.
    pub stderr: Vec<u8>,
    /// How the tree ended, and what had to be killed.
    pub report: Report,
}

impl Child {
    /// Closes a piped stdin, waits for the end of the main process, ends the tree, and says what
    /// was written to the pipes that are still here.
    ///
    /// It ends when the *main process* ends, whoever else holds the pipes: the tree is torn down
    /// first, then the pipes are drained. [`linger`](crate::Command::linger) waits for the whole
    /// tree.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait) and [`finish`](Self::finish), and reading may fail. The tree is
    /// gone all the same.
    pub fn wait_with_output(mut self) -> Result<Output> {
        let subject = format!("output of process {}", self.id());
        let failed = |errno| Error::os(Step::Read, subject.clone(), errno);
        drop(self.stdin.take());
        let mut stdout = Capture::new(self.stdout.take()).map_err(failed)?;
        let mut stderr = Capture::new(self.stderr.take()).map_err(failed)?;
        let collected = self.collect([&mut stdout, &mut stderr]);
        let ((), report) = self.end_after(collected)?;
        if let Err(errno) = stdout.drain().and_then(|()| stderr.drain()) {
            return Err(failed(errno).with_report(report));
        }
        Ok(Output { status: report.status, stdout: stdout.bytes, stderr: stderr.bytes, report })
    }

    /// Reads until the main process or, lingering, the whole tree has ended.
    fn collect(&self, captures: [&mut Capture; 2]) -> Result<()> {
        let linger = self.keep().linger;
        let failed =
            |errno| Error::os(Step::Read, format!("output of process {}", self.id()), errno);
        let [stdout, stderr] = captures;
        loop {
            let next = self.next_deadline();
            wait_for_news(self, linger, [stdout, stderr], next).map_err(failed)?;
            stdout.read(AT_A_TIME).map_err(failed)?;
            stderr.read(AT_A_TIME).map_err(failed)?;
            let over = self.try_wait()?.is_some();
            if over && (!linger || self.tree().wait_empty(Instant::now())?) {
                return Ok(());
            }
        }
    }

    /// Waits until the whole tree has ended, if that was asked for. Keeps the timeout.
    pub(crate) fn linger(&self) -> Result<()> {
        while self.keep().linger && !self.tree().wait_empty_until(self.next_deadline())? {}
        Ok(())
    }
}

/// Bytes read of one stream before the other one and the timeout are looked at.
pub(crate) const AT_A_TIME: usize = 1 << 20;

/// Sleeps until there is something to read, the main process (or, lingering, the tree) has news, or
/// `next` has come.
fn wait_for_news(
    child: &Child,
    linger: bool,
    captures: [&Capture; 2],
    next: Option<Instant>,
) -> Result<(), Errno> {
    let ended = linger && child.has_ended();
    let end = if ended {
        let (fd, flags) = child.tree().hold().end();
        PollFd::new(fd, flags)
    } else {
        PollFd::new(child.as_fd(), PollFlags::POLLIN)
    };
    let pipes = captures.iter().filter_map(|capture| capture.pipe.as_ref());
    let pipes = pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
    let mut fds: Vec<PollFd<'_>> = [end].into_iter().chain(pipes).collect();
    match poll(&mut fds, timeout_until(next)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// One output pipe, and what came out of it.
pub(crate) struct Capture {
    pipe: Option<std::fs::File>,
    pub(crate) bytes: Vec<u8>,
}

impl Capture {
    pub(crate) fn new(pipe: Option<impl Into<OwnedFd>>) -> Result<Self, Errno> {
        let pipe: Option<OwnedFd> = pipe.map(Into::into);
        if let Some(pipe) = &pipe {
            set_nonblocking(pipe)?;
        }
        Ok(Self { pipe: pipe.map(Into::into), bytes: Vec::new() })
    }

    /// Reads what is there, `limit` bytes at the most; end of file closes the pipe.
    fn read(&mut self, limit: usize) -> Result<(), Errno> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let mut limited = pipe.take(limit as u64);
        match limited.read_to_end(&mut self.bytes) {
            Ok(_) => {
                if limited.limit() > 0 {
                    self.pipe = None;
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(errno_of(&error)),
        }
    }

    /// What is left in the pipe once the tree is gone: no more than it can hold, in case a stranger
    /// has the other end and writes on.
    pub(crate) fn drain(&mut self) -> Result<(), Errno> {
        let Some(pipe) = &self.pipe else {
            return Ok(());
        };
        let size = fcntl(pipe, FcntlArg::F_GETPIPE_SZ)?;
        self.read(usize::try_from(size).unwrap_or(0))
    }
}
