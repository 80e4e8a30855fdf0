//! The guard: one small process that tears down the run root when its owner is gone, however it
//! ended.
//!
//! A static program of a few KiB, executed and not forked, so that it holds none of the owner's
//! memory. It runs in a session of its own outside the run root, with all signals blocked, and
//! holds a socket to its owner (the line), the owner's pidfd, and fds of the base and the run root.
//! Its code is in `program`.
//!
//! The library carries the program and executes it from memory. Where that is forbidden (the sysctl
//! `vm.memfd_noexec`, a seccomp filter), and for a target that it could not be linked for, the
//! guard is a fork of its owner that runs the same code: as safe, but as large as its owner and
//! under the owner's name.

mod program;

#[cfg(fuzzing)]
pub(crate) use program::fuzzed;

use std::ffi::OsString;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::cgroup::beneath::{DIRECTORY, look};
use crate::cgroup::names::GUARD_PROGRAM;
use crate::error::{Error, Result, Step, errno_of};
use crate::exec::child_side::GuardImage;
use crate::exec::image::Image;
use crate::exec::launch::{Home, Launch};
use crate::exec::program::Program;
use crate::exec::stdio::{ChildStream, Stdio};
use crate::sys::identity::Identity;
use crate::sys::pass;
use crate::sys::poll;
use crate::sys::{self, Newborn};

#[derive(Debug)]
pub(crate) struct Guard {
    process: Newborn,
    /// The guard takes the end of the line for the end of this process.
    line: UnixStream,
    /// Identifies the process that started it: a forked copy must not kill it. None once it is let
    /// go.
    owner: Option<Identity>,
}

impl Guard {
    /// Starts the guard before the run root is made, which leaves no moment without a guard. On
    /// return it has executed. `id` is the run root's name without the prefix.
    pub(crate) fn start(base: &OwnedFd, id: &str) -> Result<Self> {
        let failed = |errno| Error::os(Step::Guard, "tidy-guard", errno);
        let copied = base.try_clone().map_err(|error| failed(errno_of(&error)))?;
        let me = sys::pidfd_open(std::process::id().cast_signed())
            .map_err(|errno| Error::os(Step::Pidfd, "this process, for its guard", errno))?;
        let (line, theirs) = UnixStream::pair().map_err(|error| failed(errno_of(&error)))?;
        let streams = [Stdio::from(OwnedFd::from(theirs)), Stdio::from(copied), Stdio::from(me)];
        let image = pass::sealed_program(c"tidy-guard", GUARD_PROGRAM);
        let executed = image.ok().and_then(|image| {
            let aside = GuardImage::Program(image.as_fd());
            launch(id, &streams, aside).ok()
        });
        let process = match executed {
            Some(process) => process,
            None => launch(id, &streams, GuardImage::Fork(program::live))?,
        };
        Ok(Self { process, line, owner: Some(Identity::of_this_process()) })
    }

    /// Sends the fds of the new run root to the guard, so that modes and mounts cannot keep it out.
    /// Opens the directory anew: our own fd holds the lease.
    pub(crate) fn hand_over(&self, cgroup: &Cgroup) {
        let dir = cgroup.dir().and_then(|dir| look(dir.as_fd(), Path::new("."), DIRECTORY));
        let fds = dir.as_ref().map(|dir| [dir.as_fd(), cgroup.kill_fd(), cgroup.events_fd()]);
        let fds = fds.map(|fds| fds.map(|fd| fd.as_raw_fd()));
        // Without fds the message makes the guard open them itself. Ignores errors: `is_alive`
        // tells of a guard that was killed.
        if !fds.is_ok_and(|fds| pass::send_fds(self.line.as_fd(), b'm', fds).is_ok()) {
            let _ = sys::send(self.line.as_fd(), b'm');
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid.cast_unsigned()
    }

    pub(crate) fn is_alive(&self) -> bool {
        matches!(poll::ended(self.process.pidfd.as_fd(), Some(Instant::now())), Ok(false))
    }

    /// Makes the guard tear down at once, also while a fork of this process holds the line; used
    /// when the run root could not be removed.
    pub(crate) fn stay(&mut self) {
        let _ = self.line.shutdown(Shutdown::Both);
        self.let_go();
    }

    /// Keeps Drop from killing the guard.
    pub(crate) fn let_go(&mut self) {
        self.owner = None;
    }
}

fn launch(id: &str, streams: &[Stdio; 3], aside: GuardImage<'_>) -> Result<Newborn> {
    let mut program = Program::new("tidy-guard".as_ref());
    program.args = vec![OsString::from(id)];
    program.env_clear = true;
    program.cwd = Some("/".into());
    let mut image = Image::new(&program, false)?;
    let [line, base, owner] = streams;
    let streams =
        [ChildStream::make(0, line)?, ChildStream::make(1, base)?, ChildStream::make(2, owner)?];
    let mut launch = Launch {
        program: &program,
        closures: &mut [],
        force_join: matches!(aside, GuardImage::Fork(_)),
        fds: None,
        image: &mut image,
        streams: &streams,
        home: Home::Guard(aside),
        entry: None,
        confine: None,
        until: None,
    };
    let (process, _) = launch.launch().map_err(|error| error.of_step(Step::Guard))?;
    Ok(process)
}

/// Kills and reaps the guard: its run root is gone.
impl Drop for Guard {
    fn drop(&mut self) {
        if self.owner.is_some_and(Identity::is_this_process) {
            let pidfd = self.process.pidfd.as_fd();
            let _ = sys::pidfd_send_signal(pidfd, libc::SIGKILL);
            let _ = poll::ended(pidfd, Some(Instant::now() + Duration::from_secs(1)));
            let _ = sys::reap(pidfd);
        }
    }
}

#[cfg(test)]
mod tests;
