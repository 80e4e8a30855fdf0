//! One cgroup directory of ours: its fds, what can be written to it, what can be read from it.
//!
//! Everything goes through fds that were opened when it was made: a workload may chmod or replace
//! what it sees, and the caller may chroot. Kernel reference: [cgroup-v2].
//!
//! [cgroup-v2]: https://docs.kernel.org/admin-guide/cgroup-v2.html

pub(crate) mod hierarchy;
pub(crate) mod delegation;
pub(crate) mod nesting;
pub(crate) mod controllers;
pub(crate) mod usage;
pub(crate) mod teardown;
pub(crate) mod leftovers;
pub(crate) mod names;
#[cfg(feature = "cli")]
pub(crate) mod own;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::sys::uio::pread;
use nix::unistd::{UnlinkatFlags, faccessat, read, unlinkat, write};

use crate::error::{Error, Result, Step};
use crate::sys::above_two;
use crate::sys::poll::{BackOff, timeout_until};

pub(crate) const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

/// `cpu.stat` has some 300 bytes at the most.
pub(crate) const BRIEF: usize = 512;

/// A cgroup that we made. Dropping it closes fds and does nothing else.
#[derive(Debug)]
pub(crate) struct Cgroup {
    parent: Arc<OwnedFd>,
    name: OsString,
    path: PathBuf,
    /// Not there once it was given up.
    dir: Option<Arc<OwnedFd>>,
    kill: OwnedFd,
    events: OwnedFd,
}

/// Opens a directory and nothing else.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    nix::fcntl::open(path, DIRECTORY, Mode::empty())
}

/// The same, below another one.
pub(crate) fn open_dir_in(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    openat(dir, name, DIRECTORY, Mode::empty())
}

impl Cgroup {
    /// mkdir, then open all that teardown will need. What was made is removed again if it cannot be
    /// opened.
    ///
    /// `ESTALE` from mkdir's step: somebody removed the directory at once, as a sweep may do with a
    /// run root.
    pub(crate) fn make(
        parent: &Arc<OwnedFd>,
        at: &Path,
        name: &OsStr,
        mode: Mode,
    ) -> Result<Self, (Step, Errno)> {
        mkdirat(parent, name, mode).map_err(|errno| (Step::MakeCgroup, errno))?;
        Self::open(parent, at, name).map_err(|errno| {
            match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOENT) => (Step::MakeCgroup, Errno::ESTALE),
                _ => (Step::OpenCgroup, errno),
            }
        })
    }

    /// Opens a cgroup that exists. `ENOENT` for `cgroup.kill` means a kernel before 5.14.
    pub(crate) fn open(parent: &Arc<OwnedFd>, at: &Path, name: &OsStr) -> Result<Self, Errno> {
        let dir = openat(parent, name, DIRECTORY, Mode::empty()).and_then(above_two)?;
        let file = |name, access| open_file(dir.as_fd(), name, access).and_then(above_two);
        let kill = file("cgroup.kill", OFlag::O_WRONLY)?;
        let events = file("cgroup.events", OFlag::O_RDONLY)?;
        Ok(Self {
            parent: Arc::clone(parent),
            name: name.to_owned(),
            path: at.join(name),
            dir: Some(Arc::new(dir)),
            kill,
            events,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory: the fd that was opened when it was made, else another one.
    pub(crate) fn dir(&self) -> Result<Arc<OwnedFd>, Errno> {
        match &self.dir {
            Some(dir) => Ok(Arc::clone(dir)),
            None => open_child(self.parent.as_fd(), &self.name).map(Arc::new),
        }
    }

    /// Gives up the fd of the directory, which a live tree hardly needs: fds may be scarce. Those
    /// of `cgroup.kill` and `cgroup.events` stay: ending it must not depend on there being one.
    pub(crate) fn close_dir(&mut self) {
        self.dir = None;
    }

    /// A control file, whole. By its path from above: one open.
    pub(crate) fn read(&self, file: &str) -> Result<String, Errno> {
        read_file(self.parent.as_fd(), &Path::new(&self.name).join(file))
    }

    /// A control file that is known to be shorter than the buffer: one read, and nothing allocated.
    pub(crate) fn read_brief<'a>(
        &self,
        file: &str,
        buffer: &'a mut [u8; BRIEF],
    ) -> Result<&'a str, Errno> {
        let path = Path::new(&self.name).join(file);
        let file = openat(&self.parent, &path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let len = read(&file, buffer)?;
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

    /// SIGKILL for every process in it and below, whoever owns it. Not complete (see
    /// `teardown.rs`).
    pub(crate) fn kill(&self) -> Result<(), Errno> {
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
            Ok(_) => Ok(Some(text.split(|&byte| byte == b'\n').any(|each| each == line))),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Waits until it is empty; false at the deadline.
    ///
    /// Notifications of `cgroup.events` are throttled to one in 10 ms, so the file is re-read with
    /// a back-off first (from 20 us on, 2 ms in all), and polled only after that.
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
            if !back_off.sleep(deadline) {
                // One reader's read takes the news from another that waits on the same fd: look
                // again by ourselves.
                let look = Instant::now() + Duration::from_millis(100);
                let until = deadline.map_or(look, |deadline| deadline.min(look));
                let mut fds = [PollFd::new(self.events.as_fd(), PollFlags::POLLPRI)];
                match poll(&mut fds, timeout_until(Some(until))) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
    }

    /// What a kill is written to.
    pub(crate) fn kill_fd(&self) -> BorrowedFd<'_> {
        self.kill.as_fd()
    }

    /// An fd to poll for `POLLPRI`: readable news about `populated`.
    pub(crate) fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Writes `cgroup.freeze` and waits, until the deadline, for the kernel to say that it is done.
    /// A process in state D cannot freeze: false.
    pub(crate) fn freeze(&self, deadline: Instant) -> Result<bool, Errno> {
        self.set_frozen(true)?;
        self.wait_for(Some(deadline), |this| Ok(this.says(b"frozen 1")? != Some(false)))
    }

    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<(), Errno> {
        let text: &[u8] = if frozen { b"1" } else { b"0" };
        let file =
            self.dir().and_then(|dir| open_file(dir.as_fd(), "cgroup.freeze", OFlag::O_WRONLY));
        gone_is_fine(file.and_then(|file| write(&file, text).map(drop)))
    }

    /// `cgroup.procs`, to write pids to.
    pub(crate) fn procs(&self) -> Result<OwnedFd, Errno> {
        let dir = self.dir()?;
        open_file(dir.as_fd(), "cgroup.procs", OFlag::O_WRONLY).and_then(above_two)
    }

    /// The pids in it and below, dead leaders included, zombies not. Pids outside our pid namespace
    /// are left out.
    pub(crate) fn pids(&self) -> Result<Vec<i32>, Errno> {
        let mut all = Vec::new();
        walk(&self.parent, &self.name, &mut |_, _, dir| {
            all.extend(gone_is_fine(read_pids(dir))?);
            Ok(())
        })?;
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Removes it and everything below, deepest first. `EBUSY` while a process is left.
    pub(crate) fn remove(&self) -> Result<(), Errno> {
        match unlinkat(&self.parent, &*self.name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
            // Directories below, a process come back, or (EACCES) a mode that the workload changed.
            Err(Errno::EBUSY | Errno::EACCES | Errno::ENOTEMPTY) => {}
            Err(errno) => return Err(errno),
        }
        walk(&self.parent, &self.name, &mut |parent, name, _| {
            gone_is_fine(unlinkat(parent, name, UnlinkatFlags::RemoveDir))
        })
    }
}

/// `ENODEV` on an open fd and `ENOENT` through a directory both mean that the cgroup is gone, which
/// is what we want.
fn gone_is_fine<T: Default>(result: Result<T, Errno>) -> Result<T, Errno> {
    match result {
        Err(Errno::ENODEV | Errno::ENOENT) => Ok(T::default()),
        other => other,
    }
}

/// The pids listed in one directory. A threaded child cannot list them (`EOPNOTSUPP`): its domain
/// does.
fn read_pids(dir: BorrowedFd<'_>) -> Result<Vec<i32>, Errno> {
    let file = open_file(dir, "cgroup.procs", OFlag::O_RDONLY)?;
    let text = match read_all(&file) {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        text => text?,
    };
    let text = String::from_utf8_lossy(&text);
    let pids = text.lines().filter_map(|line| line.parse().ok());
    Ok(pids.filter(|&pid| pid > 0).collect())
}

type Visit<'a> = dyn FnMut(BorrowedFd<'_>, &OsStr, BorrowedFd<'_>) -> Result<(), Errno> + 'a;

/// Visits `name` and all directories below, children before their parent.
///
/// Not recursive, and two fds at a time: a workload chooses how deep it nests. Goes up by `..`.
fn walk(parent: &Arc<OwnedFd>, name: &OsStr, visit: &mut Visit<'_>) -> Result<(), Errno> {
    let mut here = match open_child(parent.as_fd(), name) {
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        other => other?,
    };
    let mut stack = vec![(name.to_owned(), children(&here)?)];
    while let Some((_, todo)) = stack.last_mut() {
        if let Some(next) = todo.pop() {
            match open_child(here.as_fd(), &next) {
                Err(Errno::ENOENT | Errno::ENODEV) => continue,
                other => here = other?,
            }
            stack.push((next, children(&here)?));
            continue;
        }
        let Some((name, _)) = stack.pop() else { break };
        if stack.is_empty() {
            return visit(parent.as_fd(), &name, here.as_fd());
        }
        let above = openat(&here, "..", DIRECTORY, Mode::empty())?;
        visit(above.as_fd(), &name, here.as_fd())?;
        here = above;
    }
    Ok(())
}

/// A workload of our own uid may have taken the permission away: the owner may take it back.
fn open_child(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::EACCES) => {
            fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            openat(parent, name, DIRECTORY, Mode::empty())
        }
        other => other,
    }
}

/// The same for a control file.
fn open_file(dir: BorrowedFd<'_>, name: &str, access: OFlag) -> Result<OwnedFd, Errno> {
    let open = || openat(dir, name, access | OFlag::O_CLOEXEC, Mode::empty());
    match open() {
        Err(Errno::EACCES) => {
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink)?;
            open()
        }
        other => other,
    }
}

fn read_file(dir: BorrowedFd<'_>, file: &Path) -> Result<String, Errno> {
    let file = openat(dir, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(String::from_utf8_lossy(&read_all(&file)?).into_owned())
}

/// A file of the kernel's, whole. Not std's: that one asks for the size first (it is 0), and then
/// reads piece by piece.
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

pub(crate) fn children(dir: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    use std::os::unix::ffi::OsStrExt;
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
