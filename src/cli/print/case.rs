//! One command, as CI servers are told of it.

use std::time::Duration;

use tidy_process::cli_support::{quoted, shortened};
use tidy_process::{Cause, Report};

/// Processes that are named of those that a command has left.
const NAMED: usize = 10;

/// One command, and what became of it.
pub(crate) struct Case<'a> {
    /// Its command line.
    pub(crate) name: &'a str,
    pub(crate) number: Option<u64>,
    pub(crate) wall: Duration,
    pub(crate) exit: u8,
    pub(crate) report: Option<&'a Report>,
    /// Why it was not started, or what failed in tidy-process itself.
    pub(crate) error: Option<String>,
    pub(crate) attempts: u32,
}

/// What is wrong with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The command failed.
    Failure(&'static str),
    /// tidy-process did, or could not start it.
    Error,
}

impl Case<'_> {
    pub(crate) fn fault(&self) -> Fault {
        match (&self.error, self.report) {
            (Some(_), _) | (None, None) => Fault::Error,
            (None, Some(report)) => match report.cause {
                Cause::TimedOut => Fault::Failure("timed-out"),
                Cause::CpuTimeExceeded => Fault::Failure("cpu-time-exceeded"),
                Cause::OutOfMemory => Fault::Failure("out-of-memory"),
                Cause::Exited if self.exit == 0 => Fault::None,
                Cause::Exited if report.success() => Fault::Failure("leak"),
                Cause::Exited => Fault::Failure("exit"),
                _ => Fault::Failure("signal"),
            },
        }
    }

    /// What is wrong, in a line.
    pub(crate) fn message(&self) -> String {
        let ending = match (&self.error, self.report) {
            (Some(error), _) => quoted(error),
            (None, None) => "did not run".to_owned(),
            (None, Some(report)) => match report.cause {
                Cause::Exited if report.success() => self.left().unwrap_or_default(),
                Cause::Exited => {
                    format!("exited with {}", report.status.code().unwrap_or_default())
                }
                cause => cause.to_string(),
            },
        };
        match self.attempts {
            0 | 1 => ending,
            attempts => format!("{ending}, {attempts} times tried"),
        }
    }

    /// What it has left running, if anything.
    pub(crate) fn left(&self) -> Option<String> {
        let report = self.report.filter(|report| report.leftover_count > 0)?;
        let names = report.leftovers.iter().take(NAMED).map(ToString::to_string);
        let more = report.leftover_count - report.leftovers.len().min(NAMED);
        let more = (more > 0).then(|| format!("and {more} more"));
        Some(format!("left {}", names.chain(more).collect::<Vec<_>>().join(", ")))
    }

    pub(crate) fn short_name(&self, most: usize) -> String {
        shortened(&quoted(self.name), most)
    }
}
