//! All that a child needs to confine itself, made once for all spawns of one sandbox.

use std::os::fd::{AsFd, RawFd};
use std::path::PathBuf;

use crate::confinement::{Confined, Property};
use crate::error::advice::{Advice, advice};
use crate::error::{Error, Result};
use crate::sandbox::enter::Confinement;
use crate::sandbox::filter::{self, Machine};
use crate::sandbox::plan::{Layer, Plan};
use crate::sandbox::request::Request;
use crate::sandbox::ruleset::Writes;

/// Owns what a [`Confinement`] borrows.
#[derive(Debug)]
pub(crate) struct Prepared {
    writes: Writes,
    filter: Vec<libc::sock_filter>,
    machine: Machine,
    fds: Vec<RawFd>,
    confined: Confined,
}

impl Prepared {
    pub(crate) fn new(request: &Request) -> Result<Self> {
        let machine = Machine::own().ok_or_else(foreign_machine)?;
        let confined = Confined {
            level: request.level,
            mechanisms: MECHANISMS.to_vec(),
            excepted: request.allowed.iter().cloned().collect(),
        };
        Ok(Self {
            filter: filter::program(machine, request)?,
            machine,
            writes: Writes::make()?,
            fds: request.fds.iter().copied().filter(|&fd| fd > 2).collect(),
            confined,
        })
    }

    /// What the child is told.
    pub(crate) fn confinement(&self) -> Confinement<'_> {
        let ruleset = self.writes.ruleset.as_fd();
        Confinement { ruleset, filter: &self.filter, fds: &self.fds }
    }

    /// Whether it has to be made anew.
    pub(crate) fn is_stale(&self) -> bool {
        self.writes.is_stale()
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
        let mut landlock = paths("no writing below", &self.writes.refused);
        landlock.extend(paths("writing below", &self.writes.allowed));
        landlock.push("signals, tracing and abstract sockets: to its own processes only".into());
        let calls = filter::list(self.machine, request)?;
        let calls = calls.into_iter().map(|refused| format!("refuse {refused}"));
        let calls = calls.chain(["refuse every call that is unknown".to_owned()]).collect();
        use Property::{Apart, Inside, Unprivileged};
        let layers: [(&[Property], Vec<String>); 6] = [
            (&[Apart], vec!["no core dumps".to_owned()]),
            (&[Inside], kept.collect()),
            (&[Apart, Unprivileged], vec![DROPPED.to_owned()]),
            (&[Unprivileged], Vec::new()),
            (&[Inside, Apart], landlock),
            (&[Inside, Apart, Unprivileged], calls),
        ];
        let layer = |(mechanism, (properties, details)): (_, (&[Property], _))| Layer {
            mechanism,
            properties: properties.to_vec(),
            details,
        };
        let layers = MECHANISMS.into_iter().zip(layers).map(layer).collect();
        Ok(Plan { level: self.confined.level, layers })
    }
}

/// In the order in which a child takes them on.
const MECHANISMS: [&str; 6] =
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
