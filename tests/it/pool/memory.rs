//! Memory does not grow with the number of commands, nor with what they write.

use std::io::{Read, Write};
use std::process::{ChildStdout, Stdio};

use serial_test::serial;

use crate::support::{Alone, Stage, rounds};

/// The most memory that the tool has had so far, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

fn read_bytes(stdout: &mut ChildStdout, mut count: u64) {
    let mut piece = vec![0; 1 << 16];
    while count > 0 {
        let most = piece.len().min(usize::try_from(count).unwrap());
        let read = stdout.read(&mut piece[..most]).unwrap();
        assert_ne!(read, 0, "{count} bytes are missing");
        count -= read as u64;
    }
}

/// The peaks after the first few of all that is written, and after all of it.
fn peaks(stage: &Stage, args: &[&str], input: &str, (few, all): (u64, u64)) -> (u64, u64) {
    let mut command = stage.tool(&["pool", "-q"]);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut tool = command.spawn().unwrap();
    let (mut stdin, mut stdout) = (tool.stdin.take().unwrap(), tool.stdout.take().unwrap());
    let peaks = std::thread::scope(|scope| {
        // It is closed last, so that the tool lives when it is looked at.
        let stdin = &mut stdin;
        scope.spawn(move || stdin.write_all(input.as_bytes()).unwrap());
        read_bytes(&mut stdout, few);
        let before = peak(tool.id());
        read_bytes(&mut stdout, all - few);
        (before, peak(tool.id()))
    });
    drop((stdin, stdout));
    assert!(tool.wait().unwrap().success());
    peaks
}

#[test]
#[serial]
fn ten_times_the_commands_need_no_more_memory() {
    let Some(stage) = Stage::set() else { return };
    // As many as the machine has time for: 20,000 with TIDY_LONG=1.
    let all_of_them = u64::from(rounds(4_000, 20_000));
    let input = "x\n".repeat(usize::try_from(all_of_them).unwrap());
    for args in [&["--", "/bin/echo", "y"][..], &["--keep-order", "--", "/bin/echo", "y"]] {
        // Four bytes of each command.
        let (few, all) = peaks(&stage, args, &input, (4 * all_of_them / 10, 4 * all_of_them));
        assert!(all < few + 1024, "{args:?}: {few} KiB at a tenth, {all} KiB at all");
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_gigabyte_of_output_needs_no_more_memory_than_a_megabyte() {
    let Some(stage) = Stage::set() else { return };
    let line = "head -c 1000000000 /dev/zero; echo end";
    let (few, all) = peaks(&stage, &["--", "sh", "-c", line], "x\n", (1 << 20, 1_000_000_000));
    assert!(all < few + 1024, "{few} KiB at first, {all} KiB then");
    stage.close(Alone::Yes);
}
