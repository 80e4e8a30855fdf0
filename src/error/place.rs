//! Where an error occurred, for programs that go by it: the step, the path, the byte.

use std::ffi::OsStr;
use std::path::Path;

use crate::error::kind::{HAS_NUL, Kind};
use crate::error::step::Step;
use crate::error::{Error, Result};

impl Error {
    /// The step that failed, as the text begins: `exec`, `chdir`, `setuid`, `make cgroup`. None for
    /// errors that are about no single step (a timeout, a limit). To be shown and compared; new
    /// steps may come.
    #[must_use]
    pub fn step(&self) -> Option<&'static str> {
        self.known_step().map(Step::name)
    }

    /// The errno of the system call that failed, if one did.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.os_error().map(|(_, errno)| errno as i32)
    }

    /// Whether the child could not enter its working directory.
    #[must_use]
    pub fn is_bad_directory(&self) -> bool {
        matches!(self.known_step(), Some(Step::Chdir | Step::ChdirInside))
    }

    /// The program that could not be executed, or the directory that could not be entered, as the
    /// command has it; none for other errors.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Whether a program, argument, variable or directory has a NUL byte in it, which no system
    /// call takes.
    #[must_use]
    pub fn is_nul(&self) -> bool {
        matches!(self.0.kind, Kind::Invalid { why: HAS_NUL, .. })
    }

    fn known_step(&self) -> Option<Step> {
        match self.0.kind {
            Kind::Os { step, .. } | Kind::Invalid { step, .. } | Kind::Broken { step, .. } => {
                Some(step)
            }
            _ => None,
        }
    }

    /// Notes what it is about, if it is about one.
    pub(crate) fn about(mut self, program: &OsStr, dir: Option<&Path>) -> Self {
        self.0.path = match self.known_step() {
            Some(Step::Exec) => Some(program.into()),
            Some(Step::Chdir | Step::ChdirInside) => dir.map(Path::to_owned),
            _ => None,
        };
        self
    }
}

/// Adds what an error is about.
pub(crate) fn about<T>(done: Result<T>, program: &OsStr, dir: Option<&Path>) -> Result<T> {
    done.map_err(|error| error.about(program, dir))
}
