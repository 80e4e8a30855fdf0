//! All that a child needs to confine itself, made once for all spawns of one sandbox.

use std::os::fd::{AsFd, RawFd};
use std::path::PathBuf;

use crate::confinement::{Confined, Level, Property};
use crate::error::advice::{Advice, advice};
use crate::error::{Error, Result};
use crate::sandbox::enclosure::Enclosure;
use crate::sandbox::enter::Confinement;
use crate::sandbox::filter::{self, Machine};
use crate::sandbox::plan::{Layer, Plan};
use crate::sandbox::request::Request;
use crate::sandbox::ruleset::Writes;

/// Owns what a [`Confinement`] borrows.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The ruleset of a fence.
    writes: Option<Writes>,
    /// What makes a view.
    enclosure: Option<Enclosure>,
    filter: Vec<libc::sock_filter>,
    machine: Machine,
    fds: Vec<RawFd>,
    confined: Confined,
}

impl Prepared {
    pub(crate) fn new(request: &Request) -> Result<Self> {
        request.check()?;
        let machine = Machine::own().ok_or_else(foreign_machine)?;
        let filter = filter::program(machine, request)?;
        let (writes, enclosure) = match request.level {
            Level::Fence => (Some(Writes::make()?), None),
            Level::Sandbox => (None, Some(Enclosure::new(request, &filter)?)),
        };
        let confined = Confined {
            level: request.level,
            mechanisms: enclosure.as_ref().map_or(MECHANISMS.to_vec(), Enclosure::mechanisms),
            excepted: request.allowed.iter().cloned().collect(),
        };
        Ok(Self {
            filter,
            machine,
            writes,
            enclosure,
            fds: request.fds.keys().copied().collect(),
            confined,
        })
    }

    /// What the child is told, in a fence.
    pub(crate) fn confinement(&self) -> Option<Confinement<'_>> {
        let ruleset = self.writes.as_ref()?.ruleset.as_fd();
        Some(Confinement { ruleset, filter: &self.filter, fds: &self.fds })
    }

    /// What makes a view of its own, where it has one.
    pub(crate) fn enclosure(&self) -> Option<&Enclosure> {
        self.enclosure.as_ref()
    }

    /// The fds that the command is to have beside its streams.
    pub(crate) fn fds(&self) -> &[RawFd] {
        &self.fds
    }

    /// Whether it has to be made anew.
    pub(crate) fn is_stale(&self) -> bool {
        let view = self.enclosure.as_ref().is_some_and(Enclosure::is_stale);
        view || self.writes.as_ref().is_some_and(Writes::is_stale)
    }

    /// What the report says.
    pub(crate) fn confined(&self) -> Confined {
        self.confined.clone()
    }

    /// In the order in which `Confinement::enter` takes the layers on.
    pub(crate) fn plan(&self, request: &Request) -> Result<Plan> {
        let paths = |verb: &str, paths: &[PathBuf]| -> Vec<String> {
            paths.iter().map(|path| format!("{verb} {path:?}")).collect()
        };
        let kept = self.fds.iter().map(|fd| format!("keep fd {fd}"));
        let mut landlock = Vec::new();
        if let Some(writes) = &self.writes {
            landlock.extend(paths("no writing below", &writes.refused));
            landlock.extend(paths("writing below", &writes.allowed));
        }
        landlock.push("signals, tracing and abstract sockets: to its own processes only".into());
        let calls = filter::list(self.machine, request)?;
        let calls = calls.into_iter().map(|refused| format!("refuse {refused}"));
        let calls = calls.chain(["refuse every call that is unknown".to_owned()]).collect();
        let dropped = if self.enclosure.is_some() { "drop all" } else { DROPPED };
        use Property::{Apart, Inside, Unprivileged};
        let layers: [(&[Property], Vec<String>); 6] = [
            (&[Apart], vec!["no core dumps".to_owned()]),
            (&[Inside], kept.collect()),
            (&[Apart, Unprivileged], vec![dropped.to_owned()]),
            (&[Unprivileged], Vec::new()),
            (&[Inside, Apart], landlock),
            (&[Inside, Apart, Unprivileged], calls),
        ];
        let layer = |(mechanism, (properties, details)): (_, (&[Property], _))| Layer {
            mechanism,
            properties: properties.to_vec(),
            details,
        };
        let layers = MECHANISMS.into_iter().zip(layers).map(layer);
        let made = |layer: &Layer| self.confined.mechanisms.contains(&layer.mechanism);
        let view = self.enclosure.iter().flat_map(Enclosure::layers);
        let layers = view.chain(layers).filter(made).collect();
        Ok(Plan { level: self.confined.level, layers })
    }
}

/// In the order in which a child takes them on.
pub(super) const MECHANISMS: [&str; 6] =
    ["rlimit", "close-range", "capabilities", "no-new-privs", "landlock", "seccomp"];

/// What `enter.rs` drops.
const DROPPED: &str = "drop sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot, sys_resource, \
                       mac_override, mac_admin, syslog, perfmon, bpf, checkpoint_restore";

fn foreign_machine() -> Error {
    let why = "seccomp: the system calls of this machine are not known (x86_64, aarch64 are)";
    Error::unconfinable(Property::Inside, why, DO_WITHOUT)
}

const DO_WITHOUT: Advice =
    advice!("do without: ", "leave Command::sandbox out", "leave --fence out");
