//! Where trees live: the run root, a cgroup of the caller's own that is held by a lease. Where none
//! can be made, and the caller agrees to that, each tree has a keeper instead.

pub(crate) mod run_root;
pub(crate) mod guard;
pub(crate) mod sweep;
pub(crate) mod list;

use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cgroup::Cgroup;
use crate::cgroup::hierarchy;
use crate::containment::{Containment, Mechanism};
use crate::error::{Error, Result};
use crate::keeper::backend::Keepers;
use crate::limits::Limits;
use crate::proc::info::ProcessInfo;
use crate::supervisor::run_root::RunRoot;

/// Where trees live: one *run root* cgroup, whose children are the trees.
///
/// A handle; clones share the run root.
///
/// # Cleanup
/// The run root is torn down, with whatever is still in it (a detached child, say), when the last
/// handle and the last [`Tree`](crate::Tree) in it are dropped. [`Supervisor::global`] lives as
/// long as the process. A fork of the process without exec holds no claim: dropping its copy does
/// nothing.
#[derive(Debug, Clone)]
pub struct Supervisor {
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    ground: Ground,
    /// A forked copy of this process must not tear down what is its parent's.
    owner: u32,
    /// Everybody who was left in one of its trees, for who wants to know.
    left: Option<Mutex<Vec<ProcessInfo>>>,
}

/// What its trees stand on.
#[derive(Debug)]
enum Ground {
    RunRoot(RunRoot),
    Keepers(Keepers),
}

/// Settings for a [`Supervisor`]; see [`Supervisor::builder`].
#[derive(Debug, Clone, Default)]
pub struct SupervisorBuilder {
    base: Option<PathBuf>,
    unguarded: bool,
    unswept: bool,
    limits: Limits,
    account: bool,
    remember: bool,
    containment: Containment,
}

static GLOBAL: Mutex<Option<Supervisor>> = Mutex::new(None);

impl Supervisor {
    /// The supervisor that [`Command`](crate::Command) and [`Tree`](crate::Tree) use unless told
    /// otherwise; made at its first use, below the cgroup of this process or `TIDY_PROCESS_PARENT`.
    ///
    /// # Errors
    /// As for [`SupervisorBuilder::build`]. A failure is not remembered: the next call tries again.
    pub fn global() -> Result<Self> {
        let mut global = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
        match &*global {
            Some(made) if made.root.is_ours() => Ok(made.clone()),
            // None yet, or a forked copy of this process holds its parent's.
            _ => Ok(global.insert(Self::builder().build()?).clone()),
        }
    }

    /// Settings for a supervisor of one's own.
    #[must_use]
    pub fn builder() -> SupervisorBuilder {
        SupervisorBuilder::default()
    }

    /// The run root's directory; empty where trees have keepers.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root().map_or(Path::new(""), Cgroup::path)
    }

    /// What holds its trees together.
    #[must_use]
    pub fn mechanism(&self) -> Mechanism {
        match self.root.ground {
            Ground::RunRoot(_) => Mechanism::Cgroup,
            Ground::Keepers(_) => Mechanism::Keeper,
        }
    }

    /// Why its trees have keepers, where [`Containment::BestEffort`] would rather have had cgroups.
    #[must_use]
    pub fn why_no_cgroup(&self) -> Option<&Error> {
        self.keepers().and_then(|keepers| keepers.why.as_ref())
    }

    /// Whether a guard stands ready now: false with [`guard(false)`](SupervisorBuilder::guard), and
    /// when somebody killed it. A keeper is its tree's guard.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        match &self.root.ground {
            Ground::RunRoot(root) => root.is_guarded(),
            Ground::Keepers(_) => true,
        }
    }

    /// The run root, where trees have cgroups; `what` is for those only.
    pub(crate) fn ground(&self, what: &str) -> Result<&RunRoot> {
        match &self.root.ground {
            Ground::RunRoot(root) => Ok(root),
            Ground::Keepers(_) => Err(Error::unsupported(what, false)),
        }
    }

    pub(crate) fn root(&self) -> Option<&Cgroup> {
        match &self.root.ground {
            Ground::RunRoot(root) => Some(&root.cgroup),
            Ground::Keepers(_) => None,
        }
    }

    pub(crate) fn keepers(&self) -> Option<&Keepers> {
        match &self.root.ground {
            Ground::RunRoot(_) => None,
            Ground::Keepers(keepers) => Some(keepers),
        }
    }

    /// Keeps the names of leftovers, if the builder was told so.
    pub(crate) fn note_left(&self, left: &[ProcessInfo]) {
        if let Some(all) = &self.root.left {
            all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(left);
        }
    }

    pub(crate) fn remembers(&self) -> bool {
        self.root.left.is_some()
    }

    pub(crate) fn remembered(&self) -> Vec<ProcessInfo> {
        let all = self.root.left.as_ref();
        let take = |all: &Mutex<Vec<_>>| all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.map(take).unwrap_or_default()
    }

    /// Whether its trees are to say all that they have used.
    pub(crate) fn counts(&self) -> bool {
        matches!(&self.root.ground, Ground::RunRoot(root) if root.counts)
    }

    /// Whether this process made it (a fork of it did not).
    pub(crate) fn is_ours(&self) -> bool {
        self.root.is_ours()
    }
}

impl SupervisorBuilder {
    /// The cgroup2 directory below which the run root is made. Default: `TIDY_PROCESS_PARENT`, else
    /// the cgroup of this process.
    #[must_use]
    pub fn base(mut self, path: impl Into<PathBuf>) -> Self {
        self.base = Some(path.into());
        self
    }

    /// Whether a guard ends everything should this process die without a chance to (SIGKILL, OOM,
    /// a crash, `exit`). Default: true. It is one process of a few KiB for each supervisor; where
    /// no program may be executed from memory (`vm.memfd_noexec`, a seccomp filter) it is a fork of
    /// this process. `false` does without, and then a SIGKILL of this process leaves its trees to
    /// the next [`sweep`](crate::supervisor::sweep).
    #[must_use]
    pub fn guard(mut self, guard: bool) -> Self {
        self.unguarded = !guard;
        self
    }

    /// Whether run roots below the same base whose owners are gone are removed first. Default:
    /// true; [`sweep`](crate::supervisor::sweep) does it at any time.
    #[must_use]
    pub fn sweep(mut self, sweep: bool) -> Self {
        self.unswept = !sweep;
        self
    }

    /// A budget for everything in the supervisor together. When its memory is used up the kernel
    /// picks one tree and kills that as a whole. A limit of CPU time is an error: nothing would
    /// watch it.
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

    /// What its trees are to be held together by. Default: [`Containment::Cgroup`]. What it came to
    /// is in [`Supervisor::mechanism`] and in each [`Report`](crate::Report).
    #[must_use]
    pub fn containment(mut self, containment: Containment) -> Self {
        self.containment = containment;
        self
    }

    /// Remembers everybody who was left in a tree when its main process had ended.
    pub(crate) fn remember(mut self) -> Self {
        self.remember = true;
        self
    }

    /// Makes the run root, `tidy-process-<pid>-<random>` with mode 0700, takes its lease and starts
    /// its guard. Run roots below the same base whose owners are gone are removed first.
    ///
    /// # Errors
    /// No cgroup2 mount, no permission, a read-only cgroupfs, a limit on the number of cgroups,
    /// a kernel before 5.14, no process or fds for the guard: the text has the path and the errno,
    /// [`Error::hint`] what to do. Nothing is left behind. With keepers: `/proc` is not of this
    /// pid namespace or lists no children, or limits are asked for.
    pub fn build(self) -> Result<Supervisor> {
        if let Some(time) = self.limits.cpu_time {
            return Err(Error::unwatched("a supervisor", time));
        }
        let run_root = || {
            let base = hierarchy::base(self.base.as_deref())?;
            RunRoot::make(base, !self.unswept, !self.unguarded, &self.limits, self.account)
        };
        let ground = match self.containment {
            Containment::Keeper => Ground::Keepers(Keepers::new(&self.limits, None)?),
            Containment::Cgroup => Ground::RunRoot(run_root()?),
            Containment::BestEffort => match run_root() {
                Err(why) if why.calls_for_keeper() => {
                    Ground::Keepers(Keepers::new(&self.limits, Some(why))?)
                }
                root => Ground::RunRoot(root?),
            },
        };
        let left = self.remember.then(Mutex::default);
        Ok(Supervisor { root: Arc::new(Root { ground, owner: process::id(), left }) })
    }
}

impl Root {
    fn is_ours(&self) -> bool {
        self.owner == process::id()
    }
}

/// In a forked copy of this process it is none of our business.
impl Drop for Root {
    fn drop(&mut self) {
        let ours = self.is_ours();
        match &mut self.ground {
            Ground::RunRoot(root) if ours => root.end(),
            Ground::RunRoot(root) => root.leave(),
            Ground::Keepers(keepers) if ours => keepers.end(),
            Ground::Keepers(_) => {}
        }
    }
}
