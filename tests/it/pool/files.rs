//! A disk that is full: it is said, nothing more is started, what runs goes on.

use std::process::Command as StdCommand;

use serial_test::parallel;

use super::Scratch;
use crate::support::{Alone, Stage, skip, tool};

/// Runs a line of sh in a mount namespace with a tmpfs of three pages at `$D`.
fn on_small_disk(stage: &Stage, line: &str) -> Option<(Option<i32>, String)> {
    let dir = Scratch::new();
    let mut command = StdCommand::new("unshare");
    stage.mark_std(command.arg("-m").arg("sh").arg("-c"));
    let mount = "mount -t tmpfs -o size=12k none \"$D\" || exit 77; cd /; ";
    command.arg(format!("{mount}{line}")).env("D", dir.as_ref()).env("T", tool());
    let output = command.output().unwrap();
    if output.status.code() == Some(77)
        || String::from_utf8_lossy(&output.stderr).contains("unshare")
    {
        skip("no tmpfs can be mounted");
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some((output.status.code(), said))
}

#[test]
#[parallel]
fn a_full_disk_under_the_log_ends_the_pool() {
    let Some(stage) = Stage::set() else { return };
    let line =
        "yes 'echo a line that is long enough to fill a page or two of the log' | head -2000 |
        \"$T\" pool -j4 --joblog \"$D/log\" >/dev/null";
    let Some((status, said)) = on_small_disk(&stage, line) else { return };
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains("write report to") && said.contains("ENOSPC"), "{said}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_full_disk_under_the_results_is_each_commands_own() {
    let Some(stage) = Stage::set() else { return };
    let line =
        "seq 9 | \"$T\" pool -j1 --results \"$D\" -- sh -c 'head -c 20000 /dev/zero' >/dev/null";
    let Some((status, said)) = on_small_disk(&stage, line) else { return };
    // The first command meets it, then the pool, which can make no file.
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains("ENOSPC"), "{said}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_full_disk_under_the_output_is_said() {
    let Some(stage) = Stage::set() else { return };
    let line = "seq 2000 | TMPDIR=/tmp \"$T\" pool -j2 -- seq >\"$D/out\" 1000";
    let Some((status, said)) = on_small_disk(&stage, line) else { return };
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains("write to standard output") && said.contains("ENOSPC"), "{said}");
    // Nowhere to keep what a command writes: its own write fails.
    let line = "head -c 20000 /dev/zero >\"$D/full\"; TMPDIR=\"$D\" \"$T\" pool -- echo ::: a";
    let Some((status, said)) = on_small_disk(&stage, line) else { return };
    assert!(status == Some(1) && said.contains("echo a (exited with"), "{status:?} {said}");
    stage.close(Alone::No);
}
