//! The ends of a command: here the stages are put together.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, poll};

use crate::born::Closure;
use crate::child::Child;
use crate::command::Command;
use crate::error::{Error, Result, Step, errno_of};
use crate::image::Image;
use crate::launch::Launch;
use crate::pump::Record;
use crate::report::Report;
use crate::stdio::{Stdio, Stream, set_nonblocking};
use crate::supervisor::Supervisor;
use crate::tree::Tree;
use crate::wait::timeout_until;

/// What a command has written, and how it ended; see [`Command::output`].
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

impl Command {
    /// Starts the command in a fresh cgroup of its own. On return it has executed.
    ///
    /// # Cleanup
    /// The tree ends with the returned [`Child`]. After an error nothing is left: no process, no
    /// cgroup, no fd.
    ///
    /// # Errors
    /// The text names the step: no cgroup can be made here ([`Error::is_no_cgroup`]), the program
    /// is missing ([`Error::is_not_found`]) or cannot be executed, the directory or user is wrong,
    /// a string holds a NUL byte, fds or processes have run out.
    pub fn spawn(&mut self) -> Result<Child> {
        self.spawn_with([Stdio::inherit(), Stdio::inherit(), Stdio::inherit()])
    }

    /// Runs the command to the end of its main process, then ends the tree.
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn) and [`Child::finish`].
    pub fn run(&mut self) -> Result<Report> {
        let linger = self.linger;
        let mut child = self.spawn()?;
        drop(child.stdin.take());
        child.wait()?;
        while linger && !child.tree().wait_empty_until(child.next_deadline())? {}
        child.finish()
    }

    /// As [`run`](Self::run), for the exit status alone.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn status(&mut self) -> Result<ExitStatus> {
        Ok(self.run()?.status)
    }

    /// Runs the command and collects what it writes; streams not set otherwise are piped, stdin is
    /// `/dev/null`.
    ///
    /// It ends when the *main process* ends, whoever else holds the pipes: the tree is torn down
    /// first, then the pipes are drained. [`linger`](Self::linger) waits for the whole tree.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and reading may fail.
    pub fn output(&mut self) -> Result<Output> {
        let linger = self.linger;
        let mut child = self.spawn_with([Stdio::null(), Stdio::piped(), Stdio::piped()])?;
        drop(child.stdin.take());
        let failed = |errno| Error::os(Step::Read, format!("{:?}", self.program.program), errno);
        let mut stdout = Capture::new(child.stdout.take()).map_err(failed)?;
        let mut stderr = Capture::new(child.stderr.take()).map_err(failed)?;
        loop {
            let next = child.next_deadline();
            wait_for_news(&child, linger, [&stdout, &stderr], next).map_err(failed)?;
            stdout.read(AT_A_TIME).map_err(failed)?;
            stderr.read(AT_A_TIME).map_err(failed)?;
            let over = child.try_wait()?.is_some();
            if over && (!linger || child.tree().wait_empty(Instant::now())?) {
                break;
            }
        }
        let report = child.finish()?;
        stdout.drain().map_err(failed)?;
        stderr.drain().map_err(failed)?;
        Ok(Output { status: report.status, stdout: stdout.bytes, stderr: stderr.bytes, report })
    }

    pub(crate) fn spawn_with(&mut self, defaults: [Stdio; 3]) -> Result<Child> {
        // Apart for a while: the streams are borrowed by what the child is told, the closures are
        // run by it.
        let mut closures = std::mem::take(&mut self.closures);
        let spawned = self.spawn_calling(&mut closures, &defaults);
        self.closures = closures;
        spawned
    }

    /// Everything that can fail or allocate comes before the launch; what fails drops the tree, and
    /// with that the cgroup.
    fn spawn_calling(&self, closures: &mut [Closure], defaults: &[Stdio; 3]) -> Result<Child> {
        let spawned = Instant::now();
        let mut image = Image::new(&self.program)?;
        let [stdin, stdout, stderr] = &self.streams;
        let log = Record::open(self.log.as_ref())?;
        let [in_default, out_default, err_default] = defaults;
        let out_default = log.stdio().unwrap_or(out_default);
        let err_default = log.stdio().unwrap_or(err_default);
        let mut streams = [
            Stream::make(0, stdin.as_ref().unwrap_or(in_default))?,
            Stream::make(1, stdout.as_ref().unwrap_or(out_default))?,
            Stream::make(2, stderr.as_ref().unwrap_or(err_default))?,
        ];
        let supervisor = match &self.supervisor {
            Some(supervisor) => supervisor.clone(),
            None => Supervisor::global()?,
        };
        let tree = Tree::limited(&supervisor, self.name.as_deref(), &self.limits)?;
        let keep = self.keep;
        let mut launch = Launch {
            program: &self.program,
            closures,
            force_join: self.force_join,
            image: &mut image,
            streams: &streams,
            cgroup: Some(tree.cgroup()),
        };
        let (newborn, placement) = launch.launch()?;
        let mut child = Child::new(newborn, placement, keep, spawned, tree);
        let [stdin, stdout, stderr] = &mut streams;
        child.stdin = stdin.ours.take().map(Into::into);
        child.stdout = stdout.ours.take().map(Into::into);
        child.stderr = stderr.ours.take().map(Into::into);
        drop(streams);
        child.log = log.start()?;
        Ok(child)
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
        PollFd::new(child.tree().as_fd(), PollFlags::POLLPRI)
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
    pub(crate) fn read(&mut self, limit: usize) -> Result<(), Errno> {
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
