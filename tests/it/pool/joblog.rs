//! The log of jobs: GNU parallel reads ours, we read its own.

use std::fs;
use std::process::Command as StdCommand;

use serial_test::parallel;

use super::Scratch;
use super::run::{exits, pool, said};
use crate::support::{Alone, Stage};

fn parallel_of_gnu(args: &[&str]) -> Vec<String> {
    let mut command = StdCommand::new("parallel");
    let output = command.args(["--will-cite", "-j1", "-k"]).args(args).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

const SCRIPT: &str = "echo {}; exit {}";

#[test]
#[parallel]
fn parallel_resumes_what_we_have_begun() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let log = dir.path("log");
    let ours = ["-q", "-j1", "--joblog", &log, "--", "sh", "-c", SCRIPT];
    exits(&stage, &[&ours[..], &[":::", "0", "3"]].concat(), 1);
    let text = dir.read("log");
    let mut lines = text.lines();
    let header = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand";
    assert_eq!(lines.next(), Some(header));
    let second: Vec<&str> = lines.nth(1).unwrap().split('\t').collect();
    assert_eq!((second[0], second[1], second[5], second[6], second[7]), ("2", ":", "2", "3", "0"));
    assert_eq!(second[8], "sh -c 'echo 3; exit 3'");
    let theirs = ["sh -c 'echo {}; exit {}'", ":::", "0", "3", "0"];
    // Both of ours are done for it; then those that have failed are not.
    let resumed = parallel_of_gnu(&[&["--joblog", &log, "--resume"], &theirs[..]].concat());
    assert_eq!(resumed, ["0"]);
    let failed = parallel_of_gnu(&[&["--joblog", &log, "--resume-failed"], &theirs[..]].concat());
    assert_eq!(failed, ["3"]);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn we_resume_what_parallel_has_begun() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let log = dir.path("log");
    parallel_of_gnu(&["--joblog", &log, "sh -c 'exit {}'", ":::", "0", "3"]);
    let args = |how: &'static str| {
        let all =
            ["-q", "-j1", "--joblog", &log, how, "--", "sh", "-c", SCRIPT, ":::", "0", "3", "0"];
        all.map(str::to_owned).to_vec()
    };
    let run = |how: &'static str, status| {
        let args = args(how);
        exits(&stage, &args.iter().map(String::as_str).collect::<Vec<_>>(), status)
    };
    assert_eq!(run("--resume", 0), ["0"]);
    assert_eq!(run("--resume", 0), [""; 0]);
    assert_eq!(run("--resume-failed", 1), ["3"]);
    assert_eq!(dir.read("log").lines().count(), 5);
    stage.close(Alone::No);
}

/// A pool that is killed may leave half a line: that command is not done, and the next line is one
/// of its own.
#[test]
#[parallel]
fn a_line_that_was_cut_is_none() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let log = dir.path("log");
    let head = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";
    fs::write(&log, format!("{head}1\t:\t1.000\t     0.001\t0\t0\t0\t0\techo 1\n23\t:\t1.0"))
        .unwrap();
    let args = ["--joblog", &log, "--resume", "--", "echo", ":::", "1", "2", "3"];
    let output = pool(&stage, &args);
    assert_eq!(super::run::lines(&output), ["2", "3"]);
    assert!(said(&output).contains("1 lines are none of a log"), "{}", said(&output));
    let text = dir.read("log");
    assert!(text.lines().count() == 5 && text.contains("\n23\t:\t1.0\n"), "{text}");
    stage.close(Alone::No);
}

/// One that a signal ended, one that was stopped, one that never ran.
#[test]
#[parallel]
fn every_end_is_in_the_log() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let log = dir.path("log");
    let script = "case {} in 1) kill -9 $$;; 2) sleep 60;; esac";
    let args = ["-q", "-j1", "-t", "0.2", "--joblog", &log, "--", "sh", "-c", script];
    exits(&stage, &[&args[..], &[":::", "1", "2"]].concat(), 1);
    let column = |line: &str, at: usize| line.split('\t').nth(at).unwrap().to_owned();
    let text = dir.read("log");
    let ends: Vec<_> = text.lines().skip(1).map(|it| (column(it, 6), column(it, 7))).collect();
    let owned = |exit: &str, signal: &str| (exit.to_owned(), signal.to_owned());
    assert_eq!(ends, [owned("0", "9"), owned("124", "15")]);
    exits(&stage, &["-q", "--joblog", &log, "--", "no-such-program", ":::", "a\nb"], 1);
    let text = dir.read("log");
    assert!(text.ends_with("\t127\t0\tno-such-program $'a\\nb'\n"), "{text}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn long_commands_are_resumed_too() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let (log, input) = (dir.path("log"), dir.path("input"));
    // Each line is as long as an argument may be; together they are longer in the log.
    let lines: String = (0..6).map(|_| "x".repeat(100_000) + "\n").collect();
    fs::write(&input, lines).unwrap();
    let ours = ["-q", "-n3", "-a", &input, "--joblog", &log];
    let run = |more: &[&str]| {
        let command = ["--", "sh", "-c", "echo $#", "sh"];
        let output = pool(&stage, &[&ours[..], more, &command[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(run(&[]), "3\n3\n");
    assert_eq!(run(&["--resume"]), "");
    let text = dir.read("log");
    let first = text.match_indices('\n').nth(1).unwrap().0;
    // The second one was cut: it is done again, on a line of its own.
    fs::write(&log, &text[..first + 10]).unwrap();
    assert_eq!(run(&["--resume"]), "3\n");
    assert_eq!(dir.read("log").lines().count(), 4);
    stage.close(Alone::No);
}
