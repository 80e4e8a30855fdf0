//! A command that ends when another process does.

use std::os::fd::{AsFd, BorrowedFd};

use crate::child::Child;
use crate::command::Command;
use crate::error::Result;
use crate::supervisor::Supervisor;
use crate::supervisor::partner::Partner;

impl Command {
    /// Stops the tree when the process with this pid ends: stop signal, [`grace`](Self::grace),
    /// kill, as for a stop. Every wait on the child enforces it, as the
    /// [timeout](Self::timeout), and there is no hidden thread: between waits nothing is stopped.
    /// Default: as its supervisor has it
    /// ([`die_with_parent`](crate::SupervisorBuilder::die_with_parent)), else none.
    ///
    /// The process is looked up at each spawn, which fails if it has ended
    /// ([`Error::is_partner_gone`](crate::Error::is_partner_gone)). Only the whole process's end
    /// counts, not that of one of its threads. A pid is given anew once its process has been waited
    /// for: name a process of which you know that it is there, such as a child or an ancestor.
    ///
    /// # Examples
    /// ```
    /// use tidy_process::{Cause, Command};
    ///
    /// let client = Command::new("sleep").arg("60").spawn()?;
    /// let worker = Command::new("sleep").arg("60").die_with(client.id()).spawn()?;
    /// client.kill()?;
    /// worker.wait()?; // it was stopped
    /// assert_eq!(worker.finish()?.cause, Cause::Stopped);
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    pub fn die_with(&mut self, pid: u32) -> &mut Self {
        self.dies_with = Some(pid);
        self
    }

    /// The process that the child is to die with.
    pub(crate) fn partner(&self, supervisor: &Supervisor) -> Result<Option<Partner>> {
        match self.dies_with {
            Some(pid) => Partner::of(pid).map(Some),
            None => supervisor.partner().map(Partner::alive).transpose(),
        }
    }
}

impl Child {
    /// The pidfd of the process that it dies with ([`Command::die_with`]): for event loops round
    /// [`AsFd`], which call [`enforce`](Self::enforce) when it is readable. None once the tree is
    /// being stopped, for whatever reason.
    #[must_use]
    pub fn partner_fd(&self) -> Option<BorrowedFd<'_>> {
        self.ending.awaited().map(AsFd::as_fd)
    }
}
