//! Where commands and arguments come from.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::parallel;

use super::Scratch;
use super::run::{exits, fed, lines, out, pool, said};
use crate::support::{Alone, SOON, Stage, read_ready, tool, until};

#[test]
#[parallel]
fn lines_are_commands_for_sh() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let text = "echo a | tr a b\n\n  \necho \"$((1 + 1))\"; exit 0\necho last";
    fs::write(dir.path("commands"), text).unwrap();
    for args in [vec!["-q", &dir.path("commands")], vec!["-q"], vec!["-q", "-"]] {
        let output = fed(&stage, &args, text.as_bytes());
        assert_eq!(lines(&output), ["2", "b", "last"], "{args:?}: {}", said(&output));
    }
    let output = fed(&stage, &["-0"], b"echo 'a\nb'\0echo c\0");
    assert_eq!(lines(&output), ["a", "b", "c"]);
    assert_eq!(exits(&stage, &["-q", &dir.path("none")], 125), [""; 0]);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn arguments_are_never_seen_by_a_shell() {
    let Some(stage) = Stage::set() else { return };
    let hostile = b"$(id) `id`; rm -rf *\na  b\n-n\n\xff\n";
    let output = fed(&stage, &["-j1", "--keep-order", "--", "printf", "<%s>\\n"], hostile);
    let wanted = b"<$(id) `id`; rm -rf *>\n<a  b>\n<-n>\n<\xff>\n";
    assert_eq!(output.stdout, wanted, "{}", said(&output));
    let shell = ["-j1", "--keep-order", "--shell", "--", "printf '<%s>\\n' {} | cat"];
    let output = fed(&stage, &shell, hostile);
    assert_eq!(output.stdout, wanted, "{}", said(&output));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn several_inputs_make_every_combination() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    fs::write(dir.path("a"), "1\n2\n").unwrap();
    let args = ["--keep-order", "-a", &dir.path("a"), "--", "echo", "{1}-{2}", ":::", "x", "y"];
    assert_eq!(out(&pool(&stage, &args)), "1-x\n1-y\n2-x\n2-y\n");
    assert_eq!(exits(&stage, &["-n", "2", "--", "echo", ":::", "a", "b", "c"], 0), ["a b", "c"]);
    assert_eq!(exits(&stage, &["-I", "@", "--", "echo", "@-{}", ":::", "a"], 0), ["a-{}"]);
    assert_eq!(exits(&stage, &["-d", ",", "--", "echo"], 0), [""; 0]);
    assert_eq!(lines(&fed(&stage, &["-d", ",", "--", "echo"], b"a,b")), ["a", "b"]);
    for wrong in [&["-n", "2"][..], &["-n", "2", "--", "c", ":::", "a", ":::", "b"], &["--shell"]] {
        assert_eq!(pool(&stage, wrong).status.code(), Some(125), "{wrong:?}");
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_variables_of_parallel_are_set() {
    let Some(stage) = Stage::set() else { return };
    let line = "echo $PARALLEL_SEQ-$PARALLEL_JOBSLOT-$0";
    let args = ["-j1", "--", "sh", "-c", line, "{#}{%}", ":::", "a", "b"];
    assert_eq!(exits(&stage, &args, 0), ["1-1-11", "2-1-21"]);
    stage.close(Alone::No);
}

/// A command that runs is waited for, and its timeout kept, while the input has nothing to say.
#[test]
#[parallel]
fn an_input_that_waits_holds_up_no_command() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.tool(&["pool", "-q", "-j4", "-t", "0.2"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut tool = command.spawn().unwrap();
    let mut stdin = tool.stdin.take().unwrap();
    stdin.write_all(b"trap 'echo ready; exit' TERM; sleep 60 & wait\n").unwrap();
    let mut stdout = tool.stdout.take().unwrap();
    // Its time is over, and its output printed, though the input goes on.
    read_ready(&mut stdout);
    stdin.write_all(b"echo ready\n").unwrap();
    read_ready(&mut stdout);
    drop(stdin);
    assert_eq!(tool.wait().unwrap().code(), Some(1));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_line_longer_than_any_argument_is_refused() {
    let Some(stage) = Stage::set() else { return };
    let output = fed(&stage, &["--", "true"], &vec![b'x'; 1 << 20]);
    assert_eq!(output.status.code(), Some(125));
    assert!(said(&output).contains("longer than 131072 bytes"), "{}", said(&output));
    stage.close(Alone::No);
}

/// What is held of an input is bounded, whatever is read from.
#[test]
#[parallel]
fn endless_inputs_are_refused_where_they_would_be_held() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    fs::write(dir.path("a"), "1\n").unwrap();
    for (args, why) in [
        (format!("-a {} -a <(yes) -- true", dir.path("a")), "only the first input"),
        ("-n 1000000000 -a <(yes) -- true".to_owned(), "the arguments of a command are longer"),
    ] {
        let script = format!("ulimit -v 4000000; exec \"$0\" pool {args}");
        let mut command = std::process::Command::new("bash");
        stage.mark_std(&mut command);
        let output = command.args(["-c", &script, tool()]).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{args}: {}", said(&output));
        assert!(said(&output).contains(why), "{}", said(&output));
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_dry_run_ends_when_it_is_asked_to() {
    let Some(stage) = Stage::set() else { return };
    for endless in [false, true] {
        let mut command = stage.tool(&["pool", "--dry-run"]);
        let (input, mut writer) = std::io::pipe().unwrap();
        let zeros = || fs::File::open("/dev/zero").unwrap();
        match endless {
            true => command.args(["-d", "\\0", "--", "true"]).stdin(zeros()).stdout(Stdio::null()),
            false => command.stdin(input).stdout(Stdio::piped()),
        };
        let mut pool = command.spawn().unwrap();
        if let Some(mut stdout) = pool.stdout.take() {
            writer.write_all(b"ready\n").unwrap();
            read_ready(&mut stdout);
        }
        // An endless one prints nothing that could be waited for.
        kill(Pid::from_raw(pool.id().cast_signed()), Signal::SIGTERM).unwrap();
        let mut by = None;
        let ended = until(SOON, || {
            by = pool.try_wait().unwrap();
            by.is_some()
        });
        pool.kill().unwrap();
        assert!(ended && by.unwrap().signal() == Some(15), "endless: {endless}, {by:?}");
        pool.wait().unwrap();
    }
    stage.close(Alone::No);
}

/// The report of an earlier pool is not lost by a look at what another one would do.
#[test]
#[parallel]
fn a_dry_run_writes_to_no_file() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let files = ["json", "junit", "summary"].map(|name| dir.path(name));
    files.iter().for_each(|file| fs::write(file, "kept").unwrap());
    let [json, junit, summary] = &files;
    let args = ["pool", "--dry-run", "--json", json, "--junit", junit, "--github"];
    let mut command = stage.tool(&[&args[..], &["--", "echo", ":::", "a"]].concat());
    let output = command.env("GITHUB_STEP_SUMMARY", summary).output().unwrap();
    assert_eq!(out(&output), "echo a\n");
    assert!(["json", "junit", "summary"].iter().all(|name| dir.read(name) == "kept"));
    stage.close(Alone::No);
}
