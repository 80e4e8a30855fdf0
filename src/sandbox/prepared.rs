//! All that a child needs to confine itself, made once for all spawns of one sandbox.

use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::confinement::{Confined, Level, Property};
use crate::error::advice::{Advice, advice};
use crate::error::{Error, Result};
use crate::sandbox::enclosure::Enclosure;
use crate::sandbox::enter::Confinement;
use crate::sandbox::filter::watch::Answers;
use crate::sandbox::filter::{self, Machine};
use crate::sandbox::plan::{Layer, Plan};
use crate::sandbox::request::Request;
use crate::sandbox::ruleset::Writes;
use crate::sandbox::scope::{Scope, Watch};
use crate::sandbox::view::{DEVICES, barred_now};
use crate::sys::identity::Identity;

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
    watch: Option<Arc<Watch>>,
    /// The process that made it: a fork of it has the same networks, and shares the news of mounts.
    owner: Identity,
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
        let watch =
            request.explain.then(|| watch(machine, request, writes.as_ref())).transpose()?;
        let mut mechanisms = enclosure.as_ref().map_or(MECHANISMS.to_vec(), Enclosure::mechanisms);
        mechanisms.extend(watch.iter().map(|_| LISTENER));
        let confined = Confined {
            level: request.level,
            mechanisms,
            excepted: request.allowed.iter().cloned().collect(),
        };
        Ok(Self {
            filter,
            machine,
            writes,
            enclosure,
            fds: request.fds.keys().copied().collect(),
            confined,
            watch: watch.map(Arc::new),
            owner: Identity::of_this_process(),
        })
    }

    /// What the child is told, in a fence; the listener of its filter comes out on `line`.
    pub(crate) fn confinement<'a>(
        &'a self,
        line: Option<BorrowedFd<'a>>,
    ) -> Option<Confinement<'a>> {
        let ruleset = self.writes.as_ref()?.ruleset.as_fd();
        Some(Confinement { ruleset, filter: &self.filter, fds: &self.fds, line })
    }

    /// What explains denials, where that is asked for.
    pub(crate) fn watch(&self) -> Option<&Arc<Watch>> {
        self.watch.as_ref()
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
        let writes = || self.writes.as_ref().is_some_and(Writes::is_stale);
        !self.owner.is_this_process() || view || writes()
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
        let listener = self.watch.iter().map(|_| Layer {
            mechanism: LISTENER,
            properties: Vec::new(),
            details: vec![EXPLAINS.to_owned()],
        });
        let layers = view.chain(layers).filter(made).chain(listener).collect();
        Ok(Plan { level: self.confined.level, layers })
    }
}

/// In the order in which a child takes them on.
pub(super) const MECHANISMS: [&str; 6] =
    ["rlimit", "close-range", "capabilities", "no-new-privs", "landlock", "seccomp"];

/// Enforces nothing.
const LISTENER: &str = "seccomp-listener";
const EXPLAINS: &str = "calls that may be denied are seen, and go on: for --explain";

fn watch(machine: Machine, request: &Request, writes: Option<&Writes>) -> Result<Watch> {
    let scope = match writes {
        Some(writes) => Scope::Fence(writes.allowed.clone()),
        None => {
            let view = request.narrow.as_ref().unwrap_or(&request.view);
            Scope::of_view(view, barred_now()?, &DEVICES)
        }
    };
    let answers = Answers::new(machine, request)?;
    Ok(Watch { answers, scope, learns: request.narrow.is_some(), home: request.home.clone() })
}

/// What `enter.rs` drops.
const DROPPED: &str = "drop sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot, sys_resource, \
                       mac_override, mac_admin, syslog, perfmon, bpf, checkpoint_restore";

fn foreign_machine() -> Error {
    let why = "seccomp: the system calls of this machine are not known (x86_64, aarch64 are)";
    Error::unconfinable(Property::Inside, why, DO_WITHOUT)
}

const DO_WITHOUT: Advice =
    advice!("do without: ", "leave Command::sandbox out", "leave --fence out");
