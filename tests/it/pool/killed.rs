//! SIGKILL of the pool at any moment leaves nothing.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use serial_test::serial;

use super::Scratch;
use crate::support::{Alone, SOON, Stage, rounds, tool, until};

/// At a moment that differs from round to round, in the first tenth of a second: while some of 64
/// are being started, run, and end. `TIDY_LONG=1` does it 1,000 times.
#[test]
#[serial]
fn a_pool_killed_at_any_moment_leaves_nothing() {
    let Some(stage) = Stage::set() else { return };
    let script = "case $(({} % 3)) in 0) exec sleep 60;; 1) setsid sleep 60 & ;; *) exit 3;; esac";
    for round in 0..rounds(10, 1000) {
        let mut command = stage.tool(&["pool", "-q", "-j64", "--", "sh", "-c", script]);
        let numbers = (1..2000).map(|number| number.to_string());
        let mut tool = command.arg(":::").args(numbers).stdout(Stdio::null()).spawn().unwrap();
        // The moments are spread by a generator of small period, so that each run has the same.
        sleep(Duration::from_micros(u64::from(round * 7919 % 1000) * 100));
        tool.kill().unwrap();
        tool.wait().unwrap();
        assert!(until(SOON, || stage.cgroups() == 0), "round {round}: cgroups are left");
        stage.assert_clean(&format!("round {round}"));
    }
    stage.close(Alone::Yes);
}

/// The first process of a container reaps what is orphaned there, and never a command of its own,
/// whose status would be lost: not one that has ended before it is known, either.
#[test]
#[serial]
fn the_first_process_of_a_container_takes_no_status_from_its_commands() {
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skip("only root can make a pid namespace");
    }
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let log = dir.path("log");
    let mut command = std::process::Command::new("unshare");
    stage.mark_std(command.args(["-p", "-f", "--mount-proc", "--kill-child", tool()]));
    command.args(["pool", "-q", "-j8", "--joblog", &log, "--"]);
    command.args(["sh", "-c", "(sleep 0.001 &) ; exit 3", "sh", ":::"]);
    command.args((0..300).map(|number| number.to_string()));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = dir.read("log");
    let ends = text.lines().skip(1).map(|line| line.split('\t').nth(6).unwrap());
    assert_eq!(ends.filter(|exit| *exit == "3").count(), 300, "{text}");
    stage.close(Alone::Yes);
}
