//! What may be asked of a supervisor before it is built.

use std::path::PathBuf;

use crate::containment::Containment;
use crate::limits::Limits;
#[cfg(feature = "sandbox")]
use crate::sandbox::Sandbox;
use crate::supervisor::SupervisorBuilder;

impl SupervisorBuilder {
    /// The cgroup2 directory below which the run root is made. Default: the environment variable
    /// `TIDY_PROCESS_PARENT`, else the cgroup of this process.
    ///
    /// In a tree of another supervisor the run root is always made inside that tree, so that it
    /// ends with it: `TIDY_PROCESS_PARENT` is passed over where it names a directory outside, and
    /// such a base is an error. Where a process cannot read its own cgroup (no `/proc`) it is
    /// searched for round the base; if that fails too, the base is taken as it is given.
    #[must_use]
    pub fn base(mut self, path: impl Into<PathBuf>) -> Self {
        self.base = Some(path.into());
        self
    }

    /// Whether a *guard*, a process outside the trees, tears everything down if this process dies
    /// without a Drop (SIGKILL, OOM, a crash, `exit`). Default: true. Each supervisor has one, of a
    /// few KiB; where no program may be executed from memory (`vm.memfd_noexec`, a seccomp filter)
    /// it is a fork of this process. With `false` a SIGKILL of this process leaves its trees to the
    /// next [`sweep`](crate::sweep).
    #[must_use]
    pub fn guard(mut self, guard: bool) -> Self {
        self.unguarded = !guard;
        self
    }

    /// Whether run roots below the same base whose owners are gone are removed first. Default:
    /// true; [`sweep`](crate::sweep) does it at any time.
    #[must_use]
    pub fn sweep(mut self, sweep: bool) -> Self {
        self.unswept = !sweep;
        self
    }

    /// A budget for everything in the supervisor together. When its memory is used up the kernel
    /// picks one tree and kills that as a whole. A limit of CPU time is an error: nothing would
    /// enforce it.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Counts memory, processes, io and pressure of trees without limits too, where the controllers
    /// are offered; what is not is missing from the report, with its reason. Default: false.
    #[must_use]
    pub fn account(mut self, account: bool) -> Self {
        self.account = account;
        self
    }

    /// The mechanism that holds its trees together. Default: the environment variable
    /// `TIDY_PROCESS_CONTAINMENT` (`cgroup`, `best-effort` or `keeper`), else
    /// [`Containment::Cgroup`]. The result is in
    /// [`Supervisor::mechanism`](crate::Supervisor::mechanism) and in each
    /// [`Report`](crate::Report).
    #[must_use]
    pub fn containment(mut self, containment: Containment) -> Self {
        self.containment = Some(containment);
        self
    }

    /// Confines every command in it that asks for nothing else. A process that it did not start
    /// ([`Tree::add`](crate::Tree::add), [`Tree::enroll`](crate::Tree::enroll)) is refused then.
    #[cfg(feature = "sandbox")]
    #[must_use]
    pub fn sandbox(mut self, sandbox: &Sandbox) -> Self {
        self.sandbox = Some(sandbox.clone());
        self
    }

    /// Whether its commands get no fds above 2 but those that
    /// [`inherit_fds`](crate::Command::inherit_fds) names. Default: false, as with std: every fd
    /// that is not marked `FD_CLOEXEC` goes to the child.
    #[must_use]
    pub fn close_fds(mut self, close: bool) -> Self {
        self.closes_fds = close;
        self
    }

    /// Remembers the leftovers of all trees.
    pub(crate) fn remember(mut self) -> Self {
        self.remember = true;
        self
    }

    /// Ends every command in it when the parent of this process ends, as
    /// [`Command::die_with`](crate::Command::die_with) does: for a helper that is started by an
    /// engine, and has to go when that is killed. A thread of the parent may end.
    ///
    /// [`build`](Self::build) fails if the parent has ended already
    /// ([`Error::is_partner_gone`](crate::Error::is_partner_gone)). Whatever adopts an orphan is
    /// its parent then: process 1 is taken for that if it is of another session (so it is an error
    /// in a service that process 1 has started, with which all ends anyway); another adopter cannot
    /// be told from a parent. It fails too where the parent is outside of this process's pid
    /// namespace. Once the parent has ended, a spawn fails.
    ///
    /// # Examples
    /// ```
    /// use tidy_process::Supervisor;
    ///
    /// let supervisor = Supervisor::builder().die_with_parent().build()?;
    /// assert!(supervisor.command("true").status()?.success());
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    #[must_use]
    pub fn die_with_parent(mut self) -> Self {
        self.dies_with_parent = true;
        self
    }
}
