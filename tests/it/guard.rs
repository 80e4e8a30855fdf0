//! The supervisor itself comes to a bad end. Nothing may be left, a second later, whoever did it.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child as StdChild, Command as StdCommand};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serial_test::serial;
use tidy_process::Supervisor;

use crate::actor::actor;
use crate::support::{Alone, Stage, paced, read_ready, rounds};

/// The promise.
const SECOND: Duration = Duration::from_secs(1);

fn pid(child: &StdChild) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn gone(stage: &Stage, what: &str) -> Duration {
    let took = directories_gone(stage, what);
    // A child that was forked and had not joined yet ends by itself, since its cgroup is gone.
    let start = Instant::now();
    while !stage.alive().is_empty() {
        assert!(start.elapsed() < paced(SECOND), "{what}: {:?}", stage.alive());
        std::thread::sleep(Duration::from_micros(200));
    }
    stage.assert_clean(what);
    took
}

/// How long until no directory is left.
fn directories_gone(stage: &Stage, what: &str) -> Duration {
    let start = Instant::now();
    while stage.cgroups() > 0 {
        let took = start.elapsed();
        assert!(took < paced(SECOND), "{what}: {:?}", stage.alive());
        // Only the directory's going says that the guard is done, and nothing announces that.
        std::thread::sleep(Duration::from_micros(200));
    }
    start.elapsed()
}

/// A standing supervisor ends in this way.
fn ends(role: &str, end: impl Fn(&StdChild)) {
    let Some(stage) = Stage::set() else { return };
    let mut actor = actor(&stage, role);
    actor.process_group(0);
    for round in 0..rounds(5, 100) {
        let mut child = actor.spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        read_ready(&mut pipe);
        end(&child);
        child.wait().unwrap();
        let what = format!("{role}, round {round}");
        directories_gone(&stage, &what);
        // A fork of the actor is in no tree, and ends by itself; then the pipe does.
        pipe.read_to_end(&mut Vec::new()).unwrap();
        stage.assert_clean(&what);
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn nothing_survives_a_supervisor_that_is_killed() {
    ends("idle", |child| kill(pid(child), Signal::SIGKILL).unwrap());
}

#[test]
#[serial]
fn nothing_survives_a_supervisor_that_crashes() {
    ends("idle", |child| kill(pid(child), Signal::SIGSEGV).unwrap());
    ends("abort", |_| ());
}

#[test]
#[serial]
fn nothing_survives_when_the_whole_process_group_is_killed() {
    ends("idle", |child| killpg(pid(child), Signal::SIGKILL).unwrap());
}

#[test]
#[serial]
fn nothing_survives_when_the_terminal_closes() {
    ends("idle", |child| killpg(pid(child), Signal::SIGHUP).unwrap());
}

#[test]
#[serial]
fn nothing_survives_exit_and_panic() {
    ends("exit", |_| ());
    ends("panic", |_| ());
}

#[test]
#[serial]
fn a_fork_that_lives_on_does_not_keep_the_guard_waiting() {
    ends("fork", |child| kill(pid(child), Signal::SIGKILL).unwrap());
}

#[test]
#[serial]
fn the_guard_outlives_the_thread_that_started_it() {
    let Some(stage) = Stage::set() else { return };
    let mut child = actor(&stage, "thread").spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    // A guard that took the thread for its owner would have done its work by then.
    std::thread::sleep(Duration::from_millis(100));
    assert!(stage.alive().len() > 3, "{:?}", stage.alive());
    child.kill().unwrap();
    child.wait().unwrap();
    gone(&stage, "thread");
    stage.close(Alone::Yes);
}

/// SIGKILL at a random moment: before, during and after spawns, waits and teardowns.
#[test]
#[serial]
fn a_supervisor_killed_at_any_moment_leaves_nothing() {
    let Some(stage) = Stage::set() else { return };
    let mut actor = actor(&stage, "busy");
    killed_at_any_moment(&mut actor, |what| gone(&stage, what));
    stage.close(Alone::Yes);
}

/// Keepers are met with it too.
pub(crate) fn killed_at_any_moment(actor: &mut StdCommand, gone: impl Fn(&str) -> Duration) {
    let mut times = Vec::new();
    for round in 0..rounds(50, 1000) {
        let mut child = actor.spawn().unwrap();
        // Anywhere in the first moments of its life, its start included: a stride that meets all of
        // them.
        let moment = u64::from(round) * 7919 % 60_000;
        std::thread::sleep(Duration::from_micros(moment));
        child.kill().unwrap();
        child.wait().unwrap();
        times.push(gone(&format!("round {round}, killed after {moment} us")));
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{} rounds: median {median:?} to empty, worst {worst:?}", times.len());
    assert!(median < paced(Duration::from_millis(150)), "median {median:?}");
}

/// The guard is killed with its owner: the next supervisor under the same base cleans up.
#[test]
#[serial]
fn the_next_supervisor_cleans_up_where_the_guard_was_killed_too() {
    let Some(stage) = Stage::set() else { return };
    let mut actor = actor(&stage, "idle");
    for round in 0..rounds(5, 100) {
        let mut child = actor.spawn().unwrap();
        read_ready(child.stdout.take().unwrap());
        kill(guard_of(&child), Signal::SIGKILL).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(stage.cgroups(), 1, "round {round}: somebody else has cleaned up");
        assert!(!stage.alive().is_empty());
        let next = Supervisor::builder().base(stage.supervisor.path().unwrap()).build().unwrap();
        assert_eq!(stage.cgroups(), 1, "round {round}: only the new run root may be there");
        assert!(stage.alive().is_empty());
        drop(next);
    }
    stage.close(Alone::Yes);
}

/// The child of the actor that is in a session of its own.
pub(crate) fn guard_of(owner: &StdChild) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", owner.id());
    let children = std::fs::read_to_string(children).unwrap();
    let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    let exe = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let is_guard = |pid: &i32| exe(pid).to_str() == Some("/memfd:tidy-guard (deleted)");
    let found = pids.clone().find(is_guard);
    Pid::from_raw(
        found.unwrap_or_else(|| panic!("{:?}", pids.map(|pid| exe(&pid)).collect::<Vec<_>>())),
    )
}

#[test]
#[serial]
fn a_guard_holds_nothing_of_its_owner_and_hears_no_terminal() {
    let Some(stage) = Stage::set() else { return };
    // SAFETY of the test: variables and fds of ours that a guard must not inherit.
    let held = std::fs::File::open("/etc/passwd").unwrap();
    nix::fcntl::fcntl(&held, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut child = actor(&stage, "idle").spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    let guard = guard_of(&child);
    let proc = |name: &str| format!("/proc/{guard}/{name}");
    let read = |name: &str| std::fs::read_to_string(proc(name)).unwrap();
    assert_eq!(read("environ"), "");
    assert_eq!(std::fs::read_link(proc("cwd")).unwrap().to_str(), Some("/"));
    assert_eq!(nix::unistd::getsid(Some(guard)).unwrap(), guard);
    let fds = std::fs::read_dir(proc("fd")).unwrap().flatten();
    let targets: Vec<_> =
        fds.map(|fd| std::fs::read_link(fd.path()).unwrap().display().to_string()).collect();
    // The line, the base, the owner's pidfd, and three of the run root.
    let root =
        format!("{}/tidy-process-{}-", stage.supervisor.path().unwrap().display(), child.id());
    let is_its_own = |to: &&String| {
        let is_base = Some(to.as_str()) == stage.supervisor.path().unwrap().to_str();
        to.starts_with("socket:") || to.contains("pidfd") || is_base || to.starts_with(&root)
    };
    assert_eq!(targets.iter().filter(is_its_own).count(), 6, "{targets:?}");
    assert_eq!(targets.len(), 6, "{targets:?}");
    for signal in
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGTSTP, Signal::SIGQUIT, Signal::SIGUSR1]
    {
        kill(guard, signal).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    gone(&stage, "after signals to the guard");
    stage.close(Alone::No);
}

#[test]
#[serial]
fn who_wants_no_guard_gets_none_and_can_see_it() {
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap();
    let with = Supervisor::builder().base(base).build().unwrap();
    let without = Supervisor::builder().base(base).guard(false).build().unwrap();
    assert!(with.is_guarded() && !without.is_guarded());
    drop((with, without));
    stage.close(Alone::Yes);
}

/// A distroless container has none.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn no_shell_is_needed() {
    let Some(stage) = Stage::set() else { return };
    let script = "mount --bind /dev/null \"$(readlink -f /bin/sh)\" && exec \"$T\" run true";
    let mut command = StdCommand::new("unshare");
    command.args(["-m", "--propagation", "private", "bash", "-c", script]);
    stage.mark_std(command.env("T", crate::support::tool()));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    stage.close(Alone::Yes);
}
