//! Where trees live: the run root, a cgroup of the caller's own that is held by a lease. Where none
//! can be made, and the caller agrees to that, each tree has a keeper instead.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};

use crate::cgroup::Cgroup;
use crate::containment::{Containment, Mechanism};
use crate::controllers;
use crate::delegation;
use crate::error::{Error, Result, Step};
use crate::guard::Guard;
use crate::hierarchy;
use crate::keepers::Keepers;
use crate::limits::Limits;
use crate::names::{ASIDE, INNER, PREFIX};
use crate::process::ProcessInfo;
use crate::sweep::{lease, sweep_siblings};
use crate::teardown::{PATIENCE, teardown};

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

#[derive(Debug)]
struct RunRoot {
    cgroup: Cgroup,
    /// flock(2) on the directory: free once this process is gone, however it went.
    _lease: File,
    guard: Option<Guard>,
    made: AtomicU64,
    memory_budget: bool,
    counts: bool,
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
            Ground::RunRoot(root) => root.guard.as_ref().is_some_and(Guard::is_alive),
            Ground::Keepers(_) => true,
        }
    }

    /// Makes the cgroup of one tree. Its name starts with a number: no control file's does.
    pub(crate) fn make_leaf(&self, name: Option<&str>, limits: &Limits) -> Result<Cgroup> {
        let Ground::RunRoot(root) = &self.root.ground else {
            return Err(Error::unsupported("make a tree without a command", false));
        };
        let number = root.made.fetch_add(1, Ordering::Relaxed);
        let name = match name {
            Some(name) => OsString::from(format!("{number}-{}", checked(name)?)),
            None => OsString::from(number.to_string()),
        };
        let root = &root.cgroup;
        let mode = Mode::from_bits_truncate(0o755);
        let dir = root.dir().map_err(|errno| (Step::MakeCgroup, errno));
        let leaf = dir
            .and_then(|dir| Cgroup::make(&dir, root.path(), &name, mode))
            .map_err(|(step, errno)| Error::at(step, &root.path().join(&name), errno))?;
        match self.limit_leaf(&leaf, limits) {
            Ok(()) => Ok(leaf),
            Err(error) => {
                let _ = leaf.remove();
                Err(error)
            }
        }
    }

    /// Under a budget of memory each tree dies as one: the budget itself must not kill them all.
    pub(crate) fn limit_leaf(&self, leaf: &Cgroup, limits: &Limits) -> Result<()> {
        if matches!(&self.root.ground, Ground::RunRoot(root) if root.memory_budget) {
            controllers::kill_as_one(leaf)?;
        }
        if limits.is_none() {
            return Ok(());
        }
        let root = self.path();
        controllers::apply(limits, leaf, &[root.parent().unwrap_or(root), root])
    }

    /// Makes a cgroup in a tree that is the command's own, or another user's, and in that the leaf
    /// where the command starts: so it can be subdivided, with controllers, from its first moment.
    /// The tree itself, and with that its limits, stays ours.
    pub(crate) fn delegate_in(
        &self,
        tree: &Cgroup,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<Cgroup> {
        let root = self.path();
        controllers::offer(tree, &[root.parent().unwrap_or(root), root]);
        let mode = Mode::from_bits_truncate(0o755);
        let below = |above: &Cgroup, name: &str| {
            let dir = above.dir().map_err(|errno| tree.error(Step::Delegate, errno))?;
            let made = Cgroup::make(&dir, above.path(), name.as_ref(), mode)
                .map_err(|(step, errno)| Error::at(step, &above.path().join(name), errno))?;
            let owned = delegation::hand_over(&made, uid, gid);
            owned.map(|()| made).map_err(|errno| tree.error(Step::Delegate, errno))
        };
        if let (Some(_), Some(root)) = (uid, self.root()) {
            // On the way to it others may pass, but not look around.
            let passing = Mode::from_bits_truncate(0o711);
            let opened = root.dir().and_then(|dir| fchmod(&*dir, passing));
            opened.map_err(|errno| root.error(Step::Delegate, errno))?;
        }
        below(&below(tree, INNER)?, ASIDE)
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

/// A name becomes part of a directory's name.
pub(crate) fn checked(name: &str) -> Result<&str> {
    let no = |why| Err(Error::invalid(Step::Prepare, format!("name {name:?}"), why));
    if name.is_empty() || name.len() > 200 {
        return no("a name has 1 to 200 bytes");
    }
    if name.contains(|c: char| c == '/' || c.is_control()) {
        return no("a name has no slash and no control character");
    }
    Ok(name)
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
    /// a crash, `exit`). Default: true. It is one small `/bin/sh` for each supervisor. Where there
    /// is no `/bin/sh` (a distroless container) [`build`](Self::build) fails and says so: `false`
    /// does without, and then a SIGKILL of this process leaves its trees to the next
    /// [`sweep`](crate::sweep).
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
    /// picks one tree and kills that as a whole. CPU time is not watched here.
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

    /// Where [`build`](Self::build) would make the run root. Makes nothing.
    ///
    /// # Errors
    /// No cgroup2 is mounted, no `/proc`, or the given directory is not there or no cgroup.
    pub fn find_base(&self) -> Result<PathBuf> {
        Ok(hierarchy::base(self.base.as_deref())?.path)
    }

    /// Makes the run root, `tidy-process-<pid>-<random>` with mode 0700, takes its lease and starts
    /// its guard. Run roots below the same base whose owners are gone are removed first.
    ///
    /// # Errors
    /// No cgroup2 mount, no permission, a read-only cgroupfs, a limit on the number of cgroups,
    /// a kernel before 5.14, no `/bin/sh` for the guard: the text has the path and the errno,
    /// [`Error::hint`] what to do. Nothing is left behind. With keepers: `/proc` is not of this
    /// pid namespace or lists no children, or limits are asked for.
    pub fn build(self) -> Result<Supervisor> {
        let ground = match self.containment {
            Containment::Keeper => Ground::Keepers(Keepers::new(&self.limits, None)?),
            Containment::Cgroup => Ground::RunRoot(self.run_root()?),
            Containment::BestEffort => match self.run_root() {
                Err(why) if why.calls_for_keeper() => {
                    Ground::Keepers(Keepers::new(&self.limits, Some(why))?)
                }
                root => Ground::RunRoot(root?),
            },
        };
        let left = self.remember.then(Mutex::default);
        Ok(Supervisor { root: Arc::new(Root { ground, owner: process::id(), left }) })
    }

    fn run_root(&self) -> Result<RunRoot> {
        let base = hierarchy::base(self.base.as_deref())?;
        let parent = Arc::new(base.dir);
        if !self.unswept {
            sweep_siblings(&parent, &base.path);
        }
        loop {
            let name = format!("{PREFIX}{}-{}", process::id(), random());
            let start = || Guard::start(&base.path.join(&name));
            let guard = (!self.unguarded).then(start).transpose()?;
            let Some((cgroup, lease)) = make(&parent, &base.path, OsStr::new(&name))? else {
                continue;
            };
            let mut root = RunRoot {
                cgroup,
                _lease: lease,
                guard,
                made: AtomicU64::new(0),
                memory_budget: self.limits.has_memory(),
                counts: self.account || !self.limits.is_none(),
            };
            let prepared = controllers::budget(&self.limits, &root.cgroup, &base.path);
            if let Err(error) = prepared {
                root.end();
                return Err(error);
            }
            if self.account {
                controllers::count(&root.cgroup);
            }
            return Ok(root);
        }
    }
}

/// Eight hex digits that differ from call to call and process to process.
fn random() -> String {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(process::id());
    format!("{:08x}", bits & 0xffff_ffff)
}

/// A new run root and its lease. None where another name is due: this one is taken, or a sweep took
/// the new directory for a stale one in the moment between mkdir and lock.
fn make(parent: &Arc<OwnedFd>, base: &Path, name: &OsStr) -> Result<Option<(Cgroup, File)>> {
    let cgroup = match Cgroup::make(parent, base, name, Mode::S_IRWXU) {
        Err((_, Errno::EEXIST | Errno::ESTALE)) => return Ok(None),
        Err((step, errno)) => return Err(Error::at(step, &base.join(name), errno)),
        Ok(made) => made,
    };
    match lease(&cgroup) {
        Ok(lease) if cgroup.exists() => Ok(Some((cgroup, lease))),
        Ok(_) | Err(Errno::EWOULDBLOCK) => {
            // Who only looked leaves it to us, who sweeps has removed it.
            let _ = cgroup.remove();
            Ok(None)
        }
        Err(errno) => {
            let _ = cgroup.remove();
            Err(cgroup.error(Step::Lease, errno))
        }
    }
}

impl Root {
    fn is_ours(&self) -> bool {
        self.owner == process::id()
    }
}

impl RunRoot {
    /// The guard goes after the run root. If somebody outlived the teardown it stays, and goes on
    /// trying.
    fn end(&mut self) {
        let gone = teardown(&self.cgroup, PATIENCE).is_ok();
        if !gone && let Some(guard) = &mut self.guard {
            guard.stay();
        }
    }
}

/// In a forked copy of this process it is none of our business.
impl Drop for Root {
    fn drop(&mut self) {
        let ours = self.is_ours();
        match &mut self.ground {
            Ground::RunRoot(root) if ours => root.end(),
            Ground::RunRoot(root) => root.guard.iter_mut().for_each(Guard::stay),
            Ground::Keepers(keepers) if ours => keepers.end(),
            Ground::Keepers(_) => {}
        }
    }
}
