//! How tidy-process itself ends: what can fail, and the exit status.

use std::borrow::Cow;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use tidy_process::cli_support::{hint, quoted};
use tidy_process::{Cause, Error, Report};

/// tidy-process itself failed; never to be taken for success (as timeout(1) and env(1) have it).
pub(crate) const FAILED: u8 = 125;

/// The command succeeded, and left something behind.
pub(crate) const LEAKED: u8 = 123;

/// The parent to die with had ended before the start.
const ORPHAN: u8 = 122;

/// The timeout was over.
const TIMED_OUT: u8 = 124;

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
    #[error("no such subcommand")]
    NoSubcommand { line: String },
    #[error("{error}")]
    Unmeant { error: Error, hint: String },
    #[error("open {path}: {}", reason(error))]
    Open { path: String, error: io::Error },
    #[error("open {path}: timed out: nobody is at its other end, or its file system hangs")]
    OpenTimedOut { path: String },
    #[error("open {path}: given up at {signal}")]
    OpenStopped { path: String, signal: Signal },
    #[error("not started: {0} came before")]
    NotStarted(Signal),
    #[error("write report to {path}: {}", reason(error))]
    Report { path: String, error: io::Error },
    #[error("{error}{}", committed_before(done))]
    Commit { error: Error, done: Vec<PathBuf> },
    #[error("write to standard output: {}", reason(.0))]
    Print(io::Error),
    #[error("{verb} {name:?}: no tree of this name; tidy-process ps lists those there are")]
    NoSuchTree { verb: &'static str, name: String },
    #[error("{verb} {name:?}: more than one tree is meant")]
    SeveralTrees { verb: &'static str, name: String },
    #[error("{verb} {name:?}: every tree of this name is another user's")]
    OthersTree { verb: &'static str, name: String },
    #[error("sweep: {0} run roots could not be removed")]
    Unswept(usize),
    #[error("server {}{}: {error}", quoted(name), held_by(sibling.as_deref()))]
    Server { name: String, error: Error, sibling: Option<String>, hint: Option<Cow<'static, str>> },
    #[error("server {} ended while {}: {status}{tail}", quoted(name), quoted(meanwhile))]
    ServerEnded {
        name: String,
        meanwhile: String,
        status: String,
        tail: String,
        hint: Option<&'static str>,
    },
    #[error("{place}: {}{why}", keyed(key))]
    File { place: String, key: String, why: String },
    #[error("ended by {0} before CMD was started")]
    StoppedBefore(Signal),
    #[error("doctor: no answer for {patience:?} from what comes after {after}")]
    NoAnswer { after: &'static str, patience: Duration },
    #[error("doctor --setup {user:?}: {why}")]
    Setup { user: String, why: String },
    #[error("{what}")]
    Nowhere { what: String, hint: Cow<'static, str> },
    #[error("top: --all-users is for root: other users' trees cannot be seen")]
    NotRoot,
    #[error("the terminal: {}", reason(.0))]
    Terminal(io::Error),
    #[error("complete: {0}")]
    Complete(String),
    #[error("wait for signals: {} ({:?})", .0.desc(), .0)]
    Signals(#[from] Errno),
}

/// ` (its port is held by server db)`
fn held_by(sibling: Option<&str>) -> String {
    let said = |name| format!(" (its port is held by server {})", quoted(name));
    sibling.map(said).unwrap_or_default()
}

/// As the library words an errno.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => format!("{} ({errno:?})", errno.desc()),
        None => error.to_string(),
    }
}

/// ` (all of "/a" is committed)`: the overlays before the one that failed.
fn committed_before(done: &[PathBuf]) -> String {
    let named = done.iter().map(|dir| format!("{dir:?}")).collect::<Vec<_>>().join(", ");
    match done.len() {
        0 => String::new(),
        1 => format!(" (all of {named} is committed)"),
        _ => format!(" (all of {named} are committed)"),
    }
}

fn keyed(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{}: ", quoted(key)) }
}

impl Failure {
    /// A server that did not start or become ready; `sibling` is the one that has its port.
    pub(crate) fn server(name: &str, error: Error, sibling: Option<String>) -> Self {
        let hint = match &sibling {
            Some(sibling) => {
                let two = "both listen on one port: give one of them another";
                Some(
                    format!("server {} and server {}: {two}", quoted(sibling), quoted(name)).into(),
                )
            }
            None => hint(&error).map(Cow::from),
        };
        Self::Server { name: name.to_owned(), error, sibling, hint }
    }

    /// What to do about it, where that is known.
    pub(crate) fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Library(error) | Self::Commit { error, .. } => hint(error).map(Cow::from),
            Self::Server { hint, .. } => hint.clone(),
            Self::ServerEnded { hint, .. } => hint.map(Cow::from),
            Self::Nowhere { hint, .. } => Some(hint.clone()),
            Self::SeveralTrees { .. } => {
                Some("give OWNER/NAME as ps shows them, or a directory of ps --json".into())
            }
            Self::OthersTree { .. } => Some("--all-users means those too".into()),
            Self::NoSubcommand { line } => Some(format!("to run a command: {line}").into()),
            Self::Unmeant { hint, .. } => Some(hint.clone().into()),
            _ => None,
        }
    }

    /// The signal that tidy-process is to end by.
    pub(crate) fn by_signal(&self) -> Option<Signal> {
        match self {
            Self::OpenStopped { signal, .. } | Self::NotStarted(signal) => Some(*signal),
            _ => None,
        }
    }

    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Library(error) | Self::Unmeant { error, .. } => exit_of(error),
            Self::OpenTimedOut { .. } => TIMED_OUT,
            Self::OpenStopped { signal, .. } | Self::NotStarted(signal) => {
                seen(FAILED, Some(*signal))
            }
            _ => FAILED,
        }
    }
}

/// A failure, and how CMD ended if that is known.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) failure: Failure,
    pub(crate) report: Option<Box<Report>>,
}

impl Broken {
    /// The report, if neither the wait nor the teardown failed. The first failure is told.
    pub(crate) fn or_report<T>(
        watched: Result<T, Failure>,
        ended: tidy_process::Result<Report>,
    ) -> Result<Report, Self> {
        match (watched, ended) {
            (Ok(_), Ok(report)) => Ok(report),
            (Ok(_), Err(error)) => Err(error.into()),
            (Err(failure), Ok(report)) => Err(Self { failure, report: Some(Box::new(report)) }),
            (Err(failure), Err(later)) => Err(Self { failure, report: Self::from(later).report }),
        }
    }
}

impl<F: Into<Failure>> From<F> for Broken {
    fn from(failure: F) -> Self {
        let failure = failure.into();
        let report = match &failure {
            Failure::Library(error) => error.report().cloned().map(Box::new),
            _ => None,
        };
        Self { failure, report }
    }
}

/// What to do with processes that are left when CMD ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Leaks {
    /// Kill them and name them in one line
    Kill,
    /// Kill them and say more of each
    Report,
    /// Wait until they end by themselves (--timeout bounds it)
    Wait,
    /// Send them the stop signal first, kill them after --kill-after, and name them
    Stop,
    /// Kill them and name them; exit with 123 if CMD has succeeded
    Fail,
}

/// Which processes a stop request is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Forward {
    /// CMD alone, which stops its own
    Main,
    /// CMD and all that it has started
    All,
}

/// The exit status as a shell sees it.
pub(crate) fn seen(exit: u8, by_signal: Option<Signal>) -> u8 {
    let number = by_signal.and_then(|signal| u8::try_from(signal as i32).ok());
    number.map_or(exit, |number| 128 + number)
}

pub(crate) fn open_failure(path: &Path, error: io::Error) -> Failure {
    Failure::Open { path: format!("{path:?}"), error }
}

/// Why a command was not started, or not waited for, as a status.
pub(crate) fn exit_of(error: &Error) -> u8 {
    match error {
        error if error.is_not_found() => 127,
        error if error.is_not_executable() => 126,
        error if error.is_timed_out() => TIMED_OUT,
        error if error.is_partner_gone() => ORPHAN,
        _ => FAILED,
    }
}

/// As timeout(1) and env(1) have it.
pub(crate) fn exit(report: &Report, leaks: Leaks) -> u8 {
    if matches!(report.cause, Cause::TimedOut | Cause::CpuTimeExceeded) {
        return TIMED_OUT;
    }
    let status = report.status;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    match code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED) {
        0 if leaks == Leaks::Fail && report.leftover_count > 0 => LEAKED,
        code => code,
    }
}
