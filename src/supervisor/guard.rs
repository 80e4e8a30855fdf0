//! The guard: one small process that ends the run root when its owner is gone, however it went.
//!
//! A shell, executed and not forked, so that it holds none of the owner's memory. It sits in a
//! session of its own outside the run root, deaf to terminal signals, with one fd: the read end of
//! a pipe. End of file there means that nobody holds the run root any more. What it does then is in
//! `guard.sh`.

use std::ffi::{OsStr, OsString};
use std::io::{PipeWriter, pipe};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use crate::cgroup::names::GUARD_SCRIPT;
use crate::error::{Error, Result, Step, errno_of};
use crate::exec::image::Image;
use crate::exec::launch::{Home, Launch};
use crate::exec::program::Program;
use crate::exec::stdio::{Stdio, Stream};
use crate::sys::bury::bury;
use crate::sys::{Newborn, poll};

const SHELL: &str = "/bin/sh";

/// The last one is NixOS's, which has no rmdir in the others.
const PATH: &str = "/usr/bin:/bin:/run/current-system/sw/bin";

#[derive(Debug)]
pub(crate) struct Guard {
    process: Newborn,
    /// Nothing is ever written to it.
    _line: PipeWriter,
    /// A forked copy of the owner must not end it.
    owner: u32,
}

impl Guard {
    /// Starts it, before the run root is made: should we die right after that, the guard knows. On
    /// return it has executed.
    pub(crate) fn start(root: &Path) -> Result<Self> {
        let failed = |errno| Error::os(Step::Guard, format!("{SHELL:?}"), errno);
        let (theirs, line) = pipe().map_err(|error| failed(errno_of(&error)))?;
        let mut program = Program::new(SHELL.as_ref());
        let script = [OsStr::new("-c"), GUARD_SCRIPT.as_ref(), "tidy-process-guard".as_ref()];
        program.args = script.into_iter().chain([root.as_os_str()]).map(OsString::from).collect();
        program.env_clear = true;
        program.env.insert("PATH".into(), Some(PATH.into()));
        program.cwd = Some("/".into());
        let mut image = Image::new(&program)?;
        let (stdin, null) = (Stdio::from(theirs), Stdio::null());
        let streams = [Stream::make(0, &stdin)?, Stream::make(1, &null)?, Stream::make(2, &null)?];
        let mut launch = Launch {
            program: &program,
            closures: &mut [],
            force_join: false,
            image: &mut image,
            streams: &streams,
            home: Home::Aside,
        };
        let (process, _) = launch.launch().map_err(|error| error.of_step(Step::Guard))?;
        Ok(Self { process, _line: line, owner: std::process::id() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid.cast_unsigned()
    }

    pub(crate) fn is_alive(&self) -> bool {
        matches!(poll::ended(self.process.pidfd.as_fd(), Some(Instant::now())), Ok(false))
    }

    /// The run root is still there: the guard goes on trying once the line is closed.
    pub(crate) fn stay(&mut self) {
        self.owner = 0;
    }
}

/// It has nothing to guard any more. Waits for it, lest it be taken for a leftover of ours.
impl Drop for Guard {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            bury(self.process.pidfd.as_fd());
        }
    }
}
