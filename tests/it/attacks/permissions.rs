//! What a workload of the same user takes away is given back: teardown needs it, and so does the
//! next spawn.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command as StdCommand;
use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Command, Stdio, Supervisor, Tree};

use crate::actor::{ROLE, actor};
use crate::attacks::succeeds;
use crate::support::{Alone, Stage, marked, read_ready, skip};
use crate::victim;

/// No pid.
const NONE: [i32; 0] = [];

/// `$B`: the base, `$R`: the run root, `$L`: the tree.
pub(crate) const ATTACKS: [&str; 15] = [
    "chmod 500 $R",
    "chmod 0 $R",
    "chmod 500 $L",
    "chmod 0 $L",
    "mkdir -p $L/x/y; chmod 500 $L/x",
    "mkdir -p $L/x/y; chmod 0 $L/x/y $L/x",
    "mkdir -p $L/x/y; chmod 0 $L/x/y $L/x $L $R",
    "mkdir -p $L/x/y; chmod 500 $L/x/y $L/x $L $R",
    "chmod 0 $L/cgroup.*",
    "chmod 0 $L/* $R/cgroup.*",
    "mkdir $L/x; echo $$ >$L/x/cgroup.procs; chmod 0 $L/x/* $L/x $L/* $L $R/cgroup.* $R",
    "mkdir $L/x; echo $$ >$L/x/cgroup.procs; chmod 400 $L/x/* $L/x $L/* $L $R/cgroup.* $R",
    "chmod 500 $B",
    "chmod 500 $R; chmod 0 $L; chmod 100 $B",
    "chmod 0 $B/cgroup.procs $R/cgroup.procs",
];

/// The stage for an ordinary user: a tree that is a delegated cgroup of theirs.
pub(crate) fn delegated(stage: &Stage) -> Option<Tree> {
    if !nix::unistd::geteuid().is_root() {
        skip("only root can delegate a cgroup to somebody else");
        return None;
    }
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        chown(tree.path().unwrap().join(file), Some(65534), Some(65534)).unwrap();
    }
    let passing = PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(stage.supervisor.path().unwrap(), passing).unwrap();
    Some(tree)
}

/// The same command, as that user and in that cgroup.
pub(crate) fn ordinary(command: &mut StdCommand, tree: &Tree) {
    command.env("TIDY_PROCESS_PARENT", tree.path().unwrap()).uid(65534).gid(65534);
    tree.enroll(command).unwrap();
}

#[test]
#[serial]
fn permissions_that_were_taken_are_given_back() {
    let Some(stage) = Stage::set() else { return };
    succeeds(&mut actor(&stage, "permissions"), "as this user");
    succeeds_as_ordinary(&stage, actor(&stage, "permissions"));
    stage.close(Alone::Yes);
}

/// Runs an actor as an ordinary user, in a tree that is that user's; nothing is left of it.
pub(crate) fn succeeds_as_ordinary(stage: &Stage, mut command: StdCommand) {
    let Some(tree) = delegated(stage) else { return };
    ordinary(&mut command, &tree);
    succeeds(&mut command, "as an ordinary user");
    drop(command);
    assert_eq!(tree.finish().unwrap().leftovers, []);
}

pub(crate) fn play() {
    let base = PathBuf::from(std::env::var_os("TIDY_PROCESS_PARENT").unwrap());
    let mark = format!("permissions-{}", std::process::id());
    for (number, attack) in ATTACKS.iter().enumerate() {
        for (join, victim) in [(false, "plain"), (true, "plain"), (false, "dead-leader")] {
            let what = format!("attack {number} ({attack}), joined: {join}, {victim}");
            let supervisor = Supervisor::builder().guard(false).build().unwrap();
            let script = format!("set -e; L=$(echo $R/*-it); {attack}; exec $V");
            let mut command = Command::new("sh");
            command.args(["-c", &script]).name("it").supervisor(&supervisor).force_join(join);
            command.env("R", supervisor.path().unwrap()).env("V", victim::exe()).env("B", &base);
            command.env("TIDY_MARK", &mark).env("TIDY_VICTIM", victim).env_remove(ROLE);
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            drop(command);
            read_ready(child.stdout.take().unwrap());
            let tree = child.tree().path().unwrap().to_owned();
            let processes = child.tree().processes();
            assert_eq!(processes.len(), 1, "{what}");
            child.tree().freeze().unwrap_or_else(|error| panic!("{what}: {error}"));
            let start = Instant::now();
            let report = child.finish().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(!report.status.success(), "{what}: {report:?}");
            assert!(report.usage.user.is_some(), "{what}: {report:?}");
            assert_eq!(marked(&mark), NONE, "{what}");
            assert!(!exists(&tree), "{what}: {tree:?} is left");
            // Another one, while all is as the first has left it.
            let mut again = Command::new("sh");
            again.args(["-c", "exit 3"]).supervisor(&supervisor).env_remove(ROLE);
            let ended = again.force_join(join).run();
            drop(again);
            let report = ended.unwrap_or_else(|error| panic!("{what}: again: {error}"));
            assert_eq!(report.status.code(), Some(3), "{what}");
            let root = supervisor.path().unwrap().to_owned();
            drop(supervisor);
            assert!(!exists(&root), "{what}: {root:?} is left");
            assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
            let _ = std::fs::set_permissions(&base, PermissionsExt::from_mode(0o755));
        }
    }
}

/// Unlike `Path::exists`, not fooled by a directory that may not be searched.
fn exists(path: &Path) -> bool {
    !matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
}
