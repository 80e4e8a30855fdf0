//! A command with a cgroup of its own in its tree.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::unistd::geteuid;
use serial_test::parallel;

use crate::support::{Alone, Stage, lacks, read_ready};

/// A daemon beside it, and it stays.
const DAEMON: &str = "setsid -f sleep 60; echo ready; exec sleep 60";

#[test]
#[parallel]
fn the_command_starts_in_a_leaf_of_a_cgroup_of_its_own() {
    let Some(stage) = Stage::set() else { return };
    for join in [false, true] {
        let mut command = stage.sh(DAEMON);
        command.delegate(true).force_join(join).stdout(tidy_process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        read_ready(child.stdout.take().unwrap());
        let tree = child.tree().path().unwrap().to_owned();
        let procs = |dir: PathBuf| std::fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        assert_eq!(procs(tree.clone()) + &procs(tree.join("delegated")), "");
        let inside = procs(tree.join("delegated/tidy-process-supervisor"));
        assert!(inside.lines().any(|pid| pid == child.id().to_string()), "{inside}");
        child.finish().unwrap();
        stage.assert_clean("delegated");
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_inner_cgroup_is_the_users_and_the_tree_around_it_is_not() {
    let Some(stage) = Stage::set() else { return };
    if !geteuid().is_root() {
        return lacks("users", "only root can start a command as another user");
    }
    let script = "d=$(dirname \"$1\"); mkdir \"$d/mine\" && echo $$ >\"$d/mine/cgroup.procs\" \
        || exit 3; echo 0 >\"$2\" && exit 4; mkdir \"$(dirname \"$2\")/x\" && exit 5; exit 0";
    let mut command = stage.sh(&format!("read go; set -- $go; {script}"));
    command.delegate(true).uid(65534).stdin(tidy_process::Stdio::piped());
    let mut child = command.stderr(tidy_process::Stdio::null()).spawn().unwrap();
    let tree = child.tree().path().unwrap().to_owned();
    let leaf = tree.join("delegated/tidy-process-supervisor");
    let uid = |path: PathBuf| std::fs::metadata(path).unwrap().uid();
    assert_eq!(uid(tree.join("delegated")), 65534);
    assert_eq!(uid(tree.join("delegated/cgroup.subtree_control")), 65534);
    assert_eq!((uid(tree.clone()), uid(tree.join("cgroup.procs"))), (0, 0));
    let go = format!("{} {}\n", leaf.display(), tree.join("cgroup.procs").display());
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, go.as_bytes()).unwrap();
    drop(stdin);
    drop(command);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    child.finish().unwrap();
    stage.close(Alone::No);
}

/// What runs inside finds its own place, and is ended with the tree around it.
#[cfg(feature = "cli")]
#[test]
#[parallel]
fn a_supervisor_inside_makes_its_run_root_in_the_delegated_cgroup() {
    let Some(stage) = Stage::set() else { return };
    let tool = crate::support::tool();
    let inner = format!("{tool} run -q -- sh -c 'sed s/^0::// /proc/self/cgroup | tail -n 1'");
    let script = format!("unset TIDY_PROCESS_PARENT; {inner}; exec {tool} run -q -- true");
    let output =
        stage.tool(&["run", "--no-systemd", "--delegate", "sh", "-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), error.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("/0/delegated/tidy-process-"), "{said}");
    assert!(!said.contains("tidy-process-supervisor"), "{said}");
    stage.close(Alone::No);
}
