//! The supervisor: holds trees in a run root, a cgroup of the caller's own with a lease and a
//! guard; or, if the caller agrees to that, with a keeper for each tree. What kills and removes one
//! cgroup is in `cgroup`.

mod global;
pub(crate) mod partner;
pub(crate) mod run_root;
pub(crate) mod guard;
pub(crate) mod owner;
pub(crate) mod orphans;
pub(crate) mod sweep;
pub(crate) mod list;
#[cfg(feature = "cli")]
pub(crate) mod held;
#[cfg(feature = "cli")]
pub(crate) mod lookout;
pub(crate) mod environment;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cgroup::Cgroup;
use crate::cgroup::nesting;
use crate::containment::{Containment, Mechanism};
use crate::error::{Error, Result, Step};
use crate::exec::slots::Slots;
use crate::keeper::backend::Keepers;
use crate::limits::Limits;
use crate::proc::info::Survey;
use crate::sandbox::Sandbox;
use crate::supervisor::environment::containment;
use crate::supervisor::partner::Partner;
use crate::supervisor::run_root::OwnRunRoot;
use crate::sys::identity::Identity;

/// The owner of trees: one *run root* cgroup, whose children are the trees.
///
/// A handle; clones share the run root.
///
/// # Cleanup
/// Dropping the last handle and the last [`Tree`](crate::Tree) in it tears the run root down, with
/// all that is still in it (a detached child, say), and ignores errors; [`close`](Self::close) does
/// it at once, and reports them. [`Supervisor::global`] lives as long as the process. In a fork of
/// the process without exec dropping the copy does nothing, and spawning is an error.
#[derive(Debug, Clone)]
pub struct Supervisor {
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    ground: Ground,
    /// Identifies the process that made it: a forked copy must not tear it down.
    owner: Identity,
    closed: AtomicBool,
    /// Orphans become children of this process.
    adopts: AtomicBool,
    /// The leftovers of all its trees, where `NoLeaks` asks for them.
    left: Option<Mutex<Survey>>,
    /// The defaults for its commands.
    sandbox: Option<Sandbox>,
    closes_fds: bool,
    partner: Option<Partner>,
    slots: Slots,
}

/// The containment that it has: a run root, or keepers.
#[derive(Debug)]
enum Ground {
    RunRoot(OwnRunRoot),
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
    /// None: as `TIDY_PROCESS_CONTAINMENT` says.
    containment: Option<Containment>,
    sandbox: Option<Sandbox>,
    closes_fds: bool,
    dies_with_parent: bool,
}

impl Supervisor {
    /// Kills every process in it, detached children too, and removes the run root. Handles of its
    /// trees and children stay valid: their processes have ended by SIGKILL. A second call does
    /// nothing.
    ///
    /// # Errors
    /// A process outlived SIGKILL for 10 s ([`Error::is_survivors`]) or the run root cannot be
    /// removed: then another call tries again. In a forked copy of the process that made it, and
    /// while this process is itself in the run root ([`watch`](Self::watch)): nothing is killed.
    ///
    /// # Examples
    /// ```
    /// use tidy_process::Supervisor;
    ///
    /// let supervisor = Supervisor::builder().build()?;
    /// supervisor.command("sleep").arg("60").spawn()?.detach();
    /// supervisor.close()?;
    /// assert!(supervisor.command("sleep").spawn().is_err());
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    pub fn close(&self) -> Result<()> {
        self.check_ours()?;
        if let Ground::RunRoot(root) = &self.root.ground {
            root.check_not_inside()?;
        }
        self.root.closed.store(true, Ordering::Release);
        match &self.root.ground {
            Ground::RunRoot(root) => root.tear_down(),
            Ground::Keepers(keepers) => keepers.tear_down(),
        }
    }

    /// Settings for a supervisor apart from the global one.
    #[must_use]
    pub fn builder() -> SupervisorBuilder {
        SupervisorBuilder::default()
    }

    /// The user that the base belongs to, if that is neither the caller nor root. That user can
    /// kill and remove what is in the run root, and move processes out of it.
    #[must_use]
    pub fn foreign_owner(&self) -> Option<u32> {
        match &self.root.ground {
            Ground::RunRoot(root) => root.foreign_owner,
            Ground::Keepers(_) => None,
        }
    }

    /// The run root's directory; none where trees have keepers.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.root().map(Cgroup::path)
    }

    /// What holds its trees together.
    #[must_use]
    pub fn mechanism(&self) -> Mechanism {
        match self.root.ground {
            Ground::RunRoot(_) => Mechanism::Cgroup,
            Ground::Keepers(_) => Mechanism::Keeper,
        }
    }

    /// The error that made [`Containment::BestEffort`] use keepers instead of cgroups.
    #[must_use]
    pub fn why_no_cgroup(&self) -> Option<&Error> {
        self.keepers().and_then(|keepers| keepers.why.as_ref())
    }

    /// Whether its guard is alive: false with [`guard(false)`](SupervisorBuilder::guard), and when
    /// the guard was killed. True with keepers, which need none.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        match &self.root.ground {
            Ground::RunRoot(root) => root.is_guarded(),
            Ground::Keepers(_) => true,
        }
    }

    /// The run root; with keepers an error that `what` is unsupported.
    pub(crate) fn ground(&self, what: &str) -> Result<&OwnRunRoot> {
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

    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.root.sandbox.as_ref()
    }

    pub(crate) fn partner(&self) -> Option<&Partner> {
        self.root.partner.as_ref()
    }

    /// Remembers leftovers if the builder asked for that.
    pub(crate) fn note_left(&self, left: &Survey) {
        // This process may have become a sub-reaper since the build.
        if !left.is_empty() && orphans::come_to_us() {
            self.root.adopts.store(true, Ordering::Relaxed);
        }
        if let Some(all) = &self.root.left {
            all.lock().unwrap_or_else(PoisonError::into_inner).extend(left);
        }
    }

    /// Whether a tree's orphans are this process's to reap.
    pub(crate) fn adopts(&self) -> bool {
        self.root.adopts.load(Ordering::Relaxed)
    }

    pub(crate) fn remembers(&self) -> bool {
        self.root.left.is_some()
    }

    pub(crate) fn remembered(&self) -> Survey {
        let all = self.root.left.as_ref();
        let take = |all: &Mutex<Survey>| all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.map(take).unwrap_or_default()
    }

    /// Whether its trees report all that they have used.
    pub(crate) fn counts(&self) -> bool {
        matches!(&self.root.ground, Ground::RunRoot(root) if root.counts)
    }

    /// Whether this process made it (a fork of it did not).
    pub(crate) fn is_ours(&self) -> bool {
        self.root.owner.is_this_process()
    }

    /// Whether its commands have no fds but those that they are given.
    pub(crate) fn closes_fds(&self) -> bool {
        self.root.closes_fds
    }

    /// Where the streams of its children stand while they are born.
    pub(crate) fn slots(&self) -> &Slots {
        &self.root.slots
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.root.closed.load(Ordering::Acquire)
    }

    /// Fails in a forked copy of the process that made it.
    pub(crate) fn check_ours(&self) -> Result<()> {
        if self.is_ours() {
            return Ok(());
        }
        let what = format!("the supervisor of process {}", self.root.owner.pid());
        let why = "this process is a fork of the one that made it";
        Err(Error::invalid(Step::Supervise, what, why))
    }

    /// Fails in a forked copy, and once it is closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        self.check_ours()?;
        if self.is_closed() {
            return Err(Error::invalid(Step::Supervise, "the supervisor", "it was closed"));
        }
        Ok(())
    }
}

impl SupervisorBuilder {
    /// Makes the run root, `tidy-process-<pid>-<random>` with mode 0700, takes its lease and starts
    /// its guard. Run roots below the same base whose owners are gone are removed first.
    ///
    /// # Errors
    /// No cgroup2 mount, no permission, a read-only cgroupfs, a limit on the number of cgroups, a
    /// kernel before 5.14, no process or fds for the guard, a base outside of the tree that this
    /// process stands in, an unknown value of `TIDY_PROCESS_CONTAINMENT`: the text has the path and
    /// the errno, [`Error::hint`] what to do. Nothing is left behind. With keepers: `/proc` is not
    /// of this pid namespace or lists no children, or limits are asked for.
    pub fn build(self) -> Result<Supervisor> {
        if let Some(time) = self.limits.cpu_time {
            return Err(Error::unwatched("a supervisor", time));
        }
        let run_root = || {
            let base = nesting::base(self.base.as_deref())?;
            OwnRunRoot::make(base, !self.unswept, !self.unguarded, &self.limits, self.account)
        };
        let partner = self.dies_with_parent.then(|| Partner::parent(None)).transpose()?;
        let ground = match self.containment.map_or_else(containment, Ok)? {
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
        let (owner, closed) = (Identity::of_this_process(), AtomicBool::new(false));
        let adopts = AtomicBool::new(orphans::come_to_us());
        let (sandbox, closes_fds) = (self.sandbox, self.closes_fds);
        let slots = Slots::default();
        let root =
            Root { ground, owner, closed, adopts, left, sandbox, closes_fds, partner, slots };
        Ok(Supervisor { root: Arc::new(root) })
    }
}

/// Tears down what it holds; nothing in a forked copy of the process.
impl Drop for Root {
    fn drop(&mut self) {
        let ours = self.owner.is_this_process();
        match &mut self.ground {
            Ground::RunRoot(root) => {
                if !ours || root.tear_down().is_err() {
                    root.leave_to_guard();
                }
            }
            Ground::Keepers(keepers) if ours => drop(keepers.tear_down()),
            Ground::Keepers(_) => {}
        }
    }
}
