//! Containers as Docker and Podman make them, by crun (the runtime of Debian's Podman) and
//! bubblewrap: what is said where cgroupfs is read-only, and that all works where it is not.
//!
//! crun mounts the hierarchy itself, so those tests are for machines where cgroup v2 is the only
//! one (the virtual machines, where `TIDY_CONTROLLERS=1` says that it has to be).

mod container;
mod pod;

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use serde_json::{Value, json};
use serial_test::serial;

use self::container::{Cgroupfs, Container};
use crate::server::free_port;
use crate::support::{Alone, Stage, example, lacks, skip, tool};
use crate::victim;

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// The error, its errno, and what to type.
fn assert_read_only(output: &Output) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("make cgroup") && said.contains("(EROFS)"), "{said}");
    for typed in ["--security-opt writable-cgroups=true", "--security-opt unmask=/sys/fs/cgroup"] {
        assert!(said.contains(typed), "{said}");
    }
}

fn capabilities(output: &Output) -> Value {
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)));
    value["capabilities"].clone()
}

#[test]
#[serial]
fn a_default_container_gets_an_error_that_says_what_to_type() {
    let run = [tool(), "run", "true"];
    let Some(container) = Container::make(Cgroupfs::ReadOnly, 0, &run) else { return };
    assert_read_only(&container.run());
    let doctor = [tool(), "doctor", "--json", "--require", "cgroup2,base"];
    let container = Container::make(Cgroupfs::ReadOnly, 0, &doctor).unwrap();
    let output = container.run();
    let all = capabilities(&output);
    assert_eq!((output.status.code(), &all["create"]["state"]), (Some(0), &json!("no")), "{all}");
    assert_eq!(all["cgroup2"]["read_only"], true);
    assert_eq!(all["namespace"]["first"], false);
}

#[test]
#[serial]
fn a_rootless_container_gets_an_error_that_says_what_to_type() {
    let run = [tool(), "run", "true"];
    let Some(container) = Container::make(Cgroupfs::ReadOnly, 1000, &run) else { return };
    assert_read_only(&container.run());
}

/// By root's default container and a rootless one, both with a read-only cgroupfs.
#[test]
#[serial]
fn in_a_default_container_best_effort_ends_all_victims() {
    for user in [0, 1000] {
        let script = "setsid sleep 60 & sleep 60 & exit 7";
        let effort = ["--containment", "best-effort", "--json", "-", "--", "sh", "-c", script];
        let run = [&[tool(), "run"], effort.as_slice()].concat();
        let Some(container) = Container::make(Cgroupfs::ReadOnly, user, &run) else { return };
        let output = container.run();
        drop(container);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(said.contains("held by a keeper") && said.contains("(EROFS)"), "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["mechanism"], "keeper", "{said}");
        assert_eq!(report["leftovers"].as_array().unwrap().len(), 2, "{said}");
        suite(Cgroupfs::ReadOnly, user, "keeper::every_victim");
    }
}

/// The first command of the README, where most try it: in the `rust` image, as root or not.
#[test]
#[serial]
fn in_a_default_container_the_experiment_says_that_it_does_its_best() {
    for user in [0, 1000] {
        let example = example("experiment");
        let port = free_port().to_string();
        let run = [example.to_str().unwrap(), "--port", &port];
        let Some(container) = Container::make(Cgroupfs::ReadOnly, user, &run) else { return };
        let output = container.run();
        drop(container);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let effort = said.lines().find(|line| line.starts_with("best effort: "));
        assert!(effort.is_some_and(|line| line.contains("(EROFS)")), "{said}");
        assert!(said.contains(&format!("port {port} is free again, no process is left")), "{said}");
    }
}

/// Runs tests in a container. The shell reaps what is orphaned, as `docker run --init` does.
fn suite(cgroupfs: Cgroupfs, user: u32, filters: &str) {
    let script = format!("{} {filters}; exit $?", victim::exe().display());
    let suite = Container::make(cgroupfs, user, &["sh", "-c", &script]).unwrap();
    let output = suite.run();
    let said = said(&output);
    assert!(output.status.success() && said.contains("test result: ok. "), "{said}");
    assert!(!said.contains("ok. 0 passed"), "{said}");
}

/// `docker run --security-opt writable-cgroups=true`, `podman run --security-opt
/// unmask=/sys/fs/cgroup`.
#[test]
#[serial]
fn in_a_container_with_a_writable_cgroupfs_all_victims_die() {
    let doctor = [tool(), "doctor", "--json", "--require", "create,kill,freeze,clone,guard"];
    let Some(container) = Container::make(Cgroupfs::Writable, 0, &doctor) else { return };
    let output = container.run();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    drop(container);
    suite(Cgroupfs::Writable, 0, "victims::");
}

const LIMITED: &str = "$T run -m 32M --pids 20 -- sh -c 'cat \
    /sys/fs/cgroup/$(sed s/^0::// /proc/self/cgroup)/memory.max; exit 7'";

/// Its own cgroup is the container's to subdivide, though no attribute marks it as delegated.
#[test]
#[serial]
fn in_a_container_the_first_process_has_limits() {
    let script = LIMITED.replace("$T", tool());
    let run = [tool(), "run", "--delegate", "--", "sh", "-c", &script];
    let Some(container) = Container::make(Cgroupfs::Writable, 0, &run) else { return };
    let output = container.run();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert!(told.contains("33554432\n"), "{told}");
}

/// Beside another process the hint's command makes room, typed as it is printed.
#[test]
#[serial]
fn in_a_container_limits_hold_after_what_the_hint_says_was_typed() {
    let limited = LIMITED.replace("$T", tool());
    let script = format!(
        "{limited} 2>/tmp/hint; test $? = 125 || exit 3; cat /tmp/hint; \
         typed=$(sed -n 's/.*, once: \\(.*\\); or name .*/\\1/p' /tmp/hint); \
         test -n \"$typed\" || exit 4; eval \"$typed\"; {limited}"
    );
    let run = ["sh", "-c", &script];
    let Some(container) = Container::make(Cgroupfs::Writable, 0, &run) else { return };
    let output = container.run();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert!(told.contains("33554432\n"), "{told}");
}

/// A fence needs no namespace, so it holds in a container too.
#[test]
#[serial]
fn in_a_container_every_escape_fails_in_a_fence() {
    let doctor = [tool(), "doctor", "--json", "--require", "fence-inside,fence-apart"];
    let Some(container) = Container::make(Cgroupfs::Writable, 0, &doctor) else { return };
    let output = container.run();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    drop(container);
    suite(Cgroupfs::Writable, 0, "every_escape_that_works_without_a_fence_fails_in_one");
}

/// Where the engine leaves it its namespaces: without a seccomp profile.
#[test]
#[serial]
fn in_a_container_a_sandbox_holds_or_is_refused_by_name() {
    let run = [tool(), "run", "--sandbox", "--", "true"];
    let Some(container) = Container::make(Cgroupfs::Writable, 0, &run) else { return };
    container.forbid(&["unshare", "mount", "setns"]);
    let output = container.run();
    drop(container);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(125), "{told}");
    assert!(told.contains("user namespace") && told.contains("hint: "), "{told}");
    for cgroupfs in [Cgroupfs::Writable, Cgroupfs::Privileged] {
        suite(cgroupfs, 0, "escapes::every_escape_fails_in_a_sandbox_too");
    }
}

/// `docker run --privileged --cgroupns=private`.
#[test]
#[serial]
fn in_a_privileged_container_a_run_works_and_victims_die() {
    let run = [tool(), "run", "sh", "-c", "setsid sleep 60 & exit 7"];
    let Some(container) = Container::make(Cgroupfs::Privileged, 0, &run) else { return };
    let output = container.run();
    drop(container);
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(said(&output).contains("killed 1 leftover process"), "{}", said(&output));
    suite(Cgroupfs::Privileged, 0, "victims::a_");
}

/// With a cgroup that was delegated to the user, as systemd does for Podman.
#[test]
#[serial]
fn in_a_rootless_container_with_a_writable_cgroupfs_a_run_works() {
    let script = "sleep 60 & sleep 60 & exit 7";
    let run = [tool(), "run", "sh", "-c", script];
    let Some(mut container) = Container::make(Cgroupfs::Writable, 1000, &run) else { return };
    let Some(stage) = Stage::set() else { return };
    let cgroup = stage.supervisor.path().unwrap().parent().unwrap().join(&container.name);
    fs::create_dir(&cgroup).unwrap();
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        chown(cgroup.join(file), Some(1000), Some(1000)).unwrap();
    }
    container.cgroup = Some(cgroup.clone());
    let output = container.run();
    let empty = crate::support::until(crate::support::SOON, || fs::remove_dir(&cgroup).is_ok());
    assert!(empty, "{cgroup:?} is not empty: {}", said(&output));
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(said(&output).contains("killed 2 leftover processes"), "{}", said(&output));
    stage.close(Alone::No);
}

/// bubblewrap shows the machine's own hierarchy, as it is told to.
fn bwrap(stage: &Stage, user: u32, how: &str, words: &[&str]) -> Option<Output> {
    let mut bwrap = Command::new("bwrap");
    bwrap.args([how, "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid"]);
    stage.mark_std(bwrap.args(["--die-with-parent", "--"]).args(words));
    if user != 0 {
        bwrap.uid(user).gid(user).env_remove("TIDY_PROCESS_PARENT");
    }
    match bwrap.output() {
        Ok(output) if said(&output).contains("bwrap: ") => skip(&said(&output)),
        Ok(output) => return Some(output),
        Err(error) => skip(&format!("bwrap: {error}: install the package bubblewrap")),
    }
    None
}

#[test]
#[serial]
fn in_a_sandbox_of_bubblewrap_it_is_the_mount_that_decides() {
    if !nix::unistd::geteuid().is_root() {
        return lacks("users", "only root can be two users");
    }
    let Some(stage) = Stage::set() else { return };
    for user in [0, 65534] {
        let words = [tool(), "run", "true"];
        let Some(output) = bwrap(&stage, user, "--ro-bind", &words) else { return };
        assert_read_only(&output);
    }
    let words = [tool(), "run", "sh", "-c", "sleep 60 & exit 7"];
    let Some(output) = bwrap(&stage, 0, "--bind", &words) else { return };
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(said(&output).contains("killed 1 leftover process: "), "{}", said(&output));
    stage.close(Alone::No);
}
