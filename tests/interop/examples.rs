//! The examples that are programs, run as they are.

use std::process::{Command as StdCommand, Output};
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
