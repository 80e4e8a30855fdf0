//! A tree: one cgroup that is owned, whoever spawns into it.

pub(crate) mod container;
mod add;
#[cfg(feature = "cgroups-rs")]
mod cgroups_rs;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command as StdCommand, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::cgroup::teardown::PATIENCE;
use crate::containment::Mechanism;
use crate::containment::Placement;
use crate::error::{Result, Step};
use crate::exec::child_side;
use crate::keeper::handle::Kept;
use crate::limits::Limits;
use crate::proc::info::ProcessInfo;
use crate::proc::port::ListeningPort;
use crate::proc::read;
use crate::proc::sockets::listening;
use crate::report::{Cause, Note, Report, Usage};
use crate::supervisor::Supervisor;
use crate::tree::container::Hold;

/// An owned cgroup: whatever is spawned into it, and all that descends from that, ends with it.
///
/// Use it alone where somebody else does the spawning: [`enroll`](Self::enroll) takes a
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
    hold: Hold,
    /// Where processes go, if not into its cgroup itself.
    entry: Option<Cgroup>,
    made: Instant,
    done: AtomicBool,
    /// Whether more than its CPU time is worth reading at its end.
    counted: AtomicBool,
    // Last: the run root may go only after the trees in it.
    supervisor: Supervisor,
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
    /// As for [`within`](Self::within), and a limit cannot be enforced: [`Error::is_limit`].
    pub fn limited(supervisor: &Supervisor, name: Option<&str>, limits: &Limits) -> Result<Self> {
        Ok(Self {
            hold: Hold::Cgroup(
                supervisor.ground("make a tree without a command")?.make_leaf(name, limits)?,
            ),
            entry: None,
            made: Instant::now(),
            done: AtomicBool::new(false),
            counted: AtomicBool::new(supervisor.counts() || !limits.is_none()),
            supervisor: supervisor.clone(),
        })
    }

    /// A tree that a keeper holds.
    pub(crate) fn kept(supervisor: &Supervisor, kept: Kept) -> Self {
        Self {
            hold: Hold::Keeper(Arc::new(kept)),
            entry: None,
            made: Instant::now(),
            done: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            supervisor: supervisor.clone(),
        }
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// What holds it together.
    #[must_use]
    pub fn mechanism(&self) -> Mechanism {
        self.hold.mechanism()
    }

    /// Its main process has been born: an fd less to hold.
    pub(crate) fn close_dir(&mut self) {
        if let Hold::Cgroup(cgroup) = &mut self.hold {
            cgroup.close_dir();
        }
    }

    /// The cgroup that processes start in.
    pub(crate) fn entry(&self, what: &str) -> Result<&Cgroup> {
        self.entry.as_ref().map_or_else(|| self.hold.cgroup(what), Ok)
    }

    /// Gives the command, or another user, a cgroup of its own in the tree.
    pub(crate) fn delegate(&mut self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let cgroup = self.hold.cgroup("delegate")?;
        self.entry = Some(self.supervisor.ground("delegate")?.delegate_in(cgroup, uid, gid)?);
        Ok(())
    }

    /// Its entry's `cgroup.procs`.
    fn procs(&self, what: &str) -> Result<OwnedFd> {
        let entry = self.entry(what)?;
        entry.procs().map_err(|errno| entry.error(Step::Join, errno))
    }

    /// Makes a command of std's start in this tree: it forks, joins, then executes.
    ///
    /// The command must be spawned while the tree lives; joining a removed cgroup fails the spawn.
    /// It can be spawned several times.
    ///
    /// # Errors
    /// `cgroup.procs` cannot be opened for writing, or a keeper holds the tree
    /// ([`Error::is_unsupported`]).
    pub fn enroll(&self, command: &mut StdCommand) -> Result<()> {
        let procs = self.procs("enroll a command")?;
        child_side::join_before_exec(command, procs);
        Ok(())
    }

    /// Who is in it now. The list is a snapshot: processes may come and go while it is made.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessInfo> {
        read::read_all(&self.pids(), true)
    }

    /// Their pids, in order.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.hold.pids().unwrap_or_default()
    }

    /// Whether the process is in it, as far as can be seen.
    pub(crate) fn holds(&self, pid: u32) -> bool {
        self.pids().binary_search(&pid.cast_signed()).is_ok()
    }

    /// Sends a signal to every process in it, each through a pidfd; says how many were reached.
    ///
    /// # Errors
    /// The members cannot be listed.
    pub fn signal(&self, signal: i32) -> Result<usize> {
        self.signal_if(signal, |_| true)
    }

    /// The same, for those members whose pid is meant.
    ///
    /// # Errors
    /// The members cannot be listed.
    pub fn signal_if(&self, signal: i32, is_meant: impl Fn(u32) -> bool) -> Result<usize> {
        let is_meant = |pid: i32| is_meant(pid.cast_unsigned());
        self.hold.signal(signal, &is_meant)
    }

    /// Kills everything in it, and returns when nothing is left (the directory stays).
    ///
    /// # Errors
    /// Somebody is left after 10 s: [`Error::is_survivors`].
    pub fn kill(&self) -> Result<()> {
        self.hold.kill(PATIENCE)
    }

    /// Sends `signal` to all, gives them `grace` to end, then kills what is left.
    ///
    /// # Errors
    /// As for [`kill`](Self::kill).
    pub fn stop(&self, signal: i32, grace: Duration) -> Result<()> {
        // Who cannot be asked is killed all the same.
        let _ = self.signal(signal);
        let deadline = Instant::now().checked_add(grace);
        if matches!(self.wait_empty_until(deadline), Ok(true)) {
            return Ok(());
        }
        self.kill()
    }

    /// Stops every process in it where it is, and waits (at most 1 s) until all are; false if one
    /// could not be (state D). Killing a frozen tree needs no thaw.
    ///
    /// # Errors
    /// `cgroup.freeze` cannot be written, or a keeper holds the tree ([`Error::is_unsupported`]).
    pub fn freeze(&self) -> Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(1);
        let cgroup = self.hold.cgroup("freeze")?;
        cgroup.freeze(deadline).map_err(|e| cgroup.error(Step::Freeze, e))
    }

    /// Lets it run on after [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// As for [`freeze`](Self::freeze).
    pub fn thaw(&self) -> Result<()> {
        let cgroup = self.hold.cgroup("thaw")?;
        cgroup.set_frozen(false).map_err(|e| cgroup.error(Step::Freeze, e))
    }

    /// The ports on which the tree's processes wait for peers, by protocol, port and address: TCP
    /// sockets that listen and UDP sockets that are bound, IPv4 and IPv6, in whichever network
    /// namespace a process is. A snapshot.
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
        Ok(listening(&self.hold.pids()?))
    }

    /// Changes its limits while it runs; those that are not given stay as they are.
    ///
    /// # Errors
    /// A limit cannot be enforced: [`Error::is_limit`]. Those before it are in force.
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        let cgroup = self.hold.cgroup("set limits")?;
        self.counted.store(true, Ordering::Relaxed);
        self.supervisor.ground("set limits")?.limit_leaf(cgroup, limits)
    }

    /// What it has used so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.hold.usage(true)
    }

    /// Waits until nobody is in it (zombies do not count); false at the deadline.
    ///
    /// # Errors
    /// `cgroup.events` cannot be read, or the keeper was killed.
    pub fn wait_empty(&self, deadline: Instant) -> Result<bool> {
        self.wait_empty_until(Some(deadline))
    }

    pub(crate) fn wait_empty_until(&self, deadline: Option<Instant>) -> Result<bool> {
        self.hold.wait_empty(deadline)
    }

    /// Its directory; empty where a keeper holds it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.hold.path()
    }

    /// Kills what is left, removes the cgroup, and says what was left.
    ///
    /// # Errors
    /// Somebody outlived SIGKILL for 10 s, or the directory cannot be removed; the error has the
    /// report ([`Error::report`]).
    pub fn finish(self) -> Result<Report> {
        let leftovers = self.leftovers();
        let (usage, torn) = self.end();
        let cause = if leftovers.is_empty() { Cause::Exited } else { Cause::Stopped };
        let report = Report {
            status: ExitStatus::default(),
            cause,
            notes: Note::of(&usage, cause),
            usage,
            wall: self.made.elapsed(),
            leftovers,
            placement: Placement::Added,
            mechanism: self.mechanism(),
        };
        match torn {
            Ok(()) => Ok(report),
            Err(error) => Err(error.with_report(report)),
        }
    }

    /// Who is left; a list that cannot be made must not keep teardown from happening.
    pub(crate) fn leftovers(&self) -> Vec<ProcessInfo> {
        let left = self.hold.leftovers().unwrap_or_default();
        self.supervisor.note_left(&left);
        left
    }

    /// Whether who is left in it is to be named though nobody reads its report.
    pub(crate) fn remembers(&self) -> bool {
        self.supervisor.remembers()
    }

    /// Teardown, once: a second call and a forked copy of this process do nothing. What was used is
    /// known as far as it can be, though it fails.
    pub(crate) fn end(&self) -> (Usage, Result<()>) {
        if self.done.swap(true, Ordering::AcqRel) || !self.supervisor.is_ours() {
            return (Usage::default(), Ok(()));
        }
        let all = self.counted.load(Ordering::Relaxed);
        match self.hold.tear_down(PATIENCE, all) {
            Ok(usage) => (usage, Ok(())),
            Err(error) => (self.hold.usage(all), Err(error)),
        }
    }

    /// Leaves the tree to its supervisor, which ends it with itself.
    pub(crate) fn leave(&self) {
        self.done.store(true, Ordering::Release);
        if let (Some(kept), Some(keepers)) = (self.hold.kept(), self.supervisor.keepers()) {
            keepers.take_over(kept);
        }
    }

    /// Whether this process made it (a fork of it did not).
    pub(crate) fn is_ours(&self) -> bool {
        self.supervisor.is_ours()
    }

    /// Whether it was torn down or left to its supervisor.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// The fd of its `cgroup.events`: `POLLPRI` says that it may have become empty (10 ms late at
/// times); read
/// [`Tree::wait_empty`] then. Where a keeper holds it, the keeper's pidfd: `POLLIN` says that it is
/// empty.
impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hold.end().0
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
