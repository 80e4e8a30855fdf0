//! A cgroup and its fds: makes, opens, reads, freezes, kills and removes it.
//!
//! Kill and events go through fds opened at the start, all other files through the parent's fd: a
//! workload may chmod or replace what it sees, and the caller may chroot. Kernel reference:
//! [cgroup-v2].
//!
//! [cgroup-v2]: https://docs.kernel.org/admin-guide/cgroup-v2.html

pub(crate) mod beneath;
pub(crate) mod walk;
pub(crate) mod hierarchy;
pub(crate) mod delegation;
pub(crate) mod nesting;
pub(crate) mod controllers;
pub(crate) mod usage;
pub(crate) mod teardown;
pub(crate) mod thaw;
pub(crate) mod leftovers;
pub(crate) mod names;
pub(crate) mod view;
mod outside;
#[cfg(feature = "cli")]
pub(crate) mod own;

use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::uio::pread;
use nix::unistd::{UnlinkatFlags, faccessat, read, unlinkat, write};

use crate::cgroup::beneath::{DIRECTORY, gone_is_fine, reach};
use crate::cgroup::view::View;
use crate::cgroup::walk::{Manner, Stuck, Visited};
use crate::error::{Error, Result, Step};
use crate::sys::poll::{self, BackOff};
use crate::sys::{self, above_two};

/// Bytes of a buffer that takes `cpu.stat` (at most 300) in one read.
pub(crate) const SHORT_FILE: usize = 512;

/// A cgroup that we made. Dropping it closes fds and does nothing else.
#[derive(Debug)]
pub(crate) struct Cgroup {
    parent: Arc<OwnedFd>,
    name: OsString,
    path: PathBuf,
    /// None once `close_dir` gave it up.
    dir: Option<Arc<OwnedFd>>,
    kill: OwnedFd,
    events: OwnedFd,
}

impl Cgroup {
    /// Makes the directory and opens all that teardown will need; removes it again if an open
    /// fails.
    ///
    /// `ESTALE` from mkdir's step: another process removed the directory at once, as a sweep may do
    /// with a run root.
    pub(crate) fn make(
        parent: &Arc<OwnedFd>,
        at: &Path,
        name: &OsStr,
        mode: Mode,
    ) -> Result<Self, (Step, Errno)> {
        mkdirat(parent, name, mode).map_err(|errno| (Step::MakeCgroup, errno))?;
        Self::open(parent, at, name).map_err(|errno| {
            match beneath::remove_dir(parent.as_fd(), name) {
                Err(Errno::ENOENT) => (Step::MakeCgroup, Errno::ESTALE),
                _ => (Step::OpenCgroup, errno),
            }
        })
    }

    /// Makes a cgroup right below this one, and gives write permission back if the workload took
    /// it.
    pub(crate) fn make_below(&self, name: &OsStr, mode: Mode) -> Result<Self> {
        let failed = |step, errno| Error::at(step, &self.path.join(name), errno);
        let dir = self.dir().map_err(|errno| failed(Step::MakeCgroup, errno))?;
        let refused = |made: &Result<Self, (Step, Errno)>| matches!(made, Err((_, Errno::EACCES)));
        let mut made = Self::make(&dir, &self.path, name, mode);
        if refused(&made) {
            beneath::grant(dir.as_fd());
            made = Self::make(&dir, &self.path, name, mode);
        }
        made.map_err(|(step, errno)| failed(step, errno))
    }

    /// Opens a cgroup that exists. `ENOENT` for `cgroup.kill` means a kernel before 5.14.
    pub(crate) fn open(parent: &Arc<OwnedFd>, at: &Path, name: &OsStr) -> Result<Self, Errno> {
        let open = |above: BorrowedFd<'_>, path: &OsStr, access| {
            let file = reach(above, |above| beneath::open(above, Path::new(path), access));
            file.and_then(above_two)
        };
        let dir = open(parent.as_fd(), name, DIRECTORY)?;
        let kill = open(dir.as_fd(), "cgroup.kill".as_ref(), OFlag::O_WRONLY)?;
        let events = open(dir.as_fd(), "cgroup.events".as_ref(), OFlag::O_RDONLY)?;
        Ok(Self {
            parent: Arc::clone(parent),
            name: name.to_owned(),
            path: at.join(name),
            dir: Some(Arc::new(dir)),
            kill,
            events,
        })
    }

    /// Holds a cgroup by its own directory, not by its name in the one above: another that takes
    /// the name is never reached.
    #[cfg(feature = "cli")]
    pub(crate) fn pin(dir: OwnedFd, path: &Path) -> Result<Self, Errno> {
        let pinned = Self::open(&Arc::new(dir), path, ".".as_ref())?;
        Ok(Self { path: path.to_owned(), ..pinned })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory: the fd that was opened when it was made, else another one.
    pub(crate) fn dir(&self) -> Result<Arc<OwnedFd>, Errno> {
        match &self.dir {
            Some(dir) => Ok(Arc::clone(dir)),
            None => self.file("", DIRECTORY).map(Arc::new),
        }
    }

    /// Gives up the fd of the directory, which a live tree hardly needs: fds may be scarce. Those
    /// of `cgroup.kill` and `cgroup.events` stay: ending it must not depend on there being one.
    pub(crate) fn close_dir(&mut self) {
        self.dir = None;
    }

    /// Notes something in an extended attribute of its directory. Kernels before 5.7 have none on
    /// cgroups: then it is not noted.
    pub(crate) fn note(&self, what: &CStr) {
        if let Ok(dir) = self.dir() {
            let _ = sys::set_attribute(dir.as_fd(), what, b"1");
        }
    }

    /// Opens a control file, or a directory below; by its path from the parent, which takes one
    /// open.
    pub(crate) fn file(&self, file: &str, access: OFlag) -> Result<OwnedFd, Errno> {
        let path = Path::new(&self.name).join(file);
        reach(self.parent.as_fd(), |parent| beneath::open(parent, &path, access))
    }

    /// Reads a whole control file.
    pub(crate) fn read(&self, file: &str) -> Result<String, Errno> {
        let file = self.file(file, OFlag::O_RDONLY)?;
        Ok(String::from_utf8_lossy(&read_all(&file)?).into_owned())
    }

    /// Reads a control file that is shorter than the buffer: one read, no allocation.
    pub(crate) fn read_short<'a>(
        &self,
        file: &str,
        buffer: &'a mut [u8; SHORT_FILE],
    ) -> Result<&'a str, Errno> {
        let len = read(&self.file(file, OFlag::O_RDONLY)?, buffer)?;
        Ok(std::str::from_utf8(buffer.get(..len).unwrap_or_default()).unwrap_or_default())
    }

    pub(crate) fn error(&self, step: Step, errno: Errno) -> Error {
        Error::at(step, &self.path, errno)
    }

    /// Whether the directory is still there, under its name.
    pub(crate) fn exists(&self) -> bool {
        faccessat(&self.parent, &*self.name, nix::unistd::AccessFlags::F_OK, AtFlags::empty())
            .is_ok()
    }

    /// Writes `cgroup.kill`: SIGKILL to the processes in it and below, of all users. Some survive
    /// (see `teardown.rs`).
    pub(crate) fn write_kill(&self) -> Result<(), Errno> {
        gone_is_fine(write(&self.kill, b"1").map(drop))
    }

    /// Whether any process, zombies excepted, is in it or below. A removed cgroup is empty.
    pub(crate) fn populated(&self) -> Result<bool, Errno> {
        self.says(b"populated 1").map(|says| says == Some(true))
    }

    /// Whether `cgroup.events` has this line. None for a removed cgroup.
    fn says(&self, line: &[u8]) -> Result<Option<bool>, Errno> {
        let mut text = [0; 128];
        match pread(&self.events, &mut text, 0) {
            Ok(_) => Ok(Some(has_line(&text, line))),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Waits until it is empty; false at the deadline.
    ///
    /// Notifications of `cgroup.events` come at once, but for one in 10 ms at the most: the file is
    /// re-read with a back-off as well at first (from 20 us on, 2 ms in all).
    pub(crate) fn wait_empty(&self, deadline: Option<Instant>) -> Result<bool, Errno> {
        self.wait_for(deadline, Self::is_empty)
    }

    fn is_empty(&self) -> Result<bool, Errno> {
        Ok(!self.populated()?)
    }

    fn wait_for(
        &self,
        deadline: Option<Instant>,
        met: impl Fn(&Self) -> Result<bool, Errno>,
    ) -> Result<bool, Errno> {
        let mut back_off = BackOff::gentle(Duration::from_micros(20), Duration::from_micros(500));
        loop {
            if met(self)? {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            // After those the news suffice, but that a read by another waiter on the same fd takes
            // them away: re-read every 100 ms.
            let look = Duration::from_millis(100);
            let left = deadline.map(|until| until.saturating_duration_since(Instant::now()));
            let pause = back_off.pause(deadline);
            let pause = pause.unwrap_or_else(|| left.map_or(look, |left| left.min(look)));
            poll::told(self.events.as_fd(), pause)?;
        }
    }

    /// The fd of `cgroup.kill`.
    pub(crate) fn kill_fd(&self) -> BorrowedFd<'_> {
        self.kill.as_fd()
    }

    /// The fd of `cgroup.events`: `POLLPRI` tells of a change of `populated`.
    pub(crate) fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Writes `cgroup.freeze` and waits, until the deadline, for the kernel to say that it is done.
    /// A process in state D cannot freeze: false.
    pub(crate) fn freeze(&self, deadline: Instant) -> Result<bool, Errno> {
        outside::step_out(&self.pids().unwrap_or_default(), &self.path);
        self.set_frozen(true)?;
        self.wait_for(Some(deadline), |this| Ok(this.says(b"frozen 1")? != Some(false)))
    }

    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<(), Errno> {
        let text: &[u8] = if frozen { b"1" } else { b"0" };
        let file = self.file("cgroup.freeze", OFlag::O_WRONLY);
        gone_is_fine(file.and_then(|file| write(&file, text).map(drop)))
    }

    /// `cgroup.procs`, to write pids to.
    pub(crate) fn procs(&self) -> Result<OwnedFd, Errno> {
        self.file("cgroup.procs", OFlag::O_WRONLY).and_then(above_two)
    }

    /// Restores the owner's permissions on its `cgroup.procs` and the parent's: moving a process in
    /// needs both, and the workload may have taken them.
    pub(crate) fn restore_entry_modes(&self) {
        let procs = Path::new("cgroup.procs");
        beneath::give_back(self.parent.as_fd(), procs);
        beneath::give_back(self.parent.as_fd(), &Path::new(&self.name).join(procs));
    }

    /// The pids in it and below, dead leaders included, zombies not. Pids outside our pid namespace
    /// are left out.
    pub(crate) fn pids(&self) -> Result<Vec<i32>, Errno> {
        walk::members(self.parent.as_fd(), &self.name, Manner::Own)
    }

    /// A view of it that owns and keeps nothing.
    pub(crate) fn view(&self) -> View {
        View::new(&self.parent, &self.name)
    }

    /// The pids in it and below, with a 0 for each process that has none in our pid namespace.
    fn members(&self) -> Result<Vec<i32>, Errno> {
        walk::members_and_foreign(self.parent.as_fd(), &self.name, Manner::Own)
    }

    /// Removes it if no process is in it and no directory below; success proves that.
    pub(crate) fn remove_alone(&self) -> Result<(), Errno> {
        gone_is_fine(unlinkat(&self.parent, &*self.name, UnlinkatFlags::RemoveDir))
    }

    /// Removes it and everything below, deepest first. `EBUSY` while a process is left, `EXDEV`
    /// where something is mounted: that stays, with all that is above it.
    pub(crate) fn remove(&self) -> Result<(), Stuck> {
        let parent = self.parent.as_fd();
        match beneath::remove_dir(parent, &self.name) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
            // It has directories below, a process came back, or (EACCES) the workload changed a
            // mode.
            Err(Errno::EBUSY | Errno::EACCES | Errno::ENOTEMPTY) => {}
            Err(errno) => return Err(Stuck { at: self.name.clone().into(), errno }),
        }
        walk::walk(parent, &self.name, Manner::Own, &mut |visited: &Visited<'_>| {
            if visited.clear { beneath::remove_dir(visited.above, visited.name) } else { Ok(()) }
        })
    }

    /// Why it cannot be removed, and where.
    pub(crate) fn stuck(&self, stuck: &Stuck) -> Error {
        let path = self.path.parent().unwrap_or(&self.path).join(&stuck.at);
        match stuck.errno {
            Errno::EXDEV => Error::mounted(&path),
            errno => Error::at(Step::RemoveCgroup, &path, errno),
        }
    }
}

pub(crate) fn has_line(text: &[u8], line: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|each| each == line)
}

/// Reads a whole kernel file. std's `read_to_end` asks for the size first (it is 0), then reads in
/// small pieces.
pub(crate) fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match read(file, &mut buffer) {
            Ok(0) => return Ok(text),
            Ok(len) => text.extend_from_slice(buffer.get(..len).unwrap_or_default()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
