//! Fails tests that leave processes behind, and names those.

use std::panic::Location;
use std::process::Command as StdCommand;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cgroup::{leftovers, teardown};
use crate::command::Command;
use crate::error::Result;
use crate::proc::info::{ProcessInfo, Survey};
use crate::supervisor::Supervisor;
use crate::tree::Tree;

/// A process that ends by itself within this time counts as ended.
const EXIT_TIME: Duration = Duration::from_millis(50);

/// Fails the test that holds it if something that was started with it is left.
///
/// Make it first, so that it is dropped last. What counts: processes that live when it is dropped,
/// and leftovers of its [`command`](Self::command)s, though those were killed when the command had
/// ended. The tree of a [`Child`](crate::Child) that is dropped or finished *while its main process
/// runs* does not count: it was stopped.
///
/// # Cleanup
/// Dropping it kills what is left, then panics with the names, unless the thread is panicking
/// already. [`check`](Self::check) returns the names instead.
///
/// # Examples
/// ```should_panic
/// fn starts_the_service() -> Result<(), Box<dyn std::error::Error>> {
///     let tidy = tidy_process::NoLeaks::new()?;
///     let mut command = std::process::Command::new("sh");
///     tidy.enroll(command.args(["-c", "sleep 60 &"]))?;
///     assert!(command.status()?.success());
///     Ok(()) // panics: left behind: 4711 sleep 60 (parent 1, ...)
/// }
/// # starts_the_service().unwrap();
/// ```
#[derive(Debug)]
pub struct NoLeaks {
    supervisor: Supervisor,
    trees: Mutex<Vec<Tree>>,
    made: &'static Location<'static>,
    checked: bool,
}

impl NoLeaks {
    /// A leak check with a supervisor of its own.
    ///
    /// # Errors
    /// No cgroup can be made here; see [`Error::hint`](crate::Error::hint).
    #[track_caller]
    pub fn new() -> Result<Self> {
        let made = Location::caller();
        let supervisor = Supervisor::builder().remember().build()?;
        Ok(Self { supervisor, trees: Mutex::default(), made, checked: false })
    }

    /// The supervisor of all that it watches: for [`Command::supervisor`] and [`Tree::within`].
    #[must_use]
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// A command that it watches.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.supervisor(&self.supervisor);
        command
    }

    /// Makes it watch a command of std's, and with that any library that builds on one.
    ///
    /// # Errors
    /// As for [`Tree::within`] and [`Tree::enroll`].
    pub fn enroll(&self, command: &mut StdCommand) -> Result<()> {
        let tree = Tree::within(&self.supervisor, None)?;
        tree.enroll(command)?;
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).push(tree);
        Ok(())
    }

    /// Kills what is left, and returns what that was, the first 100; does not panic.
    ///
    /// # Errors
    /// A process outlived SIGKILL for 10 s.
    pub fn check(mut self) -> Result<Vec<ProcessInfo>> {
        self.checked = true;
        self.kill_leftovers().map(|left| left.named)
    }

    fn kill_leftovers(&self) -> Result<Survey> {
        let mut left = self.supervisor.remembered();
        // With keepers there is no run root to look into.
        let Ok(ground) = self.supervisor.ground("leftovers") else { return Ok(left) };
        let root = &ground.cgroup;
        // The kill meets the same error and reports it.
        if !root.wait_empty(Some(Instant::now() + EXIT_TIME)).unwrap_or(false) {
            let mut found = leftovers::leftovers(root).unwrap_or_default();
            found.retain(|process| !ground.is_init(process.pid.cast_signed()));
            left.extend(&found);
            let reap = || ground.reap_mains();
            teardown::kill_until_empty(root, teardown::TEARDOWN_PATIENCE, &reap)?;
        }
        Ok(left)
    }
}

impl Drop for NoLeaks {
    fn drop(&mut self) {
        if self.checked {
            return;
        }
        let left = self.kill_leftovers();
        if thread::panicking() {
            return;
        }
        let what = match &left {
            Ok(left) => described(left),
            Err(error) => error.to_string(),
        };
        assert!(what.is_empty(), "left behind by what started at {}:\n  {what}", self.made);
    }
}

/// One line for each process.
fn described(left: &Survey) -> String {
    let mut lines: Vec<String> = left.named.iter().map(ProcessInfo::in_full).collect();
    if left.count > lines.len() {
        lines.push(format!("and {} more", left.count - lines.len()));
    }
    lines.join("\n  ")
}
