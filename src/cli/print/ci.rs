//! What CI servers read: JUnit's XML, and GitHub's annotations and job summary.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tidy_process::Report;

use crate::exit::Failure;
use crate::print::case::Case;
use crate::print::github::GitHub;
use crate::print::junit::Junit;
use crate::words::typed;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CiArgs {
    /// Write the result as JUnit's XML to FILE, for CI servers
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,

    /// Say failures and leaks as annotations of GitHub Actions, and add to the job's summary
    #[arg(long)]
    pub(crate) github: bool,
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
