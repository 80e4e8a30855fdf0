//! What is executed, and as which user: the part of a command that the child itself acts on.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Program, arguments, environment, directory and identity of one exec.
pub(crate) struct Program {
    pub(crate) program: OsString,
    pub(crate) arg0: Option<OsString>,
    pub(crate) args: Vec<OsString>,
    pub(crate) env_clear: bool,
    /// What it inherits, where that was taken over before the spawn.
    pub(crate) inherited: Option<Vec<(OsString, OsString)>>,
    pub(crate) env: BTreeMap<OsString, Option<OsString>>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) groups: Option<Vec<u32>>,
    pub(crate) process_group: Option<i32>,
    pub(crate) session: bool,
    pub(crate) umask: Option<u32>,
    /// The fds above 2 that are not closed; None closes none but those that are marked.
    pub(crate) fds: Option<Vec<RawFd>>,
}

impl Program {
    pub(crate) fn new(program: &OsStr) -> Self {
        Self {
            program: program.to_owned(),
            arg0: None,
            args: Vec::new(),
            env_clear: false,
            inherited: None,
            env: BTreeMap::new(),
            cwd: None,
            uid: None,
            gid: None,
            groups: None,
            process_group: None,
            session: false,
            umask: None,
            fds: None,
        }
    }
}
