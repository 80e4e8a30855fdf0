//! Finds run roots whose owners are gone by their free lease, kills what is in them, and removes
//! them.
//!
//! A lease is an flock(2) on the directory, so the kernel frees it however the owner ended, and in
//! every pid namespace. A sweep holds it meanwhile: two sweeps never meet, and an owner that has
//! just made its directory and finds the lease taken makes another one. A fork of the owner may
//! hold the lease for longer than the owner lives: the owner's record (`owner.rs`) shows that, and
//! two sweeps may meet then, which does no harm. Directories of other users are left to their own
//! sweeps.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::cgroup::Cgroup;
use crate::cgroup::beneath::{self, DIRECTORY, open_cgroup, reach};
use crate::cgroup::hierarchy::Base;
use crate::cgroup::leftovers::listed;
use crate::cgroup::names::{ASIDE, owner};
use crate::cgroup::nesting::base_to_look;
use crate::cgroup::teardown::{TEARDOWN_PATIENCE, teardown};
use crate::cgroup::walk::{Manner, Visited, children, walk};
use crate::error::{Result, errno_of};
use crate::proc::info::ProcessInfo;
use crate::supervisor::owner::is_dead;
use crate::sys;

/// The time that a new supervisor spends on one stale run root at the most.
const STALE_PATIENCE: Duration = Duration::from_secs(1);

/// A run root whose owner is gone; see [`sweep`].
#[derive(Debug)]
#[non_exhaustive]
pub struct StaleRunRoot {
    /// Its directory.
    pub path: PathBuf,
    /// The pid that its owner had, in the owner's pid namespace.
    pub owner: u32,
    /// The processes that were still alive in it, the first 100.
    pub processes: Vec<ProcessInfo>,
    /// How many there were.
    pub process_count: usize,
    /// Whether it was removed, or why it could not be. `Ok(false)` after a `dry_run`, which removes
    /// nothing.
    pub removed: Result<bool>,
}

/// Kills and removes every run root below `base`, at any depth, whose owner is gone.
///
/// `base` is found as for [`SupervisorBuilder::base`](crate::SupervisorBuilder::base) if `None`.
/// With `dry_run` it only lists. A run root whose owner lives, one of another user, and any other
/// directory is never touched.
///
/// # Errors
/// The base cannot be found. What cannot be removed is in [`StaleRunRoot::removed`].
pub fn sweep(base: Option<&Path>, dry_run: bool) -> Result<Vec<StaleRunRoot>> {
    let base = base_to_look(base)?;
    let mut found: Vec<StaleRunRoot> = Vec::new();
    let mut handled = HashSet::new();
    for (path, owner) in run_roots(&base) {
        if path.ancestors().any(|above| handled.contains(above)) {
            // It is inside a run root that was handled already.
            continue;
        }
        visit_stale(open_below(&base, &path), |cgroup| {
            let found_alive = listed(cgroup);
            let torn = if dry_run { Ok(()) } else { teardown(cgroup, TEARDOWN_PATIENCE) };
            let removed = torn.map(|()| !dry_run);
            handled.insert(path.clone());
            found.push(StaleRunRoot {
                path: path.clone(),
                owner,
                process_count: found_alive.count,
                processes: found_alive.named,
                removed,
            });
        });
    }
    Ok(found)
}

/// Sweeps the run roots beside a new supervisor's. Costs one listing of the base if there are none.
/// Ignores errors: the next supervisor tries again, and `sweep` reports them.
pub(crate) fn sweep_siblings(base: &Arc<OwnedFd>, path: &Path) {
    let names = children(base).unwrap_or_default();
    if names.iter().any(|name| name == ASIDE) {
        // A leaf into which a supervisor moved itself; busy while that supervisor lives.
        let _ = unlinkat(base, ASIDE, UnlinkatFlags::RemoveDir);
    }
    for name in names.into_iter().filter(|name| owner(name).is_some()) {
        visit_stale(Cgroup::open(base, path, &name), |cgroup| {
            let _ = teardown(cgroup, STALE_PATIENCE);
        });
    }
}

/// Sweeps the run roots in a directory by its path; for the command line.
#[cfg(feature = "cli")]
pub fn sweep_briefly(base: &Path) {
    if let Ok(dir) = open_cgroup(base) {
        sweep_siblings(&Arc::new(dir), base);
    }
}

/// Visits a run root of this user whose owner is gone. Holds its lease meanwhile, unless a fork of
/// the owner has it.
fn visit_stale(cgroup: Result<Cgroup, Errno>, visit: impl FnOnce(&Cgroup)) {
    // It was removed meanwhile, or belongs to another user.
    let Ok(cgroup) = cgroup else { return };
    let ours = cgroup
        .dir()
        .and_then(|dir| fstat(&*dir))
        .is_ok_and(|stat| stat.st_uid == geteuid().as_raw());
    if !ours {
        return;
    }
    match lease(&cgroup) {
        Ok(_lease) => visit(&cgroup),
        Err(Errno::EWOULDBLOCK) if is_dead(&cgroup) => visit(&cgroup),
        Err(_) => {}
    }
}

/// Opens a cgroup below the base without crossing a mount.
pub(crate) fn open_below(base: &Base, path: &Path) -> Result<Cgroup, Errno> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::EINVAL);
    };
    if path == base.path {
        return Cgroup::open(&Arc::new(open_cgroup(above)?), above, name);
    }
    let way = above.strip_prefix(&base.path).map_err(|_| Errno::EINVAL)?;
    let way = if way.as_os_str().is_empty() { Path::new(".") } else { way };
    let parent = reach(base.dir.as_fd(), |base| beneath::look(base, way, DIRECTORY))?;
    Cgroup::open(&Arc::new(parent), above, name)
}

/// The run roots below a directory, at any depth (a supervised process may supervise others),
/// outermost first.
pub(crate) fn run_roots(base: &Base) -> Vec<(PathBuf, u32)> {
    let (mut found, covered) = run_roots_in(base.dir.as_fd(), &base.path);
    // Looks below mounts too, with CAP_SYS_ADMIN.
    if covered && let Ok(bare) = sys::without_mounts(base.dir.as_fd()) {
        found = run_roots_in(bare.as_fd(), &base.path).0;
    }
    found.reverse();
    found
}

/// The run roots, innermost first, and whether a mount hides one of the directories.
fn run_roots_in(dir: BorrowedFd<'_>, path: &Path) -> (Vec<(PathBuf, u32)>, bool) {
    let mut found = Vec::new();
    let walked = walk(dir, ".".as_ref(), Manner::Look, &mut |visited: &Visited<'_>| {
        let way = visited.path.strip_prefix(".").unwrap_or(visited.path);
        let here = if way.as_os_str().is_empty() { path.to_owned() } else { path.join(way) };
        let owner = here.file_name().and_then(owner);
        found.extend(owner.map(|owner| (here, owner)));
        Ok(())
    });
    (found, walked.is_err_and(|stuck| stuck.errno == Errno::EXDEV))
}

/// Takes the lease, or `EWOULDBLOCK`. Uses std's lock: closing the file frees it, dropping a forked
/// copy does not.
pub(crate) fn lease(cgroup: &Cgroup) -> Result<File, Errno> {
    let file = cgroup.dir()?.try_clone().map(File::from).map_err(|error| errno_of(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Errno::EWOULDBLOCK),
        Err(TryLockError::Error(error)) => Err(errno_of(&error)),
    }
}
