//! The run root: a cgroup of the caller's own, held by a lease, with its guard beside it. The trees
//! are its children.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::geteuid;

use crate::cgroup::Cgroup;
use crate::cgroup::controllers;
use crate::cgroup::delegation;
use crate::cgroup::hierarchy::Base;
use crate::cgroup::names::checked;
use crate::cgroup::names::{ASIDE, INNER, PREFIX};
use crate::cgroup::teardown::{TEARDOWN_PATIENCE, teardown};
use crate::error::{Error, Result, Step};
use crate::limits::Limits;
use crate::supervisor::guard::Guard;
use crate::supervisor::owner::sign;
use crate::supervisor::sweep::{lease, sweep_siblings};

/// The run root that this process has made.
#[derive(Debug)]
pub(crate) struct OwnRunRoot {
    pub(crate) cgroup: Cgroup,
    /// Nothing once it was removed.
    held: Mutex<Option<Claim>>,
    /// The user of the base, if that is neither this one nor root.
    pub(crate) foreign_owner: Option<u32>,
    made: AtomicU64,
    memory_budget: bool,
    pub(crate) counts: bool,
}

/// What keeps it until its end.
#[derive(Debug)]
struct Claim {
    /// flock(2) on the directory: free once this process and its forks are gone, however they went.
    lease: File,
    guard: Option<Guard>,
}

impl OwnRunRoot {
    /// Run roots beside it whose owners are gone are removed first, if that is wanted.
    pub(crate) fn make(
        base: Base,
        sweep: bool,
        guard: bool,
        limits: &Limits,
        account: bool,
    ) -> Result<Self> {
        let foreign_owner = foreign_owner(&base);
        let parent = Arc::new(base.dir);
        if sweep {
            sweep_siblings(&parent, &base.path);
        }
        loop {
            let id = format!("{}-{}", process::id(), random());
            let name = format!("{PREFIX}{id}");
            let start = || Guard::start(&parent, &id);
            let guard = guard.then(start).transpose()?;
            let Some((cgroup, lease)) = make(&parent, &base.path, OsStr::new(&name))? else {
                continue;
            };
            guard.iter().for_each(|guard| guard.hand_over(&cgroup));
            sign(&cgroup);
            let root = Self {
                cgroup,
                held: Mutex::new(Some(Claim { lease, guard })),
                foreign_owner,
                made: AtomicU64::new(0),
                memory_budget: limits.has_memory(),
                counts: account || !limits.is_none(),
            };
            let prepared = controllers::budget(limits, &root.cgroup, &base.path);
            if let Err(error) = prepared {
                let _ = root.tear_down();
                return Err(error);
            }
            if account {
                controllers::count(&root.cgroup);
            }
            return Ok(root);
        }
    }

    pub(crate) fn is_guarded(&self) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().and_then(|held| held.guard.as_ref()).is_some_and(Guard::is_alive)
    }

    pub(crate) fn is_guard(&self, pid: u32) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let guard = held.as_ref().and_then(|held| held.guard.as_ref());
        guard.is_some_and(|guard| guard.pid() == pid)
    }

    /// Makes the cgroup of one tree. Its name starts with a number: no control file's does.
    pub(crate) fn make_leaf(&self, name: Option<&OsStr>, limits: &Limits) -> Result<Cgroup> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = match name {
            Some(name) => {
                let mut full = OsString::from(format!("{number}-"));
                full.push(checked(name)?);
                full
            }
            None => OsString::from(number.to_string()),
        };
        let root = &self.cgroup;
        let mode = Mode::from_bits_truncate(0o755);
        let leaf = root.make_below(&name, mode)?;
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
        if self.memory_budget {
            controllers::kill_as_one(leaf)?;
        }
        if limits.is_none() {
            return Ok(());
        }
        let root = self.cgroup.path();
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
        let root = self.cgroup.path();
        controllers::offer(tree, &[root.parent().unwrap_or(root), root]);
        let mode = Mode::from_bits_truncate(0o755);
        let below = |above: &Cgroup, name: &str| {
            let made = above.make_below(name.as_ref(), mode)?;
            let owned = delegation::hand_over(&made, uid, gid);
            owned.map(|()| made).map_err(|errno| tree.error(Step::Delegate, errno))
        };
        if uid.is_some() {
            // On the way to it others may pass, but not look around.
            let passing = Mode::from_bits_truncate(0o711);
            let opened = self.cgroup.dir().and_then(|dir| fchmod(&*dir, passing));
            opened.map_err(|errno| self.cgroup.error(Step::Delegate, errno))?;
        }
        below(&below(tree, INNER)?, ASIDE)
    }

    /// Kills and removes it with all that is in it. The guard goes after it. If a process outlived
    /// the teardown the guard stays, and goes on trying; should it be killed, a sweep does. A fork
    /// of ours holds the lease as well, and keeps neither from it.
    pub(crate) fn tear_down(&self) -> Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(holding) = held.as_mut() else { return Ok(()) };
        if let Err(error) = teardown(&self.cgroup, TEARDOWN_PATIENCE) {
            holding.guard.iter_mut().for_each(Guard::stay);
            let _ = holding.lease.unlock();
            return Err(error);
        }
        *held = None;
        Ok(())
    }

    /// What is left to the guard, in the end: its owner's end, or that of this copy.
    pub(crate) fn leave_to_guard(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        held.iter_mut().filter_map(|held| held.guard.as_mut()).for_each(Guard::let_go);
    }
}

/// Who else may kill what is in it, and move processes out of it.
fn foreign_owner(base: &Base) -> Option<u32> {
    let owner = fstat(&base.dir).ok()?.st_uid;
    (owner != 0 && owner != geteuid().as_raw()).then_some(owner)
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
