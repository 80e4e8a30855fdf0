//! Lists run roots and their trees below one base; for `ps` and `kill`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use crate::cgroup::beneath::{self, DIRECTORY, open_cgroup};
use crate::cgroup::hierarchy::Base;
use crate::cgroup::names::owner;
use crate::cgroup::nesting::base_to_look;
use crate::cgroup::teardown::{self, TEARDOWN_PATIENCE};
use crate::cgroup::walk::{Manner, children, members};
use crate::cgroup::{Cgroup, read_all};
use crate::error::{Error, Result, Step};
use crate::proc::info::{ProcessInfo, Survey};
use crate::proc::survey;
use crate::supervisor::owner::is_dead;
use crate::supervisor::sweep::{lease, open_below, run_roots};

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
    /// hold the lease too). The next sweep removes a run root without owner.
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
    /// The processes in it and below, the first 100.
    pub processes: Vec<ProcessInfo>,
    /// How many there are.
    pub process_count: usize,
    /// How long its oldest process has been running.
    pub age: Option<Duration>,
    /// Bytes of memory in use, where the memory controller is on.
    pub memory: Option<u64>,
}

/// Lists the run roots below `base`, at any depth, with their trees.
///
/// `base` is found as for [`SupervisorBuilder::base`](crate::SupervisorBuilder::base) if `None`.
/// Describing the processes takes 1 s at the most for all of them; what they lack then is in
/// [`ProcessInfo::gaps`].
///
/// # Errors
/// The base cannot be found.
pub fn list(base: Option<&Path>) -> Result<Vec<RunRoot>> {
    let base = base_to_look(base)?;
    let found = run_roots(&base).into_iter();
    let found: Vec<_> = found.filter_map(|(path, owner)| root(&base, path, owner)).collect();
    let groups: Vec<Vec<i32>> = found.iter().flat_map(|(_, pids)| pids.clone()).collect();
    let mut surveys = survey::of_each(&groups).into_iter();
    let mut roots: Vec<RunRoot> = found.into_iter().map(|(root, _)| root).collect();
    for tree in roots.iter_mut().flat_map(|root| &mut root.trees) {
        tree.describe(surveys.next().unwrap_or_default());
    }
    Ok(roots)
}

/// Describes one run root; returns the pids in each of its trees with it.
fn root(base: &Base, path: PathBuf, owner: u32) -> Option<(RunRoot, Vec<Vec<i32>>)> {
    let cgroup = open_below(base, &path).ok()?;
    let owner_lives = matches!(lease(&cgroup), Err(Errno::EWOULDBLOCK)) && !is_dead(&cgroup);
    let dir = cgroup.dir().ok()?;
    let uid = fstat(&*dir).ok()?.st_uid;
    let names = children(&dir).unwrap_or_default().into_iter();
    let trees = names.filter(|name| is_tree(name));
    let counted = counts_memory(dir.as_fd());
    let mut trees: Vec<(TreeInfo, Vec<i32>)> =
        trees.filter_map(|name| tree(dir.as_fd(), path.join(name), counted)).collect();
    trees.sort_by_key(|(tree, _)| number(&tree.path));
    let (trees, pids) = trees.into_iter().unzip();
    Some((RunRoot { path, owner, uid, owner_lives, trees }, pids))
}

/// Whether a child of a run root is a tree, and not another run root.
pub(crate) fn is_tree(name: &OsStr) -> bool {
    owner(name).is_none()
}

/// Whether the memory controller is on in the trees of this run root.
fn counts_memory(root: BorrowedFd<'_>) -> bool {
    let file = beneath::look(root, Path::new("cgroup.subtree_control"), OFlag::O_RDONLY);
    let controllers = file.and_then(|file| read_all(&file)).unwrap_or_default();
    controllers.split(u8::is_ascii_whitespace).any(|name| name == b"memory")
}

/// Describes one tree, with few opens: there may be ten thousand trees. None if it was removed
/// meanwhile. `counted`: reads its memory.
fn tree(root: BorrowedFd<'_>, path: PathBuf, counted: bool) -> Option<(TreeInfo, Vec<i32>)> {
    let dir = path.file_name()?;
    let pids = members(root, dir, Manner::Look).ok()?;
    if pids.is_empty() {
        beneath::look(root, Path::new(dir), DIRECTORY).ok()?;
    }
    let memory = || {
        let file = Path::new(dir).join("memory.current");
        let file = beneath::look(root, &file, OFlag::O_RDONLY);
        file.and_then(|file| read_all(&file)).ok().and_then(|bytes| String::from_utf8(bytes).ok())
    };
    let memory = if counted { memory() } else { None };
    let tree = TreeInfo {
        name: name(&path),
        age: None,
        memory: memory.and_then(|bytes| bytes.trim().parse().ok()),
        process_count: pids.len(),
        processes: Vec::new(),
        path,
    };
    Some((tree, pids))
}

/// The name in a tree's directory name: `redis` in `3-redis`, `4` in `4`.
pub(crate) fn name(path: &Path) -> String {
    let dir = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    dir.split_once('-').map(|(_, name)| name.to_owned()).unwrap_or(dir)
}

pub(crate) fn number(path: &Path) -> u64 {
    let dir = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let digits = dir.split('-').next().unwrap_or_default();
    digits.parse().unwrap_or(u64::MAX)
}

impl TreeInfo {
    fn describe(&mut self, survey: Survey) {
        let known = survey.named.iter().filter(|process| process.state != '?');
        self.age = known.map(|process| process.running).max();
        self.process_count = survey.count;
        self.processes = survey.named;
    }

    /// Kills every process in it. Its owner, if that lives, removes it and reports.
    ///
    /// # Errors
    /// A process outlived SIGKILL for 10 s ([`Error::is_survivors`](crate::Error::is_survivors)),
    /// or the tree is another user's.
    pub fn kill(&self) -> Result<()> {
        let (Some(above), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(Error::at(Step::OpenCgroup, &self.path, Errno::EINVAL));
        };
        let opened = open_cgroup(above).map(Arc::new);
        match opened.and_then(|parent| Cgroup::open(&parent, above, name)) {
            Ok(cgroup) => teardown::kill_until_empty(&cgroup, TEARDOWN_PATIENCE, &|| ()),
            // It was removed meanwhile, so nothing is left in it.
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::at(Step::OpenCgroup, &self.path, errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(state: char, seconds: u64) -> ProcessInfo {
        let running = Duration::from_secs(seconds);
        ProcessInfo { state, running, ..ProcessInfo::unread(7, "") }
    }

    #[test]
    fn a_tree_is_as_old_as_the_oldest_process_that_could_be_looked_at() {
        let mut survey = Survey::default();
        for (state, seconds) in [('S', 3), ('?', 90), ('R', 5)] {
            survey.push(process(state, seconds));
        }
        let mut tree = TreeInfo {
            path: PathBuf::new(),
            name: String::new(),
            processes: Vec::new(),
            process_count: 0,
            age: None,
            memory: None,
        };
        tree.describe(survey);
        assert_eq!((tree.age, tree.process_count), (Some(Duration::from_secs(5)), 3));
    }
}
