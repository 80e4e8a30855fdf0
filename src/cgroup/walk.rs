//! Walks a cgroup and all below it, and lists their processes.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::read;

use crate::cgroup::beneath::{self, DIRECTORY, gone_is_fine};
use crate::sys;

/// How directories are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Opens as allowed, and passes over what may not be opened.
    Look,
    /// Opens as the owner, and restores missing permissions.
    Own,
}

/// One directory of a walk.
pub(crate) struct Visited<'a> {
    pub(crate) above: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    pub(crate) dir: BorrowedFd<'a>,
    /// From where the walk began.
    pub(crate) path: &'a Path,
    /// Nothing below it has failed.
    pub(crate) clear: bool,
}

/// What a walk failed at; the rest was visited. `EXDEV`: something is mounted there.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) at: PathBuf,
    pub(crate) errno: Errno,
}

type Visit<'a> = dyn FnMut(&Visited<'_>) -> Result<(), Errno> + 'a;

/// Visits `name` and all directories below, children before their parent.
///
/// Not recursive, and two fds at a time: a workload chooses how deep it nests. Goes up by `..`, and
/// compares inodes there.
pub(crate) fn walk(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    manner: Manner,
    visit: &mut Visit<'_>,
) -> Result<(), Stuck> {
    let mut walk = Walk { manner, levels: Vec::new(), path: PathBuf::new(), stuck: None };
    let Some(mut here) = walk.enter(parent, name) else { return walk.outcome() };
    while let Some(level) = walk.levels.last_mut() {
        if let Some(next) = level.todo.pop() {
            match walk.enter(here.as_fd(), &next) {
                // There is no way down: no way up has to be found.
                Some(below) if walk.at_leaf() => {
                    walk.pop_level(here.as_fd(), below.as_fd(), visit);
                }
                Some(below) => here = below,
                None => {}
            }
            continue;
        }
        let above = match walk.levels.len() {
            1 => None,
            _ => Some(walk.up(here.as_fd())?),
        };
        walk.pop_level(above.as_ref().map_or(parent, AsFd::as_fd), here.as_fd(), visit);
        here = match above {
            Some(above) => above,
            None => break,
        };
    }
    walk.outcome()
}

struct Walk {
    manner: Manner,
    levels: Vec<Level>,
    path: PathBuf,
    stuck: Option<Stuck>,
}

/// One directory on the way down to the current one.
struct Level {
    name: OsString,
    todo: Vec<OsString>,
    identity: (u64, u64),
    clear: bool,
}

impl Walk {
    fn enter(&mut self, above: BorrowedFd<'_>, name: &OsStr) -> Option<OwnedFd> {
        match self.open(above, name) {
            Ok((dir, level)) => {
                self.path.push(name);
                self.levels.push(level);
                return Some(dir);
            }
            Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(Errno::EACCES | Errno::EPERM) if self.manner == Manner::Look => {}
            Err(errno) => self.note(name, errno),
        }
        None
    }

    fn at_leaf(&self) -> bool {
        self.levels.last().is_some_and(|level| level.todo.is_empty())
    }

    fn open(&self, above: BorrowedFd<'_>, name: &OsStr) -> Result<(OwnedFd, Level), Errno> {
        let dir = match self.manner {
            Manner::Look => beneath::look(above, Path::new(name), DIRECTORY),
            Manner::Own => beneath::open(above, Path::new(name), DIRECTORY),
        }?;
        let stat = fstat(&dir)?;
        // A directory of a cgroup has two links and one for each below it: a leaf need not be read.
        let todo = match (stat.st_nlink, self.manner) {
            (..=2, _) => Vec::new(),
            (_, Manner::Look) => children(&dir)?,
            (_, Manner::Own) => beneath::granted(dir.as_fd(), || children(&dir))?,
        };
        let identity = (stat.st_dev, stat.st_ino);
        Ok((dir, Level { name: name.to_owned(), todo, identity, clear: true }))
    }

    /// The directory above, if it is still the one that the walk came from; else the walk ends.
    fn up(&self, here: BorrowedFd<'_>) -> Result<OwnedFd, Stuck> {
        let from = self.levels.iter().rev().nth(1).map(|level| level.identity);
        let open = || openat(here, "..", DIRECTORY, Mode::empty());
        let above = match self.manner {
            Manner::Look => open(),
            Manner::Own => beneath::granted(here, open),
        };
        let known = above.and_then(|above| {
            let stat = fstat(&above)?;
            if from == Some((stat.st_dev, stat.st_ino)) { Ok(above) } else { Err(Errno::EXDEV) }
        });
        let at = || self.path.parent().unwrap_or(&self.path).to_owned();
        known.map_err(|errno| Stuck { at: at(), errno })
    }

    fn pop_level(&mut self, above: BorrowedFd<'_>, dir: BorrowedFd<'_>, visit: &mut Visit<'_>) {
        let Some(Level { name, clear, .. }) = self.levels.pop() else { return };
        let visited = Visited { above, name: &name, dir, path: &self.path, clear };
        let done = gone_is_fine(visit(&visited));
        self.path.pop();
        if !clear {
            self.mark();
        }
        if let Err(errno) = done {
            self.note(&name, errno);
        }
    }

    fn mark(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.clear = false;
        }
    }

    /// Remembers a failure. One that may pass replaces a mount, which stays.
    fn note(&mut self, name: &OsStr, errno: Errno) {
        self.mark();
        if self.stuck.as_ref().is_none_or(|stuck| stuck.errno == Errno::EXDEV) {
            self.stuck = Some(Stuck { at: self.path.join(name), errno });
        }
    }

    fn outcome(self) -> Result<(), Stuck> {
        self.stuck.map_or(Ok(()), Err)
    }
}

/// The names of the directories right below one.
pub(crate) fn children(dir: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    let mut listing = match Dir::openat(dir, ".", DIRECTORY, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(names),
        other => other?,
    };
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == Some(Type::Directory) && name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// The pids in a cgroup and below, in order: dead leaders included, zombies not. Pids outside our
/// pid namespace are left out.
///
/// Looks below mounts too, with CAP_SYS_ADMIN.
pub(crate) fn members(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    manner: Manner,
) -> Result<Vec<i32>, Errno> {
    let mut all = members_and_foreign(parent, name, manner)?;
    all.retain(|&pid| pid > 0);
    Ok(all)
}

/// The pids as [`members`] lists them, with a 0 for each process that has none in our pid
/// namespace.
pub(crate) fn members_and_foreign(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    manner: Manner,
) -> Result<Vec<i32>, Errno> {
    let mut all = Vec::new();
    let seen = gather(parent, name, manner, &mut all);
    if matches!(seen, Err(Errno::EXDEV)) {
        let hidden = sys::without_mounts(parent);
        let _ = hidden.and_then(|bare| gather(bare.as_fd(), name, manner, &mut all));
    }
    all.sort_unstable();
    all.dedup_by(|one, other| one == other && *one > 0);
    match seen {
        Ok(()) | Err(Errno::EXDEV) => Ok(all),
        Err(errno) => Err(errno),
    }
}

fn gather(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    manner: Manner,
    all: &mut Vec<i32>,
) -> Result<(), Errno> {
    let mut visit = |visited: &Visited<'_>| {
        all.extend(listed(visited.dir, manner)?);
        Ok(())
    };
    walk(parent, name, manner, &mut visit).map_err(|stuck| stuck.errno)
}

/// More processes than a machine can have (`PID_MAX_LIMIT`).
const MAX_PIDS: usize = 1 << 22;

/// The pids that one directory lists, those outside our pid namespace left out.
pub(crate) fn pids(dir: BorrowedFd<'_>, manner: Manner) -> Result<Vec<i32>, Errno> {
    let mut pids = listed(dir, manner)?;
    pids.retain(|&pid| pid > 0);
    Ok(pids)
}

/// The pids that one directory lists, 0 for those outside our pid namespace. A threaded child
/// cannot list its own (`EOPNOTSUPP`): its domain does.
fn listed(dir: BorrowedFd<'_>, manner: Manner) -> Result<Vec<i32>, Errno> {
    let open = match manner {
        Manner::Look => beneath::look,
        Manner::Own => beneath::open,
    };
    let file = open(dir, Path::new("cgroup.procs"), OFlag::O_RDONLY)?;
    let mut pids = Vec::new();
    let mut number = None::<i32>;
    let mut buffer = [0; 4096];
    while pids.len() < MAX_PIDS {
        let len = match read(&file, &mut buffer) {
            Ok(0) | Err(Errno::EOPNOTSUPP) => break,
            Err(Errno::EINTR) => continue,
            len => len?,
        };
        each_pid(buffer.get(..len).unwrap_or_default(), &mut number, &mut pids);
    }
    Ok(pids)
}

/// Takes the numbers of one piece of the file; the end of a piece may cut one in two.
pub(crate) fn each_pid(text: &[u8], number: &mut Option<i32>, pids: &mut Vec<i32>) {
    for &byte in text {
        match byte {
            b'0'..=b'9' => {
                let before = number.unwrap_or(0).saturating_mul(10);
                *number = Some(before.saturating_add(i32::from(byte - b'0')));
            }
            _ => pids.extend(number.take()),
        }
    }
}

/// The pids that a directory lists, by its path; none if it is no cgroup.
pub(crate) fn pids_at(path: &Path) -> Vec<i32> {
    let dir = beneath::open_cgroup(path);
    dir.and_then(|dir| pids(dir.as_fd(), Manner::Look)).unwrap_or_default()
}
