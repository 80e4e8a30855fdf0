//! Where commands and arguments come from.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serial_test::parallel;

use super::Scratch;
use super::run::{exits, fed, lines, out, pool, said};
use crate::support::{Alone, Stage, read_ready};

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
