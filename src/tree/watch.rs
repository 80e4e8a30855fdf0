//! Watches the caller itself: a cgroup that it moves into, so that what it starts by whatever means
//! is seen there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::uio::pread;
use nix::unistd::write;

use crate::cgroup::Cgroup;
use crate::cgroup::beneath::{self, open_cgroup};
use crate::cgroup::hierarchy;
use crate::cgroup::teardown::{TEARDOWN_PATIENCE, teardown};
use crate::error::{Error, Result, Step};
use crate::limits::Limits;
use crate::supervisor::Supervisor;
use crate::sys::identity::Identity;
use crate::sys::{self, poll};
use crate::tree::Tree;

/// How long forks are followed that go on while they are sorted out.
const SORTING: Duration = Duration::from_secs(10);

/// This process in a cgroup of its own below the run root: every child that it makes, by whatever
/// library, begins there, so one read says whether there is any.
///
/// It is for programs that have to know what other code of theirs has started and left, as a test
/// runner has. While it lives [`Supervisor::close`] is an error: it would end this process.
///
/// # Cleanup
/// Dropping it moves this process back to where it was, then kills what is left in the cgroup and
/// removes that. In a fork of the process dropping it does nothing. If the process is killed, the
/// supervisor's guard ends what is left.
///
/// # Examples
/// ```
/// use tidy_process::Supervisor;
///
/// let supervisor = Supervisor::builder().build()?;
/// # if supervisor.path().is_none() { return Ok(()) }
/// let watch = supervisor.watch()?;
/// let mut left = std::process::Command::new("sleep").arg("60").spawn()?;
/// assert_eq!(watch.others()?, [left.id()]);
/// let tree = supervisor.tree("left")?;
/// watch.sort_into(&tree)?;
/// assert!(watch.others()?.is_empty());
/// assert_eq!(tree.finish()?.leftovers.len(), 1); // sleep 60, killed
/// left.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Watch {
    cgroup: Cgroup,
    /// Its `cgroup.procs`.
    procs: OwnedFd,
    /// That of the cgroup that this process was in before.
    home: OwnedFd,
    owner: Identity,
    // Last: the run root may go only after what is in it.
    _supervisor: Supervisor,
}

impl Supervisor {
    /// Moves this process, all its threads, into a cgroup of its own in this supervisor.
    ///
    /// # Errors
    /// As for [`Supervisor::tree`], this process's cgroup cannot be found or moved from or back to,
    /// or trees have keepers ([`Error::is_unsupported`]).
    pub fn watch(&self) -> Result<Watch> {
        self.check_open()?;
        let cgroup = self.ground("watch this process")?.make_leaf(None, &Limits::new())?;
        let moved = enter(&cgroup);
        let (procs, home) = moved.inspect_err(|_| drop(cgroup.remove()))?;
        let owner = Identity::of_this_process();
        Ok(Watch { cgroup, procs, home, owner, _supervisor: self.clone() })
    }
}

/// Moves this process there; returns that `cgroup.procs`, and the one of before.
fn enter(cgroup: &Cgroup) -> Result<(OwnedFd, OwnedFd)> {
    let home = hierarchy::own()?;
    let home_procs = open_cgroup(&home)
        .and_then(|dir| beneath::look(dir.as_fd(), "cgroup.procs".as_ref(), OFlag::O_WRONLY));
    let home_procs = home_procs.map_err(|errno| Error::at(Step::Join, &home, errno))?;
    let failed = |errno| cgroup.error(Step::Join, errno);
    let procs = cgroup.file("cgroup.procs", OFlag::O_RDWR).map_err(failed)?;
    write(&procs, b"0").map_err(failed)?;
    Ok((procs, home_procs))
}

impl Watch {
    /// The cgroup's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.cgroup.path()
    }

    /// The pids of the processes in it but this one: one read where there are few. Children of a
    /// tree are in that tree, and not here.
    ///
    /// # Errors
    /// The cgroup cannot be read.
    pub fn others(&self) -> Result<Vec<u32>> {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let at = i64::try_from(text.len()).unwrap_or(i64::MAX);
            match pread(&self.procs, &mut buffer, at) {
                Ok(0) => break,
                Ok(len) => text.extend_from_slice(buffer.get(..len).unwrap_or_default()),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(self.cgroup.error(Step::Look, errno)),
            }
        }
        let text = String::from_utf8_lossy(&text);
        let pids = text.lines().filter_map(|line| line.parse().ok());
        let mut pids: Vec<u32> = pids.filter(|pid| ![0, self.owner.pid()].contains(pid)).collect();
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Moves all but this process into the tree, until this process is alone; returns how many
    /// were moved. What they fork meanwhile is moved too.
    ///
    /// # Errors
    /// A process cannot be moved, the tree is finished, or after 10 s there still are others: they
    /// fork faster than they are moved.
    pub fn sort_into(&self, tree: &Tree) -> Result<usize> {
        let deadline = Instant::now() + SORTING;
        let mut moved = 0;
        loop {
            let handles = self.handles()?;
            if handles.is_empty() {
                return Ok(moved);
            }
            for (pid, handle) in handles {
                match tree.add(pid) {
                    Ok(()) => moved += 1,
                    // It has ended, and its number may be a thread's by now.
                    Err(_) if has_ended(&handle) => {}
                    Err(error) => return Err(error),
                }
            }
            if Instant::now() > deadline {
                return Err(self.cgroup.error(Step::Look, Errno::ETIMEDOUT));
            }
        }
    }

    /// The others, each with a handle: listed again once that is open, so that a number that was
    /// reused is not taken for one of them.
    fn handles(&self) -> Result<Vec<(u32, OwnedFd)>> {
        let mut opened = Vec::new();
        for pid in self.others()? {
            match sys::pidfd_open(pid.cast_signed()) {
                Ok(handle) => opened.push((pid, handle)),
                Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => {}
                Err(errno) => {
                    return Err(Error::os(Step::Pidfd, format!("process {pid}"), errno));
                }
            }
        }
        let still = self.others()?;
        opened.retain(|(pid, _)| still.binary_search(pid).is_ok());
        Ok(opened)
    }
}

fn has_ended(handle: &OwnedFd) -> bool {
    poll::ended(handle.as_fd(), Some(Instant::now())).unwrap_or(true)
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Where it cannot move back this process lives on in the cgroup, and the run root with it.
        if self.owner.is_this_process() && write(&self.home, b"0").is_ok() {
            let _ = teardown(&self.cgroup, TEARDOWN_PATIENCE);
        }
    }
}
