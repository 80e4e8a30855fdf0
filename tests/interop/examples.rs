//! The examples that are programs, run as they are.

use std::process::{Command as StdCommand, Output, Stdio};
use std::time::{Duration, Instant};

use serial_test::parallel;

use crate::support::{Alone, SOON, Stage, example};

fn run(stage: &Stage, name: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut command = StdCommand::new(example(name));
    stage.mark_std(command.args(args));
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.code(), said)
}

fn row(said: &str, name: &str) -> String {
    let row = said.lines().find_map(|line| line.strip_prefix(name));
    row.unwrap_or_else(|| panic!("no {name} in: {said}")).trim().to_owned()
}

/// What an example has made itself goes with it or, a moment later, by its guard.
fn close(stage: Stage) {
    let deadline = Instant::now() + SOON;
    while stage.cgroups() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_child_can_be_waited_for_in_any_runtime() {
    let Some(stage) = Stage::set() else { return };
    let (code, said) = run(&stage, "async_io", &[]);
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "sleep 0: exit status: 0, Exited, had to kill 1");
    assert_eq!(lines[1], "sleep 0.1: exit status: 0, Exited, had to kill 1");
    assert_eq!(lines[2], "sleep 60: signal: 9 (SIGKILL), TimedOut, had to kill 0");
    close(stage);
}

#[test]
#[parallel]
fn the_pool_runs_all_and_counts_what_became_of_them() {
    let Some(stage) = Stage::set() else { return };
    let (code, said) = run(&stage, "pool", &["-n", "200", "-P", "8"]);
    assert_eq!((code, row(&said, "succeeded").as_str()), (Some(0), "200"), "{said}");
    let script = "sleep 30 & case {} in 3) exit 4;; 5) sleep 30;; 7) exec no-such;; esac";
    let args = ["-n", "20", "-P", "4", "-t", "2", "--", "sh", "-c", script];
    let (code, said) = run(&stage, "pool", &args);
    assert_eq!(code, Some(1), "{said}");
    let rows = ["succeeded", "failed", "timed out", "not started", "leftovers"];
    let rows = rows.map(|name| row(&said, name));
    assert_eq!(rows, ["17", "2", "1", "0", "19"], "{said}");
    let (code, said) = run(&stage, "pool", &["-n", "3", "no-such-program"]);
    assert_eq!((code, row(&said, "not started").as_str()), (Some(1), "3"), "{said}");
    assert!(said.contains("exec \"no-such-program\""), "{said}");
    close(stage);
}

#[test]
#[parallel]
fn a_signal_ends_what_the_pool_runs_and_the_pool() {
    let Some(stage) = Stage::set() else { return };
    let mut command = StdCommand::new(example("pool"));
    stage.mark_std(command.args(["-P", "4", "--", "sh", "-c", "setsid sleep 30 & sleep 30"]));
    let pool = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + SOON;
    // The pool, its guard has no mark, and three processes in each of four trees.
    while stage.alive().len() < 13 {
        assert!(Instant::now() < deadline, "{:?}", stage.alive());
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(pool.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGINT).unwrap();
    let output = pool.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let alive = stage.alive();
    assert!(alive.is_empty(), "{alive:?}");
    close(stage);
}
