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
const CYCLE: [(&str, usize); 10] = [
    ("mkdirat", 1),
    // The directory, cgroup.kill, cgroup.events; in the end cpu.stat.
    ("openat2", 4),
    ("clone3", 1),
    // The wait for the exec: vfork's own has no end.
    ("futex", 1),
    // Blocked round the clone.
    ("rt_sigprocmask", 2),
    // Waits and takes the status: where there is a deadline poll(2) waits before it.
    ("waitid", 1),
    // Is a process left? If not the removal proves that none has come since.
    ("pread64", 1),
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

/// `cpu.stat` is the dearest file of a short run: where no report is made it is not opened, and the
/// removal alone proves that nothing is left.
#[test]
#[parallel]
fn a_run_whose_status_alone_is_asked_for_reads_no_counter() {
    assert_at_most("statuses", &["openat2", "pread64", "read", "close"]);
}

/// As a cycle, with one less of each of these. Tries it again: a child that is late by more than
/// 50 ms, as on a busy machine, is looked after by further calls.
fn assert_at_most(what: &str, less: &[&str]) {
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing: install the package strace");
    }
    let Some(stage) = Stage::set() else { return };
    let excess: Vec<String> = (0..5).map_while(|_| excess(&stage, what, less)).collect();
    assert!(excess.len() < 5, "{excess:?}");
    stage.close(Alone::No);
}

/// The first call of which each run makes more, if there is one.
fn excess(stage: &Stage, what: &str, less: &[&str]) -> Option<String> {
    let (few, many) = (calls(stage, what, 10), calls(stage, what, 30));
    assert_eq!(many.get("clone3"), Some(&30));
    many.iter().filter(|(call, _)| !FREE.contains(&call.as_str())).find_map(|(call, &count)| {
        let each = count.saturating_sub(*few.get(call).unwrap_or(&0)).div_ceil(20);
        let known = CYCLE.iter().find(|(name, _)| name == call).map_or(0, |(_, count)| *count);
        let most = known - usize::from(less.contains(&call.as_str()));
        let text = || format!("{call}: {each} for each run, {most} at the most: {many:?}");
        (each > most).then(text)
    })
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
