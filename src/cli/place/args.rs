//! The options of `run` and `with` on where cgroups are made, and what holds a tree where none can
//! be made.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use tidy_process::cli_support::{self, Partner};
use tidy_process::{Containment, SupervisorBuilder};

use crate::exit::Failure;
use crate::place::scope::Wish;
use crate::wait::signals::Signals;

#[derive(Debug, Args)]
pub(crate) struct GroundArgs {
    /// Make the cgroups below this cgroup2 directory [default: $TIDY_PROCESS_PARENT, else the own
    /// cgroup, or under systemd, where that is not delegated, a scope of its own]; in a tree of
    /// another supervisor it has to be inside that
    #[arg(long, value_name = "CGROUP")]
    pub(crate) parent: Option<PathBuf>,

    /// Stay in the cgroup that tidy-process was started in; by default it moves to a systemd scope
    /// of its own where it may or should make no cgroups (a user's scope ends with the user's last
    /// session, unless the user lingers)
    #[arg(long)]
    pub(crate) no_systemd: bool,

    /// What holds a command and its descendants together [default: $TIDY_PROCESS_CONTAINMENT, else
    /// cgroup]
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) containment: Option<ContainmentArg>,

    /// End as at SIGTERM when the process ends that has started tidy-process (not when one of its
    /// threads does); exit with 122 if it has ended before. With =PID also if the parent is another
    /// by now than the one meant; with =session when any of those ends that are above: the parent,
    /// its parent and so on, up to the first outside of this session (behind ssh: sshd's process)
    #[arg(long, value_name = "PID|session", num_args = 0..=1, require_equals = true)]
    pub(crate) die_with_parent: Option<Option<Above>>,

    /// Start no guard: if tidy-process itself is killed with SIGKILL, everything runs on
    #[arg(long)]
    pub(crate) no_guard: bool,
}

impl GroundArgs {
    pub(crate) fn guard(&self, builder: SupervisorBuilder) -> SupervisorBuilder {
        builder.guard(!self.no_guard)
    }

    /// Collects the signals that are answered, and the end of the parent with them.
    pub(crate) fn signals(&self, quiet: bool) -> Result<Signals, Failure> {
        let signals = Signals::collect()?;
        match self.die_with_parent {
            None => Ok(signals),
            Some(above) => Ok(signals.die_with(Above::partners(above)?, quiet)?),
        }
    }

    pub(crate) fn wish(&self, controllers: bool, verbose: bool) -> tidy_process::Result<Wish<'_>> {
        let said = self.containment.map(Containment::from);
        Ok(Wish {
            parent: self.parent.as_deref(),
            no_systemd: self.no_systemd,
            containment: said.map_or_else(cli_support::containment_of_environment, Ok)?,
            controllers,
            verbose,
            sweep: true,
        })
    }
}

/// Which of those above the tool it is to die with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Above {
    /// The parent, which is expected to have this pid.
    Named(u32),
    /// The parents up to the first outside of the session.
    Session,
}

impl Above {
    /// None: the parent, whatever its pid is.
    fn partners(above: Option<Self>) -> tidy_process::Result<Vec<Partner>> {
        match above {
            None => Ok(vec![Partner::parent(None)?]),
            Some(Self::Named(pid)) => Ok(vec![Partner::parent(Some(pid))?]),
            Some(Self::Session) => Partner::session(),
        }
    }
}

impl FromStr for Above {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "session" => Ok(Self::Session),
            _ => text.parse().map(Self::Named).map_err(|_| "give the parent's pid, or session"),
        }
    }
}

/// What holds a tree together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContainmentArg {
    /// A cgroup; an error where none can be made
    Cgroup,
    /// A cgroup where one can be made, else a keeper, which is said
    BestEffort,
    /// A process that adopts orphans and kills them: no limits, no accounting, no ps
    Keeper,
}

impl From<ContainmentArg> for Containment {
    fn from(hold: ContainmentArg) -> Self {
        match hold {
            ContainmentArg::Cgroup => Self::Cgroup,
            ContainmentArg::BestEffort => Self::BestEffort,
            ContainmentArg::Keeper => Self::Keeper,
        }
    }
}
