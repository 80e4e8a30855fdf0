//! Victims, and supervisors that come to a bad end: nothing of a sandbox is left.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::serial;
use tidy_process::{Command, Sandbox, Stdio, Supervisor};

use super::stage;
use crate::actor::{ROLE, actor};
use crate::support::{Alone, SOON, Stage, read_ready, until};
use crate::victim;
use crate::victims::{End, by_library, can_be_here};
use tidy_process::Placement;

/// What these do is refused in a sandbox: cgroups, another user, a tracer, a namespace.
pub(crate) const IMPOSSIBLE: [&str; 6] =
    ["nested-cgroups", "threaded-cgroup", "frozen", "nobody", "ptrace-stopped", "pid-namespace"];

fn with_victims() -> Sandbox {
    Sandbox::new().system().read_only(victim::exe())
}

fn play_victim(stage: &Stage, sandbox: &Sandbox, name: &str) -> Command {
    let mut command = stage.victim(name);
    command.sandbox(sandbox).current_dir("/");
    command
}

#[test]
#[serial]
fn every_victim_dies() {
    let Some(stage) = stage() else { return };
    let sandbox = with_victims();
    let possible = victim::names().iter().filter(|name| !IMPOSSIBLE.contains(name));
    for name in possible.filter(|name| can_be_here(name)) {
        for join in [false, true] {
            let placement = if join { Placement::Joined } else { Placement::Born };
            for end in [End::Finish, End::Drop, End::Panic] {
                eprintln!("{name}, {end:?}, joined: {join}");
                let mut command = play_victim(&stage, &sandbox, name);
                by_library(&stage, command.force_join(join), name, end, placement);
            }
        }
    }
    drop(sandbox);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn what_is_impossible_in_a_sandbox_is_refused() {
    let Some(stage) = stage() else { return };
    let sandbox = with_victims();
    for name in IMPOSSIBLE {
        let output = play_victim(&stage, &sandbox, name).output().unwrap();
        assert_eq!(output.status.code(), Some(99), "{name}: {}", super::text(&output));
    }
    drop(sandbox);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn main_killed_or_stopped_or_not_waited_for_leaves_nothing() {
    let Some(stage) = stage() else { return };
    let sandbox = with_victims();
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let mut child = play_victim(&stage, &sandbox, "daemon").spawn().unwrap();
        read_ready(child.stdout.take().unwrap());
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let report = child.finish().unwrap();
        assert_eq!(report.status.signal(), Some(libc::SIGKILL));
        drop(child);
        stage.assert_clean(signal.as_str());
    }
    // Detached: the supervisor's end is theirs.
    let supervisor = Supervisor::builder().build().unwrap();
    let mut command = play_victim(&stage, &sandbox, "daemon");
    let mut child = command.supervisor(&supervisor).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    child.detach();
    assert!(!stage.alive().is_empty());
    drop(command);
    supervisor.close().unwrap();
    stage.assert_clean("detached");
    drop((supervisor, sandbox));
    stage.close(Alone::Yes);
}

/// An actor with two sandboxes and two fences, in one of which the main process has ended already.
pub(crate) fn play() {
    let levels = [with_victims(), Sandbox::fence()];
    let spawn = |(sandbox, name): (&Sandbox, &str)| {
        let mut command = Command::new(victim::exe());
        command.sandbox(sandbox).current_dir("/").env_remove(ROLE).env("TIDY_VICTIM", name);
        let keep = std::env::var_os("TIDY_MARK").unwrap();
        let mut child = command.env("TIDY_MARK", keep).stdout(Stdio::piped()).spawn().unwrap();
        read_ready(child.stdout.take().unwrap());
        child
    };
    let both = |level| [(level, "daemon"), (level, "daemon-exit")];
    let _held: Vec<_> = levels.iter().flat_map(both).map(spawn).collect();
    nix::unistd::write(std::io::stdout(), b"ready\n").unwrap();
    std::thread::sleep(SOON * 2);
}

#[test]
#[serial]
fn a_supervisor_that_is_killed_leaves_neither_sandbox_nor_fence() {
    let Some(stage) = stage() else { return };
    let mut boss = actor(&stage, "sandbox-life").spawn().unwrap();
    read_ready(boss.stdout.take().unwrap());
    assert!(stage.alive().len() >= 7, "{:?}", stage.alive());
    boss.kill().unwrap();
    boss.wait().unwrap();
    let gone = || stage.alive().is_empty() && stage.cgroups() == 0;
    assert!(until(SOON, gone), "{:?} {}", stage.alive(), stage.cgroups());
    stage.close(Alone::Yes);
}
