//! Nothing that others wrote steers the terminal it is shown on.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use serial_test::{parallel, serial};
use tidy_process::{Log, NoLeaks, Ready, Stdio};

use super::{Measured, measured};
use crate::support::{Alone, Stage, read_ready};
use crate::victim;
use crate::victim::hostile::EVIL;

/// What a terminal obeys; a text has lines.
fn steers(c: char) -> bool {
    let control = c.is_control() && c != '\n';
    control || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn harmless(text: &str) {
    assert!(!text.contains(steers), "{text:?}");
}

fn evil(stage: &Stage, options: &[&str], victim: &str) -> Measured {
    let mut tool = stage.tool(options);
    tool.arg("--").arg(victim::exe()).env("TIDY_VICTIM", victim);
    measured(tool)
}

#[test]
#[parallel]
fn a_leftovers_command_line_is_quoted() {
    let Some(stage) = Stage::set() else { return };
    for leaks in ["kill", "report", "fail"] {
        for mechanism in ["cgroup", "keeper"] {
            let (leaks, how) = (format!("--leaks={leaks}"), format!("--containment={mechanism}"));
            let seen = evil(&stage, &["run", &leaks, &how, "--json", "-"], "evil-words");
            harmless(&seen.stderr);
            assert!(seen.stderr.contains("evil?[31m"), "{seen:?}");
            let lines = seen.stderr.lines().filter(|line| !line.contains("held by")).count();
            assert_eq!(lines, if leaks == "--leaks=report" { 2 } else { 1 }, "{seen:?}");
            // The victim said `ready` there too.
            let json = seen.stdout.lines().last().unwrap();
            harmless(json);
            let report: Value = serde_json::from_str(json).unwrap();
            let word = report["leftovers"][0]["command"][0].as_str().unwrap();
            assert_eq!(word, String::from_utf8_lossy(EVIL), "it is not whole");
        }
    }
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_servers_name_port_directory_and_lines_are_quoted() {
    let Some(stage) = Stage::set() else { return };
    let log = Log::bounded(1000, 1000);
    let mut command = stage.command(victim::exe().to_str().unwrap());
    command.env("TIDY_VICTIM", "evil-server").env("TIDY_STAY", "1");
    let child = command.log(&log).spawn().unwrap();
    drop(command);
    child.wait_ready(Ready::log("ready"), Instant::now() + Duration::from_secs(20)).unwrap();
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = child.wait_ready(Ready::tcp(1), deadline).unwrap_err();
    for text in [error.to_string(), format!("{error:?}"), format!("{error:#}")] {
        harmless(&text);
        assert!(text.contains("listening on: tcp 127.0.0.1:") && text.contains("evil?[31m"));
    }
    for process in child.tree().processes() {
        harmless(&format!("{process} {}", process.particulars()));
    }
    for port in child.tree().listening_ports().unwrap() {
        harmless(&port.to_string());
        assert!(port.to_string().contains("(") && port.to_string().lines().count() == 1);
    }
    drop(child);
    stage.close(Alone::No);
    let _ = fs::remove_dir(std::env::temp_dir().join(OsStr::from_bytes(EVIL)));
}

#[test]
#[serial]
fn what_a_server_of_with_says_is_quoted() {
    let Some(stage) = Stage::set() else { return };
    let exe = victim::exe();
    let server = exe.to_str().unwrap();
    // It ends before it is ready; it ends while the command runs.
    for (ready, command) in [("tcp:1", "true"), ("log:ready", "sleep 20")] {
        for options in [&["-q"][..], &["-v"]] {
            let mut tool = stage.tool(&["with"]);
            tool.args(options).args(["--server", server, "--ready", ready, "--", "sh", "-c"]);
            tool.arg(command).env("TIDY_VICTIM", "evil-server");
            let seen = measured(tool);
            harmless(&seen.stderr);
            assert_eq!(seen.status.unwrap().code(), Some(125), "{seen:?}");
            assert!(seen.stderr.contains("evil?[31m"), "{seen:?}");
        }
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn directories_are_quoted_in_the_list_of_trees() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.command("sleep").arg("20").spawn().unwrap();
    let trees = child.tree().path().unwrap().parent().unwrap().to_owned();
    // No newline in the name of a cgroup: the kernel refuses that.
    let name: Vec<u8> = EVIL.iter().copied().filter(|byte| *byte != b'\n').collect();
    let dir = trees.join(OsStr::from_bytes(&[b"7-", &name[..]].concat()));
    fs::create_dir(&dir).unwrap();
    let parent = stage.supervisor.path().unwrap().parent().unwrap().to_owned();
    let looks = |args: &[&str]| {
        let seen = measured({
            let mut tool = stage.tool(args);
            tool.arg("--parent").arg(&parent);
            tool
        });
        harmless(&seen.stdout);
        harmless(&seen.stderr);
        seen
    };
    assert!(looks(&["ps"]).stdout.contains("evil?[31m"));
    let json: Value = serde_json::from_str(&looks(&["ps", "--json"]).stdout).unwrap();
    assert!(json.to_string().contains("evil\\u001b[31m"), "{json}");
    looks(&["sweep", "--dry-run"]);
    looks(&["doctor"]);
    fs::remove_dir(&dir).unwrap();
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_panic_over_leftovers_is_quoted() {
    drop(match Stage::set() {
        Some(stage) => stage,
        None => return,
    });
    let said = std::panic::catch_unwind(|| {
        let tidy = NoLeaks::new().unwrap();
        let mut command = tidy.command(victim::exe());
        command.env("TIDY_VICTIM", "evil-words").stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        read_ready(child.stdout.take().unwrap());
        child.wait().unwrap();
        child.finish().unwrap();
    });
    let said = said.unwrap_err().downcast_ref::<String>().cloned().unwrap();
    harmless(&said);
    assert!(said.lines().count() == 2 && said.contains("evil?[31m"), "{said:?}");
}

/// The tool writes to its standard streams in one file, and that quotes.
#[test]
fn nothing_is_printed_past_the_quoting() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let words = ["stdout()", "stderr()", "println!", "eprintln!", "print!(", "eprint!(", "dbg!("];
    let mut todo = vec![src.clone()];
    let mut found = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()));
            continue;
        }
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let used = code.filter(|line| words.iter().any(|word| line.contains(word))).count();
        if used > 0 {
            found.push((path.strip_prefix(&src).unwrap().display().to_string(), used));
        }
    }
    found.sort();
    // Whether help and usage go to a terminal; a report for `--json -`, whose text is escaped; the
    // lines and the text of the tool; the streams themselves, compared with files and handed to a
    // child; whether and where progress is shown, and `top`, whose texts are quoted; whether one of
    // them is the terminal. A pool hands on what its commands have written, as it is; a script that
    // it makes goes to a terminal with quotes.
    let known = [
        ("cli/main.rs", 2),
        ("cli/pool/clerk.rs", 4),
        ("cli/pool/emit/script.rs", 2),
        ("cli/pool/mod.rs", 1),
        ("cli/print/json.rs", 1),
        ("cli/print/text.rs", 2),
        ("cli/progress.rs", 2),
        ("cli/run/files.rs", 2),
        ("cli/top/mod.rs", 1),
        ("cli/top/screen.rs", 1),
        ("cli/wait/bar.rs", 4),
        ("cli/wait/terminal.rs", 1),
        ("exec/stdio.rs", 2),
    ];
    assert_eq!(found, known.map(|(path, used)| (path.to_owned(), used)));
}
