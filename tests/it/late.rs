//! Children that ended in time and are waited for late: their status counts, not the timeout.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serial_test::parallel;
use tidy_process::{Cause, Child, Command, Limits, Stdio};

use crate::support::{Alone, SOON, Stage, read_ready, until};

const TIMEOUT: Duration = Duration::from_millis(400);

/// Returns when the main processes have ended and their timeout has passed.
fn too_late(children: &[Child]) {
    for child in children {
        let mut ended = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ended, PollTimeout::from(20_000u16)), Ok(1));
    }
    // The timeout has to pass; nothing announces it.
    thread::sleep(TIMEOUT * 2);
}

fn both(check: impl Fn(&Stage)) {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        check(&stage);
        stage.close(Alone::No);
    }
}

fn in_time(command: &mut Command) -> Child {
    command.timeout(TIMEOUT).spawn().unwrap()
}

#[test]
#[parallel]
fn three_children_waited_for_one_after_the_other_all_ended_in_time() {
    both(|stage| {
        for grace in [Duration::ZERO, Duration::from_secs(9)] {
            let mut command = stage.sh("exit 3");
            command.grace(grace);
            let children = [(); 3].map(|()| in_time(&mut command));
            too_late(&children);
            let [first, second, third] = children;
            assert_eq!(first.wait().unwrap().code(), Some(3));
            assert_eq!(second.try_wait().unwrap().unwrap().code(), Some(3));
            let status = third.wait_timeout(Duration::from_millis(1)).unwrap();
            assert_eq!(status.unwrap().code(), Some(3));
            for child in [first, second, third] {
                let report = child.finish().unwrap();
                assert_eq!((report.cause, report.status.code()), (Cause::Exited, Some(3)));
            }
        }
    });
}

#[test]
#[parallel]
fn what_it_has_left_behind_is_a_leftover_and_no_timeout() {
    both(|stage| {
        for collects in [true, false] {
            let mut command = stage.sh("echo said; sleep 60 & exit 3");
            let child = in_time(command.stdout(Stdio::piped()));
            too_late(std::slice::from_ref(&child));
            let report = if collects {
                let output = child.wait_with_output().unwrap();
                assert_eq!(output.stdout, b"said\n");
                output.report
            } else {
                child.finish().unwrap()
            };
            assert_eq!((report.cause, report.status.code()), (Cause::Exited, Some(3)));
            assert_eq!(report.leftovers.len(), 1, "{report:?}");
        }
    });
}

#[test]
#[parallel]
fn a_lingering_command_is_in_time_once_its_whole_tree_has_ended() {
    both(|stage| {
        for (script, cause) in [("exit 3", Cause::Exited), ("sleep 60 & exit 3", Cause::TimedOut)] {
            let mut command = stage.sh(script);
            let child = in_time(command.linger(true).stdout(Stdio::piped()));
            too_late(std::slice::from_ref(&child));
            let report = child.wait_with_output().unwrap().report;
            assert_eq!((report.cause, report.status.code()), (cause, Some(3)), "{script}");
        }
    });
}

/// The one it has left behind uses up the limit afterwards.
#[test]
#[parallel]
fn cpu_time_that_is_used_up_after_the_end_was_not_the_childs() {
    let Some(stage) = Stage::set() else { return };
    let limit = Duration::from_millis(150);
    let mut command = stage.sh("(while :; do :; done) & exit 3");
    let child = command.limits(Limits::new().cpu_time(limit)).spawn().unwrap();
    drop(command);
    let used = || {
        let usage = child.tree().usage();
        usage.user.unwrap() + usage.system.unwrap()
    };
    assert!(until(SOON, || used() > limit));
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let report = child.finish().unwrap();
    assert_eq!((report.cause, report.leftovers.len()), (Cause::Exited, 1));
    stage.close(Alone::No);
}

/// It is asked only now, and takes its time.
#[test]
#[parallel]
fn a_child_whose_timeout_has_passed_is_given_its_grace_by_finish() {
    both(|stage| {
        let script = "trap 'sleep 0.2; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
        let mut command = stage.sh(script);
        let mut child = in_time(command.grace(SOON).stdout(Stdio::piped()));
        read_ready(child.stdout.take().unwrap());
        // The timeout has to pass; nothing announces it.
        thread::sleep(TIMEOUT * 2);
        let report = child.finish().unwrap();
        assert_eq!((report.cause, report.status.code()), (Cause::TimedOut, Some(5)));
    });
}

#[cfg(feature = "tokio")]
#[test]
#[parallel]
fn futures_look_at_the_child_first_too() {
    both(|stage| {
        let runtime = crate::async_child::current_thread();
        runtime.block_on(async {
            let mut command = stage.sh("sleep 60 & exit 3");
            command.timeout(TIMEOUT).stdout(Stdio::piped());
            let children = [(); 3].map(|()| command.spawn_async().unwrap());
            for child in &children {
                let mut ended = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
                assert_eq!(poll(&mut ended, PollTimeout::from(20_000u16)), Ok(1));
            }
            thread::sleep(TIMEOUT * 2);
            let [first, second, third] = children;
            assert_eq!(first.wait().await.unwrap().code(), Some(3));
            assert!(second.wait_timeout(Duration::ZERO).await.unwrap().is_some());
            let output = third.wait_with_output().await.unwrap();
            let reports =
                [first.finish().await.unwrap(), second.finish().await.unwrap(), output.report];
            for report in reports {
                assert_eq!((report.cause, report.leftovers.len()), (Cause::Exited, 1));
            }
        });
        drop(runtime);
    });
}

#[test]
#[parallel]
fn asking_for_the_next_deadline_ends_nothing() {
    both(|stage| {
        let mut command = stage.command("sleep");
        let child = in_time(command.arg("60"));
        let due = child.next_deadline().unwrap();
        assert!(due > Instant::now() && due <= Instant::now() + TIMEOUT);
        // The timeout has to pass; nothing announces it.
        thread::sleep(TIMEOUT * 2);
        for _ in 0..3 {
            assert!(child.next_deadline().unwrap() <= Instant::now());
            assert_eq!(child.tree().processes().len(), 1, "a getter has killed it");
        }
        child.enforce();
        assert_eq!(child.tree().processes().len(), 0);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert_eq!(child.next_deadline(), None);
        assert_eq!(child.finish().unwrap().cause, Cause::TimedOut);
        let early = in_time(&mut stage.sh("exit 0"));
        early.wait().unwrap();
        thread::sleep(TIMEOUT * 2);
        assert_eq!((early.next_deadline(), early.enforce()), (None, None));
        assert_eq!(early.finish().unwrap().cause, Cause::Exited);
    });
}
