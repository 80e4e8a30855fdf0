//! What CI servers read: JUnit's XML, and GitHub's annotations and job summary.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tidy_process::cli_support::{quoted, shortened};
use tidy_process::{Cause, Report};

use crate::exit::Failure;
use crate::print::github::GitHub;
use crate::print::junit::Junit;
use crate::words::typed;

/// Processes that are named of those that a command has left.
const NAMED: usize = 10;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CiArgs {
    /// Write the result as JUnit's XML to FILE, for CI servers
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,

    /// Say failures and leaks as annotations of GitHub Actions, and add to the job's summary
    #[arg(long)]
    pub(crate) github: bool,
}

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

/// Where it is told, of what was asked for.
pub(crate) struct Ci {
    junit: Option<Junit>,
    github: Option<GitHub>,
}

impl Ci {
    /// `open` makes a file, or finds the end of one.
    pub(crate) fn open(
        args: &CiArgs,
        suite: &'static str,
        mut open: impl FnMut(&Path) -> Result<File, Failure>,
        add: impl FnOnce(&Path) -> Result<File, Failure>,
    ) -> Result<Self, Failure> {
        let junit = args.junit.as_deref();
        let junit = junit.map(|path| Junit::open(path, suite, &mut open)).transpose()?;
        let github = args.github.then(|| GitHub::open(suite, add)).transpose()?;
        Ok(Self { junit, github })
    }

    /// Takes one more command.
    pub(crate) fn note(&mut self, case: &Case<'_>) -> Result<(), Failure> {
        self.github.iter_mut().for_each(|github| github.note(case));
        self.junit.iter_mut().try_for_each(|junit| junit.note(case))
    }

    /// All that is told of a single command: how tidy-process ends, and the report or the failure.
    pub(crate) fn tell_one(
        mut self,
        command: &[OsString],
        exit: u8,
        report: Option<&Report>,
        failure: Option<&Failure>,
    ) -> Result<(), Failure> {
        let name = typed(command);
        let wall = report.map_or(Duration::ZERO, |report| report.wall);
        let error = failure.map(ToString::to_string);
        let case = Case { name: &name, number: None, wall, exit, report, error, attempts: 1 };
        let noted = self.note(&case);
        self.close(wall).and(noted)
    }

    /// Writes what is written at the end.
    pub(crate) fn close(self, took: Duration) -> Result<(), Failure> {
        let github = self.github.map_or(Ok(()), |github| github.close(took));
        self.junit.map_or(Ok(()), |junit| junit.close(took)).and(github)
    }
}
