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

/// The first things that people write, and what they print.
#[test]
#[parallel]
fn the_first_programs_do_what_they_say() {
    let Some(stage) = Stage::set() else { return };
    let (code, said) = run(&stage, "capture", &[]);
    let kept = "1\n2\n3\n4\n5\n6\n\n[... 6888872 bytes left out ...]\n999\n1000000\n\n";
    let told = "6888872 bytes were not kept; exit status: 0\n";
    assert_eq!((code, said), (Some(0), format!("{kept}{told}")));

    let (code, said) = run(&stage, "timeout", &[]);
    let milliseconds = said.strip_prefix("out of time after ").unwrap_or_else(|| panic!("{said}"));
    assert!(milliseconds.ends_with("s: signal: 15 (SIGTERM)\n"), "{said}");
    assert_eq!(code, Some(0));

    let (code, said) = run(&stage, "server", &[]);
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("127.0.0.1:") && lines[0].ends_with(" answers"), "{said}");
    assert_eq!(lines[1..], ["refused now: true"]);

    let (code, said) = run(&stage, "enroll", &[]);
    let told = "started\nexit status: 0; 1 processes had to be killed\n".to_owned();
    assert_eq!((code, said), (Some(0), told));
    close(stage);
}

/// In force where the controllers are, and else an error that says what to do: never ignored.
#[test]
#[parallel]
fn the_program_with_limits_is_kept_to_them_or_says_what_is_missing() {
    let Some(stage) = Stage::set() else { return };
    let offered = std::fs::read_to_string(stage.supervisor.path().join("cgroup.controllers"));
    let offered = offered.unwrap();
    let (code, said) = run(&stage, "limits", &[]);
    assert_eq!(code, Some(0), "{said}");
    if ["memory", "pids", "cpu"].iter().all(|name| offered.split_whitespace().any(|o| o == *name)) {
        assert_eq!(said, "OutOfMemory: signal: 9 (SIGKILL)\n");
    } else {
        assert!(said.starts_with("limit "), "{said}");
        assert!(said.contains("\nhint: ") && !said.contains("hint: none"), "{said}");
    }
    close(stage);
}

#[cfg(feature = "tokio")]
#[test]
#[parallel]
fn the_program_in_tokio_runs_its_commands_at_once() {
    let Some(stage) = Stage::set() else { return };
    let (code, said) = run(&stage, "async_tokio", &[]);
    let told = "killed 1: job 1\nkilled 1: job 2\nkilled 1: job 3\n".to_owned();
    assert_eq!((code, said), (Some(0), told));
    close(stage);
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
