//! `stop`, `freeze` and `thaw` of trees by their name; `kill` and the choice of trees are in
//! `bytes` and `sweep` too.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use serial_test::{parallel, serial};
use tidy_process::{Child, Supervisor};

use crate::support::{Alone, SOON, Stage, read_ready, until};

fn tool(stage: &Stage, args: &[&str]) -> Output {
    stage.tool(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeeds(stage: &Stage, args: &[&str]) {
    let output = tool(stage, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said(&output));
    assert_eq!((output.stdout, output.stderr), (vec![], vec![]), "{args:?}");
}

#[track_caller]
fn fails(stage: &Stage, args: &[&str], why: &str) {
    let output = tool(stage, args);
    assert_eq!(output.status.code(), Some(125), "{args:?}: {}", said(&output));
    assert!(said(&output).contains(why), "{args:?}: {}", said(&output));
}

fn ready(stage: &Stage, name: &str, script: &str) -> Child {
    let mut command = stage.sh(&format!("{script}; echo ready; while :; do sleep 1; done"));
    let mut child = command.name(name).stdout(tidy_process::Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    child
}

/// Whether the kernel says that all of it stands still.
fn is_still(child: &Child) -> bool {
    let events = child.tree().path().unwrap().join("cgroup.events");
    fs::read_to_string(events).unwrap().contains("frozen 1")
}

#[test]
#[parallel]
fn a_tree_stands_still_from_freeze_to_thaw() {
    let Some(stage) = Stage::set() else { return };
    let children = ["twin", "twin"].map(|name| ready(&stage, name, ":"));
    let other = ready(&stage, "other", ":");
    for _ in 0..2 {
        succeeds(&stage, &["freeze", "twin"]);
        // It has returned: nothing is to be waited for.
        assert!(children.iter().all(is_still) && !is_still(&other));
        // Frozen twice is frozen.
        succeeds(&stage, &["freeze", "twin"]);
        succeeds(&stage, &["thaw", "twin"]);
        assert!(until(SOON, || !children.iter().any(is_still)));
    }
    // OWNER/NAME is one tree's.
    let owned = format!("{}/twin", std::process::id());
    fails(&stage, &["freeze", &owned], "more than one tree is meant");
    let path = children[1].tree().path().unwrap().display().to_string();
    succeeds(&stage, &["freeze", &path]);
    assert!(!is_still(&children[0]) && is_still(&children[1]));
    // What stands still is ended all the same.
    children.into_iter().chain([other]).for_each(|child| drop(child.finish().unwrap()));
    for verb in ["stop", "kill", "freeze", "thaw"] {
        fails(&stage, &[verb, "twin"], &format!("{verb} \"twin\": no tree of this name"));
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn stop_lets_a_tree_end_by_itself_and_kills_it_after_the_grace() {
    let Some(stage) = Stage::set() else { return };
    let dir = std::env::temp_dir().join(format!("tidy-stop-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let marker = dir.join("cleaned");
    let script = format!("trap 'echo >{}; exit 7' TERM", marker.display());
    // Frozen before, too: it is thawed, to act on the signal.
    for frozen in [false, true] {
        let child = ready(&stage, "polite", &script);
        if frozen {
            succeeds(&stage, &["freeze", "polite"]);
        }
        succeeds(&stage, &["stop", "-k", "20s", "polite"]);
        assert!(marker.exists() && stage.alive().is_empty(), "frozen: {frozen}");
        assert_eq!(child.finish().unwrap().status.code(), Some(7));
        fs::remove_file(&marker).unwrap();
    }
    for grace in ["0", "0.3"] {
        let child = ready(&stage, "deaf", "trap '' TERM");
        succeeds(&stage, &["stop", "-k", grace, "deaf"]);
        assert!(stage.alive().is_empty());
        assert_eq!(child.finish().unwrap().status.signal(), Some(9));
    }
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}

/// It would wait for its own end, or stand still for ever.
#[test]
#[parallel]
fn the_own_tree_is_neither_stopped_nor_frozen() {
    let Some(stage) = Stage::set() else { return };
    let base = crate::support::root_of(&stage.supervisor).to_str().unwrap().to_owned();
    for verb in ["stop", "freeze"] {
        let line = ["run", "-q", "--name", "own", "--", crate::support::tool(), verb, "own"];
        let line = [&line[..], &["--parent", &base]].concat();
        fails(&stage, &line, "this tidy-process runs in");
    }
    stage.close(Alone::No);
}

/// It is said whose it is; root may mean it.
#[test]
#[serial]
fn another_users_tree_is_meant_by_root_alone_and_only_when_asked_for() {
    let Some(stage) = Stage::set() else { return };
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skip("only root can be another user");
    }
    let base = crate::support::root_of(&stage.supervisor);
    let theirs = Supervisor::builder().base(base).build().unwrap();
    std::os::unix::fs::chown(theirs.path().unwrap(), Some(65534), None).unwrap();
    let mut command = stage.command("sleep");
    let child = command.arg("60").supervisor(&theirs).name("theirs").spawn().unwrap();
    for verb in ["stop", "kill", "freeze", "thaw"] {
        fails(&stage, &[verb, "theirs"], "every tree of this name is another user's");
    }
    assert!(!is_still(&child) && child.try_wait().unwrap().is_none());
    succeeds(&stage, &["freeze", "--all-users", "theirs"]);
    assert!(is_still(&child));
    succeeds(&stage, &["stop", "--all-users", "theirs"]);
    assert_eq!(child.finish().unwrap().status.signal(), Some(15));
    drop((command, child, theirs));
    stage.close(Alone::Yes);
}
