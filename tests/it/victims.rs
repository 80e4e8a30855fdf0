//! The victims: every way to outlive one's parent, on both spawn paths, ended in every way. 0
//! survivors.

use nix::unistd::geteuid;
use serial_test::serial;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use tidy_process::{Child, Command, Placement};

use crate::skipped::is_named;
use crate::support::{Alone, SOON, Stage, lacks, read_ready, until};

/// How a tree is ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Finish,
    Drop,
    Panic,
}

/// A victim that cannot be played here is a test that is skipped.
pub(crate) fn can_be_here(name: &str) -> bool {
    if name == "nobody" && !users_can_change() {
        lacks("users", "only root becomes the victim nobody, where there is another user");
        return false;
    }
    if name == "pid-namespace" && !namespaces_can_be_made() {
        let why = "unshare is refused, with and without a user namespace: no victim makes one";
        lacks("sandbox", why);
        return false;
    }
    true
}

/// The map of a rootless container has the user himself, and others only where he was given some.
fn users_can_change() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let numbers =
        |line: &str| line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let has_nobody = map.lines().map(numbers).any(|line: Vec<u64>| {
        matches!(line[..], [first, _, count] if (first..first + count).contains(&65534))
    });
    geteuid().is_root() && has_nobody
}

/// Default containers forbid them.
fn namespaces_can_be_made() -> bool {
    let unshare = |how: &str| {
        let mut unshare = std::process::Command::new("unshare");
        unshare.args([how, "true"]).output().unwrap().status.success()
    };
    unshare("-p") || unshare("-Up")
}

/// Docker's own filter answers clone3 with ENOSYS: there every child joins.
fn placement(join: bool) -> Placement {
    let births = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    if join || !births || is_named("clone") { Placement::Joined } else { Placement::Born }
}

fn dies(name: &str) {
    if !can_be_here(name) {
        return;
    }
    let Some(stage) = Stage::set() else { return };
    for join in [false, true] {
        for end in [End::Finish, End::Drop, End::Panic] {
            let placement = placement(join);
            by_library(&stage, stage.victim(name).force_join(join), name, end, placement);
        }
        #[cfg(feature = "cli")]
        {
            by_command_line(&stage, name, if join { &["--force-join"] } else { &[] });
            stage.assert_clean(&format!("{name}, joined: {join}, command line"));
        }
    }
    #[cfg(feature = "sandbox")]
    in_a_fence(&stage, name);
    stage.close(Alone::Yes);
}

/// Victims that a fence keeps from coming into their state: they say that it is refused (99).
#[cfg(feature = "sandbox")]
pub(crate) const REFUSED: [&str; 5] =
    ["ptrace-stopped", "nested-cgroups", "threaded-cgroup", "frozen", "pid-namespace"];

#[cfg(feature = "sandbox")]
fn in_a_fence(stage: &Stage, name: &str) {
    if !crate::fence::may_be_made() {
        return;
    }
    let fence = tidy_process::Sandbox::fence();
    for join in [false, true] {
        let placement = placement(join);
        let mut victim = stage.victim(name);
        victim.force_join(join).sandbox(&fence);
        if REFUSED.contains(&name) {
            let report = victim.stderr(tidy_process::Stdio::null()).run().unwrap();
            assert_eq!(report.status.code(), Some(99), "{name} in a fence: {report}");
            stage.assert_clean(&format!("{name}, joined: {join}, refused by a fence"));
            continue;
        }
        by_library(stage, &mut victim, name, End::Finish, placement);
    }
    #[cfg(feature = "cli")]
    if !REFUSED.contains(&name) {
        by_command_line(stage, name, &["--fence"]);
        stage.assert_clean(&format!("{name}, in a fence, command line"));
    }
}

pub(crate) fn by_library(
    stage: &Stage,
    victim: &mut Command,
    name: &str,
    end: End,
    placement: Placement,
) {
    let mut child = victim.spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    seen_alive(stage, &child, name);
    let start = Instant::now();
    match end {
        End::Finish => {
            let report = child.finish().unwrap();
            assert_eq!(report.placement, placement);
        }
        End::Drop => drop(child),
        End::Panic => {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _child = child;
                std::panic::resume_unwind(Box::new("on purpose"));
            }));
            assert!(panicked.is_err());
        }
    }
    let took = start.elapsed();
    // A teardown that has come to its bound leaves the rest to the keeper, or the guard.
    if took >= Duration::from_secs(10) {
        until(SOON, || stage.alive().is_empty() && stage.cgroups() == 0);
    }
    stage.assert_clean(&format!("{name}, {end:?}, after {took:?}"));
}

/// The positive control: what is to die was alive, and inside.
fn seen_alive(stage: &Stage, child: &Child, name: &str) {
    let populated = !child.tree().wait_empty(Instant::now()).unwrap();
    assert!(populated, "{name}: nobody is in its tree");
    // A link of a chain is gone before /proc can say anything of it.
    if !name.starts_with("chain") {
        assert!(!stage.alive().is_empty(), "{name}: was never seen alive");
    }
}

#[cfg(feature = "cli")]
pub(crate) fn by_command_line(stage: &Stage, name: &str, options: &[&str]) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let victim = crate::victim::exe();
    let mut args = vec!["run", "--kill-after=0", "--quiet", "--leaks=wait"];
    args.extend(options);
    let mut tool = stage.tool(&args);
    let mut tool = tool
        .arg("--")
        .arg(victim)
        .env("TIDY_VICTIM", name)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    read_ready(tool.stdout.take().unwrap());
    assert_eq!(tool.try_wait().unwrap(), None);
    kill(Pid::from_raw(tool.id().cast_signed()), Signal::SIGTERM).unwrap();
    tool.wait().unwrap();
}

macro_rules! victims {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            #[serial]
            fn $test() {
                dies($name);
            }
        )*

        #[test]
        fn every_victim_has_its_test() {
            let tested = [$($name),*];
            for name in crate::victim::names() {
                assert!(tested.contains(name), "victim {name} is never run");
            }
        }
    };
}

victims! {
    a_plain_child_dies: "plain",
    a_grandchild_dies: "grandchild",
    an_orphan_dies_whose_parent_ended_first: "orphan",
    a_child_in_a_session_of_its_own_dies: "setsid",
    a_daemon_that_forks_twice_dies: "daemon",
    a_daemon_dies_whose_starter_has_exited: "daemon-exit",
    a_child_in_a_process_group_of_its_own_dies: "setpgid",
    a_fork_and_exit_chain_dies: "chain",
    a_fork_and_exit_chain_with_setsid_dies: "chain-setsid",
    sixteen_chains_die: "chains16",
    a_spawner_and_its_children_die: "spawner",
    a_process_that_ignores_sigterm_dies: "ignores-term",
    a_stopped_process_dies: "stopped",
    a_process_without_its_main_thread_dies: "dead-leader",
    a_bomb_of_processes_without_main_thread_dies: "dead-leader-bomb",
    a_traced_process_dies: "ptrace-stopped",
    a_parent_suspended_in_vfork_dies: "vfork-parent",
    nested_cgroups_go: "nested-cgroups",
    a_threaded_cgroup_goes: "threaded-cgroup",
    a_frozen_process_dies: "frozen",
    a_process_of_another_user_dies: "nobody",
    the_init_of_a_pid_namespace_dies: "pid-namespace",
    a_daemon_that_closed_everything_dies: "closes-everything",
}
