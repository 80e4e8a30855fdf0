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
use crate::cgroup::teardown::{Opening, TEARDOWN_PATIENCE, teardown_after};
use crate::error::{Error, Result, Step};
use crate::limits::Limits;
use crate::supervisor::guard::Guard;
use crate::supervisor::owner::sign;
use crate::supervisor::sweep::{lease, sweep_siblings};
use crate::sys::inmates::Inmates;
use crate::sys::poll::lock;

/// The run root that this process has made.
#[derive(Debug)]
pub(crate) struct OwnRunRoot {
    pub(crate) cgroup: Cgroup,
    /// None once it is removed.
    held: Mutex<Option<Claim>>,
    /// The user that owns the base, if that is neither this one nor root.
    pub(crate) foreign_owner: Option<u32>,
    made: AtomicU64,
    memory_budget: bool,
    pub(crate) counts: bool,
    /// Those of all its sandboxes, detached ones too.
    inmates: Mutex<Vec<Arc<Inmates>>>,
}

/// The lease and the guard, held until the teardown.
#[derive(Debug)]
struct Claim {
    /// flock(2) on the directory: free once this process and its forks are gone, however they
    /// ended.
    lease: File,
    guard: Option<Guard>,
}

impl OwnRunRoot {
    /// Makes the run root, its lease and its guard; with `sweep` removes stale run roots beside it
    /// first.
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
                inmates: Mutex::default(),
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

    /// Makes the cgroup of one tree. Its name starts with a number, which no control file's name
    /// does.
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

    /// Writes a tree's limits. Under a memory budget of the run root each tree is OOM-killed as
    /// one, and never all trees together.
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

    /// Makes a cgroup in a tree and delegates it to the command or another user, with a leaf in it
    /// where the command starts: so the command can subdivide it, with controllers, from its first
    /// instruction. The tree itself, and with that its limits, stays ours.
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
            // Lets the other user pass through, but not list.
            let passing = Mode::from_bits_truncate(0o711);
            let opened = self.cgroup.dir().and_then(|dir| fchmod(&*dir, passing));
            opened.map_err(|errno| self.cgroup.error(Step::Delegate, errno))?;
        }
        below(&below(tree, INNER)?, ASIDE)
    }

    /// Kills what is in the run root, removes it, and ends the guard after it. If a process
    /// outlives the teardown the guard stays and goes on trying; if the guard is killed, a sweep
    /// does. Unlocks the lease then, which a fork of this process would hold.
    pub(crate) fn tear_down(&self) -> Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(holding) = held.as_mut() else { return Ok(()) };
        self.check_not_inside()?;
        if let Err(error) = self.teardown() {
            holding.guard.iter_mut().for_each(Guard::stay);
            let _ = holding.lease.unlock();
            return Err(error);
        }
        *held = None;
        Ok(())
    }

    /// Fails while this process is in it, or below: killing it would end this process.
    pub(crate) fn check_not_inside(&self) -> Result<()> {
        let me = process::id().cast_signed();
        if self.cgroup.pids().is_ok_and(|pids| pids.contains(&me)) {
            let why = "this process is in it: drop the Watch, or leave the cgroup, first";
            let subject = format!("{:?}", self.cgroup.path());
            return Err(Error::invalid(Step::Teardown, subject, why));
        }
        Ok(())
    }

    fn teardown(&self) -> Result<()> {
        let reap = || self.reap_mains();
        teardown_after(&self.cgroup, TEARDOWN_PATIENCE, Opening::Removal, &reap, || ())?;
        std::mem::take(&mut *lock(&self.inmates)).iter().for_each(|inmates| inmates.reap());
        Ok(())
    }

    /// Notes processes that have to be reaped; forgets those that nothing else knows and that have
    /// ended.
    pub(crate) fn inhabit(&self, new: &Arc<Inmates>) {
        let mut all = lock(&self.inmates);
        all.retain(|inmates| Arc::strong_count(inmates) > 1 || !inmates.are_gone());
        all.push(Arc::clone(new));
    }

    /// Forgets those of a tree that is torn down.
    pub(crate) fn vacate(&self, old: &Arc<Inmates>) {
        lock(&self.inmates).retain(|inmates| !Arc::ptr_eq(inmates, old));
    }

    /// Whether this is the pid of a sandbox's init.
    pub(crate) fn is_init(&self, pid: i32) -> bool {
        lock(&self.inmates).iter().any(|inmates| inmates.is_init(pid))
    }

    /// Reaps the main processes of sandboxes that have ended: with some kernels the run root is not
    /// empty before.
    pub(crate) fn reap_mains(&self) {
        lock(&self.inmates).iter().for_each(|inmates| inmates.collect_main());
    }

    /// Leaves the guard alone: it acts when this process, or for a forked copy the owner, ends.
    pub(crate) fn leave_to_guard(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        held.iter_mut().filter_map(|held| held.guard.as_mut()).for_each(Guard::let_go);
    }
}

/// The other user that owns the base, and so may kill processes in it and move them out.
fn foreign_owner(base: &Base) -> Option<u32> {
    foreign(fstat(&base.dir).ok()?.st_uid, geteuid().as_raw())
}

fn foreign(owner: u32, me: u32) -> Option<u32> {
    (owner != 0 && owner != me).then_some(owner)
}

/// Eight hex digits that differ from call to call and process to process.
fn random() -> String {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(process::id());
    format!("{:08x}", bits & 0xffff_ffff)
}

/// Makes a run root and takes its lease. None if another name is needed: this one is taken, or a
/// sweep took the new directory for a stale one between mkdir and lock.
fn make(parent: &Arc<OwnedFd>, base: &Path, name: &OsStr) -> Result<Option<(Cgroup, File)>> {
    let cgroup = match Cgroup::make(parent, base, name, Mode::S_IRWXU) {
        Err((_, Errno::EEXIST | Errno::ESTALE)) => return Ok(None),
        Err((step, errno)) => return Err(Error::at(step, &base.join(name), errno)),
        Ok(made) => made,
    };
    match lease(&cgroup) {
        Ok(lease) if cgroup.exists() => Ok(Some((cgroup, lease))),
        Ok(_) | Err(Errno::EWOULDBLOCK) => {
            // A sweep has removed it, or `list` holds its lease for a moment.
            let _ = cgroup.remove();
            Ok(None)
        }
        Err(errno) => {
            let _ = cgroup.remove();
            Err(cgroup.error(Step::Lease, errno))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_this_user_are_no_strangers() {
        for (owner, me, said) in [(0, 0, None), (0, 7, None), (7, 7, None)] {
            assert_eq!(foreign(owner, me), said, "{owner} {me}");
        }
        assert_eq!((foreign(8, 7), foreign(8, 0)), (Some(8), Some(8)));
    }
}
