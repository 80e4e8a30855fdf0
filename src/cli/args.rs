//! The command line: what may be asked for.

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Parser, Subcommand};

use crate::completions::CompletionsArgs;
use crate::doctor::DoctorArgs;
use crate::doctor::attempt::Attempt;
use crate::help::HelpArgs;
use crate::late::Late;
#[cfg(feature = "man")]
use crate::man::ManArgs;
use crate::named::{NamedArgs, StopArgs};
use crate::pool::args::PoolArgs;
use crate::ps::{PsArgs, SweepArgs};
use crate::report::ReportArgs;
use crate::run::args::RunArgs;
use crate::top::TopArgs;
use crate::with::args::WithArgs;

/// The colours of help and of usage errors, on a terminal and without NO_COLOR: as cargo has them.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default())
    .error(AnsiColor::Red.on_default().bold())
    .valid(AnsiColor::Green.on_default())
    .invalid(AnsiColor::Yellow.on_default());

/// Run a command in a fresh cgroup: when it ends, nothing it started is left.
#[derive(Debug, Parser)]
#[command(name = "tidy-process", version, propagate_version = true, about, max_term_width = 100)]
#[command(styles = STYLES, disable_help_subcommand = true)]
#[command(after_help = "tidy-process help SUBCOMMAND explains one; help topics lists what else. \
    --version --verbose says what it is built of.")]
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
    /// Show the trees that are supervised, live, with keys to stop, kill, freeze and thaw them
    Top(Late<TopArgs>),
    /// Kill and remove what supervisors that are gone have left
    Sweep(Late<SweepArgs>),
    /// Stop the trees of this name: SIGTERM to all their processes, and a kill after the grace
    Stop(Late<StopArgs>),
    /// Kill everything in the trees of this name
    Kill(Late<NamedArgs>),
    /// Make all processes of the trees of this name stand still
    Freeze(Late<NamedArgs>),
    /// Let the trees of this name go on that were frozen
    Thaw(Late<NamedArgs>),
    /// Print a script that completes words, names of trees too, in bash, zsh or fish
    Completions(Late<CompletionsArgs>),
    /// Explain a subcommand or a topic; "help topics" lists the topics
    Help(Late<HelpArgs>),
    /// Write the manual pages
    #[cfg(feature = "man")]
    #[command(hide = true)]
    Man(Late<ManArgs>),
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
