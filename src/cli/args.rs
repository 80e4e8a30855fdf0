//! The command line: what may be asked for.

use clap::{Parser, Subcommand};

use crate::doctor::DoctorArgs;
use crate::doctor::attempt::Attempt;
use crate::late::Late;
use crate::pool::args::PoolArgs;
use crate::ps::{KillArgs, PsArgs, SweepArgs};
use crate::report::ReportArgs;
use crate::run::args::RunArgs;
use crate::with::args::WithArgs;

/// Run a command in a fresh cgroup: when it ends, nothing it started is left.
#[derive(Debug, Parser)]
#[command(name = "tidy-process", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) what: What,
}

#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Run CMD; when it ends nothing it started is left
    Run(Late<Box<RunArgs>>),
    /// Start servers, wait until they are ready, run CMD, end the servers
    With(Late<Box<WithArgs>>),
    /// Run many commands, so many at a time
    Pool(Late<Box<PoolArgs>>),
    /// Make one page of many JSON reports
    Report(Late<ReportArgs>),
    /// Say what works here, and what to type for what does not
    Doctor(Late<DoctorArgs>),
    /// List the trees that are supervised below a cgroup
    Ps(Late<PsArgs>),
    /// Kill and remove what supervisors that are gone have left
    Sweep(Late<SweepArgs>),
    /// Kill everything in the trees of this name
    Kill(Late<KillArgs>),
    /// Read standard input to its end, for doctor to try things on
    #[command(hide = true)]
    Idle,
    /// Attempt what a fence forbids, for doctor
    #[command(hide = true)]
    Attempt {
        #[arg(value_enum)]
        what: Attempt,
    },
}
