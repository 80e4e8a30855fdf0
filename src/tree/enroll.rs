//! How others bring processes into a tree.

use std::os::fd::OwnedFd;
use std::process::Command as StdCommand;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::unistd::write;

use crate::error::{Error, Result, Step};
use crate::exec::child_side;
use crate::sys::poll::lock;
use crate::tree::Tree;

impl Tree {
    fn procs(&self, what: &str) -> Result<Arc<OwnedFd>> {
        self.main.store(0, Ordering::Relaxed);
        let entry = self.entry(what)?;
        let mut procs = lock(&self.procs);
        if let Some(open) = &*procs {
            return Ok(Arc::clone(open));
        }
        if self.is_done() {
            return Err(entry.error(Step::Join, Errno::ENOENT));
        }
        let open = entry.procs().map_err(|errno| entry.error(Step::Join, errno))?;
        Ok(Arc::clone(procs.insert(Arc::new(open))))
    }

    /// Makes a command of std's start in this tree: it forks, joins, then executes.
    ///
    /// The command must be spawned while the tree lives; joining a removed cgroup fails the spawn.
    /// It can be spawned several times, and holds no fd of the tree's.
    ///
    /// # Errors
    /// `cgroup.procs` cannot be opened for writing, the tree is finished, or a keeper holds it
    /// ([`Error::is_unsupported`]).
    pub fn enroll(&self, command: &mut StdCommand) -> Result<()> {
        let procs = self.procs("enroll a command")?;
        child_side::join_before_exec(command, Arc::downgrade(&procs));
        Ok(())
    }

    /// Moves a running process (not its children) into this tree. It may have left children
    /// elsewhere: prefer
    /// [`enroll`](Self::enroll).
    ///
    /// # Errors
    /// No such process, no permission to move it, it is the caller itself, or a keeper holds the
    /// tree ([`Error::is_unsupported`]).
    pub fn add(&self, pid: u32) -> Result<()> {
        if pid == 0 || pid == std::process::id() {
            let why = "this process itself would end with the tree";
            return Err(Error::invalid(Step::Prepare, format!("process {pid}"), why));
        }
        let procs = self.procs("add a process")?;
        let answer = write(&procs, pid.to_string().as_bytes());
        let failed = |errno| Error::os(Step::Add, format!("process {pid}"), errno);
        answer.map(drop).map_err(failed)
    }
}
