//! Who supervises what, below one base: for `ps` and `kill`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use crate::cgroup::names::owner;
use crate::cgroup::nesting::base_to_look;
use crate::cgroup::teardown::{self, PATIENCE};
use crate::error::{Error, Result, Step};
use crate::proc::info::ProcessInfo;
use crate::proc::read;
use crate::supervisor::owner::is_dead;
use crate::supervisor::sweep::{lease, open, run_roots, subdirectories};

/// One run root and the trees in it; see [`list`].
#[derive(Debug)]
#[non_exhaustive]
pub struct RunRoot {
    /// Its directory.
    pub path: PathBuf,
    /// The pid of its owner, in the owner's pid namespace.
    pub owner: u32,
    /// The id of the user that the owner runs as.
    pub uid: u32,
    /// Whether the owner lives: it holds the lease, and is not known to be gone (a fork of it may
    /// hold the lease too). A run root without owner goes at the next sweep.
    pub owner_lives: bool,
    /// The trees in it, in the order of their numbers.
    pub trees: Vec<TreeInfo>,
}

/// One tree, as a snapshot.
#[derive(Debug)]
#[non_exhaustive]
pub struct TreeInfo {
    /// Its directory.
    pub path: PathBuf,
    /// The name it was given, or its number.
    pub name: String,
    /// Who is in it and below.
    pub processes: Vec<ProcessInfo>,
    /// How long its oldest process has been running.
    pub age: Option<Duration>,
    /// Bytes of memory in use, where the memory controller is on.
    pub memory: Option<u64>,
}

/// The run roots below `base`, at any depth, with their trees.
///
/// `base` is found as for [`SupervisorBuilder::base`](crate::SupervisorBuilder::base) if `None`.
///
/// # Errors
/// The base cannot be found.
pub fn list(base: Option<&Path>) -> Result<Vec<RunRoot>> {
    let base = base_to_look(base)?;
    Ok(run_roots(&base.path).into_iter().filter_map(|(path, owner)| root(path, owner)).collect())
}

fn root(path: PathBuf, owner: u32) -> Option<RunRoot> {
    let cgroup = open(&path).ok()?;
    let uid = fstat(&*cgroup.dir().ok()?).ok()?.st_uid;
    let owner_lives = matches!(lease(&cgroup), Err(Errno::EWOULDBLOCK)) && !is_dead(&cgroup);
    let mut trees: Vec<TreeInfo> =
        subdirectories(&path).into_iter().filter(|path| is_tree(path)).filter_map(tree).collect();
    trees.sort_by_key(|tree| number(&tree.path));
    Some(RunRoot { path, owner, uid, owner_lives, trees })
}

/// A run root may have been made right below another one.
fn is_tree(path: &Path) -> bool {
    path.file_name().is_some_and(|name| owner(name).is_none())
}

fn tree(path: PathBuf) -> Option<TreeInfo> {
    let mut pids = Vec::new();
    members(&path, &mut pids)?;
    let processes = read::read_all(&pids, true);
    let memory = fs::read_to_string(path.join("memory.current")).ok();
    Some(TreeInfo {
        name: name(&path),
        age: processes.iter().map(|process| process.running).max(),
        memory: memory.and_then(|bytes| bytes.trim().parse().ok()),
        processes,
        path,
    })
}

/// By paths, and without opening what a teardown would need: there may be a thousand trees. None if
/// it has gone meanwhile. A threaded cgroup lists nobody; its domain does.
fn members(dir: &Path, pids: &mut Vec<i32>) -> Option<()> {
    match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {}
        Err(_) => return None,
    }
    subdirectories(dir).iter().for_each(|below| {
        let _ = members(below, pids);
    });
    Some(())
}

/// `3-redis` is `redis`, `4` is `4`.
fn name(path: &Path) -> String {
    let dir = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    dir.split_once('-').map(|(_, name)| name.to_owned()).unwrap_or(dir)
}

fn number(path: &Path) -> u64 {
    let dir = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let digits = dir.split('-').next().unwrap_or_default();
    digits.parse().unwrap_or(u64::MAX)
}

impl TreeInfo {
    /// Kills everything in it. Its owner, if that lives, removes it and reports.
    ///
    /// # Errors
    /// Somebody is left after 10 s ([`Error::is_survivors`](crate::Error::is_survivors)), or the
    /// tree is another user's.
    pub fn kill(&self) -> Result<()> {
        match open(&self.path) {
            Ok(cgroup) => teardown::kill(&cgroup, PATIENCE),
            // Gone meanwhile: that is what was wanted.
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::at(Step::OpenCgroup, &self.path, errno)),
        }
    }
}
