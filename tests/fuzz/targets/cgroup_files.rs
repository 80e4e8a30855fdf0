//! The files of a cgroup, and `/proc/PID/cgroup`.
#![no_main]

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use procfs_core::{FromBufRead, ProcessCGroups};
use tidy_fuzz::pieces;
use tidy_process::fuzzing::{
    guards_pids, has_line, io_same, is_numbered, numbers, own_cgroup, pids, same_cpus, stalled,
    sum, value,
};

fuzz_target!(|data: &[u8]| {
    let (text, each) = pieces(data);
    let all = pids(each.clone());
    assert_eq!(all, pids([text].into_iter()), "where a read ends does not matter");
    assert_eq!(all, listed(text));
    assert_eq!(numbers(each), numbers([text].into_iter()));
    guard_agrees(text, &all);
    assert_eq!(
        has_line(text, b"populated 1"),
        text.split(|b| *b == b'\n').any(|l| l == b"populated 1")
    );
    own_is_the_line_of_v2(text);
    let text = String::from_utf8_lossy(text);
    counters(&text);
    limits(&text);
});

/// The numbers that a byte ends which is no digit.
fn listed(text: &[u8]) -> Vec<i32> {
    let end = text.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1);
    let words = text[..end].split(|byte| !byte.is_ascii_digit()).filter(|word| !word.is_empty());
    let number = |word| std::str::from_utf8(word).unwrap().parse().unwrap_or(i32::MAX);
    words.map(number).collect()
}

/// What the kernel writes: decimal numbers, each on a line.
fn guard_agrees(text: &[u8], all: &[i32]) {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let plain = |line: &[u8]| (2..=10).contains(&line.len()) && line.ends_with(b"\n");
    let digits = text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'\n');
    if text.is_empty() || text.len() > 4096 || !digits || !lines.clone().all(plain) {
        return;
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(text).unwrap();
    drop(writer);
    let guards: Vec<i32> =
        guards_pids(reader.as_fd()).iter().map(|pid| pid.cast_signed()).collect();
    assert_eq!(guards, all);
}

fn own_is_the_line_of_v2(text: &[u8]) {
    let Some(own) = own_cgroup(text) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(theirs) = ProcessCGroups::from_buf_read(text.as_bytes()) else { return };
    let v2 =
        theirs.into_iter().filter(|group| group.hierarchy == 0 && group.controllers.is_empty());
    let mut v2 = v2.map(|group| group.pathname);
    assert!(text.contains('\r') || v2.any(|path| Some(&*path) == own.to_str()));
}

fn counters(text: &str) {
    for key in ["usage_usec", "user_usec", "oom_kill", "max", ""] {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let known =
            lines.find_map(|(name, number)| number.trim().parse().ok().filter(|_| name == key));
        assert_eq!(value(text, key), known);
    }
    let _ = (sum(text, "rbytes="), sum(text, ""));
    let _ = stalled(text);
    let total =
        text.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(131).wrapping_add(byte.into()));
    let pressure = format!("some avg10=0.00 avg60=0.12 avg300=1.00 total={total}\nfull total=7\n");
    assert_eq!(stalled(&pressure), Some(Duration::from_micros(total)));
}

fn limits(text: &str) {
    assert_ne!(same_cpus(text, text), Some(false));
    let (one, other) = text.split_once('\n').unwrap_or((text, ""));
    assert_eq!(same_cpus(one, other), same_cpus(other, one));
    assert!(one.is_empty() || one.contains('\r') || io_same(one, one));
    let _ = io_same(one, other);
    let _ = is_numbered(text, "memory");
}
