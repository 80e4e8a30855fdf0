//! Confines a command beyond its cgroup: the levels, what enforces them, and the plan.
//!
//! What is asked for is inert (`request.rs`). It is prepared once (`prepared.rs`): a Landlock
//! ruleset (`ruleset.rs`), a seccomp filter (`filter/`). The child takes it on by raw calls
//! (`enter.rs`). Which spawn is confined is not decided here.

mod blueprint;
pub(crate) mod fds;
pub(crate) mod enclosure;
pub(crate) mod enter;
pub(crate) mod filter;
pub(crate) mod ids;
mod layers;
#[expect(dead_code, reason = "the other side of it is the set-up program's")]
pub(crate) mod layout;
mod mount_news;
mod networks;
mod overlays;
pub(crate) mod plan;
pub(crate) mod prepared;
mod request;
mod ruleset;
pub(crate) mod scope;
mod setters;
pub(crate) mod template;
pub(crate) mod view;

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use crate::confinement::Level;
use crate::error::Result;
pub(crate) use crate::sandbox::enter::Confinement;
use crate::sandbox::fds::Meant;
use crate::sandbox::plan::Plan;
pub(crate) use crate::sandbox::prepared::Prepared;
use crate::sandbox::request::Request;
use crate::sys::poll::lock;

/// A level of confinement with its settings, for [`Command::sandbox`](crate::Command::sandbox) and
/// [`SupervisorBuilder::sandbox`](crate::SupervisorBuilder::sandbox) (feature `sandbox`).
///
/// Each [`Property`](crate::Property) of the level is enforced by what the kernel has, or the spawn
/// fails: [`Error::is_unconfinable`](crate::Error::is_unconfinable). Nothing is best effort.
///
/// Cheap to clone. Rulesets, filters and fds are made at the first spawn, and used again by the
/// next one of the same sandbox and its clones; a setter makes a sandbox of its own.
///
/// # Cleanup
/// It holds two fds once it has been used, until its last clone is dropped.
///
/// # Examples
/// ```
/// use tidy_process::{Command, Level, Sandbox};
///
/// let fence = Sandbox::fence();
/// match Command::new("true").sandbox(&fence).run() {
///     Ok(report) => assert_eq!(report.sandbox.map(|how| how.level), Some(Level::Fence)),
///     Err(error) => assert!(error.is_unconfinable() && error.hint().is_some()),
/// }
/// # Ok::<(), tidy_process::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    request: Request,
    prepared: Mutex<Option<Arc<Prepared>>>,
}

impl Sandbox {
    /// The level [`Level::Fence`]: for an ordinary user and for root, without namespaces.
    #[must_use]
    pub fn fence() -> Self {
        Self::of(Request::new(Level::Fence))
    }

    fn of(request: Request) -> Self {
        Self { shared: Arc::new(Shared { request, prepared: Mutex::new(None) }) }
    }

    fn with(&self, change: impl FnOnce(&mut Request)) -> Self {
        let mut request = self.shared.request.clone();
        change(&mut request);
        Self::of(request)
    }

    /// Its level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.shared.request.level
    }

    /// Lets the command make this system call, by its name in [syscalls(2)], which its level
    /// refuses, with whatever arguments. A property that rests on the refusal is no longer
    /// enforced: the choice is the caller's. An unknown name fails the spawn.
    ///
    /// [syscalls(2)]: https://man7.org/linux/man-pages/man2/syscalls.2.html
    #[must_use]
    pub fn allow_syscall(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|request| {
            request.denied.remove(&name);
            request.allowed.insert(name);
        })
    }

    /// Refuses the command this system call too (EPERM). An unknown name fails the spawn.
    #[must_use]
    pub fn deny_syscall(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|request| {
            request.allowed.remove(&name);
            request.denied.insert(name);
        })
    }

    /// Lets the command have these fds of the caller beside its three streams, under the same
    /// numbers. All others are closed.
    ///
    /// An fd is open when it is named, and stays so: a number that is not, or that stands for
    /// another file at the spawn, is an error there. So is a file of a cgroup file system, and at
    /// the level [`Level::Sandbox`] a directory or what is opened with `O_PATH`: by those it would
    /// reach what it is kept from. `FD_CLOEXEC` makes no difference.
    #[must_use]
    pub fn inherit_fds(self, fds: impl IntoIterator<Item = RawFd>) -> Self {
        let fds = fds.into_iter().filter(|&fd| fd > 2).map(|fd| (fd, Meant::by(fd)));
        self.with(|request| request.fds.extend(fds))
    }

    /// Explains what the command is denied: [`Report::denied`](crate::Report::denied) lists it,
    /// with what would allow it.
    ///
    /// The kernel decides as it does without this; the calls that it may deny wait until this
    /// process has seen them (some 20 us each), by the listener of the filter
    /// ([seccomp_unotify(2)]), and then go on. Those that the filter refuses get its answer from
    /// here. exec is not among them, so a program that is not in the view is not explained.
    ///
    /// # Errors
    /// Of the spawn: this process is in a sandbox that has a listener already, a container's or one
    /// that is explained too ([`Error::is_unconfinable`](crate::Error::is_unconfinable)).
    ///
    /// # Examples
    /// ```
    /// use tidy_process::{Command, Sandbox};
    ///
    /// let sandbox = Sandbox::new().system().explain();
    /// let mut command = Command::new("sh");
    /// match command.args(["-c", "echo >/usr/x"]).current_dir("/").sandbox(&sandbox).run() {
    ///     Ok(report) => report.denied.iter().for_each(|denied| println!("{denied}")),
    ///     Err(error) => assert!(error.hint().is_some(), "{error}"),
    /// }
    /// ```
    ///
    /// [seccomp_unotify(2)]: https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html
    #[must_use]
    pub fn explain(self) -> Self {
        self.with(|request| {
            request.explain = true;
            request.home = std::env::var_os("HOME").map(Into::into);
        })
    }

    /// What it would do here: each layer, path and call. Nothing is run.
    ///
    /// # Errors
    /// A property cannot be enforced on this machine
    /// ([`Error::is_unconfinable`](crate::Error::is_unconfinable)), or a setting is wrong.
    pub fn plan(&self) -> Result<Plan> {
        self.prepare()?.plan(&self.shared.request)
    }

    /// Returns what a child needs; makes it where that has not been done.
    pub(crate) fn prepare(&self) -> Result<Arc<Prepared>> {
        fds::check(&self.shared.request.fds, self.level())?;
        let mut prepared = lock(&self.shared.prepared);
        // It is asked once for each change: what is stale goes, whatever comes of the next.
        if prepared.as_ref().is_some_and(|made| made.is_stale()) {
            *prepared = None;
        }
        if let Some(made) = &*prepared {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(Prepared::new(&self.shared.request)?);
        Ok(Arc::clone(prepared.insert(made)))
    }
}
