//! The mechanisms that hold a tree together, and how the main process came into it.

use std::fmt;

/// The choice of the mechanism that holds a supervisor's trees together; for
/// [`SupervisorBuilder::containment`](crate::SupervisorBuilder::containment).
///
/// A *keeper* is one process for each command, between the caller and the main process. It is the
/// sub-reaper ([prctl(2)]) of all that descends from it: a process that loses its parent becomes
/// the keeper's child. It kills by walking its descendants in `/proc`, again and again, until it
/// has none, and it does so when its owner ends in whatever way: it needs no guard.
///
/// # What a keeper cannot do
/// Limits (but timeouts), freezing, accounting, [`Tree`](crate::Tree)s without a command of their
/// own ([`Tree::new`](crate::Tree::new), [`enroll`](crate::Tree::enroll),
/// [`add`](crate::Tree::add)) are errors; [`Error::is_unsupported`](crate::Error::is_unsupported).
/// [`list`](crate::list) and [`sweep`](crate::sweep) do not see it. Leftovers are listed while they
/// run, not frozen: a process that ends or forks in that moment may be missing. Forking it costs
/// more the larger the caller is.
///
/// # Known holes
/// A keeper can be killed or stopped by a process with the right to do so: one of the caller's own
/// user, or root. If it is killed the main process dies with it (unless that has executed a set-uid
/// program), every wait and teardown is an error that says so
/// ([`is_keeper_lost`](crate::Error::is_keeper_lost)), and what else was in the tree is not found
/// any more. If it is stopped a teardown continues it, and so does a wait, 1 s after the end of the
/// main process; but nothing does once its owner is gone.
/// Descendants that an ordinary user may not signal (`sudo`, `su`) live until they end by
/// themselves; teardown names them. An orphan of a process that entered another pid namespace
/// (`nsenter`, which takes root's powers) is that namespace's. The main process's parent is the
/// keeper, not the caller; it gets SIGKILL when that dies (`PR_SET_PDEATHSIG`). The keeper is in a
/// session of its own: a main process in a new process group
/// ([`process_group`](crate::Command::process_group)) has no parent in its session, and SIGTSTP,
/// SIGTTIN and SIGTTOU do not stop it (setpgid(2): an orphaned process group).
///
/// [prctl(2)]: https://man7.org/linux/man-pages/man2/prctl.2.html
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Containment {
    /// A cgroup. Where none can be made, that is an error.
    #[default]
    Cgroup,
    /// A cgroup where one can be made with its guard, else a keeper.
    BestEffort,
    /// A keeper, also where a cgroup can be made.
    Keeper,
}

/// What holds a tree together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Mechanism {
    /// A cgroup.
    Cgroup,
    /// A keeper; see [`Containment`].
    Keeper,
}

/// `cgroup`, `keeper`
impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "cgroup",
            Self::Keeper => "keeper",
        })
    }
}

/// How a process came into its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Placement {
    /// Born there: clone3 with `CLONE_INTO_CGROUP`, sharing the caller's memory until exec.
    Born,
    /// Forked, then joined by `cgroup.procs` before exec: clone3 was refused, or there are
    /// `pre_exec` closures.
    Joined,
    /// Forked by its keeper; there is no cgroup.
    Kept,
}

/// `born`, `joined`, `kept`
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Born => "born",
            Self::Joined => "joined",
            Self::Kept => "kept",
        })
    }
}
