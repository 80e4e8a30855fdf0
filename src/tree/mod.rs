//! A tree: one owned cgroup, or one keeper's descendants. What differs between the two is in
//! `container.rs`.

pub(crate) mod container;
pub(crate) mod add;
mod enroll;
mod finish;
pub(crate) mod watch;
#[cfg(feature = "cgroups-rs")]
mod cgroups_rs;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::cgroup::leftovers::without_stand_ins;
use crate::cgroup::names::is_guard;
use crate::cgroup::teardown::{Opening, TEARDOWN_PATIENCE};
use crate::cgroup::usage::Counters;
use crate::containment::Mechanism;
use crate::error::{Error, Result, Step};
use crate::keeper::handle::Kept;
use crate::limits::Limits;
use crate::proc::debugger;
use crate::proc::info::{ProcessInfo, Survey};
use crate::proc::port::ListeningPort;
use crate::proc::sockets::listening;
use crate::proc::survey;
use crate::report::{TreeReport, Usage};
use crate::supervisor::Supervisor;
use crate::sys::poll::{Deadline, lock};
use crate::tree::container::{Container, stop_signals};

/// An owned cgroup: whatever is spawned into it, and all that descends from that, ends with it.
///
/// Use it alone where other code spawns: [`enroll`](Self::enroll) takes a
/// [`std::process::Command`], and with that any library that builds on one.
///
/// # Cleanup
/// Dropping it kills every process in it, waits until it is empty (at most 10 s) and removes it. A
/// process that the kernel does not let go of in that time (state D) keeps the directory;
/// [`finish`](Self::finish) reports it.
///
/// # Examples
/// ```
/// use tidy_process::Tree;
///
/// # // A keeper's tree has a command of its own.
/// # if matches!(Tree::new(), Err(error) if error.is_unsupported()) { return Ok(()) }
/// let tree = Tree::new()?;
/// let mut command = std::process::Command::new("sh");
/// command.args(["-c", "sleep 30 & echo started"]);
/// tree.enroll(&mut command)?;
/// assert!(command.status()?.success());
/// assert_eq!(tree.finish()?.leftovers.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tree {
    container: Container,
    /// Where processes go, if not into its cgroup itself.
    entry: Option<Cgroup>,
    made: Instant,
    /// The main process's pid; 0 if there is none, or the caller may have put its children beside.
    main: AtomicI32,
    /// A teardown has begun, or it was left to its supervisor.
    done: AtomicBool,
    /// Its usage, once it is torn down.
    used: Mutex<Option<Usage>>,
    report: Mutex<Option<TreeReport>>,
    /// Its entry's `cgroup.procs`, for as long as it lives: enrolled commands borrow it.
    procs: Mutex<Option<Arc<OwnedFd>>>,
    /// Whether more than its CPU time is worth reading at its end.
    counted: AtomicBool,
    // Last: the run root may go only after the trees in it.
    supervisor: Mutex<Option<Supervisor>>,
}

impl Tree {
    /// An empty tree in the [global](Supervisor::global) supervisor.
    ///
    /// # Errors
    /// No cgroup can be made here; see [`Error::hint`].
    pub fn new() -> Result<Self> {
        Self::within(&Supervisor::global()?, None)
    }

    /// An empty tree in this supervisor, with a name if one is given.
    ///
    /// # Errors
    /// No cgroup can be made there, or the name has a slash, a control character or more than 200
    /// bytes.
    pub fn within(supervisor: &Supervisor, name: Option<&str>) -> Result<Self> {
        Self::limited(supervisor, name, &Limits::new())
    }

    /// An empty tree with limits.
    ///
    /// # Errors
    /// As for [`within`](Self::within), and a limit cannot be enforced: [`Error::is_limit`]. CPU
    /// time is one of those: without a command nothing watches it.
    pub fn limited(supervisor: &Supervisor, name: Option<&str>, limits: &Limits) -> Result<Self> {
        match limits.cpu_time {
            Some(time) => Err(Error::unwatched("a tree without a command", time)),
            None => Self::make(supervisor, name.map(OsStr::new), limits),
        }
    }

    /// Makes an empty tree for a command, whose waits enforce a limit of CPU time.
    pub(crate) fn make(
        supervisor: &Supervisor,
        name: Option<&OsStr>,
        limits: &Limits,
    ) -> Result<Self> {
        supervisor.check_open()?;
        let ground = supervisor.ground("make a tree without a command")?;
        let container = Container::Cgroup(ground.make_leaf(name, limits)?, None);
        Ok(Self::held(supervisor, container, supervisor.counts() || !limits.is_none()))
    }

    /// A tree that a keeper holds.
    pub(crate) fn kept(supervisor: &Supervisor, kept: Arc<Kept>) -> Self {
        Self::held(supervisor, Container::Keeper(kept), false)
    }

    fn held(supervisor: &Supervisor, container: Container, counted: bool) -> Self {
        Self {
            container,
            entry: None,
            made: Instant::now(),
            main: AtomicI32::new(0),
            done: AtomicBool::new(false),
            used: Mutex::default(),
            report: Mutex::default(),
            procs: Mutex::default(),
            counted: AtomicBool::new(counted),
            supervisor: Mutex::new(Some(supervisor.clone())),
        }
    }

    pub(crate) fn container(&self) -> &Container {
        &self.container
    }

    /// What holds it together.
    #[must_use]
    pub fn mechanism(&self) -> Mechanism {
        self.container.mechanism()
    }

    /// Its supervisor; an error once it is finished.
    fn supervisor(&self) -> Result<Supervisor> {
        let gone = || Error::invalid(Step::Prepare, "tree", "it is finished");
        lock(&self.supervisor).clone().ok_or_else(gone)
    }

    /// Notes the pid of its main process, and closes an fd that is needed no more.
    pub(crate) fn born(&mut self, main: i32) {
        *self.main.get_mut() = main;
        self.container.slim();
    }

    /// The cgroup that processes start in.
    pub(crate) fn entry(&self, what: &str) -> Result<&Cgroup> {
        self.entry.as_ref().map_or_else(|| self.container.cgroup(what), Ok)
    }

    /// Delegates a cgroup in the tree to the command or another user.
    pub(crate) fn delegate(&mut self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let cgroup = self.container.cgroup("delegate")?;
        self.entry = Some(self.supervisor()?.ground("delegate")?.delegate_in(cgroup, uid, gid)?);
        Ok(())
    }

    /// The processes in it now, the first 100 of them. The list is a snapshot: processes may come
    /// and go while it is made. It takes 1 s at the most; what it lacks then is in
    /// [`ProcessInfo::gaps`].
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessInfo> {
        survey::of(&self.pids()).named
    }

    /// How many processes are in it now.
    #[must_use]
    pub fn process_count(&self) -> usize {
        self.pids().len()
    }

    /// Their pids, in order.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.container.pids().unwrap_or_default()
    }

    /// Whether the process is listed in it.
    pub(crate) fn holds(&self, pid: u32) -> bool {
        self.pids().binary_search(&pid.cast_signed()).is_ok()
    }

    /// Sends a signal to every process in it, each through a pidfd; says how many were reached.
    ///
    /// # Errors
    /// There is no such signal (`EINVAL`), or the members cannot be listed.
    pub fn signal(&self, signal: i32) -> Result<usize> {
        self.signal_where(signal, |_| true)
    }

    /// Sends a signal to those members whose pid is meant.
    pub(crate) fn signal_where(
        &self,
        signal: i32,
        is_meant: impl Fn(u32) -> bool,
    ) -> Result<usize> {
        let is_meant = |pid: i32| is_meant(pid.cast_unsigned());
        self.container.signal(signal, &is_meant)
    }

    /// Kills every process in it, and returns when none is left (the directory stays).
    ///
    /// # Errors
    /// A process outlived SIGKILL for 10 s: [`Error::is_survivors`].
    pub fn kill(&self) -> Result<()> {
        self.container.kill_until_empty(TEARDOWN_PATIENCE)
    }

    /// Sends `signal` to every process in it, continues those that are stopped (SIGCONT, thaw),
    /// gives all of them `grace` to end, then kills the rest.
    ///
    /// # Errors
    /// There is no such signal (`EINVAL`): then nothing was done. Else as for [`kill`](Self::kill).
    pub fn stop(&self, signal: i32, grace: impl Into<Deadline>) -> Result<()> {
        let grace = grace.into();
        match self.ask_to_end(signal) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Err(error),
            // A failed signal does not keep it from the kill.
            _ => {}
        }
        if matches!(self.wait_empty(grace), Ok(true)) {
            return Ok(());
        }
        self.kill()
    }

    /// Sends a stop signal, and continues what is stopped or frozen: it would not act on it.
    pub(crate) fn ask_to_end(&self, signal: i32) -> Result<()> {
        self.ask_to_end_where(signal, |_| true)
    }

    /// Sends it to those members whose pid is meant.
    pub(crate) fn ask_to_end_where(
        &self,
        signal: i32,
        is_meant: impl Fn(u32) -> bool,
    ) -> Result<()> {
        let is_meant = |pid: i32| is_meant(pid.cast_unsigned());
        self.container.note_stopping();
        let reached = self.container.signal_each(&stop_signals(signal), &is_meant);
        self.thaw_all();
        reached.map(drop)
    }

    /// Thaws the tree, and what of its supervisor's freezes it.
    pub(crate) fn thaw_all(&self) {
        let supervisor = lock(&self.supervisor).clone();
        self.container.thaw(supervisor.as_ref().and_then(Supervisor::root));
    }

    /// Describes the processes in it now, before they are asked to end.
    pub(crate) fn alive(&self) -> Survey {
        let mut alive = survey::of(&self.pids());
        alive.retain(|process| !is_guard(process));
        without_stand_ins(&mut alive);
        alive
    }

    /// Stops every process in it where it is, and waits (at most 1 s) until all are; false if one
    /// could not be (state D). Killing a frozen tree needs no thaw.
    ///
    /// # Errors
    /// `cgroup.freeze` cannot be written, or a keeper holds the tree ([`Error::is_unsupported`]).
    pub fn freeze(&self) -> Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(1);
        let cgroup = self.container.cgroup("freeze")?;
        cgroup.freeze(deadline).map_err(|e| cgroup.error(Step::Freeze, e))
    }

    /// Lets it run on after [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// As for [`freeze`](Self::freeze).
    pub fn thaw(&self) -> Result<()> {
        let cgroup = self.container.cgroup("thaw")?;
        cgroup.set_frozen(false).map_err(|e| cgroup.error(Step::Freeze, e))
    }

    /// The ports on which the tree's processes wait for peers, by protocol, port and address: TCP
    /// sockets that listen and UDP sockets that are bound, IPv4 and IPv6, in whichever network
    /// namespace a process is. A snapshot, of the first 16,384, and of what is found in 1 s.
    ///
    /// A process of another user is passed over where the caller may not see its fds.
    ///
    /// # Errors
    /// The members cannot be listed.
    ///
    /// # Examples
    /// ```
    /// use std::time::{Duration, Instant};
    /// use tidy_process::{Command, Ready};
    ///
    /// let script = "import socket, time
    /// server = socket.create_server(('127.0.0.1', 0))
    /// time.sleep(30)";
    /// let server = Command::new("python3").args(["-c", script]).spawn()?;
    /// server.wait_ready(Ready::any_tcp(), Instant::now() + Duration::from_secs(9))?;
    /// let port = server.tree().listening_ports()?[0].address.port();
    /// assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn listening_ports(&self) -> Result<Vec<ListeningPort>> {
        let mut ports = listening(&self.container.pids()?);
        debugger::put_last(&mut ports);
        Ok(ports)
    }

    /// Changes its limits while it runs; those that are not given stay as they are.
    ///
    /// # Errors
    /// A limit cannot be enforced: [`Error::is_limit`]. Those before it are in force. CPU time
    /// cannot: it is watched from the spawn on, or not at all.
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        if let Some(time) = limits.cpu_time {
            return Err(Error::unwatched("a tree that runs already", time));
        }
        let cgroup = self.container.cgroup("set limits")?;
        self.counted.store(true, Ordering::Relaxed);
        self.supervisor()?.ground("set limits")?.limit_leaf(cgroup, limits)
    }

    /// What it has used so far; once it is finished, what its report says.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let used = lock(&self.used).clone();
        used.unwrap_or_else(|| self.container.usage(Counters::All))
    }

    /// Waits until no process is in it (zombies do not count); false at the deadline.
    ///
    /// # Errors
    /// `cgroup.events` cannot be read, or the keeper was killed.
    pub fn wait_empty(&self, deadline: impl Into<Deadline>) -> Result<bool> {
        self.wait_empty_until(deadline.into().0)
    }

    pub(crate) fn wait_empty_until(&self, deadline: Option<Instant>) -> Result<bool> {
        self.container.wait_empty(deadline)
    }

    /// Whether no process is in it now.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        self.wait_empty_until(Some(Instant::now()))
    }

    /// Its directory; none where a keeper holds it.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.container.path()
    }

    /// Whether this process made it (a fork of it did not).
    pub(crate) fn is_ours(&self) -> bool {
        lock(&self.supervisor).as_ref().is_none_or(Supervisor::is_ours)
    }

    /// Whether its teardown has begun, or it was left to its supervisor.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// The fd of its `cgroup.events`: `POLLPRI` says that it may have become empty (10 ms late at
/// times); read [`Tree::wait_empty`] then. Where a keeper holds it, the keeper's pidfd: `POLLIN`
/// says that it is empty.
impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.container.empty_fd()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.is_done() {
            let _ = self.tear_down(Opening::Removal, Counters::Unread);
        }
    }
}
