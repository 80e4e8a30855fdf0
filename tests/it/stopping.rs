//! A stop is for the whole tree: the signal reaches stopped and frozen processes, and the grace is
//! over when the tree is empty, not when the main process has died of the signal.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serial_test::parallel;
use tidy_process::{Cause, Command, Report, Stdio, Tree};

use crate::support::{Alone, SOON, Stage, read_ready, root_of, until};

/// Cleans up when it is asked to end, which takes a while.
const WORKER: &str = "trap 'sleep 0.2; echo cleaned; exit 0' TERM; echo ready; \
                      while :; do sleep 0.05; done";

/// A shell that dies of the signal, before a worker that does not.
fn wrapped(stage: &Stage) -> Command {
    let mut command = stage.sh("sh -c \"$WORKER\"; true");
    command.env("WORKER", WORKER).grace(SOON);
    command
}

/// Long enough for two shells to start on a loaded machine.
const TIMEOUT: Duration = Duration::from_secs(2);

fn was_clean(report: &Report, stdout: &[u8]) {
    assert_eq!(String::from_utf8_lossy(stdout), "ready\ncleaned\n", "{report:?}");
    assert_eq!((report.cause, report.status.code()), (Cause::TimedOut, None));
    assert_eq!(report.leftovers, []);
    assert!(report.wall > TIMEOUT && report.wall < TIMEOUT + SOON / 2);
    let named: Vec<String> = report.interrupted.iter().map(ToString::to_string).collect();
    assert!(named.len() >= 2 && named.iter().any(|name| name.contains("cleaned")), "{report:?}");
    assert_eq!(report.interrupted_count, named.len());
}

#[test]
#[parallel]
fn the_grace_belongs_to_the_tree() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        // At once: each takes more than two seconds.
        std::thread::scope(|scope| {
            for way in WAYS {
                let stage = &stage;
                scope.spawn(move || way(stage));
            }
        });
        stage.close(Alone::No);
    }
}

/// The ways in which a command comes to its timeout.
const WAYS: [fn(&Stage); 5] = [
    |stage| {
        let output = wrapped(stage).timeout(TIMEOUT).output().unwrap();
        was_clean(&output.report, &output.stdout);
    },
    |stage| {
        let output = wrapped(stage).timeout(TIMEOUT).force_join(true).output().unwrap();
        was_clean(&output.report, &output.stdout);
    },
    |stage| {
        let (path, file) = output_file("run");
        let report = wrapped(stage).timeout(TIMEOUT).stdout(file).run().unwrap();
        was_clean(&report, &fs::read(&path).unwrap());
        fs::remove_file(path).unwrap();
    },
    |stage| {
        let (path, file) = output_file("finish");
        let child = wrapped(stage).timeout(TIMEOUT).stdout(file).spawn().unwrap();
        child.wait().unwrap();
        was_clean(&child.finish().unwrap(), &fs::read(&path).unwrap());
        fs::remove_file(path).unwrap();
    },
    |stage| {
        let (path, file) = output_file("drop");
        let child = wrapped(stage).timeout(TIMEOUT).stdout(file).spawn().unwrap();
        child.wait().unwrap();
        drop(child);
        assert_eq!(fs::read(&path).unwrap(), b"ready\ncleaned\n");
        fs::remove_file(path).unwrap();
    },
];

fn output_file(way: &str) -> (PathBuf, fs::File) {
    let name = format!("tidy-grace-{way}-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = fs::File::create(&path).unwrap();
    (path, file)
}

#[cfg(feature = "tokio")]
#[test]
#[parallel]
fn the_grace_belongs_to_the_tree_in_a_runtime_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        runtime.block_on(async {
            let output = wrapped(&stage).timeout(TIMEOUT).output_async().await.unwrap();
            was_clean(&output.report, &output.stdout);
            let path = std::env::temp_dir().join(format!("tidy-grace-a{}", std::process::id()));
            let into = || fs::File::create(&path).unwrap();
            let report = wrapped(&stage).timeout(TIMEOUT).stdout(into()).run_async().await.unwrap();
            was_clean(&report, &fs::read(&path).unwrap());
            let child = wrapped(&stage).timeout(TIMEOUT).stdout(into()).spawn_async().unwrap();
            child.wait().await.unwrap();
            was_clean(&child.finish().await.unwrap(), &fs::read(&path).unwrap());
            fs::remove_file(path).unwrap();
        });
        stage.close(Alone::No);
    }
}

/// `finish` in the middle of a grace waits for its rest.
#[test]
#[parallel]
fn a_tree_that_is_being_stopped_keeps_its_grace() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let mut child = wrapped(&stage).stdout(Stdio::piped()).spawn().unwrap();
        read_ready(child.stdout.as_mut().unwrap());
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| child.stop(SOON).unwrap());
            child.wait().unwrap();
            let report = child.finish().unwrap();
            assert_eq!((report.cause, report.leftover_count), (Cause::Stopped, 0));
        });
        assert!(start.elapsed() < SOON);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text).unwrap();
        assert_eq!(text, "cleaned\n");
        drop(child);
        // While its main process runs, too.
        let mut child = stage.sh(WORKER).stdout(Stdio::piped()).spawn().unwrap();
        read_ready(child.stdout.as_mut().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| child.stop(SOON).unwrap());
            assert!(until(SOON, || child.next_deadline().is_some()));
            let report = child.finish().unwrap();
            assert_eq!((report.cause, report.status.code()), (Cause::Stopped, Some(0)));
        });
        drop(child);
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn what_ignores_the_signal_is_named_when_the_grace_is_over() {
    let deaf = "(trap '' TERM; sleep 30) & sleep 30";
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let grace = Duration::from_millis(300);
        let report = stage.sh(deaf).timeout(grace).grace(grace).run().unwrap();
        assert_eq!((report.cause, report.status.code()), (Cause::TimedOut, None));
        assert!(report.wall >= grace * 2 && report.wall < SOON, "{report:?}");
        assert!(report.leftovers.iter().any(|left| left.command == ["sleep", "30"]), "{report:?}");
        assert!(report.interrupted_count >= 3, "{report:?}");
        stage.close(Alone::No);
    }
}

/// A signal that nothing catches ends a process before the kill that follows it does.
#[test]
#[parallel]
fn a_grace_of_zero_sends_the_signal_and_none_sends_none() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let short = Duration::from_millis(200);
        let signal = |command: &mut Command| {
            let report = command.timeout(short).run().unwrap();
            assert_eq!(report.cause, Cause::TimedOut);
            std::os::unix::process::ExitStatusExt::signal(&report.status)
        };
        let sleep = || {
            let mut command = stage.command("sleep");
            command.arg("30");
            command
        };
        assert_eq!(signal(sleep().grace(Duration::ZERO)), Some(libc::SIGTERM));
        assert_eq!(signal(sleep().grace(Duration::ZERO).stop_signal(10)), Some(10));
        assert_eq!(signal(&mut sleep()), Some(libc::SIGKILL));
        let report = sleep().grace(Duration::ZERO).spawn().unwrap().finish().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&report.status), Some(15));
        stage.close(Alone::No);
    }
}

/// Acts on the signal once it is continued.
const HALTED: &str = "trap 'echo cleaned; exit 0' TERM; echo ready; kill -STOP $$; sleep 20 & wait";

#[test]
#[parallel]
fn stopped_processes_are_continued() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let halted = |ask: &dyn Fn(&tidy_process::Child)| {
            let mut child = stage.sh(HALTED).grace(SOON).stdout(Stdio::piped()).spawn().unwrap();
            read_ready(child.stdout.as_mut().unwrap());
            let start = Instant::now();
            ask(&child);
            assert!(start.elapsed() < SOON);
            let report = child.finish().unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text).unwrap();
            assert_eq!((text.as_str(), report.status.code()), ("cleaned\n", Some(0)), "{report:?}");
        };
        halted(&|child| child.stop(SOON).unwrap());
        halted(&|child| child.tree().stop(libc::SIGTERM, SOON).unwrap());
        halted(&|child| drop(child.finish()));
        let mut main = stage.sh(HALTED);
        main.stop_main_only(true).grace(SOON).timeout(TIMEOUT).stdout(Stdio::piped());
        assert_eq!(main.output().unwrap().stdout, b"ready\ncleaned\n");
        drop(main);
        stage.close(Alone::No);
    }
}

/// Frozen by the caller, by a workload below its tree, or above it.
#[test]
#[parallel]
fn frozen_trees_are_thawed() {
    let Some(stage) = Stage::set() else { return };
    let freeze = |dir: &std::path::Path| fs::write(dir.join("cgroup.freeze"), "1").unwrap();
    let frozen = |ask: &dyn Fn(&Tree)| {
        let script = WORKER;
        let mut command = stage.sh(script);
        command.delegate(true).grace(SOON).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(command);
        read_ready(child.stdout.as_mut().unwrap());
        ask(child.tree());
        let start = Instant::now();
        child.stop(SOON).unwrap();
        assert!(start.elapsed() < SOON);
        let report = child.finish().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text).unwrap();
        assert_eq!((text.as_str(), report.status.code()), ("cleaned\n", Some(0)), "{report:?}");
    };
    frozen(&|tree| assert!(tree.freeze().unwrap()));
    frozen(&|tree| {
        let below = fs::read_dir(tree.path().unwrap()).unwrap().flatten();
        let below: Vec<_> = below.filter(|entry| entry.path().is_dir()).collect();
        assert!(!below.is_empty());
        below.iter().for_each(|entry| freeze(&entry.path()));
    });
    frozen(&|_| freeze(root_of(&stage.supervisor)));
    let tree = stage.supervisor.tree("alone").unwrap();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"]);
    stage.mark_std(command.stdout(std::process::Stdio::piped()));
    tree.enroll(&mut command).unwrap();
    let mut child = command.spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    assert!(tree.freeze().unwrap());
    tree.stop(libc::SIGTERM, SOON).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    tree.finish().unwrap();
    drop((tree, command));
    stage.close(Alone::No);
}

/// A main process that ended by itself was in time; who goes on behind it was not.
#[test]
#[parallel]
fn what_is_alive_at_the_timeout_is_named() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        for grace in [None, Some(Duration::ZERO), Some(SOON)] {
            let mut command = stage.sh("sleep 30 & exit 3");
            if let Some(grace) = grace {
                command.grace(grace);
            }
            let report = command.linger(true).timeout(Duration::from_millis(500)).run().unwrap();
            assert_eq!((report.cause, report.status.code()), (Cause::TimedOut, Some(3)));
            assert_eq!(report.interrupted[0].command, ["sleep", "30"]);
            assert_eq!(report.leftovers, report.interrupted);
        }
        let report = stage.command("true").timeout(SOON).run().unwrap();
        assert_eq!((report.interrupted_count, report.interrupted.len()), (0, 0));
        stage.close(Alone::No);
    }
}
