//! Callers and workloads that make it hard on purpose.

use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Cause, Stdio, Supervisor, Tree};

use crate::actor::actor;
use crate::support::{Alone, SOON, Stage, read_ready};

const FOR_EVER: &str = "while :; do sleep 0.01; done";

/// A script whose shell leaves its tree at once.
fn escape(stage: &Stage, then: &str) -> String {
    let above = stage.supervisor.path().unwrap().parent().unwrap().join("cgroup.procs");
    format!("echo $$ > {} && echo ready && {then}", above.display())
}

#[test]
#[serial]
fn a_timeout_and_a_kill_reach_a_main_process_that_left_its_tree() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.sh(&escape(&stage, "exec sleep 20"));
    command.stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    child.kill().unwrap();
    assert!(child.wait_timeout(SOON).unwrap().is_some());
    drop(child);
    command.timeout(Duration::from_millis(200));
    let mut child = command.spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    assert!(!child.wait().unwrap().success());
    assert_eq!(child.finish().unwrap().cause, Cause::TimedOut);
    drop(child);
    assert!(start.elapsed() < Duration::from_secs(15), "the sleep ended by itself");
    drop(command);
    // The stop signal reaches it as well.
    let mut command = stage.sh(&format!("trap 'exit 5' TERM; {}", escape(&stage, FOR_EVER)));
    let mut child = command.grace(SOON).stdout(Stdio::piped()).spawn().unwrap();
    drop(command);
    read_ready(child.stdout.take().unwrap());
    let report = child.finish().unwrap();
    assert_eq!((report.status.code(), report.cause), (Some(5), Cause::Stopped));
    drop(child);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn an_endless_grace_is_no_panic() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.sh("trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done");
    command.grace(Duration::MAX).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    assert_eq!(child.finish().unwrap().status.code(), Some(6));
    drop(child);
    command.timeout(Duration::from_millis(300));
    assert_eq!(command.run().unwrap().cause, Cause::TimedOut);
    drop(command);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_tree_does_not_take_its_caller() {
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    for pid in [0, std::process::id()] {
        let error = tree.add(pid).unwrap_err();
        assert!(error.is_invalid_input(), "{error}");
    }
    drop(tree);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_supervisor_that_cannot_be_made_leaves_no_guard() {
    let Some(stage) = Stage::set() else { return };
    let children = || std::fs::read_to_string("/proc/thread-self/children").unwrap();
    let before = children();
    std::fs::write(stage.supervisor.path().unwrap().join("cgroup.max.descendants"), "0").unwrap();
    for _ in 0..10 {
        let error =
            Supervisor::builder().base(stage.supervisor.path().unwrap()).build().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    }
    assert_eq!(children(), before, "guards are left, dead or alive");
    stage.close(Alone::Yes);
}

/// A caller that has closed its streams gets its own fds in their place: what a child writes to its
/// output must not end in them.
#[test]
#[serial]
fn streams_that_the_caller_has_closed_are_not_mistaken() {
    let Some(stage) = Stage::set() else { return };
    for role in ["closed-enroll", "closed-spawn", "closed-crosswise"] {
        let status = actor(&stage, role).stdout(std::process::Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(0), "{role}");
        let start = Instant::now();
        while !stage.alive().is_empty() || stage.cgroups() > 0 {
            assert!(start.elapsed() < Duration::from_secs(1), "{role}: {:?}", stage.alive());
            // The actor's own run root is its guard's.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    stage.close(Alone::Yes);
}

/// An ordinary user in a delegated cgroup, whose workload takes all permissions away and survives
/// `cgroup.kill`.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn an_ordinary_users_workload_cannot_hide_behind_permissions() {
    use std::os::unix::process::CommandExt;
    if !nix::unistd::geteuid().is_root() {
        return crate::support::lacks("users", "only root can delegate a cgroup to another user");
    }
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        std::os::unix::fs::chown(tree.path().unwrap().join(file), Some(65534), Some(65534))
            .unwrap();
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(stage.supervisor.path().unwrap(), open).unwrap();
    let path = tree.path().unwrap().display();
    let hide = format!(
        "D=$(echo {path}/tidy-process-*/0); mkdir $D/x $D/x/y; chmod 0 $D/x/y $D/x $D/cgroup.* $D; \
         exec \"$0\""
    );
    let mut tool = stage.tool(&["run", "-q", "-k0", "sh", "-c", &hide]);
    tool.arg(crate::victim::exe()).env("TIDY_VICTIM", "dead-leader").uid(65534).gid(65534);
    tool.env_remove("TIDY_PROCESS_PARENT").stdout(std::process::Stdio::piped());
    tree.enroll(&mut tool).unwrap();
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGKILL] {
        let mut running = tool.spawn().unwrap();
        read_ready(running.stdout.take().unwrap());
        let pid = nix::unistd::Pid::from_raw(running.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
        running.wait().unwrap();
        let start = Instant::now();
        while !stage.alive().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(2), "{signal}: {:?}", stage.alive());
            // After SIGKILL it is the guard's work, and nothing announces that it is done.
            std::thread::sleep(Duration::from_millis(1));
        }
        let left = || std::fs::read_dir(tree.path().unwrap()).unwrap().flatten();
        while left().any(|entry| entry.path().is_dir()) {
            assert!(start.elapsed() < Duration::from_secs(4), "{signal}: a directory is left");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    drop(tool);
    assert_eq!(tree.finish().unwrap().leftovers, []);
    drop(tree);
    stage.close(Alone::Yes);
}

#[cfg(feature = "cli")]
#[test]
#[serial]
fn an_ignored_sigchld_is_not_inherited() {
    use std::os::unix::process::CommandExt;
    let Some(stage) = Stage::set() else { return };
    let mut tool = stage.tool(&["run", "-q", "sh", "-c", "exit 4"]);
    let ignore = || {
        // SAFETY: SIG_IGN is a valid disposition.
        #[expect(unsafe_code, reason = "no other way to hand down an ignored signal")]
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN)
        };
        Ok(())
    };
    // SAFETY: one call that is async-signal-safe.
    #[expect(unsafe_code, reason = "no other way to hand down an ignored signal")]
    unsafe {
        tool.pre_exec(ignore)
    };
    assert_eq!(tool.status().unwrap().code(), Some(4));
    drop(tool);
    stage.close(Alone::Yes);
}

#[cfg(feature = "cli")]
#[test]
#[serial]
fn a_signal_to_the_whole_group_ends_us_by_it_however_early() {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    let Some(stage) = Stage::set() else { return };
    for round in 0..crate::support::rounds(20, 200) {
        let mut tool = stage.tool(&["run", "-q", "sh", "-c", "kill -s INT -- -$PPID; sleep 20"]);
        let status = tool.process_group(0).status().unwrap();
        assert_eq!(status.signal(), Some(2), "round {round}: {status}");
    }
    stage.close(Alone::Yes);
}

#[cfg(feature = "cli")]
#[test]
#[serial]
fn kill_wants_a_name_that_means_one() {
    let Some(stage) = Stage::set() else { return };
    let spawn = |name: &str| {
        let mut tool =
            stage.tool(&["run", "-q", "--name", name, "sh", "-c", "echo ready; sleep 20"]);
        let mut tool = tool.stdout(std::process::Stdio::piped()).spawn().unwrap();
        read_ready(tool.stdout.take().unwrap());
        tool
    };
    let mut tools = [spawn("7"), spawn("7")];
    for name in ["", "7", "/", "no"] {
        let code = stage.tool(&["kill", name]).output().unwrap().status.code();
        assert_eq!(code, Some(125), "kill {name:?}");
    }
    for tool in &mut tools {
        assert!(tool.try_wait().unwrap().is_none(), "it was killed");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(tool.id().cast_signed()),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        tool.wait().unwrap();
    }
    stage.close(Alone::Yes);
}

#[cfg(feature = "cli")]
#[test]
#[serial]
fn what_goes_within_the_grace_was_stopped_all_the_same() {
    let Some(stage) = Stage::set() else { return };
    let file = std::env::temp_dir().join(format!("tidy-stopped-{}.json", std::process::id()));
    let mut tool = stage.tool(&["run", "-q", "--json", file.to_str().unwrap(), "sh", "-c"]);
    tool.arg("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done");
    let mut running = tool.stdout(std::process::Stdio::piped()).spawn().unwrap();
    read_ready(running.stdout.take().unwrap());
    let pid = nix::unistd::Pid::from_raw(running.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    running.wait().unwrap();
    let json = std::fs::read_to_string(&file).unwrap();
    assert!(json.contains("\"cause\":\"stopped\""), "{json}");
    std::fs::remove_file(file).unwrap();
    drop((running, tool));
    stage.close(Alone::No);
}
