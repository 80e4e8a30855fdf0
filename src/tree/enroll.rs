//! Makes commands of std's start in a tree.

use std::os::fd::OwnedFd;
use std::process::Command as StdCommand;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::confinement::Property;
use crate::error::advice::NOT_OURS_TO_CONFINE;
use crate::error::{Error, Result, Step};
use crate::exec::enrolled;
use crate::sys::poll::lock;
use crate::tree::Tree;

impl Tree {
    /// Fails where a supervisor confines its commands: what it does not start it cannot confine.
    pub(super) fn check_unconfined(&self) -> Result<()> {
        if self.supervisor()?.sandbox().is_none() {
            return Ok(());
        }
        let why = "this supervisor confines its commands, and did not start this one";
        Err(Error::unconfinable(Property::Inside, why, NOT_OURS_TO_CONFINE))
    }

    pub(super) fn procs(&self, what: &str) -> Result<Arc<OwnedFd>> {
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
    /// Where spawns are some time apart, joining takes 5 to 20 ms, for which std waits: a write to
    /// `cgroup.procs` takes a lock that is the whole machine's, and the kernel offers a process of
    /// another parent no other way in. What [`Command`](crate::Command) spawns is born in its tree
    /// and waits for nothing: in a tokio runtime use `Command::spawn_async`. On a machine of one's
    /// own the mount option `favordynmods` of cgroup2 (Linux 6.0) takes that wait away.
    ///
    /// A child that joins while the tree, or a cgroup above, is frozen cannot execute, and std
    /// waits for that: the kernel kills the child after 10 s, and std then returns it as spawned,
    /// with a status that says SIGKILL. (A [`Command`](crate::Command) of this crate thaws what is
    /// its supervisor's, and its spawn is an error.)
    ///
    /// # Errors
    /// `cgroup.procs` cannot be opened for writing, the tree is finished, a keeper holds it
    /// ([`Error::is_unsupported`](crate::Error::is_unsupported)), or its supervisor confines what
    /// is in it ([`Error::is_unconfinable`](crate::Error::is_unconfinable)).
    pub fn enroll(&self, command: &mut StdCommand) -> Result<()> {
        self.check_unconfined()?;
        let procs = self.procs("enroll a command")?;
        enrolled::join_before_exec(command, Arc::downgrade(&procs));
        Ok(())
    }
}
