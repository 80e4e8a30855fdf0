//! Becomes a command: no tree is made, and no process.

use std::convert::Infallible;

use crate::command::Command;
use crate::confinement::Level;
use crate::error::{Error, Result, Step};
use crate::exec::child_side::Closure;
use crate::exec::image::Image;
use crate::exec::launch::{Home, Launch};
use crate::exec::stdio::{ChildStream, Stdio};
use crate::explain::Line;
use crate::sandbox::Prepared;

impl Command {
    /// Becomes the command: this process executes it in its place, as with
    /// [`CommandExt::exec`](std::os::unix::process::CommandExt::exec). It returns only if that
    /// fails; then streams, directory, user and signals of this process may have changed, and what
    /// is closed by an exec.
    ///
    /// No tree is made: the process stays in the cgroup that it is in, and no supervisor waits for
    /// it. So limits, a timeout, a process to die with, a log, piped streams and delegation are
    /// errors ([`Error::is_invalid_input`]), which change nothing.
    pub fn exec(&mut self) -> Error {
        let mut closures = std::mem::take(&mut self.closures);
        let Err(error) = self.exec_calling(&mut closures);
        self.closures = closures;
        error
    }

    fn exec_calling(&self, closures: &mut [Closure]) -> Result<Infallible> {
        self.check_request()?;
        let ties =
            self.supervisor.as_ref().is_some_and(|supervisor| supervisor.partner().is_some());
        let tied = ties || self.dies_with.is_some();
        let watched = self.policy.timeout.is_some() || !self.limits.is_none() || tied;
        let piped = self.streams.iter().flatten().any(Stdio::is_piped);
        if watched || piped || self.keeps() || self.delegate {
            let why = "exec makes no tree: no limit, timeout, process to die with, log, pipe or \
                       delegation is possible";
            let subject = format!("{:?}", self.program.program);
            return Err(Error::invalid(Step::Prepare, subject, why));
        }
        let prepared = self.prepared(self.supervisor.as_ref())?;
        if has_view(prepared.as_deref()) {
            let why = "exec makes no processes, which a sandbox needs; a fence it can be";
            return Err(Error::invalid(Step::Prepare, format!("{:?}", self.program.program), why));
        }
        Line::refuse(prepared.as_deref())?;
        let fds = self.fds_to_keep(self.supervisor.as_ref(), prepared.is_some())?;
        let mut image = Image::new(&self.program, !closures.is_empty())?;
        let inherit = Stdio::inherit();
        let [stdin, stdout, stderr] = &self.streams;
        let streams = [
            ChildStream::make(0, stdin.as_ref().unwrap_or(&inherit))?,
            ChildStream::make(1, stdout.as_ref().unwrap_or(&inherit))?,
            ChildStream::make(2, stderr.as_ref().unwrap_or(&inherit))?,
        ];
        let mut launch = Launch {
            program: &self.program,
            closures,
            force_join: false,
            fds,
            image: &mut image,
            streams: &streams,
            home: Home::Kept,
            confine: prepared.as_deref().and_then(|made| made.confinement(None)),
            entry: None,
            until: None,
        };
        Err(launch.exec())
    }
}

/// Whether there is a view of its own.
fn has_view(prepared: Option<&Prepared>) -> bool {
    prepared.is_some_and(|prepared| prepared.confined().level == Level::Sandbox)
}
