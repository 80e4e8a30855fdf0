//! Every system call of ours on the way through a spawn and a teardown is made to fail once, by
//! strace's injection: the kernel's own entry, no seam in the code. Each time there is a clear
//! error or success, and nothing is left.

use std::collections::BTreeMap;
use std::process::Command as StdCommand;
use std::time::{Duration, Instant};

use serial_test::serial;

use crate::support::{Alone, Stage, rounds, skip, tool};

/// The calls on the path, and what may become of each (their man pages).
const FAULTS: &[(&str, &[&str])] = &[
    ("openat", &["EMFILE", "ENFILE", "ENOMEM", "EACCES", "ENODEV", "EINTR"]),
    (
        "openat2",
        &["EMFILE", "ENFILE", "ENOMEM", "EACCES", "ENODEV", "EINTR", "ENOSYS", "EPERM", "EXDEV"],
    ),
    ("mkdirat", &["EROFS", "EACCES", "EAGAIN", "ENOSPC", "ENOMEM"]),
    ("clone3", &["ENOSYS", "EPERM", "EAGAIN", "ENOMEM", "EBUSY", "EACCES"]),
    ("pipe2", &["EMFILE", "ENFILE"]),
    ("fcntl", &["EMFILE"]),
    ("flock", &["ENOMEM", "EINTR", "EAGAIN"]),
    ("fstatfs", &["EIO", "EINTR"]),
    ("poll", &["EINTR", "ENOMEM"]),
    ("waitid", &["ECHILD", "EINTR"]),
    ("pread64", &["EINTR", "ENODEV", "EIO"]),
    ("read", &["EINTR", "EIO", "ENODEV"]),
    ("write", &["EINTR", "EIO", "ENODEV"]),
    ("getdents64", &["EIO", "ENOENT"]),
    ("unlinkat", &["EBUSY", "EINTR", "EACCES", "ENOENT"]),
    ("pidfd_send_signal", &["EPERM", "ESRCH"]),
    ("pidfd_open", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("clone", &["EAGAIN", "ENOMEM"]),
    ("socketpair", &["EMFILE", "ENFILE", "EAFNOSUPPORT"]),
    ("readlink", &["ENOENT", "EACCES"]),
    ("sendto", &["EPIPE", "EAGAIN"]),
    ("signalfd4", &["EMFILE"]),
    ("rt_sigprocmask", &["EINVAL"]),
];

/// How a run is to be contained, and what our own part of it opens first: calls before it are the
/// dynamic loader's and the standard library's.
#[derive(Clone, Copy)]
struct Kind {
    containment: &'static str,
    start: &'static str,
}

const CGROUP: Kind = Kind { containment: "cgroup", start: "\"/proc/self/mountinfo\"" };
const KEEPER: Kind = Kind { containment: "keeper", start: "\"/proc\"" };

fn strace(stage: &Stage, kind: Kind, args: &[String]) -> StdCommand {
    let mut command = StdCommand::new("strace");
    // Not -f: neither the guard nor the command is to be disturbed.
    command.args(args).arg(tool()).args(["run", "--containment", kind.containment]);
    command.args(["-q", "sh", "-c", "sleep 20 & exit 3"]);
    stage.mark_std(&mut command);
    command.env_remove("TIDY_PROCESS_PARENT");
    command
}

/// How often each call was made before our own part, and in all.
fn counts(stage: &Stage, kind: Kind) -> BTreeMap<String, (usize, usize)> {
    let log = std::env::temp_dir().join(format!("tidy-strace-{}", std::process::id()));
    let args = ["-o".to_owned(), log.display().to_string()];
    let status = strace(stage, kind, &args).status().unwrap();
    assert_eq!(status.code(), Some(3));
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(log).unwrap();
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut ours = false;
    for line in text.lines() {
        ours |= line.contains(kind.start);
        let Some((call, _)) = line.split_once('(') else { continue };
        let (before, all) = counts.entry(call.to_owned()).or_default();
        *all += 1;
        *before += usize::from(!ours);
    }
    assert!(ours, "the run never opened {}", kind.start);
    counts
}

#[test]
#[serial]
fn every_call_that_fails_once_is_an_error_or_is_survived() {
    each_fails_once(CGROUP, (150, 5));
}

#[test]
#[serial]
fn the_same_by_a_keeper() {
    each_fails_once(KEEPER, (150, 2));
}

fn each_fails_once(kind: Kind, least: (u32, usize)) {
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing: install the package strace");
    }
    let Some(stage) = Stage::set() else { return };
    let counts = counts(&stage, kind);
    let stride = 7 / rounds(1, 7);
    let (mut tried, mut failed) = (0u32, 0);
    for (call, errnos) in FAULTS {
        let (before, all) = counts.get(*call).copied().unwrap_or_default();
        for number in before + 1..=all {
            for errno in *errnos {
                tried += 1;
                if tried % stride == 0 {
                    failed += usize::from(fails(&stage, kind, call, (errno, number)));
                }
            }
        }
    }
    println!("{tried} faults, every {stride}. tried: {failed} errors, the rest survived");
    assert!(tried > least.0 && failed > least.1, "{tried} tried, {failed} failed: {counts:?}");
    stage.close(Alone::No);
}

/// Makes one call fail once. Says whether the run failed.
fn fails(stage: &Stage, kind: Kind, call: &str, (errno, number): (&str, usize)) -> bool {
    let what = format!("{call} number {number}: {errno}");
    let inject = format!("inject={call}:error={errno}:when={number}");
    let args = ["-o", "/dev/null", "-e", &inject].map(str::to_owned);
    let output = strace(stage, kind, &args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = match output.status.code() {
        Some(3) => false,
        Some(125 | 126) => {
            assert!(said.starts_with("tidy-process: "), "{what}: {said}");
            true
        }
        other => panic!("{what}: {other:?} {said}"),
    };
    let start = Instant::now();
    while !stage.alive().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(1), "{what}: {:?}; {said}", stage.alive());
        // What the run itself could not finish is the guard's; nothing announces that it is done.
        std::thread::sleep(Duration::from_millis(1));
    }
    stage.assert_clean(&what);
    failed
}
