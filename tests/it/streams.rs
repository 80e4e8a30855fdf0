//! Standard streams that are full, closed, or were made non-blocking.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::parallel;

use crate::support::{Alone, Stage, until};

/// A pipe without room, whose writing end says so instead of waiting.
fn full() -> (PipeReader, PipeWriter) {
    let (reads, mut writes) = pipe().unwrap();
    fcntl(&writes, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writes.write(&[b'x'; 4096]).is_ok() {}
    (reads, writes)
}

/// All that comes, without what filled the pipe.
fn drained(mut reads: PipeReader) -> String {
    let mut all = String::new();
    reads.read_to_string(&mut all).unwrap();
    all.trim_start_matches('x').to_owned()
}

/// Longer than a run takes that does not wait: nothing announces that a process waits for a pipe.
const A_WHILE: Duration = Duration::from_millis(500);

#[test]
#[parallel]
fn a_report_waits_until_it_can_be_written() {
    let Some(stage) = Stage::set() else { return };
    for args in [&["run", "-q", "--json", "-", "true"][..], &["ps", "--json"], &["run", "--help"]] {
        let (reads, writes) = full();
        let mut tool = stage.tool(args).stdout(writes).stderr(Stdio::piped()).spawn().unwrap();
        assert!(!until(A_WHILE, || tool.try_wait().unwrap().is_some()), "{args:?}");
        let written = drained(reads);
        let output = tool.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let whole = if args.contains(&"--help") { "Examples:" } else { "}\n" };
        assert!(written.contains(whole) && !written.contains('\0'), "{written}");
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_line_waits_until_it_can_be_written() {
    let Some(stage) = Stage::set() else { return };
    let (reads, writes) = full();
    let args = ["run", "sh", "-c", "sleep 25 & exit 0"];
    let mut tool = stage.tool(&args).stderr(writes).spawn().unwrap();
    assert!(!until(A_WHILE, || tool.try_wait().unwrap().is_some()));
    assert!(drained(reads).contains("killed 1 leftover process: "));
    assert_eq!(tool.wait().unwrap().code(), Some(0));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_signal_ends_a_report_that_is_not_read() {
    let Some(stage) = Stage::set() else { return };
    let (reads, writes) = full();
    let mut tool =
        stage.tool(&["run", "-q", "--json", "-", "true"]).stdout(writes).spawn().unwrap();
    assert!(!until(A_WHILE, || tool.try_wait().unwrap().is_some()));
    kill(Pid::from_raw(tool.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(tool.wait().unwrap().signal(), Some(15));
    drop(reads);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let Some(stage) = Stage::set() else { return };
    let table: [&[&str]; 5] =
        [&["--help"], &["run", "--help"], &["--version"], &["ps"], &["run", "--json", "-", "true"]];
    for args in table {
        let (reads, writes) = pipe().unwrap();
        drop(reads);
        let status = stage.tool(args).stdout(writes).status().unwrap();
        assert_eq!(status.code(), Some(0), "{args:?}");
        let full = File::create("/dev/full").unwrap();
        let output = stage.tool(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{args:?}");
    }
    stage.close(Alone::No);
}
