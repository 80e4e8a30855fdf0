//! `tidy-process run`: one command, from start to exit status.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use tidy_process::{Cause, Command, Error, Report, Stdio, Supervisor};

use crate::FAILED;
use crate::args::{Leaks, RunArgs};
use crate::json::Sink;
use crate::say::{self, Voice};
use crate::scope::{self, Nowhere};
use crate::signals::{Asked, Signals};
use crate::terminal::Modes;
use crate::watch::{Stop, Watch};

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
    #[error("server {name}: {error}")]
    Server { name: String, error: Error },
    #[error("server {name} ended while CMD was running: {status}{tail}")]
    ServerEnded { name: String, status: ExitStatus, tail: String },
    #[error("doctor: no answer for {patience:?} from what comes after {after}")]
    NoAnswer { after: &'static str, patience: Duration },
    #[error(transparent)]
    Nowhere(Box<Nowhere>),
    #[error("wait for signals: {0}")]
    Signals(#[from] Errno),
}

impl Failure {
    /// What to do about it, where that is known.
    pub(crate) fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Library(error) | Self::Server { error, .. } => error.hint().map(Cow::from),
            Self::Nowhere(nowhere) => Some(nowhere.hint()),
            _ => None,
        }
    }

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
    let modes = Modes::save();
    let mut sink = match Sink::open(args.json.as_deref()) {
        Ok(sink) => sink,
        Err(failure) => return failed(&failure),
    };
    let (ended, written) = match supervise(args) {
        Ok(Run { report, scope, by_signal }) => {
            if report.cause != Cause::Exited {
                modes.put_back();
            }
            voice.report(&report);
            let exit = exit(&report, args.leaks);
            let written = sink.report(&args.command, seen(exit, by_signal), &report, scope);
            (Ended { exit, by_signal }, written)
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

/// The exit status as a shell sees it.
fn seen(exit: u8, by_signal: Option<Signal>) -> u8 {
    let number = by_signal.and_then(|signal| u8::try_from(signal as i32).ok());
    number.map_or(exit, |number| 128 + number)
}

pub(crate) fn failed(failure: &Failure) -> Ended {
    say::failure(failure);
    Ended { exit: failure.exit(), by_signal: None }
}

/// What has happened.
struct Run {
    report: Report,
    /// Where: if we moved there.
    scope: Option<String>,
    by_signal: Option<Signal>,
}

/// Everything that was made is gone when this returns.
fn supervise(args: &RunArgs) -> Result<Run, Failure> {
    let signals = Signals::collect()?;
    // Whoever asks how it ended wants to know what it used.
    let account = args.verbose || args.json.is_some();
    let builder = args.ground.guard(Supervisor::builder()).account(account);
    let wish = args.ground.wish(args.needs_controllers(), args.verbose);
    let (supervisor, scope) = scope::supervisor(builder, &wish)?;
    if !args.quiet {
        say::mechanism(&supervisor);
    }
    let child = command(args, &supervisor)?.spawn()?;
    let stop = Stop { signal: args.signal, kill_after: args.kill_after };
    let mut watch = Watch::new(&child, &signals, stop);
    watch.until_main_ended()?;
    if args.leaks == Leaks::Wait {
        watch.until_empty()?;
    }
    let asked = watch.asked;
    let report = child.finish()?;
    // A signal that came while all was ending is answered too: we end by it.
    let late = std::iter::from_fn(|| signals.next().ok().flatten());
    let late = late.filter_map(Asked::signal).last();
    Ok(Run { report, scope, by_signal: asked.or(late) })
}

fn command(args: &RunArgs, supervisor: &Supervisor) -> Result<Command, Failure> {
    let mut words = args.command.iter();
    let mut command = Command::new(words.next().map_or("".as_ref(), |program| program.as_os_str()));
    command.args(words).supervisor(supervisor);
    command.grace(args.kill_after).stop_signal(args.signal).force_join(args.force_join);
    command.delegate(args.delegate);
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

/// As timeout(1) and env(1) have it.
pub(crate) fn exit(report: &Report, leaks: Leaks) -> u8 {
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
