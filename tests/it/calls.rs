//! What a clean run may cost its caller, counted in system calls: that number is the same on every
//! machine, however busy it is. (Instructions cannot be counted instead: valgrind knows neither
//! `pidfd_open` nor this kind of `clone3`, and virtual machines have no counters.)

use std::collections::BTreeMap;
use std::process::Command as StdCommand;

use serial_test::parallel;

use crate::support::{Alone, Stage, skip};
use crate::{load, victim};

/// Spawn, wait, teardown and report of one `/bin/true`. A call more needs a reason as good as those
/// of these.
const CYCLE: [(&str, usize); 11] = [
    ("mkdirat", 1),
    // The directory, cgroup.kill, cgroup.events; in the end cpu.stat.
    ("openat2", 4),
    ("clone3", 1),
    // The wait for the exec: vfork's own has no end.
    ("futex", 1),
    // Blocked round the clone.
    ("rt_sigprocmask", 2),
    ("poll", 1),
    ("waitid", 1),
    // Is somebody left? Once before the list is made, once before the kill.
    ("pread64", 2),
    ("read", 1),
    ("unlinkat", 1),
    // Those four, and the pidfd.
    ("close", 5),
];

/// What depends on the C library, and on the build: std checks each fd that it closes, in a debug
/// build.
const FREE: [&str; 4] = ["getpid", "brk", "clock_gettime", "fcntl"];

#[test]
#[parallel]
fn a_clean_run_makes_no_more_system_calls_than_it_has_to() {
    assert_at_most("runs", &[]);
}

/// `cpu.stat` is the dearest file of a short run: where no report is made it is not opened.
#[test]
#[parallel]
fn a_run_whose_status_alone_is_asked_for_reads_no_counter() {
    assert_at_most("statuses", &["openat2", "read", "close"]);
}

/// As a cycle, with one less of each of these.
fn assert_at_most(what: &str, less: &[&str]) {
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing: install the package strace");
    }
    let Some(stage) = Stage::set() else { return };
    let (few, many) = (calls(&stage, what, 10), calls(&stage, what, 30));
    for (call, &count) in many.iter().filter(|(call, _)| !FREE.contains(&call.as_str())) {
        let each = count.saturating_sub(*few.get(call).unwrap_or(&0)).div_ceil(20);
        let known = CYCLE.iter().find(|(name, _)| name == call).map_or(0, |(_, count)| *count);
        let most = known - usize::from(less.contains(&call.as_str()));
        assert!(each <= most, "{call}: {each} for each run, {most} at the most: {many:?}");
    }
    assert_eq!(many.get("clone3"), Some(&30));
    stage.close(Alone::No);
}

/// How often this many runs make each call, in their own process.
fn calls(stage: &Stage, what: &str, runs: usize) -> BTreeMap<String, usize> {
    let log = std::env::temp_dir().join(format!("tidy-calls-{}-{what}-{runs}", std::process::id()));
    let mut command = StdCommand::new("strace");
    command.arg("-o").arg(&log).arg(victim::exe());
    command.env(load::WISH, format!("{what} {runs}"));
    stage.mark_std(&mut command);
    assert!(command.status().unwrap().success());
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(log).unwrap();
    let mut counts = BTreeMap::new();
    for (call, _) in text.lines().filter_map(|line| line.split_once('(')) {
        *counts.entry(call.to_owned()).or_default() += 1;
    }
    counts
}
