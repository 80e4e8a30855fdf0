//! What is asked of a sandbox: inert data.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::confinement::Level;
use crate::error::{Error, Result, Step};
use crate::sandbox::fds::Meant;
use crate::sandbox::view::Wanted;

/// The settings of a [`Sandbox`](crate::Sandbox).
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) level: Level,
    /// System calls by name. The last word on a call counts.
    pub(crate) allowed: BTreeSet<String>,
    pub(crate) denied: BTreeSet<String>,
    /// The fds that the command has beside its three streams.
    pub(crate) fds: BTreeMap<RawFd, Option<Meant>>,
    /// The last setting that was made of those for the level with a view of its own: of the next.
    pub(crate) of_a_view: Option<&'static str>,
    pub(crate) view: Wanted,
    /// Variables of the caller's, by name.
    pub(crate) kept: BTreeSet<OsString>,
    /// Whether what is denied is to be explained.
    pub(crate) explain: bool,
    /// The caller's home, where denials are explained. It is asked for when that is set: at a
    /// spawn another language's threads may be changing the environment.
    pub(crate) home: Option<PathBuf>,
    /// The view that a profile is to be made for, where that is being learned in a wider one.
    pub(crate) narrow: Option<Wanted>,
    /// The step of the set-up program that is to fail, for tests; else 0.
    pub(crate) fail: usize,
    /// It fails only for commands that enter a template.
    pub(crate) fails_in_template: bool,
}

impl Request {
    pub(crate) fn new(level: Level) -> Self {
        Self {
            level,
            allowed: BTreeSet::new(),
            denied: BTreeSet::new(),
            fds: BTreeMap::new(),
            of_a_view: None,
            view: Wanted::default(),
            kept: BTreeSet::new(),
            explain: false,
            home: None,
            narrow: None,
            fail: 0,
            fails_in_template: false,
        }
    }

    /// Refuses settings that the level has no place for: left out silently, they would be missed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.explain && self.denied.contains("sendmsg") {
            let why = "explaining needs that call, by which the listener comes out";
            return Err(Error::invalid(Step::Prepare, "deny_syscall \"sendmsg\"", why));
        }
        match (self.level, self.of_a_view) {
            (Level::Fence, Some(setting)) => {
                let why = "only the level sandbox has it: take that level, or leave it out";
                Err(Error::invalid(Step::Prepare, format!("{setting} in a fence"), why))
            }
            _ => Ok(()),
        }
    }
}
