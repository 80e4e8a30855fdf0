//! A tree of any supervisor's that is held by its directory: what is done to it reaches this one,
//! and never one that has taken its name since.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;

use crate::cgroup::beneath::open_cgroup;
use crate::cgroup::names::{KILLED, STOPPING};
use crate::cgroup::teardown::{self, TEARDOWN_PATIENCE};
use crate::cgroup::{Cgroup, has_line};
use crate::error::{Error, Result, Step};
use crate::supervisor::list::TreeInfo;

/// A tree to act on. Dropping it closes fds and does nothing else.
#[derive(Debug)]
pub struct Held {
    cgroup: Cgroup,
}

impl Held {
    pub(crate) fn of(dir: OwnedFd, path: &Path) -> std::result::Result<Self, Errno> {
        Cgroup::pin(dir, path).map(|cgroup| Self { cgroup })
    }

    /// Takes hold of a tree of a list.
    ///
    /// # Errors
    /// It is gone, or may not be opened.
    pub fn of_tree(tree: &TreeInfo) -> Result<Self> {
        let held = open_cgroup(&tree.path).and_then(|dir| Self::of(dir, &tree.path));
        held.map_err(|errno| Error::at(Step::OpenCgroup, &tree.path, errno))
    }

    /// Its directory when it was taken hold of.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.cgroup.path()
    }

    /// Whether this process is in it: freezing it would freeze this process.
    #[must_use]
    pub fn has_this_process(&self) -> bool {
        let me = std::process::id().cast_signed();
        self.cgroup.pids().is_ok_and(|pids| pids.contains(&me))
    }

    /// Whether a process is in it.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        self.cgroup.populated().unwrap_or(false)
    }

    /// Whether it was made to stand still by its own setting.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.cgroup.read("cgroup.freeze").is_ok_and(|text| text.starts_with('1'))
    }

    /// Whether all its processes stand still by now.
    #[must_use]
    pub fn is_still(&self) -> bool {
        let events = self.cgroup.read("cgroup.events");
        events.is_ok_and(|text| has_line(text.as_bytes(), b"frozen 1"))
    }

    /// Sends SIGTERM to all processes, lets those that stand still go on so that they can act on
    /// it, and notes that.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn stop(&self) -> Result<usize> {
        self.cgroup.note(STOPPING);
        let signals = [libc::SIGTERM, libc::SIGCONT];
        let reached = teardown::signal_all(&|| self.cgroup.pids(), &signals, &|_| true);
        self.cgroup.thaw_below();
        reached.map_err(|errno| self.cgroup.error(Step::Signal, errno))
    }

    /// Kills all processes; returns when none is left. Its owner, if that lives, removes it.
    ///
    /// # Errors
    /// A process outlived SIGKILL for 10 s, or the tree is another user's.
    pub fn kill(&self) -> Result<()> {
        self.cgroup.note(KILLED);
        teardown::kill_until_empty(&self.cgroup, TEARDOWN_PATIENCE, &|| ())
    }

    /// Makes all processes stand still, or lets them go on; returns at once.
    ///
    /// # Errors
    /// The tree is another user's.
    pub fn set_frozen(&self, frozen: bool) -> Result<()> {
        let set = self.cgroup.set_frozen(frozen);
        set.map_err(|errno| self.cgroup.error(Step::Freeze, errno))
    }
}
