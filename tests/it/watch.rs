//! Watching oneself: the caller in a cgroup of its own.

use std::fs;
use std::process::Command as StdCommand;

use serial_test::serial;

use crate::support::{Alone, SOON, Stage};

fn home() -> String {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    text.lines().find(|line| line.starts_with("0::")).unwrap().to_owned()
}

/// A daemon, and one of the same name that its parent waits for.
#[test]
#[serial]
fn what_this_process_starts_by_whatever_means_is_seen_sorted_and_ended() {
    let Some(stage) = Stage::set() else { return };
    let before = home();
    let watch = stage.supervisor.watch().unwrap();
    assert_ne!(home(), before);
    assert!(watch.others().unwrap().is_empty());
    let mut shell = StdCommand::new("sh");
    stage.mark_std(shell.args(["-c", "setsid -f sleep 60; sleep 60 & echo up; exec sleep 60"]));
    let mut child = shell.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let others = watch.others().unwrap();
    assert!(others.len() >= 3 && others.contains(&child.id()), "{others:?}");
    let tree = stage.supervisor.tree("left").unwrap();
    assert!(watch.sort_into(&tree).unwrap() >= 3);
    assert!(watch.others().unwrap().is_empty());
    let report = tree.finish().unwrap();
    assert!(report.leftovers.iter().any(|process| process.pid == child.id()), "{report}");
    child.wait().unwrap();
    assert!(stage.alive().is_empty());
    drop((watch, tree, child));
    assert_eq!(home(), before);
    stage.close(Alone::Yes);
}

/// What forks faster than a list is read is followed.
#[test]
#[serial]
fn a_chain_of_forks_is_sorted_out_too() {
    let Some(stage) = Stage::set() else { return };
    let watch = stage.supervisor.watch().unwrap();
    let mut shell = StdCommand::new("sh");
    // Each is gone when it is listed, and has a successor; some thousand, then it ends by itself.
    let script = "f() { [ $1 = 0 ] || { f $(($1 - 1)) & }; }; f 3000";
    let mut child = stage_command(&stage, shell.args(["-c", script]));
    let tree = stage.supervisor.tree("left").unwrap();
    watch.sort_into(&tree).unwrap();
    tree.kill().unwrap();
    assert!(watch.others().unwrap().is_empty());
    child.wait().unwrap();
    tree.finish().unwrap();
    drop((watch, tree));
    stage.close(Alone::Yes);
}

fn stage_command(stage: &Stage, command: &mut StdCommand) -> std::process::Child {
    stage.mark_std(command);
    command.spawn().unwrap()
}

/// Without the check this test's own process would be killed.
#[test]
#[serial]
fn a_supervisor_does_not_kill_the_cgroup_that_its_owner_is_in() {
    let Some(stage) = Stage::set() else { return };
    let watch = stage.supervisor.watch().unwrap();
    let error = stage.supervisor.close().unwrap_err();
    assert!(error.to_string().contains("this process is in it"), "{error}");
    assert!(stage.sh("true").run().unwrap().success(), "it is not closed");
    drop(watch);
    stage.supervisor.close().unwrap();
    drop(stage);
}

#[test]
#[serial]
fn what_is_left_in_it_ends_with_it() {
    let Some(stage) = Stage::set() else { return };
    let watch = stage.supervisor.watch().unwrap();
    let mut child = stage_command(&stage, StdCommand::new("sleep").arg("60"));
    assert_eq!(watch.others().unwrap(), [child.id()]);
    drop(watch);
    let begun = std::time::Instant::now();
    assert!(!child.wait().unwrap().success());
    assert!(begun.elapsed() < SOON);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_keeper_watches_nothing() {
    let Some(stage) = Stage::of_keepers() else { return };
    assert!(stage.supervisor.watch().unwrap_err().is_unsupported());
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn more_than_one_read_of_processes_is_seen() {
    let Some(stage) = Stage::set() else { return };
    let watch = stage.supervisor.watch().unwrap();
    let mut shell = StdCommand::new("sh");
    let script = "for i in $(seq 900); do sleep 60 & done; echo up; exec sleep 60";
    stage.mark_std(shell.args(["-c", script]).stdout(std::process::Stdio::piped()));
    let mut child = shell.spawn().unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    assert!(watch.others().unwrap().len() > 900);
    let tree = stage.supervisor.tree("left").unwrap();
    watch.sort_into(&tree).unwrap();
    tree.finish().unwrap();
    child.wait().unwrap();
    drop((watch, tree, child));
    stage.close(Alone::Yes);
}
