//! Looks at all trees below a base again and again, at little cost each time: for `top`, which has
//! a look every second at a thousand of them, and for completing names.
//!
//! A tree costs one fstatat(2) in the list and one short file for each counter; directories that
//! have nothing below are not opened. What workloads make is bounded: the number of directories of
//! one list, and the length of each file.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, fstat, fstatat};
use nix::unistd::read;

use crate::cgroup::beneath::{self, DIRECTORY};
use crate::cgroup::has_line;
use crate::cgroup::hierarchy::Base;
use crate::cgroup::names::{STOPPING, owner};
use crate::cgroup::nesting::base_to_look;
use crate::cgroup::walk::{Manner, children, members};
use crate::error::{Error, Result, Step};
use crate::proc::info::ProcessInfo;
use crate::proc::port::ListeningPort;
use crate::proc::{read as process, sockets, survey};
use crate::supervisor::held::Held;
use crate::supervisor::list::{is_tree, name, number};
use crate::supervisor::owner::is_dead;
use crate::supervisor::sweep::{lease, open_below};
use crate::sys;

/// The most directories of one list: a workload chooses how many it makes.
const MOST: usize = 20_000;

/// The time for the ports of all trees that are asked for at once.
const PORTS_WITHIN: Duration = Duration::from_millis(100);

/// Processes of a tree whose age is looked at: its oldest one is among the first.
const OLDEST_AMONG: usize = 16;

/// Which cgroup it is: one that takes its name later is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupId {
    device: u64,
    inode: u64,
}

impl CgroupId {
    pub(crate) fn of(stat: &FileStat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// A tree in the list.
#[derive(Debug, Clone)]
pub struct SeenTree {
    /// Which one.
    pub id: CgroupId,
    /// Its directory.
    pub path: PathBuf,
    /// The name it was given, or its number; as it is, not quoted.
    pub name: String,
    /// The pid of its owner.
    pub owner: u32,
    /// The user that the owner runs as.
    pub uid: u32,
    /// Whether the owner lives.
    pub owner_lives: bool,
    way: PathBuf,
}

/// What changes in a tree, each by one short read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pulse {
    /// Whether a process is in it.
    pub populated: bool,
    /// Whether all its processes stand still.
    pub frozen: bool,
    /// CPU time used, where the kernel says so.
    pub cpu: Option<Duration>,
}

/// A place to look from, again and again.
#[derive(Debug)]
pub struct Lookout {
    base: Base,
    device: u64,
}

impl Lookout {
    /// Opens the base, which is found as [`list`](crate::list) finds it.
    ///
    /// # Errors
    /// It cannot be found.
    pub fn over(base: Option<&Path>) -> Result<Self> {
        let base = base_to_look(base)?;
        let stat =
            fstat(&base.dir).map_err(|errno| Error::at(Step::OpenBase, &base.path, errno))?;
        Ok(Self { base, device: stat.st_dev })
    }

    /// Lists the trees at any depth, in the order of run roots and numbers; and whether there were
    /// more directories than are looked at.
    #[must_use]
    pub fn trees(&self) -> (Vec<SeenTree>, bool) {
        let mut found = Vec::new();
        // Level by level: what one tree makes within itself hides no other.
        let mut todo = VecDeque::from([PathBuf::from(".")]);
        let mut left = MOST;
        while let Some(way) = todo.pop_front() {
            let Ok(dir) = beneath::look(self.base.dir.as_fd(), &way, DIRECTORY) else { continue };
            let root = self.run_root(&way, &dir);
            for child in children(&dir).unwrap_or_default() {
                let Some(rest) = left.checked_sub(1) else { return (sorted(found), true) };
                left = rest;
                let stat = fstatat(&dir, &*child, AtFlags::AT_SYMLINK_NOFOLLOW);
                // Nothing that is mounted there is a cgroup of ours.
                let Ok(stat) = stat.map_err(drop).and_then(|stat| self.within(stat)) else {
                    continue;
                };
                let below = way.join(&child);
                if let Some((owner, uid, lives)) = root.filter(|_| is_tree(&child)) {
                    found.push(self.seen(&below, CgroupId::of(&stat), (owner, uid, lives)));
                }
                // A directory of a cgroup has two links and one for each below it.
                if stat.st_nlink > 2 || owner(&child).is_some() {
                    todo.push_back(below);
                }
            }
        }
        (sorted(found), false)
    }

    fn within(&self, stat: FileStat) -> std::result::Result<FileStat, ()> {
        if stat.st_dev == self.device { Ok(stat) } else { Err(()) }
    }

    /// The owner, the user and whether the owner lives, if this directory is a run root.
    fn run_root(&self, way: &Path, dir: &OwnedFd) -> Option<(u32, u32, bool)> {
        let path = self.path(way);
        let owner = path.file_name().and_then(owner)?;
        let cgroup = open_below(&self.base, &path).ok()?;
        let lives = matches!(lease(&cgroup), Err(Errno::EWOULDBLOCK)) && !is_dead(&cgroup);
        Some((owner, fstat(dir).ok()?.st_uid, lives))
    }

    fn path(&self, way: &Path) -> PathBuf {
        let way = way.strip_prefix(".").unwrap_or(way);
        if way.as_os_str().is_empty() { self.base.path.clone() } else { self.base.path.join(way) }
    }

    fn seen(
        &self,
        way: &Path,
        id: CgroupId,
        (owner, uid, owner_lives): (u32, u32, bool),
    ) -> SeenTree {
        let path = self.path(way);
        SeenTree { id, name: name(&path), owner, uid, owner_lives, way: way.to_owned(), path }
    }

    /// What changes; none once the tree is removed. `cpu`: CPU time too.
    #[must_use]
    pub fn pulse(&self, tree: &SeenTree, cpu: bool) -> Option<Pulse> {
        let mut buffer = [0; 512];
        let events = self.read(tree, "cgroup.events", &mut buffer)?;
        let (populated, frozen) = (has_line(events, b"populated 1"), has_line(events, b"frozen 1"));
        let used = if cpu { self.read(tree, "cpu.stat", &mut buffer) } else { None };
        Some(Pulse { populated, frozen, cpu: used.and_then(micros) })
    }

    /// Bytes of memory in use, where the memory controller is on.
    #[must_use]
    pub fn memory(&self, tree: &SeenTree) -> Option<u64> {
        let mut buffer = [0; 32];
        let text = self.read(tree, "memory.current", &mut buffer)?;
        std::str::from_utf8(text).ok()?.trim().parse().ok()
    }

    /// The pids in it and below.
    #[must_use]
    pub fn pids(&self, tree: &SeenTree) -> Vec<i32> {
        members(self.base.dir.as_fd(), tree.way.as_os_str(), Manner::Look).unwrap_or_default()
    }

    /// Whether it was asked to end.
    #[must_use]
    pub fn is_stopping(&self, tree: &SeenTree) -> bool {
        sys::has_attribute(&tree.path, STOPPING)
    }

    /// How long the oldest of these processes has been running.
    #[must_use]
    pub fn age(&self, pids: &[i32]) -> Option<Duration> {
        let first = pids.iter().take(OLDEST_AMONG);
        first.filter_map(|pid| Some(process::facts(*pid)?.0.running)).max()
    }

    /// The ports that each of these groups of processes listens on.
    #[must_use]
    pub fn ports(&self, groups: &[&[i32]]) -> Vec<BTreeSet<u16>> {
        let all: Vec<i32> = groups.iter().flat_map(|group| group.iter().copied()).collect();
        let mut ports = sockets::ports_of(&all, Instant::now() + PORTS_WITHIN).into_iter();
        let of_group = |group: &&[i32]| {
            let found = ports.by_ref().take(group.len()).flat_map(|(ports, _)| ports);
            found.map(|port: ListeningPort| port.address.port()).collect()
        };
        groups.iter().map(of_group).collect()
    }

    /// Describes processes, with their ports: the first 100, and how many there are.
    #[must_use]
    pub fn describe(&self, pids: &[i32]) -> (Vec<ProcessInfo>, usize) {
        let survey = survey::with_ports(pids);
        (survey.named, survey.count)
    }

    /// Takes hold of the tree, to act on it and on no other.
    ///
    /// # Errors
    /// It is gone, or may not be opened.
    pub fn hold(&self, tree: &SeenTree) -> Result<Held> {
        let failed = |errno| Error::at(Step::OpenCgroup, &tree.path, errno);
        let dir = beneath::look(self.base.dir.as_fd(), &tree.way, DIRECTORY).map_err(failed)?;
        if fstat(&dir).map_err(failed).map(|stat| CgroupId::of(&stat))? != tree.id {
            return Err(failed(Errno::ENOENT));
        }
        Held::of(dir, &tree.path).map_err(failed)
    }

    fn read<'a>(&self, tree: &SeenTree, file: &str, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let path = tree.way.join(file);
        let file = beneath::look(self.base.dir.as_fd(), &path, OFlag::O_RDONLY).ok()?;
        let length = read(&file, buffer).ok()?;
        buffer.get(..length)
    }
}

/// In the order of run roots, and in each of numbers.
fn sorted(mut found: Vec<SeenTree>) -> Vec<SeenTree> {
    found.sort_by_cached_key(|tree| {
        (tree.path.parent().map(Path::to_owned), number(&tree.path), tree.path.clone())
    });
    found
}

/// The CPU time of `cpu.stat`, which begins with `usage_usec`.
fn micros(text: &[u8]) -> Option<Duration> {
    let line = text.split(|&byte| byte == b'\n').next()?;
    let number = line.strip_prefix(b"usage_usec ")?;
    std::str::from_utf8(number).ok()?.parse().ok().map(Duration::from_micros)
}

/// Whether a name is one that a shell takes as it is, wherever it stands in a line: what others
/// have named is not to be executed by the one that completes it. A colon ends a word in bash and
/// a value in zsh.
#[must_use]
pub fn is_plain(name: &OsStr) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-+@%,/".contains(byte);
    let bytes = name.as_encoded_bytes();
    !bytes.is_empty() && bytes.first() != Some(&b'-') && bytes.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_shell_obeys_are_not_plain() {
        for name in ["redis", "3", "a.b-c_d+e", "4711/redis", "y@z%1,2"] {
            assert!(is_plain(name.as_ref()), "{name}");
        }
        for name in
            ["", "-x", "a:b", "$(id)", "a b", "a;b", "a'b", "`id`", "a\nb", "*", "~", "日本"]
        {
            assert!(!is_plain(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn cpu_time_is_in_the_first_line() {
        assert_eq!(micros(b"usage_usec 1500\nuser_usec 1\n"), Some(Duration::from_micros(1500)));
        assert_eq!(micros(b"nr_periods 0\n"), None);
        assert_eq!(micros(b""), None);
    }
}
