//! Finds and thaws what freezes a child at its birth: its own cgroup, or one above.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use crate::cgroup::beneath::{DIRECTORY, look, open};
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
            if is_frozen(&here) {
                let file = open(here.as_fd(), Path::new(FREEZE_FILE), OFlag::O_WRONLY);
                let _ = file.and_then(|file| nix::unistd::write(&file, b"0"));
            }
            let is_last = fstat(&here).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == last);
            match above(&here) {
                Ok(next) if !is_last => here = next,
                _ => return,
            }
        }
    }

    /// The nearest one above it that is frozen by its own setting.
    pub(crate) fn frozen_above(&self) -> Option<PathBuf> {
        let mut here = self.dir().and_then(|dir| above(&*dir)).ok()?;
        for path in self.path().ancestors().skip(1).take(MAX_ANCESTORS) {
            if is_frozen(&here) {
                return Some(path.to_owned());
            }
            here = above(&here).ok()?;
        }
        None
    }
}

fn own(dir: impl AsFd) -> Result<OwnedFd, Errno> {
    openat(dir, ".", DIRECTORY, Mode::empty())
}

fn above(dir: impl AsFd) -> Result<OwnedFd, Errno> {
    openat(dir, "..", DIRECTORY, Mode::empty())
}

/// Whether `cgroup.freeze` says 1; false at the root of the hierarchy, which has no such file.
fn is_frozen(dir: &OwnedFd) -> bool {
    let file = look(dir.as_fd(), Path::new(FREEZE_FILE), OFlag::O_RDONLY);
    file.and_then(|file| read_all(&file)).is_ok_and(|text| text.starts_with(b"1"))
}
