//! Trees of a keeper with many processes, or with odd ones.

use std::fs;
use std::io::Read;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::serial;
use tidy_process::{Cause, Child, Stdio};

use crate::keeper::keeper;
use crate::kept::{in_time, stop};
use crate::support::{Alone, SOON, Stage, read_ready, until};

fn pids(child: &Child) -> Vec<Pid> {
    let found = child.tree().processes();
    found.iter().map(|process| Pid::from_raw(process.pid.cast_signed())).collect()
}

fn is_zombie(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") Z ")
}

/// More than a keeper reaps in one go, and no signal comes for the rest.
#[test]
#[serial]
fn all_that_die_at_once_are_reaped() {
    let Some(stage) = Stage::of_keepers() else { return };
    let script = "for i in $(seq 90); do (sleep 60 >&- &); done; echo; read x";
    let mut command = stage.sh(script);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    assert!(until(SOON, || pids(&child).len() == 91), "{}", pids(&child).len());
    let all = pids(&child);
    let keeper = keeper();
    stop(keeper);
    all.iter().for_each(|pid| kill(*pid, Signal::SIGKILL).unwrap());
    assert!(until(SOON, || all.iter().all(|pid| is_zombie(*pid))));
    kill(keeper, Signal::SIGCONT).unwrap();
    assert!(child.tree().wait_empty(SOON).unwrap(), "the tree does not end");
    child.finish().unwrap();
    drop((child, command));
    stage.close(Alone::Yes);
}

/// Clock ticks of CPU time: what proc(5) calls utime and stime.
fn ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

/// Also when processes have ended in its tree.
#[test]
#[serial]
fn a_keeper_of_an_idle_tree_is_idle() {
    let Some(stage) = Stage::of_keepers() else { return };
    let mut command = stage.sh("(setsid sh -c 'exit 3' &); echo; read x");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    assert!(until(SOON, || pids(&child).len() == 1));
    let before = ticks(keeper());
    // Long enough for a busy one to be seen.
    std::thread::sleep(Duration::from_millis(300));
    let used = ticks(keeper()) - before;
    assert!(used < 5, "{used} ticks");
    child.finish().unwrap();
    drop((child, command));
    stage.close(Alone::Yes);
}

/// It is spared at first, and nothing but time ends that.
#[test]
#[serial]
fn what_calls_itself_a_guard_is_killed_in_the_end() {
    let Some(stage) = Stage::of_keepers() else { return };
    let script = "setsid sh -c 'printf tidy-guard >/proc/$$/comm; echo; \
                  while :; do sleep 60; done' & read x";
    let mut command = stage.sh(script);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let report = in_time("finish", move || child.finish().unwrap());
    assert_eq!(report.cause, Cause::Stopped);
    drop(command);
    stage.close(Alone::Yes);
}

/// A process without its main thread is listed, a zombie is not.
#[test]
#[serial]
fn what_has_no_main_thread_lives_and_a_zombie_does_not() {
    let Some(stage) = Stage::of_keepers() else { return };
    let mut child = stage.victim("dead-leader").spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    let main = Pid::from_raw(child.id().cast_signed());
    assert!(is_zombie(main));
    assert_eq!(pids(&child), [main]);
    child.finish().unwrap();
    drop(child);
    let child = stage.sh("sh -c 'exit 3' & exec sleep 60").spawn().unwrap();
    let main = Pid::from_raw(child.id().cast_signed());
    let children = || fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
    let zombie = || children().trim().parse().is_ok_and(|pid| is_zombie(Pid::from_raw(pid)));
    assert!(until(SOON, zombie));
    assert_eq!(pids(&child), [main]);
    child.finish().unwrap();
    drop(child);
    stage.close(Alone::Yes);
}
