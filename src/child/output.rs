//! Collects what a child writes until its tree is gone, and feeds its standard input meanwhile.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags};

use crate::child::Child;
use crate::child::settle::Rest;
use crate::error::{Error, Result, Step, errno_of};
use crate::exec::stdio::set_nonblocking;
use crate::log::Log;
use crate::report::Report;

/// What a command has written, and how it ended; see
/// [`Command::output`](crate::Command::output).
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Output {
    /// The main process's exit status.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::report::status"))]
    pub status: ExitStatus,
    /// What the tree wrote to its standard output, if that was piped.
    pub stdout: Vec<u8>,
    /// What the tree wrote to its standard error, if that was piped.
    pub stderr: Vec<u8>,
    /// How the tree ended, and what had to be killed.
    pub report: Report,
}

/// Drops the report, which std's has no room for.
impl From<Output> for std::process::Output {
    fn from(Output { status, stdout, stderr, .. }: Output) -> Self {
        Self { status, stdout, stderr }
    }
}

impl Child {
    /// Closes a piped stdin, waits for the end of the main process, ends the tree, and returns what
    /// was written to the pipes that were not taken.
    ///
    /// Ends when the *main process* ends, even if other processes hold the pipes: once what works
    /// has [settled](crate::Command::settle) the tree is torn down, then the pipes are drained.
    /// [`linger`](crate::Command::linger) waits for the whole tree.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait) and [`finish`](Self::finish), and reading may fail. The tree is
    /// gone all the same.
    pub fn wait_with_output(self) -> Result<Output> {
        self.collect(&[])
    }

    /// Collects as [`wait_with_output`](Self::wait_with_output), and writes `input` to its standard
    /// input, which it closes then. Input and output are served as they come, so neither side waits
    /// for the other; the command's timeout bounds it all. Input that is not read is dropped, which
    /// is no error.
    ///
    /// # Errors
    /// As for [`wait_with_output`](Self::wait_with_output), and stdin is not piped
    /// ([`Error::is_invalid_input`]).
    ///
    /// # Examples
    /// ```
    /// use tidy_process::{Command, Stdio};
    ///
    /// let mut command = Command::new("sort");
    /// let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    /// assert_eq!(child.communicate(b"b\na\n")?.stdout, b"a\nb\n");
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    pub fn communicate(self, input: impl AsRef<[u8]>) -> Result<Output> {
        self.check_input(self.stdin.is_some())?;
        self.collect(input.as_ref())
    }

    pub(crate) fn check_input(&self, piped: bool) -> Result<()> {
        let why = "there is no pipe to write to: stdin(Stdio::piped()) makes one";
        let subject = || format!("input of process {}", self.id());
        if piped { Ok(()) } else { Err(Error::invalid(Step::Prepare, subject(), why)) }
    }

    fn collect(mut self, input: &[u8]) -> Result<Output> {
        let subject = format!("output of process {}", self.id());
        let failed = |errno| Error::os(Step::Read, subject.clone(), errno);
        let mut stdin = Feed::new(self.stdin.take(), input).map_err(failed)?;
        let [out_copy, err_copy] = self.log.copies();
        let mut stdout = Capture::new(self.stdout.take(), out_copy).map_err(failed)?;
        let mut stderr = Capture::new(self.stderr.take(), err_copy).map_err(failed)?;
        let collected = self.serve(&mut stdin, [&mut stdout, &mut stderr]);
        drop(stdin);
        let ((), report) = self.finish_after(collected)?;
        if let Err(errno) = stdout.drain().and_then(|()| stderr.drain()) {
            return Err(failed(errno).with_report(report));
        }
        self.log.close_copies();
        Ok(Output { status: report.status, stdout: stdout.bytes, stderr: stderr.bytes, report })
    }

    /// Feeds and reads until the main process and what works on behind it or, lingering, the whole
    /// tree has ended.
    fn serve(&self, stdin: &mut Feed<'_>, captures: [&mut Capture; 2]) -> Result<()> {
        let linger = self.policy().linger;
        let failed =
            |errno| Error::os(Step::Read, format!("output of process {}", self.id()), errno);
        let [stdout, stderr] = captures;
        let mut next = None;
        loop {
            wait_for_news(self, stdin, [stdout, stderr], next).map_err(failed)?;
            let fed = stdin.write(AT_A_TIME).map_err(failed)?;
            let out = stdout.read(AT_A_TIME).map_err(failed)?;
            let err = stderr.read(AT_A_TIME).map_err(failed)?;
            if self.try_wait()?.is_none() || (linger && !self.tree().is_empty()?) {
                continue;
            }
            match self.after_main(fed + out + err > 0) {
                Rest::Over => return Ok(()),
                Rest::Until(at) => next = at,
            }
        }
    }
}

/// Bytes read of one stream before the other one and the timeout are looked at.
pub(crate) const AT_A_TIME: usize = 1 << 20;

/// Sleeps until there is something to read, room to write, the main process (or, once that has
/// ended, the tree) has news, the next step of its policy is due, or this moment has come.
fn wait_for_news(
    child: &Child,
    stdin: &Feed<'_>,
    outputs: [&Capture; 2],
    until: Option<Instant>,
) -> Result<(), Errno> {
    let end = if child.has_ended() {
        let (fd, flags) = child.tree().container().empty_news();
        PollFd::new(fd, flags)
    } else {
        PollFd::new(child.as_fd(), PollFlags::POLLIN)
    };
    let input = stdin.pipe.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
    let pipes = outputs.into_iter().filter_map(|capture| capture.pipe.as_ref());
    let pipes = pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
    let mut fds: Vec<PollFd<'_>> = [end].into_iter().chain(input).chain(pipes).collect();
    child.rest(&mut fds, until)
}

/// The input pipe, and what is still to go into it.
struct Feed<'a> {
    pipe: Option<File>,
    rest: &'a [u8],
}

impl<'a> Feed<'a> {
    /// Without input the pipe is closed at once.
    fn new(pipe: Option<impl Into<OwnedFd>>, rest: &'a [u8]) -> Result<Self, Errno> {
        let pipe: Option<OwnedFd> = pipe.map(Into::into).filter(|_| !rest.is_empty());
        if let Some(pipe) = &pipe {
            set_nonblocking(pipe)?;
        }
        Ok(Self { pipe: pipe.map(Into::into), rest })
    }

    /// Writes what there is room for, `limit` bytes at the most, and returns how much; closes the
    /// pipe behind the last byte, and when no reader is left.
    fn write(&mut self, limit: usize) -> Result<usize, Errno> {
        let mut left = limit;
        while let Some(pipe) = &mut self.pipe
            && left > 0
        {
            let part = self.rest.get(..left.min(self.rest.len())).unwrap_or_default();
            match pipe.write(part) {
                Ok(len) => {
                    left -= len;
                    self.rest = self.rest.get(len..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.pipe = None,
                Err(error) => return Err(errno_of(&error)),
            }
            if self.rest.is_empty() {
                self.pipe = None;
            }
        }
        Ok(limit - left)
    }
}

/// One output pipe, and what came out of it.
pub(crate) struct Capture {
    pipe: Option<File>,
    pub(crate) bytes: Vec<u8>,
    copy: Option<Log>,
}

impl Capture {
    pub(crate) fn new(pipe: Option<impl Into<OwnedFd>>, copy: Option<Log>) -> Result<Self, Errno> {
        let pipe: Option<OwnedFd> = pipe.map(Into::into);
        if let Some(pipe) = &pipe {
            set_nonblocking(pipe)?;
        }
        Ok(Self { pipe: pipe.map(Into::into), bytes: Vec::new(), copy })
    }

    /// Reads what is there, `limit` bytes at the most, and returns how much; end of file closes the
    /// pipe.
    fn read(&mut self, limit: usize) -> Result<usize, Errno> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(0);
        };
        let before = self.bytes.len();
        let mut limited = pipe.take(limit as u64);
        let read = limited.read_to_end(&mut self.bytes);
        if let Some(log) = &self.copy {
            log.take(self.bytes.get(before..).unwrap_or_default());
        }
        let count = self.bytes.len() - before;
        match read {
            Ok(_) => {
                if limited.limit() > 0 {
                    self.pipe = None;
                }
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(count),
            Err(error) => Err(errno_of(&error)),
        }
    }

    /// Reads what is left in the pipe once the tree is gone; no more than it can hold, in case a
    /// process outside the tree has the other end and writes on.
    pub(crate) fn drain(&mut self) -> Result<(), Errno> {
        let Some(pipe) = &self.pipe else {
            return Ok(());
        };
        let size = fcntl(pipe, FcntlArg::F_GETPIPE_SZ)?;
        self.read(usize::try_from(size).unwrap_or(0)).map(drop)
    }
}
