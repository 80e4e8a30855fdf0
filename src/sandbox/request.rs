//! What is asked of a sandbox: inert data.

use std::collections::BTreeSet;
use std::os::fd::RawFd;

use crate::confinement::Level;

/// The settings of a [`Sandbox`](crate::Sandbox).
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) level: Level,
    /// System calls by name. The last word on a call counts.
    pub(crate) allowed: BTreeSet<String>,
    pub(crate) denied: BTreeSet<String>,
    /// The fds that the command has beside its three streams.
    pub(crate) fds: BTreeSet<RawFd>,
}

impl Request {
    pub(crate) fn new(level: Level) -> Self {
        Self { level, allowed: BTreeSet::new(), denied: BTreeSet::new(), fds: BTreeSet::new() }
    }
}
