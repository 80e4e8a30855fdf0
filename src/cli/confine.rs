//! The options of `run` and `with` that confine commands beyond their cgroups.
//!
//! The struct has no doc comment of its own: that would become the help of the subcommand.

use std::os::fd::RawFd;

use clap::{Args, value_parser};
use tidy_process::{Sandbox, SupervisorBuilder};

use crate::exit::{Ended, Failure};
use crate::print::json::{Sink, Subject};
use crate::print::text::{failed, print};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfineArgs {
    /// Confine what is started: it cannot leave its cgroup, signal, trace, renice or limit
    /// processes outside, or gain privileges, or it is not run (125); see docs/sandbox.md
    #[arg(long)]
    pub(crate) fence: bool,

    /// Let it make a system call that --fence refuses
    #[arg(long, value_name = "NAME", requires = "fence")]
    allow_syscall: Vec<String>,

    /// Refuse it this system call too
    #[arg(long, value_name = "NAME", requires = "fence")]
    deny_syscall: Vec<String>,

    /// Let it have fd N of tidy-process; --fence closes all but the three streams
    #[arg(long, value_name = "N", requires = "fence", value_parser = value_parser!(i32).range(3..))]
    keep_fd: Vec<RawFd>,

    /// Say what would confine it, every path and call, and run nothing
    #[arg(long, requires = "fence")]
    pub(crate) plan: bool,
}

impl ConfineArgs {
    fn sandbox(&self) -> Sandbox {
        let fence = Sandbox::fence().inherit_fds(self.keep_fd.iter().copied());
        let fence = self.deny_syscall.iter().fold(fence, Sandbox::deny_syscall);
        self.allow_syscall.iter().fold(fence, Sandbox::allow_syscall)
    }

    /// Confines all that the supervisor will start.
    pub(crate) fn all_of(&self, builder: SupervisorBuilder) -> SupervisorBuilder {
        if self.fence { builder.sandbox(&self.sandbox()) } else { builder }
    }

    /// Says the plan, where the report would go or else on standard output.
    pub(crate) fn say_plan(&self, sink: &Sink, subject: Subject<'_>) -> Ended {
        let said = match self.sandbox().plan() {
            Ok(plan) if sink.is_open() => sink.plan(&plan),
            Ok(plan) => print(&format!("{plan}\n")),
            Err(error) => {
                let failure = Failure::from(error);
                let ended = failed(&failure);
                return match sink.failure(subject, ended.exit, &failure, None) {
                    Ok(()) => ended,
                    Err(failure) => failed(&failure),
                };
            }
        };
        said.map_or_else(|failure| failed(&failure), |()| Ended { exit: 0, by_signal: None })
    }
}
