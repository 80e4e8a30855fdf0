//! The request for a process: inert data, no system call and no error before `spawn`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::child::deadline::StopPolicy;
use crate::child::settle::SETTLE;
use crate::exec::child_side::Closure;
use crate::exec::program::Program;
use crate::exec::stdio::Stdio;
use crate::limits::Limits;
use crate::log::Log;
use crate::record::Recording;
use crate::sandbox::Sandbox;
use crate::supervisor::Supervisor;

/// A command to be run in a fresh cgroup; mirrors [`std::process::Command`], so that moving over is
/// a changed `use` line.
///
/// A name without a slash is looked up in the `PATH` that the child will have, as execvp(3) does;
/// a script needs a first line such as `#!/bin/sh`.
/// The child stays in the caller's process group and session unless asked otherwise. Signal
/// handlers are reset and no signal is blocked in it.
///
/// # Differences from std
/// Dropping a [`Child`](crate::Child) ends it; [`status`](Self::status) is an error for a command
/// that timed out; [`status`](Self::status) and [`output`](Self::output) end all that the main
/// process left behind, and do not wait for processes that hold the pipes and sleep;
/// `Child::wait` leaves a piped stdin open; a child may be waited for and killed through `&self`;
/// `kill` is for the whole tree.
///
/// # Cleanup
/// A command holds nothing but what it was given. What it spawns is a [`Child`](crate::Child), and
/// ends with that.
///
/// # Examples
/// ```
/// use tidy_process::Command;
///
/// // The shell ends at once; the sleep it leaves behind is killed, and named.
/// let report = Command::new("sh").args(["-c", "sleep 30 & exit 3"]).run()?;
/// assert_eq!(report.status.code(), Some(3));
/// assert_eq!(report.leftovers.len(), 1);
/// # Ok::<(), tidy_process::Error>(())
/// ```
pub struct Command {
    pub(crate) program: Program,
    pub(crate) streams: [Option<Stdio>; 3],
    pub(crate) closures: Vec<Closure>,
    pub(crate) policy: StopPolicy,
    pub(crate) limits: Limits,
    pub(crate) name: Option<OsString>,
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) log: Option<Log>,
    pub(crate) delegate: bool,
    pub(crate) force_join: bool,
    pub(crate) sandbox: Option<Sandbox>,
    pub(crate) recording: Option<Recording>,
    pub(crate) dies_with: Option<u32>,
}

impl Command {
    /// A command that runs `program` without arguments, with the caller's environment, directory
    /// and streams.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: Program::new(program.as_ref()),
            streams: [None, None, None],
            closures: Vec::new(),
            policy: StopPolicy {
                timeout: None,
                cpu_time: None,
                grace: None,
                stop_signal: libc::SIGTERM,
                stop_main_only: false,
                linger: false,
                settle: SETTLE,
                stop_leftovers: false,
            },
            limits: Limits::new(),
            name: None,
            supervisor: None,
            log: None,
            delegate: false,
            force_join: false,
            sandbox: None,
            recording: None,
            dies_with: None,
        }
    }

    /// Makes a command from one of std's, with what std shows of it: program, arguments, variables
    /// set and removed, working directory.
    ///
    /// Not shown, and so not taken over: streams, `arg0`, `env_clear`, user, groups, process
    /// group, `pre_exec` closures. Set them again, or leave the command as it is and let it spawn
    /// into a tree: [`Tree::enroll`](crate::Tree::enroll).
    ///
    /// # Examples
    /// ```
    /// let mut theirs = std::process::Command::new("echo");
    /// theirs.arg("hi");
    /// assert_eq!(tidy_process::Command::from_std(&theirs).output()?.stdout, b"hi\n");
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    #[must_use]
    pub fn from_std(command: &std::process::Command) -> Self {
        let mut new = Self::new(command.get_program());
        new.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => new.env(key, value),
                None => new.env_remove(key),
            };
        }
        command.get_current_dir().map(|dir| new.current_dir(dir));
        new
    }

    /// Adds one argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.program.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        self.program.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets `argv[0]`; the program that is looked up stays the same.
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.program.arg0 = Some(arg.as_ref().to_owned());
        self
    }

    /// Sets a variable in the child's environment.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        let value = Some(value.as_ref().to_owned());
        self.program.env.insert(key.as_ref().to_owned(), value);
        self
    }

    /// Sets several variables in the child's environment.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        for (key, value) in vars {
            self.env(key, value);
        }
        self
    }

    /// Removes a variable from the child's environment.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Self {
        self.program.env.insert(key.as_ref().to_owned(), None);
        self
    }

    /// Starts the child's environment empty; forgets what was set before.
    pub fn env_clear(&mut self) -> &mut Self {
        self.program.env_clear = true;
        self.program.env.clear();
        self
    }

    /// Sets the child's working directory. A relative program path is looked up from there.
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.program.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets the child's standard input. Default: inherited; for [`output`](Self::output)
    /// `/dev/null`.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stream(0, stdio.into())
    }

    /// Sets the child's standard output. Default: inherited; for [`output`](Self::output) a pipe.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stream(1, stdio.into())
    }

    /// Sets the child's standard error. Default: inherited; for [`output`](Self::output) a pipe.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stream(2, stdio.into())
    }

    /// Keeps what the child writes to those of its two output streams that are not set otherwise.
    /// [`output`](Self::output) collects them as ever, and copies them to the log.
    pub fn log(&mut self, log: &Log) -> &mut Self {
        self.log = Some(log.clone());
        self
    }

    fn stream(&mut self, number: usize, stdio: Stdio) -> &mut Self {
        if let Some(stream) = self.streams.get_mut(number) {
            *stream = Some(stdio);
        }
        self
    }

    /// Runs the child as this user. As with std, root's supplementary groups go unless
    /// [`groups`](Self::groups) says otherwise. Such a child is forked, as with
    /// [`pre_exec`](Self::pre_exec).
    pub fn uid(&mut self, id: u32) -> &mut Self {
        self.program.uid = Some(id);
        self
    }

    /// Runs the child with this group.
    pub fn gid(&mut self, id: u32) -> &mut Self {
        self.program.gid = Some(id);
        self
    }

    /// Sets the child's supplementary groups.
    pub fn groups(&mut self, groups: &[u32]) -> &mut Self {
        self.program.groups = Some(groups.to_owned());
        self
    }

    /// Puts the child into this process group; 0 makes a new one. Teardown needs none.
    pub fn process_group(&mut self, group: i32) -> &mut Self {
        self.program.process_group = Some(group);
        self
    }

    /// Runs a closure in the child just before exec. Such a child is forked: slower, the more so
    /// the larger the caller is.
    ///
    /// # Safety
    /// As for [`std::os::unix::process::CommandExt::pre_exec`]: the closure runs after fork and may
    /// only do what is async-signal-safe.
    #[expect(unsafe_code, reason = "the promise is the caller's, as with std")]
    pub unsafe fn pre_exec<F>(&mut self, closure: F) -> &mut Self
    where
        F: FnMut() -> io::Result<()> + Send + Sync + 'static,
    {
        self.closures.push(Box::new(closure));
        self
    }

    /// Sets what the whole tree may use. A limit that cannot be enforced fails the spawn.
    pub fn limits(&mut self, limits: Limits) -> &mut Self {
        self.policy.cpu_time = limits.cpu_time;
        self.limits = limits;
        self
    }

    /// Gives the command a cgroup of its own within its tree, to subdivide as it likes: it starts
    /// in a leaf of that, so that controllers can be handed down at once, and a user of this crate
    /// inside (a test suite, say) can set [limits](Self::limits) where the machine offers them.
    /// With [`uid`](Self::uid) that user owns the cgroup, but not the tree around it, with the
    /// limits given here. Default: false. See "Delegation" in [cgroup-v2].
    ///
    /// [cgroup-v2]: https://docs.kernel.org/admin-guide/cgroup-v2.html
    pub fn delegate(&mut self, delegate: bool) -> &mut Self {
        self.delegate = delegate;
        self
    }

    /// Ends the tree when the child has run this long, counted from the spawn. Every wait on the
    /// child enforces it (there is no hidden thread): stop signal, grace, kill. A child that has
    /// ended when a wait first checks it did not time out, however late that is.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.policy.timeout = Some(timeout);
        self
    }

    /// Sets how long the *tree* may take to end by itself after the stop signal, when it is stopped
    /// or timed out: it is killed when the grace is over, also if the main process has ended in
    /// time. With zero the kill follows the signal at once. Default: no grace, and no signal.
    ///
    /// Stopped and frozen processes are continued after the signal, as timeout(1) does.
    pub fn grace(&mut self, grace: Duration) -> &mut Self {
        self.policy.grace = Some(grace);
        self
    }

    /// Sets the signal that asks the tree to end, before a grace period. Default: SIGTERM. A number
    /// that is no signal fails the spawn.
    pub fn stop_signal(&mut self, signal: i32) -> &mut Self {
        self.policy.stop_signal = signal;
        self
    }

    /// Sends the stop signal to the main process alone, for servers that stop their workers
    /// themselves. Default: false, to the whole tree. The kill after the grace reaches all.
    pub fn stop_main_only(&mut self, main_only: bool) -> &mut Self {
        self.policy.stop_main_only = main_only;
        self
    }

    /// Sets how long leftovers may go on once the main process has ended, as long as one of them
    /// *works*: runs, waits for a disk, or has output that is still to be read. Such are about to
    /// end by themselves (a filter at the end of a pipe), and no leak if they do. Those that merely
    /// sleep get no time. Output is read meanwhile. Default: 100 ms; zero looks at none. Where
    /// `/proc` does not show them their CPU time tells, which takes some 20 ms.
    ///
    /// # Examples
    /// ```
    /// use tidy_process::Command;
    ///
    /// let mut command = Command::new("bash");
    /// let output = command.args(["-c", "exec > >(sed s/^/+/); echo hi"]).output()?;
    /// assert_eq!(output.stdout, b"+hi\n"); // sed ends after the shell
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    pub fn settle(&mut self, settle: Duration) -> &mut Self {
        self.policy.settle = settle;
        self
    }

    /// Sends leftovers the stop signal, and gives them the [`grace`](Self::grace), before they are
    /// killed. They are named all the same. Default: false, they are killed.
    pub fn stop_leftovers(&mut self, stop: bool) -> &mut Self {
        self.policy.stop_leftovers = stop;
        self
    }

    /// Names the tree; the name becomes part of its cgroup's.
    pub fn name(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.name = Some(name.as_ref().to_owned());
        self
    }

    /// Sets the supervisor that the tree lives in. Default: [`Supervisor::global`].
    pub fn supervisor(&mut self, supervisor: &Supervisor) -> &mut Self {
        self.supervisor = Some(supervisor.clone());
        self
    }

    /// Confines the command, all its processes with it, on every path of a spawn. Default: that of
    /// the supervisor ([`SupervisorBuilder::sandbox`](crate::SupervisorBuilder::sandbox)), else
    /// none. The report says how ([`Report::sandbox`](crate::Report::sandbox)).
    ///
    /// Closures of [`pre_exec`](Self::pre_exec) run before it, unconfined.
    #[cfg(feature = "sandbox")]
    pub fn sandbox(&mut self, sandbox: &Sandbox) -> &mut Self {
        self.sandbox = Some(sandbox.clone());
        self
    }

    /// With `true`, [`run`](Self::run), [`output`](Self::output) and
    /// [`wait_with_output`](crate::Child::wait_with_output) wait until the *whole tree* has ended
    /// by itself, or timed out. Default: they end with the main process.
    pub fn linger(&mut self, linger: bool) -> &mut Self {
        self.policy.linger = linger;
        self
    }

    /// Forks and joins instead of being born in the cgroup; for tests of that path.
    #[doc(hidden)]
    pub fn force_join(&mut self, force: bool) -> &mut Self {
        self.force_join = force;
        self
    }
}

/// What was set so far, by the methods of std's command.
impl Command {
    /// The program, as given to [`new`](Self::new).
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        &self.program.program
    }

    /// The arguments, without the program's name.
    pub fn get_args(&self) -> impl ExactSizeIterator<Item = &OsStr> {
        self.program.args.iter().map(OsString::as_os_str)
    }

    /// The variables that were set (a value) or removed (`None`), in the order of their names.
    pub fn get_envs(&self) -> impl ExactSizeIterator<Item = (&OsStr, Option<&OsStr>)> {
        self.program.env.iter().map(|(key, value)| (key.as_os_str(), value.as_deref()))
    }

    /// The child's working directory, if one was set.
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.program.cwd.as_deref()
    }
}

/// The program and its arguments, quoted.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.program.program)?;
        self.program.args.iter().try_for_each(|arg| write!(f, " {arg:?}"))
    }
}
