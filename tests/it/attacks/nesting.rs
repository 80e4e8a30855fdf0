//! A supervisor that stands in another one's tree: whatever the environment and the arguments say,
//! what it starts ends with that tree.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command as StdCommand;

#[cfg(feature = "cli")]
use nix::sys::signal::{Signal, kill};
#[cfg(feature = "cli")]
use nix::unistd::Pid;
use nix::unistd::geteuid;
use serial_test::{parallel, serial};
use tidy_process::{Command, Stdio, Supervisor, Tree};

use crate::support::{Alone, SOON, Stage, read_ready, skip, until};
use crate::victim;

const ROLE: &str = "TIDY_NESTED";

/// The supervisor inside: says where its run root is, or why it has none, and what it did.
#[ctor::ctor]
fn enter() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut builder = Supervisor::builder();
    if let Some(base) = role.strip_prefix("base ") {
        builder = builder.base(base);
    }
    let made = if role == "global" { Supervisor::global() } else { builder.build() };
    let said = match &made {
        Ok(supervisor) => supervisor.path().unwrap().display().to_string(),
        Err(error) => format!("{error}; hint: {}", error.hint().unwrap_or("none")),
    };
    println!("{said}");
    if let Ok(supervisor) = &made {
        supervisor.close().unwrap();
    }
    std::process::exit(0);
}

/// What a supervisor says that the library starts in a tree, with this in its environment.
fn nested(mut command: Command, role: &str, variable: &Path) -> String {
    command.env(ROLE, role).env("TIDY_PROCESS_PARENT", variable);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.report.leftovers.len(), 0, "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The victims' binary, which plays the roles of this module too.
fn player(stage: &Stage, join: bool) -> Command {
    let mut command = stage.command(victim::exe().to_str().unwrap());
    command.force_join(join).name("outer");
    command
}

/// A directory beside the run root: it belongs to no supervisor, as what a user is given does.
struct Outside(PathBuf);

impl Outside {
    fn make(stage: &Stage, name: &str) -> Self {
        let path = stage
            .supervisor
            .path()
            .unwrap()
            .with_file_name(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let gone = until(SOON, || std::fs::remove_dir(&self.0).is_ok());
        assert!(gone || std::thread::panicking(), "something is left in {:?}", self.0);
    }
}

#[test]
#[parallel]
fn the_library_makes_its_run_root_in_the_tree_that_it_stands_in() {
    let Some(stage) = Stage::set() else { return };
    let outside = Outside::make(&stage, "tidy-elsewhere");
    for join in [false, true] {
        for role in ["build", "global"] {
            for variable in [&outside.0, stage.supervisor.path().unwrap(), Path::new("/no/such")] {
                let said = nested(player(&stage, join), role, variable);
                let tree = "-outer/tidy-process-";
                assert!(said.contains(tree), "{role}, {variable:?}: {said}");
                assert!(
                    said.starts_with(stage.supervisor.path().unwrap().to_str().unwrap()),
                    "{said}"
                );
            }
        }
    }
    drop(outside);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_base_that_lies_in_the_own_tree_is_as_good_as_another() {
    let Some(stage) = Stage::set() else { return };
    let script = "d=$(echo $BASE/*-outer); mkdir $d/mine; export TIDY_PROCESS_PARENT=$d/mine; \
        TIDY_NESTED=build \"$0\"; TIDY_NESTED=\"base $d/mine\" \"$0\"; \
        TIDY_NESTED=\"base $d/mine/../mine\" \"$0\"";
    let mut command = stage.sh(script);
    command.arg(victim::exe()).env("BASE", stage.supervisor.path().unwrap()).name("outer");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.matches("/mine/tidy-process-").count(), 3, "{said}");
    drop(command);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn an_explicit_base_outside_is_refused_with_a_hint() {
    let Some(stage) = Stage::set() else { return };
    let outside = Outside::make(&stage, "tidy-refused");
    let root = stage.supervisor.path().unwrap();
    let back = root.join(format!("../{}", outside.0.file_name().unwrap().display()));
    for join in [false, true] {
        for base in [outside.0.as_path(), root, &back] {
            let role = format!("base {}", base.display());
            let said = nested(player(&stage, join), &role, root);
            assert!(said.contains("outside of the tree that this process stands in"), "{said}");
            assert!(said.contains("hint: leave the base out"), "{said}");
        }
    }
    drop(outside);
    stage.close(Alone::No);
}

/// What is only called as a run root is none: the variable holds there.
#[test]
#[parallel]
fn a_directory_with_a_run_roots_name_is_not_one() {
    let Some(stage) = Stage::set() else { return };
    let outside = Outside::make(&stage, "tidy-honoured");
    // Not beside other run roots: there the next supervisor takes it for a stale one.
    let around = Outside::make(&stage, "tidy-fakes");
    let fake = Outside(around.0.join("tidy-process-1-0123abcd"));
    std::fs::create_dir(&fake.0).unwrap();
    let mut command = StdCommand::new("sh");
    stage.mark_std(&mut command);
    command.env("TIDY_PROCESS_PARENT", &outside.0).env(ROLE, "build");
    command.args(["-c", "echo $$ >\"$1\" && exec \"$0\""]).arg(victim::exe());
    command.arg(fake.0.join("cgroup.procs"));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with(outside.0.to_str().unwrap()), "{said} {:?}", output.stderr);
    drop((fake, around, outside));
    stage.close(Alone::No);
}

/// Where `/proc` is not there, and where a cgroup namespace hides the way from the root.
#[test]
#[parallel]
fn a_supervisor_that_cannot_see_its_place_does_not_leave_it() {
    if !geteuid().is_root() {
        return skip("only root can make these namespaces");
    }
    let Some(stage) = Stage::set() else { return };
    let root = stage.supervisor.path().unwrap();
    let play = format!("exec {:?}", victim::exe());
    for hidden in [
        format!("exec unshare -m sh -c 'mount -t tmpfs none /proc && {play}'"),
        format!("exec unshare -C sh -c '{play}'"),
        format!("exec unshare -Cm sh -c 'mount -t tmpfs none /proc && {play}'"),
    ] {
        let command = || {
            let mut command = stage.sh(&hidden);
            command.name("outer");
            command
        };
        let said = nested(command(), "build", root);
        assert!(said.contains("-outer/tidy-process-"), "{hidden}: {said}");
        let said = nested(command(), &format!("base {}", root.display()), root);
        assert!(said.contains("outside of the tree"), "{hidden}: {said}");
    }
    stage.close(Alone::No);
}

/// A user's own cgroup elsewhere is no way out, even where that user may make nothing in the tree.
#[test]
#[parallel]
fn another_users_supervisor_stays_in_the_tree_or_says_so() {
    if !geteuid().is_root() {
        return skip("only root can start a command as somebody else");
    }
    let Some(stage) = Stage::set() else { return };
    let theirs = Outside::make(&stage, "tidy-theirs");
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        chown(theirs.0.join(file), Some(65534), Some(65534)).unwrap();
    }
    for join in [false, true] {
        let mut command = player(&stage, join);
        command.delegate(true).uid(65534).gid(65534);
        let said = nested(command, "build", &theirs.0);
        assert!(said.contains("-outer/delegated/tidy-process-"), "{said}");
        let mut command = player(&stage, join);
        command.uid(65534).gid(65534);
        let said = nested(command, "build", &theirs.0);
        assert!(said.contains("Permission denied"), "{said}");
    }
    drop(theirs);
    stage.close(Alone::No);
}

/// However a test fails, what escaped is ended: their pids.
#[cfg(feature = "cli")]
fn kill_all(stage: &Stage) -> Vec<i32> {
    let alive = stage.alive();
    for pid in &alive {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    alive
}

/// Two supervisors, one in the other, each of either kind and started in either way; the outer one
/// ends by a timeout, by SIGKILL, or because its command does.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn whatever_stands_in_a_tree_ends_with_it() {
    let Some(stage) = Stage::set() else { return };
    let tool = crate::support::tool();
    let inner = [
        "run -q --",
        "run -q --force-join --",
        "run -q --containment keeper --",
        "with -q --server 'sleep 3331' --",
        "with -q --containment keeper --server 'sleep 3332' --",
    ];
    let outer: [&[&str]; 4] = [
        &["run", "-q"],
        &["run", "-q", "--force-join"],
        &["run", "-q", "--containment", "keeper"],
        &["with", "-q", "--server", "sleep 3334"],
    ];
    let script = "(setsid sleep 3335 &); setsid -f sleep 3336; echo ready; exec sleep 3333";
    for outer in outer {
        for inner in inner {
            for end in ["killed", "timeout", "main"] {
                if (end, outer[0]) == ("timeout", "with") {
                    continue;
                }
                let what = format!("{inner} in {outer:?}, {end}");
                let inner = format!("{tool} {inner} sh -c \"$S\"");
                let main = if end == "main" { "& read x" } else { "" };
                let timeout: &[&str] = if end == "timeout" { &["-t", "1"] } else { &[] };
                let mut command = stage.tool(outer);
                command.args(timeout).args(["--", "sh", "-c"]).arg(format!("{inner} {main}"));
                command.env("S", script).stdin(std::process::Stdio::piped());
                let mut running = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
                read_ready(running.stdout.take().unwrap());
                match end {
                    "killed" => running.kill().unwrap(),
                    _ => drop(running.stdin.take()),
                }
                let status = running.wait().unwrap();
                // A guard or a keeper of a killed one is still at it; the others have waited.
                let patience = if end == "killed" { SOON } else { std::time::Duration::ZERO };
                let gone = until(patience, || stage.alive().is_empty() && stage.cgroups() == 0);
                let left = (kill_all(&stage), stage.cgroups());
                assert!(gone, "{what}: {status}, left {left:?}");
            }
        }
    }
    stage.close(Alone::Yes);
}

/// What a nested supervisor has started is named when the outer command ends before it.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn leftovers_of_a_nested_supervisor_are_named() {
    let Some(stage) = Stage::set() else { return };
    let tool = crate::support::tool();
    for inner in ["", "--force-join", "--containment keeper"] {
        let script =
            format!("{tool} run -q {inner} sh -c 'echo ready; exec sleep 3337' & read x; exit 4");
        let mut command = stage.tool(&["run", "--leaks=fail", "--", "sh", "-c", &script]);
        command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut running = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        read_ready(running.stdout.take().unwrap());
        drop(running.stdin.take());
        let status = running.wait().unwrap();
        let alive = kill_all(&stage);
        let mut said = String::new();
        std::io::Read::read_to_string(&mut running.stderr.take().unwrap(), &mut said).unwrap();
        assert_eq!((status.code(), alive), (Some(4), vec![]), "{inner}: {said}");
        assert!(said.contains("sleep 3337"), "{inner}: {said}");
        stage.assert_clean(inner);
    }
    stage.close(Alone::Yes);
}

#[cfg(feature = "cli")]
#[test]
#[parallel]
fn the_tool_refuses_a_parent_outside_of_its_tree() {
    let Some(stage) = Stage::set() else { return };
    let (tool, root) = (crate::support::tool(), stage.supervisor.path().unwrap().display());
    for command in ["run", "with --server 'sleep 60'"] {
        let script = format!("exec {tool} {command} --parent {root} -- true");
        let output = stage.tool(&["run", "-q", "sh", "-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains("outside of the tree that this process stands in"), "{said}");
        assert!(said.contains("hint: leave the base out"), "{said}");
        // To look outside is no harm.
        let script = format!("exec {tool} ps --parent {root}");
        let output = stage.tool(&["run", "-q", "sh", "-c", &script]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    stage.close(Alone::No);
}

/// A process that was brought into a nested tree descends from no keeper: the guard ends it.
#[test]
#[serial]
fn what_was_added_to_a_tree_below_a_keeper_ends_with_it() {
    let Some(stage) = Stage::set() else { return };
    let kept = Stage::of_keepers().unwrap();
    let mut stranger = StdCommand::new("sleep");
    stage.mark_std(&mut stranger);
    let mut stranger = stranger.arg("60").spawn().unwrap();
    let mut command = Command::new(victim::exe());
    command.supervisor(&kept.supervisor).env("TIDY_NESTED_ADD", stranger.id().to_string());
    command.env("TIDY_PROCESS_PARENT", stage.supervisor.path().unwrap()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    assert_eq!(stage.cgroups(), 1);
    child.finish().unwrap();
    assert_eq!(stage.cgroups(), 0, "the nested run root is left");
    assert!(until(SOON, || stranger.try_wait().unwrap().is_some()), "the stranger lives on");
    drop(command);
    kept.close(Alone::No);
    stage.close(Alone::No);
}

#[ctor::ctor]
fn add() {
    let Ok(pid) = std::env::var("TIDY_NESTED_ADD") else { return };
    let tree = Tree::new().unwrap();
    tree.add(pid.parse().unwrap()).unwrap();
    nix::unistd::write(std::io::stdout(), b"ready\n").unwrap();
    std::thread::sleep(SOON);
    drop(tree);
    std::process::exit(0);
}

/// The user is warned whose cgroup it is.
#[cfg(feature = "cli")]
#[test]
#[parallel]
fn a_base_of_another_user_is_warned_of() {
    if !geteuid().is_root() {
        return skip("only root can give a cgroup to somebody else");
    }
    let Some(stage) = Stage::set() else { return };
    let theirs = Outside::make(&stage, "tidy-foreign");
    let parent = theirs.0.to_str().unwrap();
    let say = |args: &[&str]| {
        let output = stage.tool(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(say(&["run", "--parent", parent, "true"]), "");
    chown(&theirs.0, Some(65534), None).unwrap();
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&theirs.0, open).unwrap();
    for args in [&["run", "--parent", parent, "true"][..], &["with", "--parent", parent, "true"]] {
        let said = say(args);
        assert!(said.contains("belongs to user 65534"), "{said}");
        assert!(said.contains(parent) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(say(&["run", "-q", "--parent", parent, "true"]), "");
    let supervisor = Supervisor::builder().base(&theirs.0).build().unwrap();
    assert_eq!(supervisor.foreign_owner(), Some(65534));
    drop(supervisor);
    assert_eq!(stage.supervisor.foreign_owner(), None);
    drop(theirs);
    stage.close(Alone::No);
}
