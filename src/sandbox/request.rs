//! What is asked of a sandbox: inert data.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::RawFd;

use crate::confinement::Level;
use crate::sandbox::view::Wanted;

/// The settings of a [`Sandbox`](crate::Sandbox).
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) level: Level,
    /// System calls by name. The last word on a call counts.
    pub(crate) allowed: BTreeSet<String>,
    pub(crate) denied: BTreeSet<String>,
    /// The fds that the command has beside its three streams.
    pub(crate) fds: BTreeSet<RawFd>,
    /// The rest is for the level with a view of its own.
    pub(crate) view: Wanted,
    /// Variables of the caller's, by name.
    pub(crate) kept: BTreeSet<OsString>,
    /// The step of the set-up program that is to fail, for tests; else 0.
    pub(crate) fail: usize,
}

impl Request {
    pub(crate) fn new(level: Level) -> Self {
        Self {
            level,
            allowed: BTreeSet::new(),
            denied: BTreeSet::new(),
            fds: BTreeSet::new(),
            view: Wanted::default(),
            kept: BTreeSet::new(),
            fail: 0,
        }
    }
}
