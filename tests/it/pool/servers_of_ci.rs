//! What CI servers read: JUnit's XML against the schema that Jenkins has (MIT licence, of its xunit
//! plugin), by a validator that is not ours; GitHub's annotations and summary.

use std::fs;
use std::path::Path;
use std::process::Command as StdCommand;

use serial_test::parallel;

use super::Scratch;
use super::run::{fed, said};
use crate::support::{Alone, Stage};

/// The document, once xmllint finds nothing wrong with it.
fn validated(dir: &Scratch) -> String {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/pool/junit-10.xsd");
    let mut command = StdCommand::new("xmllint");
    let command = command.args(["--noout", "--schema"]).arg(schema).arg(dir.path("j.xml"));
    let output = command.output().expect("xmllint is missing: apt-get install libxml2-utils");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", dir.read("j.xml"));
    dir.read("j.xml")
}

#[test]
#[parallel]
fn the_result_of_a_pool_is_junits() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let junit = dir.path("j.xml");
    let script = "case $1 in 1) exit 3;; 2) sleep 60;; 3) kill -9 $$;; 4) sleep 60 & ;; esac";
    let args = ["-q", "-t", "1", "--junit", &junit, "--", "sh", "-c", script];
    // A hostile name, and what XML cannot have.
    let input = b"0\n1\n2\n3\n4\n]]><x a=\"'&\x1b\x01\xff\xef\xbf\xbf\n";
    let output = fed(&stage, &[&args[..], &["x"]].concat(), input);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = validated(&dir);
    assert!(text.contains("tests=\"6\" failures=\"3\" errors=\"0\""), "{text}");
    for kind in ["type=\"exit\" message=\"exited with 3\"", "timed-out", "signal"] {
        assert!(text.contains(kind), "{kind}: {text}");
    }
    assert!(text.contains("<system-err>left ") && text.contains("sleep 60"), "{text}");
    fed(&stage, &["-q", "--junit", &junit, "--", "no-such-program"], b"a\n");
    let text = validated(&dir);
    assert!(text.contains("errors=\"1\"") && text.contains("No such file"), "{text}");
    fed(&stage, &["-q", "--junit", &junit, "--", "true"], b"");
    assert!(validated(&dir).contains("tests=\"0\""));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_results_of_run_and_with_are_too() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let junit = dir.path("j.xml");
    let server = ["--server", "echo up; exec sleep 20", "--ready", "log:up"];
    let table: &[(&str, &[&str], &[&str], &str)] = &[
        ("run", &[], &["true"], "failures=\"0\" errors=\"0\""),
        ("run", &[], &["sh", "-c", "exit 7"], "message=\"exited with 7\""),
        ("run", &["-t", "0.1"], &["sleep", "60"], "type=\"timed-out\""),
        ("run", &["--leaks=fail"], &["sh", "-c", "sleep 60 &"], "type=\"leak\""),
        ("run", &[], &["no-such-program"], "errors=\"1\""),
        ("with", &server, &["true"], "failures=\"0\" errors=\"0\""),
        ("with", &server, &["false"], "message=\"exited with 1\""),
        ("with", &["--server", "exit 3", "--ready", "tcp"], &["true"], "errors=\"1\""),
    ];
    for (sub, options, command, wanted) in table {
        let mut tool = stage.tool(&[sub, "-q", "--junit", &junit]);
        tool.args(*options).arg("--").args(*command).output().unwrap();
        let text = validated(&dir);
        let suite = format!("<testsuite name=\"tidy-process {sub}\" tests=\"1\"");
        assert!(text.contains(wanted) && text.contains(&suite), "{sub} {command:?}: {text}");
    }
    stage.close(Alone::No);
}

/// A command line that looks like a command of the runner, or like Markdown, is text.
#[test]
#[parallel]
fn github_gets_annotations_and_a_summary() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let summary = dir.path("summary");
    fs::write(&summary, "before\n").unwrap();
    let run = |args: &[&str]| {
        let mut tool = stage.tool(args);
        let output = tool.env("GITHUB_STEP_SUMMARY", &summary).output().unwrap();
        said(&output)
    };
    let hostile = "x\n::error::owned\n| <b>*`,:%";
    let script = "sleep 60 & exit 3";
    let told = run(&["pool", "-q", "--github", "--", "sh", "-c", script, hostile]);
    assert_eq!(told, "", "no input: {told}");
    let told = run(&["pool", "-q", "--github", "--", "sh", "-c", script, ":::", hostile]);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    let title = lines[0].strip_prefix("::error title=").unwrap();
    let (title, message) = title.split_once("::").unwrap();
    assert!(!title.contains([':', ',']) && title.contains("%3A%3Aerror"), "{title}");
    assert_eq!(message, "exited with 3");
    assert!(lines[1].starts_with("::warning title=") && lines[1].contains("sleep 60"), "{told}");
    let text = dir.read("summary");
    assert!(text.starts_with("before\n### tidy-process pool\n"), "{text}");
    assert!(text.contains("1 failed, 1 left") && !text.contains("<b>"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("| failed |")).count(), 1, "{text}");
    let told = run(&["run", "-q", "--github", "--", "sh", "-c", "exit 4"]);
    assert!(told.starts_with("::error title=sh -c 'exit 4'::exited with 4\n"), "{told}");
    let server = ["--server", "sleep 20", "--name", "s", "--", "true"];
    run(&[&["with", "-q", "--github"], &server[..]].concat());
    assert!(dir.read("summary").contains("### tidy-process with\n"));
    stage.close(Alone::No);
}

/// GitHub takes no summary of more than 1 MiB, whatever commands are called.
#[test]
#[parallel]
fn the_summary_of_github_is_bounded() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let (summary, input) = (dir.path("summary"), dir.path("input"));
    let line = |number: u32| format!("/no/{}{number}\n", "*".repeat(20_000));
    fs::write(&input, (0..120).map(line).collect::<String>()).unwrap();
    let mut tool = stage.tool(&["pool", "-q", "--github", "-a", &input, "--", "{}"]);
    let output = tool.env("GITHUB_STEP_SUMMARY", &summary).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = dir.read("summary");
    assert_eq!(text.lines().filter(|line| line.starts_with("| failed |")).count(), 100);
    assert!(text.len() < 1 << 20, "{}", text.len());
    stage.close(Alone::No);
}
