//! A tree alone: others spawn into it.

use std::process::Command as StdCommand;
use std::time::{Duration, Instant};

use serial_test::parallel;
use tidy_process::{Limits, ProcessInfo, Tree};

use crate::support::{Alone, SOON, Stage, read_ready, until};

#[test]
#[parallel]
fn a_command_of_stds_starts_in_the_tree() {
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, Some("enrolled")).unwrap();
    assert!(tree.path().unwrap().ends_with("0-enrolled"));
    let mut command = StdCommand::new("sh");
    tree.enroll(command.args(["-c", "sleep 20 & exit 6"])).unwrap();
    assert_eq!(command.status().unwrap().code(), Some(6));
    assert_eq!(command.status().unwrap().code(), Some(6));
    assert_eq!(tree.processes().len(), 2);
    let report = tree.finish().unwrap();
    assert_eq!(report.leftovers.len(), 2);
    assert!(command.status().is_err(), "the tree is gone, so nothing may start");
    stage.close(Alone::No);
}

/// A shell is in state D for as long as a program that it starts takes to be executed.
#[test]
#[parallel]
fn a_parent_in_vfork_is_listed_with_its_command_line() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let mut child = stage.victim("vfork-parent").spawn().unwrap();
        read_ready(child.stdout.take().unwrap());
        // One that is still on its way into the wait has no wchan: what it waits for is not known.
        let waits = |process: &ProcessInfo| process.state == 'D' && process.wchan.is_some();
        let suspended = || child.tree().processes().into_iter().find(waits);
        assert!(until(SOON, || suspended().is_some()));
        let parent = suspended().unwrap();
        assert!(!parent.command.is_empty() && parent.gaps.is_empty(), "{parent:?}");
        drop(child);
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn a_running_process_can_be_added() {
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    let mut child = StdCommand::new("sleep").arg("20").spawn().unwrap();
    tree.add(child.id()).unwrap();
    assert_eq!(tree.processes()[0].pid, child.id());
    assert_eq!(tree.signal(0).unwrap(), 1);
    drop(tree);
    assert!(!child.wait().unwrap().success());
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    let error = tree.add(child.id()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    drop(tree);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_frozen_tree_stands_still_until_it_is_thawed() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.sh("exec sleep 0.05").spawn().unwrap();
    assert!(child.tree().freeze().unwrap());
    assert_eq!(child.wait_timeout(Duration::from_millis(200)).unwrap(), None);
    child.tree().thaw().unwrap();
    assert!(child.wait_timeout(SOON).unwrap().unwrap().success());
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn waiting_for_an_empty_tree_ends_with_its_last_process() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.sh("sleep 0.2 & true").spawn().unwrap();
    child.wait().unwrap();
    assert!(!child.tree().wait_empty(Instant::now()).unwrap());
    assert!(child.tree().wait_empty(Instant::now() + SOON).unwrap());
    assert_eq!(child.finish().unwrap().leftovers, []);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_tree_can_be_killed_and_still_be_there() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.sh("sleep 20 & sleep 20").spawn().unwrap();
    child.tree().kill().unwrap();
    assert_eq!(child.tree().processes(), []);
    assert!(child.tree().path().unwrap().exists());
    drop(child);
    stage.close(Alone::No);
}

/// A child born into a cgroup that was killed once is SIGKILLed at birth on kernels before
/// 6.12.115: it must be started the other way.
#[test]
#[parallel]
fn a_tree_that_was_killed_can_still_be_used() {
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    // The write itself is what counts, and an empty tree needs none.
    std::fs::write(tree.path().unwrap().join("cgroup.kill"), "1").unwrap();
    let mut command = StdCommand::new("true");
    tree.enroll(&mut command).unwrap();
    assert!(command.status().unwrap().success());
    drop(tree);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_finished_tree_keeps_its_report_and_is_gone() {
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::limited(&stage.supervisor, None, &Limits::new()).unwrap();
    let mut command = StdCommand::new("sh");
    tree.enroll(command.args(["-c", "sleep 20 & exit 3"])).unwrap();
    assert_eq!(command.status().unwrap().code(), Some(3));
    let first = tree.finish().unwrap();
    assert!(!tree.path().unwrap().exists());
    stage.assert_clean("when it is finished");
    let again = tree.finish().unwrap();
    assert_eq!((again.wall, &again.leftovers), (first.wall, &first.leftovers));
    assert_eq!((first.leftovers.len(), tree.usage()), (1, first.usage));
    assert_eq!((tree.processes(), tree.signal(0).unwrap()), (Vec::new(), 0));
    tree.kill().unwrap();
    assert!(tree.wait_empty(SOON).unwrap() && tree.enroll(&mut command).is_err());
    // A directory of the same name is not its own any more.
    let path = tree.path().unwrap().to_owned();
    std::fs::create_dir(&path).unwrap();
    drop(tree);
    std::fs::remove_dir(path).unwrap();
    stage.close(Alone::No);
}

/// The kernel lets a lone thread change its cgroup without the lock that makes a join slow, but not
/// into another tree: so a command of std's has to wait for that lock.
#[test]
#[parallel]
fn a_thread_joins_no_tree_alone() {
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    let threads = tree.path().unwrap().join("cgroup.threads");
    let error = std::fs::write(threads, std::process::id().to_string()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EOPNOTSUPP as i32));
    drop(tree);
    stage.close(Alone::No);
}
