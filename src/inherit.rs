//! What a command takes over from its caller beyond its streams: fds, environment, session, umask.

use std::os::fd::RawFd;

use nix::errno::Errno;

use crate::command::Command;
use crate::error::{Error, Result, Step};
use crate::exec::slots::Kept;
use crate::supervisor::Supervisor;
use crate::sys;
use crate::sys::raw::is_open;

impl Command {
    /// Lets the child have these fds above 2, under the same numbers, and no others: what else is
    /// open in the caller is closed by its exec, marked (`FD_CLOEXEC`) or not, and what is listed
    /// is not, marked or not. Replaces an earlier list. Default: the child has every fd that is not
    /// marked, unless its supervisor has
    /// [`close_fds`](crate::SupervisorBuilder::close_fds).
    ///
    /// The fds are the caller's: they have to be open at each spawn, which is an error otherwise. A
    /// sandbox decides by itself which it keeps (`Sandbox::inherit_fds`): with one, a list that is
    /// not empty fails the spawn.
    ///
    /// # Examples
    /// ```
    /// use std::os::fd::AsRawFd;
    /// use tidy_process::Command;
    ///
    /// let (reader, writer) = std::io::pipe()?;
    /// let number = writer.as_raw_fd();
    /// let mut command = Command::new("sh");
    /// command.args(["-c", &format!("echo hi >&{number}")]).inherit_fds([number]);
    /// assert!(command.status()?.success());
    /// drop(writer);
    /// assert_eq!(std::io::read_to_string(reader)?, "hi\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn inherit_fds(&mut self, fds: impl IntoIterator<Item = RawFd>) -> &mut Self {
        self.program.fds = Some(fds.into_iter().filter(|fd| !(0..=2).contains(fd)).collect());
        self
    }

    /// Takes over the caller's environment as it is now, for every spawn. Default: each spawn reads
    /// it. What of it the child gets is as without this: variables that are set or removed, and a
    /// sandbox, have their say.
    ///
    /// For a program whose other threads call setenv(3) without std's lock, as an interpreter's
    /// do: a spawn that reads meanwhile is undefined behaviour. This is called where they cannot.
    ///
    /// # Examples
    /// ```
    /// let mut command = tidy_process::Command::new("env");
    /// command.inherit_env_now().env_remove("HOME");
    /// assert!(command.output()?.report.success());
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    pub fn inherit_env_now(&mut self) -> &mut Self {
        self.program.inherited = Some(std::env::vars_os().collect());
        self
    }

    /// Makes the child the leader of a new session, without a controlling terminal ([setsid(2)]).
    /// Teardown needs none. Not in a sandbox with a view of its own, which fails the spawn.
    ///
    /// [setsid(2)]: https://man7.org/linux/man-pages/man2/setsid.2.html
    pub fn setsid(&mut self, setsid: bool) -> &mut Self {
        self.program.session = setsid;
        self
    }

    /// Sets the child's file mode creation mask. Default: the caller's. Not in a sandbox with a
    /// view of its own, which fails the spawn.
    pub fn umask(&mut self, mask: u32) -> &mut Self {
        self.program.umask = Some(mask & 0o777);
        self
    }

    /// Refuses what no child could be given, before anything is made.
    pub(crate) fn check_request(&self) -> Result<()> {
        let stop_signal = self.policy.stop_signal;
        if !sys::is_signal(stop_signal) {
            let subject = format!("{stop_signal} (stop_signal)");
            return Err(Error::os(Step::Signal, subject, Errno::EINVAL));
        }
        // Checked before any fd of the library's is opened, which might get the number.
        match self.program.fds.iter().flatten().find(|fd| !is_open(**fd)) {
            Some(fd) => Err(Error::os(Step::InheritFds, fd.to_string(), Errno::EBADF)),
            None => Ok(()),
        }
    }

    /// The fds that the child is to have; None closes no others.
    pub(crate) fn fds_to_keep<'a>(
        &'a self,
        supervisor: Option<&'a Supervisor>,
        confined: bool,
    ) -> Result<Option<Kept<'a>>> {
        let kept = |list| Kept { list, slots: supervisor.map(Supervisor::slots) };
        match self.program.fds.as_deref() {
            Some([fd, ..]) if confined => {
                let why = "a sandbox keeps what Sandbox::inherit_fds names: name it there";
                Err(Error::invalid(Step::Prepare, format!("fd {fd} of inherit_fds"), why))
            }
            None if confined || supervisor.is_some_and(Supervisor::closes_fds) => {
                Ok(Some(kept(&[])))
            }
            fds => Ok(fds.map(kept)),
        }
    }
}
