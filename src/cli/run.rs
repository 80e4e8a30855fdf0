//! `tidy-process run`: one command, from start to exit status.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tidy_process::{Cause, Child, Command, Error, Report, Stdio, Supervisor};

use crate::FAILED;
use crate::args::{Leaks, RunArgs};
use crate::json::Sink;
use crate::say::{self, Voice};
use crate::signals::{Asked, Signals, suspend};

/// How tidy-process itself is to end.
pub(crate) struct Ended {
    pub(crate) exit: u8,
    pub(crate) by_signal: Option<Signal>,
}

/// What can go wrong in the command line tool; the library's errors bring a hint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Library(#[from] Error),
    #[error("open {path}: {error}")]
    Open { path: String, error: io::Error },
    #[error("write report to {path}: {error}")]
    Report { path: String, error: io::Error },
    #[error("write to standard output: {0}")]
    Print(io::Error),
    #[error("kill {0:?}: no tree of this name; tidy-process ps lists those there are")]
    NoSuchTree(String),
    #[error("kill {0:?}: more than one tree is meant; give a directory of tidy-process ps --json")]
    SeveralTrees(String),
    #[error("sweep: {0} run roots could not be removed")]
    Unswept(usize),
    #[error("wait for signals: {0}")]
    Signals(#[from] Errno),
}

impl Failure {
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Library(error) if error.is_not_found() => 127,
            Self::Library(error) if error.is_not_executable() => 126,
            _ => FAILED,
        }
    }
}

pub(crate) fn run(args: &RunArgs) -> Ended {
    let voice = Voice::new(args);
    let mut sink = match Sink::open(args.json.as_deref()) {
        Ok(sink) => sink,
        Err(failure) => return failed(&failure),
    };
    let (ended, written) = match supervise(args) {
        Ok((report, by_signal)) => {
            voice.report(&report);
            let exit = exit(&report, args.leaks);
            (Ended { exit, by_signal }, sink.report(&args.command, exit, &report))
        }
        Err(failure) => {
            let ended = failed(&failure);
            let written = sink.failure(&args.command, ended.exit, &failure);
            (ended, written)
        }
    };
    match written {
        Ok(()) => ended,
        Err(failure) => Ended { by_signal: ended.by_signal, ..failed(&failure) },
    }
}

fn failed(failure: &Failure) -> Ended {
    say::failure(failure);
    Ended { exit: failure.exit(), by_signal: None }
}

/// Everything that was made is gone when this returns.
fn supervise(args: &RunArgs) -> Result<(Report, Option<Signal>), Failure> {
    let signals = Signals::collect()?;
    // Whoever asks how it ended wants to know what it used.
    let account = args.verbose || args.json.is_some();
    let mut builder = Supervisor::builder().guard(!args.no_guard).account(account);
    if let Some(parent) = &args.parent {
        builder = builder.base(parent);
    }
    let supervisor = builder.build()?;
    let child = command(args, &supervisor)?.spawn()?;
    let mut watch = Watch { child: &child, signals: &signals, args, asked: None, kill_at: None };
    watch.until_main_ended()?;
    if args.leaks == Leaks::Wait {
        watch.until_empty()?;
    }
    let asked = watch.asked;
    let report = child.finish()?;
    // A signal that came while all was ending is answered too: we end by it.
    let late = std::iter::from_fn(|| signals.next().ok().flatten());
    let late = late.filter_map(Asked::signal).last();
    Ok((report, asked.or(late)))
}

fn command(args: &RunArgs, supervisor: &Supervisor) -> Result<Command, Failure> {
    let mut words = args.command.iter();
    let mut command = Command::new(words.next().map_or("".as_ref(), |program| program.as_os_str()));
    command.args(words).supervisor(supervisor);
    command.grace(args.kill_after).stop_signal(args.signal).force_join(args.force_join);
    command.limits(args.limits());
    if let Some(timeout) = args.timeout.filter(|timeout| !timeout.is_zero()) {
        command.timeout(timeout);
    }
    if let Some(name) = &args.name {
        command.name(name);
    }
    if let Some(dir) = &args.chdir {
        command.current_dir(dir);
    }
    command.envs(args.env.iter().map(|(key, value)| (key, value)));
    redirect(args, &mut command)?;
    Ok(command)
}

fn redirect(args: &RunArgs, command: &mut Command) -> Result<(), Failure> {
    let mut reading = OpenOptions::new();
    let mut writing = OpenOptions::new();
    reading.read(true);
    writing.write(true).create(true).truncate(true);
    if let Some(path) = &args.stdin {
        command.stdin(open(path, &reading)?);
    }
    if let Some(path) = &args.stdout {
        command.stdout(open(path, &writing)?);
    }
    if let Some(path) = &args.stderr {
        command.stderr(open(path, &writing)?);
    }
    Ok(())
}

fn open(path: &Path, how: &OpenOptions) -> Result<Stdio, Failure> {
    how.open(path).map(Stdio::from).map_err(|error| open_failure(path, error))
}

pub(crate) fn open_failure(path: &Path, error: io::Error) -> Failure {
    Failure::Open { path: format!("{path:?}"), error }
}

/// Waits for the command and for signals at the same time.
struct Watch<'a> {
    child: &'a Child,
    signals: &'a Signals,
    args: &'a RunArgs,
    /// The first signal that asked us to end.
    asked: Option<Signal>,
    kill_at: Option<Instant>,
}

impl Watch<'_> {
    fn until_main_ended(&mut self) -> Result<(), Failure> {
        while self.child.try_wait()?.is_none() {
            self.sleep(self.child.as_fd(), PollFlags::POLLIN)?;
        }
        Ok(())
    }

    fn until_empty(&mut self) -> Result<(), Failure> {
        while !self.child.tree().wait_empty(Instant::now())? {
            self.sleep(self.child.tree().as_fd(), PollFlags::POLLPRI)?;
        }
        Ok(())
    }

    /// Until `fd` has news, a signal has come, or the next step of a timeout is due.
    fn sleep(&mut self, fd: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Failure> {
        let next = [self.child.next_deadline(), self.kill_at].into_iter().flatten().min();
        let mut fds =
            [PollFd::new(fd, flags), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, until(next)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        while let Some(asked) = self.signals.next()? {
            self.answer(asked)?;
        }
        if self.kill_at.is_some_and(|at| Instant::now() >= at) {
            self.kill_at = None;
            self.child.kill()?;
        }
        Ok(())
    }

    fn answer(&mut self, asked: Asked) -> Result<(), Failure> {
        match asked {
            Asked::Suspend => {
                self.child.tree().freeze()?;
                suspend()?;
                self.child.tree().thaw()?;
            }
            Asked::Stop { .. } if self.asked.is_some() => {
                self.kill_at = None;
                self.child.kill()?;
            }
            Asked::Stop { signal, from_terminal } => {
                self.asked = Some(signal);
                self.kill_at = Instant::now().checked_add(self.args.kill_after);
                // Ctrl-C has reached the whole foreground group already: a second signal on its
                // heels would cut off a handler that is just cleaning up.
                // Who is outside that group has not heard.
                if from_terminal {
                    let group = nix::unistd::getpgrp();
                    let outside = |pid: u32| group_of(pid) != Some(group);
                    self.child.tree().signal_if(self.args.signal, outside)?;
                } else {
                    self.child.signal_all(self.args.signal)?;
                }
            }
        }
        Ok(())
    }
}

fn group_of(pid: u32) -> Option<Pid> {
    nix::unistd::getpgid(Some(Pid::from_raw(pid.cast_signed()))).ok()
}

/// Rounded up, so that a deadline is never found not quite met.
fn until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

/// As timeout(1) and env(1) have it.
fn exit(report: &Report, leaks: Leaks) -> u8 {
    if matches!(report.cause, Cause::TimedOut | Cause::CpuTimeExceeded) {
        return 124;
    }
    if leaks == Leaks::Fail && !report.leftovers.is_empty() {
        return 123;
    }
    let status = report.status;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}
