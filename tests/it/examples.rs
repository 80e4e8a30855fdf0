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

#[test]
#[parallel]
fn the_pool_runs_lines_and_says_what_became_of_them() {
    use std::io::Write;
    use std::process::Stdio;
    let Some(stage) = Stage::set() else { return };
    let mut command = StdCommand::new(example("pool"));
    stage.mark_std(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut pool = command.spawn().unwrap();
    pool.stdin.take().unwrap().write_all(b"exit 3\nsleep 60 &\nkill -9 $$\n").unwrap();
    let output = pool.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    let ends = ["exit status: 3, 0 left", "signal: 9 (SIGKILL), 0 left", "exit status: 0, 1 left"];
    let wanted = ["exit 3", "kill -9 $$", "sleep 60 &"];
    let wanted: Vec<_> =
        wanted.iter().zip(ends).map(|(line, end)| format!("{line}: {end}")).collect();
    assert_eq!((lines, output.status.success()), (wanted.iter().map(|it| &**it).collect(), true));
    close(stage);
}

/// In force where the controllers are, and else an error that says what to do: never ignored.
#[test]
#[parallel]
fn the_program_with_limits_is_kept_to_them_or_says_what_is_missing() {
    let Some(stage) = Stage::set() else { return };
    let offered =
        std::fs::read_to_string(stage.supervisor.path().unwrap().join("cgroup.controllers"));
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
