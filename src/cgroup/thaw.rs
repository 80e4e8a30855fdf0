//! Finds and thaws what freezes a child at its birth (its own cgroup, or one above), or keeps a
//! stopped tree from acting on the stop signal (those below too).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use crate::cgroup::beneath::{DIRECTORY, look, open};
use crate::cgroup::walk::{Manner, Visited, walk};
use crate::cgroup::{Cgroup, read_all};

const FREEZE_FILE: &str = "cgroup.freeze";

/// Goes up this many cgroups at the most.
const MAX_ANCESTORS: usize = 256;

impl Cgroup {
    /// Thaws it and all above it up to `top`, which are ours; ignores failures.
    pub(crate) fn thaw_up_to(&self, top: &Self) {
        let last = top.dir().and_then(fstat).map(|stat| (stat.st_dev, stat.st_ino));
        let (Ok(mut here), Ok(last)) = (self.dir().and_then(own), last) else { return };
        for _ in 0..MAX_ANCESTORS {
            thaw(here.as_fd());
            let is_last = fstat(&here).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == last);
            match above(&here) {
                Ok(next) if !is_last => here = next,
                _ => return,
            }
        }
    }

    /// Thaws it and all below it; ignores failures.
    pub(crate) fn thaw_below(&self) {
        let _ = walk(self.parent.as_fd(), &self.name, Manner::Own, &mut |visited: &Visited<'_>| {
            thaw(visited.dir);
            Ok(())
        });
    }

    /// The nearest one above it that is frozen by its own setting.
    pub(crate) fn frozen_above(&self) -> Option<PathBuf> {
        let mut here = self.dir().and_then(|dir| above(&*dir)).ok()?;
        for path in self.path().ancestors().skip(1).take(MAX_ANCESTORS) {
            if is_frozen(here.as_fd()) {
                return Some(path.to_owned());
            }
            here = above(&here).ok()?;
        }
        None
    }
}

fn thaw(dir: BorrowedFd<'_>) {
    if is_frozen(dir) {
        let file = open(dir, Path::new(FREEZE_FILE), OFlag::O_WRONLY);
        let _ = file.and_then(|file| nix::unistd::write(&file, b"0"));
    }
}

fn own(dir: impl AsFd) -> Result<OwnedFd, Errno> {
    openat(dir, ".", DIRECTORY, Mode::empty())
}

fn above(dir: impl AsFd) -> Result<OwnedFd, Errno> {
    openat(dir, "..", DIRECTORY, Mode::empty())
}

/// Whether `cgroup.freeze` says 1; false at the root of the hierarchy, which has no such file.
fn is_frozen(dir: BorrowedFd<'_>) -> bool {
    let file = look(dir, Path::new(FREEZE_FILE), OFlag::O_RDONLY);
    file.and_then(|file| read_all(&file)).is_ok_and(|text| text.starts_with(b"1"))
}
