//! A cgroup that is frozen when a child is born in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Cause, Placement, Stdio, Supervisor, Tree};

use crate::kept::in_time;
use crate::support::{Alone, SOON, Stage, until};

fn freeze(path: &Path) {
    fs::write(path.join("cgroup.freeze"), "1").unwrap();
    assert!(until(SOON, || is_frozen(path)));
}

fn is_frozen(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.events")).unwrap().contains("frozen 1")
}

/// Both ways into a cgroup.
const PATHS: [(bool, Placement); 2] = [(false, Placement::Born), (true, Placement::Joined)];

#[test]
#[serial]
fn a_command_that_freezes_the_run_root_keeps_no_other_from_starting() {
    let Some(stage) = Stage::set() else { return };
    let root = stage.supervisor.path().unwrap().to_owned();
    for (joined, placement) in PATHS {
        let script = format!("echo 1 >'{}/cgroup.freeze'; exec sleep 30", root.display());
        let hostile = stage.sh(&script).spawn().unwrap();
        assert!(until(SOON, || is_frozen(&root)));
        let mut command = stage.command("true");
        command.force_join(joined);
        let report = in_time("run in a frozen run root", move || command.run().unwrap());
        assert_eq!((report.cause, report.placement), (Cause::Exited, placement));
        assert!(report.status.success(), "{report:?}");
        hostile.finish().unwrap();
    }
    stage.close(Alone::Yes);
}

/// A freezer in another tree starts again at once, and so does one that nobody can freeze.
#[test]
#[serial]
fn nor_does_one_that_freezes_it_again_and_again() {
    let Some(stage) = Stage::set() else { return };
    let root = stage.supervisor.path().unwrap().display().to_string();
    let script = format!("while :; do echo 1 >'{root}/cgroup.freeze'; done");
    let inside = stage.sh(&script).spawn().unwrap();
    // From outside the run root, and slower: nothing else lets a child run at all.
    let mut outside = std::process::Command::new("sh");
    let slow = format!("while echo 1 >'{root}/cgroup.freeze'; do sleep 0.01; done 2>/dev/null");
    stage.mark_std(outside.args(["-c", &slow]));
    let mut outside = outside.spawn().unwrap();
    for (joined, _) in PATHS {
        for _ in 0..3 {
            let mut command = stage.command("sleep");
            command.arg("30").force_join(joined);
            let child = in_time("spawn", move || command.spawn().unwrap());
            child.finish().unwrap();
        }
    }
    outside.kill().unwrap();
    outside.wait().unwrap();
    inside.finish().unwrap();
    drop(inside);
    assert!(until(SOON, || stage.alive().is_empty()), "{:?}", stage.alive());
    stage.close(Alone::Yes);
}

/// A directory of ours in which another supervisor has its run root.
fn base(stage: &Stage) -> (PathBuf, Supervisor) {
    let base = stage.supervisor.path().unwrap().join("base");
    fs::create_dir(&base).unwrap();
    let supervisor = Supervisor::builder().base(&base).build().unwrap();
    (base, supervisor)
}

fn thaw_and_remove(base: &Path) {
    fs::write(base.join("cgroup.freeze"), "0").unwrap();
    assert!(until(SOON, || fs::remove_dir(base).is_ok()), "it has members");
}

#[test]
#[serial]
fn a_frozen_ancestor_that_is_not_ours_is_named() {
    let Some(stage) = Stage::set() else { return };
    let (base, supervisor) = base(&stage);
    freeze(&base);
    for (joined, _) in PATHS {
        let mut command = stage.command("true");
        command.supervisor(&supervisor).force_join(joined).timeout(Duration::from_millis(100));
        let error = in_time("spawn", move || command.spawn().unwrap_err());
        let said = error.to_string();
        assert!(said.contains("exec \"true\": not executed after "), "{said}");
        assert!(said.contains(&format!("{:?} is frozen", base.display().to_string())), "{said}");
        assert!(error.is_timed_out() && error.hint().unwrap().contains("cgroup.freeze"), "{said}");
        assert_eq!(
            fs::read_dir(supervisor.path().unwrap()).unwrap().flatten().filter(is_dir).count(),
            0
        );
    }
    // Without a timeout it takes longer, but not for ever.
    let mut command = stage.command("true");
    command.supervisor(&supervisor);
    let start = Instant::now();
    let error = in_time("spawn", move || command.spawn().unwrap_err());
    assert!(start.elapsed() > Duration::from_secs(5) && !error.is_timed_out(), "{error}");
    drop(supervisor);
    thaw_and_remove(&base);
    stage.close(Alone::Yes);
}

fn is_dir(entry: &fs::DirEntry) -> bool {
    entry.path().is_dir()
}

/// The command's own clock goes on, but a child that is let go in time is no error.
#[test]
#[serial]
fn an_ancestor_that_is_thawed_in_time_is_no_error() {
    let Some(stage) = Stage::set() else { return };
    let (base, supervisor) = base(&stage);
    for (joined, _) in PATHS {
        freeze(&base);
        let mut command = stage.command("true");
        command.supervisor(&supervisor).force_join(joined).stdin(Stdio::null());
        let running = std::thread::spawn(move || command.run().unwrap());
        // Long enough to be looked after more than once.
        std::thread::sleep(Duration::from_millis(300));
        assert!(!running.is_finished());
        fs::write(base.join("cgroup.freeze"), "0").unwrap();
        assert!(in_time("run", move || running.join().unwrap()).status.success());
    }
    drop(supervisor);
    thaw_and_remove(&base);
    stage.close(Alone::Yes);
}

/// std waits for its exec, and no other process can help it: the kernel has to end it.
#[test]
#[serial]
fn an_enrolled_child_that_is_born_frozen_is_killed_in_time() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    let enrolled = |program: &str| {
        let mut command = Command::new(program);
        stage.mark_std(&mut command);
        tree.enroll(command.arg("60")).unwrap();
        command
    };
    let mut executed = enrolled("sleep").spawn().unwrap();
    tree.freeze().unwrap();
    let mut command = enrolled("sleep");
    let start = Instant::now();
    let mut child = in_time("spawn", move || command.spawn().unwrap());
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(start.elapsed() > Duration::from_secs(5), "after {:?}", start.elapsed());
    // By now its own time would be over.
    tree.thaw().unwrap();
    assert_eq!(executed.try_wait().unwrap(), None);
    tree.finish().unwrap();
    executed.wait().unwrap();
    drop(tree);
    stage.close(Alone::Yes);
}
