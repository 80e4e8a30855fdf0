//! The stage of a test: a supervisor of its own, a mark on all that it starts, and a check at the
//! end.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tidy_process::{Command, Containment, Stdio, Supervisor};

pub(crate) use crate::skipped::{lacks, skip};
use crate::victim;

/// Every process of a test has this in its environment, and so have its descendants.
const MARK: &str = "TIDY_MARK";

/// Long enough for anything that is to happen at once, on a loaded machine too.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    pub(crate) supervisor: Supervisor,
    root: PathBuf,
    mark: String,
    fds: BTreeSet<(i32, String)>,
}

impl Stage {
    /// None where no cgroups can be made, if that may be: see `skip`.
    pub(crate) fn set() -> Option<Self> {
        Self::with(Containment::Cgroup)
    }

    /// The same without cgroups.
    pub(crate) fn of_keepers() -> Option<Self> {
        Self::with(Containment::Keeper)
    }

    fn with(containment: Containment) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let fds = fds();
        match Supervisor::builder().containment(containment).build() {
            Ok(supervisor) => {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let root = root_of(&supervisor).to_owned();
                let mark = format!("{}-{number}-{}", std::process::id(), root.display());
                Some(Self { supervisor, root, mark, fds })
            }
            Err(error) => {
                skip(&format!("{error}; {}", error.hint().unwrap_or("there is no hint")));
                None
            }
        }
    }

    /// A command that carries the mark and lives in this stage's supervisor.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.supervisor(&self.supervisor).env(MARK, &self.mark);
        command
    }

    pub(crate) fn sh(&self, script: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-c", script]);
        command
    }

    pub(crate) fn victim(&self, name: &str) -> Command {
        let mut command = self.command(victim::exe().to_str().unwrap());
        command.env("TIDY_VICTIM", name).stdout(Stdio::piped());
        command
    }

    /// The mark and the base, for what is not started by the library.
    pub(crate) fn mark_std(&self, command: &mut std::process::Command) {
        command.env(MARK, &self.mark).env("TIDY_PROCESS_PARENT", &self.root);
    }

    #[cfg(feature = "cli")]
    /// The command line tool, with the mark, below this stage's run root.
    pub(crate) fn tool(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(tool());
        self.mark_std(command.args(args));
        command
    }

    /// The processes of this test that are alive now, zombies excepted.
    pub(crate) fn alive(&self) -> Vec<i32> {
        marked(&self.mark)
    }

    /// Directories below the run root.
    pub(crate) fn cgroups(&self) -> usize {
        let entries = fs::read_dir(&self.root).map(Iterator::flatten);
        entries.map_or(0, |all| all.filter(|entry| entry.path().is_dir()).count())
    }

    /// Nothing of this test is left: no process, no directory.
    pub(crate) fn assert_clean(&self, when: &str) {
        let alive = self.alive();
        assert!(alive.is_empty(), "{when}: still alive: {alive:?}");
        assert_eq!(self.cgroups(), 0, "{when}: cgroups are left in {:?}", self.root);
    }

    /// The check that ends every test. Only a test that runs alone may look at the fds of the
    /// process.
    pub(crate) fn close(self, alone: Alone) {
        self.assert_clean("at the end");
        let Self { supervisor, root, fds: before, .. } = self;
        drop(supervisor);
        assert!(!root.exists(), "the run root is left: {root:?}");
        if alone == Alone::Yes {
            let after = fds();
            let new: Vec<_> = after.difference(&before).collect();
            assert!(new.is_empty(), "fds are left open: {new:?}");
        }
    }
}

/// The run root; an empty path where trees have keepers.
pub(crate) fn root_of(supervisor: &Supervisor) -> &Path {
    supervisor.path().unwrap_or(Path::new(""))
}

/// Whether other tests run in this process at the same time.
#[derive(PartialEq, Eq)]
pub(crate) enum Alone {
    Yes,
    No,
}

#[cfg(feature = "cli")]
pub(crate) const fn tool() -> &'static str {
    env!("CARGO_BIN_EXE_tidy-process")
}

/// In `examples/` beside our own `deps/`. `cargo test` builds it; `cargo test --test it` does not,
/// and would run what an earlier build left there.
pub(crate) fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let path = this.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{path:?} is missing: run cargo build --example {name}");
    path
}

/// How often a race is tried: a moment at the desk, minutes with `TIDY_LONG=1`, a quarter of that
/// with `TIDY_LONG=0.25`.
pub(crate) fn rounds(short: u32, long: u32) -> u32 {
    let Some(share) = std::env::var_os("TIDY_LONG") else { return short };
    let share = share.to_str().and_then(|share| share.parse().ok());
    let share: f64 = share.expect("TIDY_LONG is a number");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand")]
    let share = (f64::from(long) * share) as u32;
    share.max(short)
}

/// How many threads of recordings this process has.
pub(crate) fn recorders() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| ["tidy-process-re\n", "tidy-process-se\n"].contains(&&**name)).count()
}

/// This time on a machine of today; on an emulated one as many times more as it is slower, which
/// the fastest of some plain spawns tells once: one that takes less than 10 ms is of today, also
/// on a busy machine.
pub(crate) fn paced(time: Duration) -> Duration {
    static FACTOR: LazyLock<f64> = LazyLock::new(|| {
        let plain = |_| {
            let start = Instant::now();
            std::process::Command::new("true").status().unwrap();
            start.elapsed()
        };
        let fastest = (0..5).map(plain).min().unwrap();
        (fastest.as_secs_f64() / 0.01).max(1.0)
    });
    time.mul_f64(*FACTOR)
}

fn fds() -> BTreeSet<(i32, String)> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let each = entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?.display().to_string();
        let number = entry.file_name().to_str()?.parse().ok()?;
        (!target.contains("/fd")).then_some((number, target))
    });
    each.collect()
}

/// Pids whose environment has the mark. A zombie's environment is empty.
pub(crate) fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}\0");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| has_mark(*pid, wanted.as_bytes())).collect()
}

/// A process whose main thread has exited shows its environment through another thread only.
fn has_mark(pid: i32, wanted: &[u8]) -> bool {
    let found = |path: PathBuf| {
        let environ = fs::read(path).unwrap_or_default();
        environ.windows(wanted.len()).any(|window| window == wanted)
    };
    if found(format!("/proc/{pid}/environ").into()) {
        return true;
    }
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| task.path().join("environ")).any(found)
}

/// Waits for the line `ready` on a pipe; panics after a while.
pub(crate) fn read_ready(mut pipe: impl Read + AsFd) {
    let deadline = Instant::now() + SOON;
    let mut seen = Vec::new();
    while !seen.ends_with(b"ready\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap();
        let news = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout);
        assert_ne!(news.unwrap(), 0, "not ready in time; said {seen:?}");
        let mut byte = [0];
        let count = pipe.read(&mut byte).unwrap();
        assert_eq!(
            count,
            1,
            "ended before it was ready; said {:?}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&byte);
    }
}

/// Whether it becomes true in that time. For what nothing announces.
pub(crate) fn until(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
