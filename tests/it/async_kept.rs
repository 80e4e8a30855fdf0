//! Children in tokio's runtimes whose trees have keepers: the same promises.

use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serial_test::serial;
use tidy_process::{Cause, Containment, Mechanism, Supervisor};
use tokio::time::timeout;

use crate::async_child::{current_thread, multi_thread, ready};
use crate::keeper::{keeper, keepers_of};
use crate::kept::stop;
use crate::support::{Alone, SOON, Stage, rounds};

fn in_both<F: Future<Output = ()> + Send + 'static>(check: impl Fn(&Stage) -> F) {
    for runtime in [current_thread, multi_thread] {
        let Some(stage) = Stage::of_keepers() else { return };
        let runtime = runtime();
        runtime.block_on(runtime.spawn(check(&stage))).unwrap();
        drop(runtime);
        assert_eq!(keepers_of(std::process::id()), [], "keepers are left, dead or alive");
        stage.close(Alone::No);
    }
}

#[test]
#[serial]
fn waits_and_timeouts_are_kept() {
    in_both(|stage| {
        let mut plain = stage.sh("sleep 0.03; exit 7");
        let mut endless = stage.sh("setsid sleep 20 & sleep 20");
        endless.timeout(Duration::from_millis(40));
        async move {
            let child = plain.spawn_async().unwrap();
            assert_eq!(child.wait_timeout(Duration::from_millis(1)).await.unwrap(), None);
            assert_eq!(child.wait().await.unwrap().code(), Some(7));
            assert_eq!(child.wait_timeout(Duration::ZERO).await.unwrap().unwrap().code(), Some(7));
            let report = child.finish().await.unwrap();
            assert_eq!((report.cause, report.mechanism), (Cause::Exited, Mechanism::Keeper));
            let child = endless.spawn_async().unwrap();
            assert_eq!(child.wait().await.unwrap().signal(), Some(9));
            assert_eq!(child.finish().await.unwrap().cause, Cause::TimedOut);
            assert_eq!(endless.run_async().await.unwrap().cause, Cause::TimedOut);
        }
    });
}

#[test]
#[serial]
fn leftovers_are_named_and_cannot_delay_the_output() {
    in_both(|stage| {
        let mut command = stage.sh("sleep 21 & (setsid sleep 22 &); echo hi; exit 4");
        let mut lingering = stage.sh("(sleep 0.1; echo later) & echo hi");
        lingering.linger(true);
        async move {
            let start = Instant::now();
            let output = command.output_async().await.unwrap();
            assert_eq!((output.status.code(), &*output.stdout), (Some(4), &b"hi\n"[..]));
            assert_eq!(output.report.leftovers.len(), 2, "{:?}", output.report.leftovers);
            assert!(start.elapsed() < SOON);
            let output = lingering.output_async().await.unwrap();
            assert_eq!((&*output.stdout, output.report.leftovers.len()), (&b"hi\nlater\n"[..], 0));
        }
    });
}

#[test]
#[serial]
fn a_stop_has_its_grace_and_a_kill_takes_all() {
    in_both(|stage| {
        let mut polite = stage.sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
        polite.grace(SOON);
        let mut deaf = stage.sh("trap '' TERM; echo ready; sleep 20 & wait; sleep 20");
        async move {
            let report = ready(&mut polite).await.finish().await.unwrap();
            assert_eq!((report.status.code(), report.cause), (Some(5), Cause::Stopped));
            let child = ready(&mut deaf).await;
            child.stop(Duration::from_millis(30)).await.unwrap();
            assert_eq!(child.tree().processes(), []);
            assert_eq!(child.wait().await.unwrap().signal(), Some(9));
            let child = ready(&mut deaf).await;
            child.kill().await.unwrap();
            assert_eq!(child.wait().await.unwrap().signal(), Some(9));
            assert_eq!(child.finish().await.unwrap().cause, Cause::Stopped);
        }
    });
}

#[test]
#[serial]
fn a_late_keeper_gives_leftovers_no_grace() {
    in_both(|stage| {
        let mut command = stage.sh("setsid sleep 20 & echo ready; sleep 0.05");
        command.grace(SOON);
        async move {
            let child = ready(&mut command).await;
            stop(keeper());
            assert_eq!(child.wait_timeout(Duration::from_millis(200)).await.unwrap(), None);
            let report = timeout(SOON / 2, child.finish()).await.unwrap().unwrap();
            assert_eq!((report.cause, report.leftovers.len()), (Cause::Exited, 1));
        }
    });
}

/// Nobody tells when a tree that was dropped is gone.
fn until_clean(stage: &Stage) {
    let deadline = Instant::now() + SOON;
    while !stage.alive().is_empty() || !keepers_of(std::process::id()).is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", stage.alive());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
#[serial]
fn whatever_is_dropped_in_a_runtime_or_outside_is_gone() {
    for runtime in [current_thread, multi_thread] {
        let Some(stage) = Stage::of_keepers() else { return };
        let runtime = runtime();
        let mut command = stage.sh("setsid sleep 20 & echo ready; sleep 20");
        for round in 0..u64::from(rounds(20, 300)) {
            runtime.block_on(async {
                drop(ready(&mut command).await);
                let cut = Duration::from_micros(round * 977 % 9000);
                let _ = timeout(cut, command.run_async()).await;
                let child = ready(&mut command).await;
                let _ = timeout(cut, child.finish()).await;
            });
            let child = runtime.block_on(ready(&mut command));
            drop(child);
            assert!(stage.alive().len() < 13, "a few that are about to go: {:?}", stage.alive());
        }
        drop(command);
        until_clean(&stage);
        let child = runtime.block_on(ready(&mut stage.sh("setsid sleep 20 & echo ready; wait")));
        drop(runtime);
        drop(child);
        assert_eq!((stage.alive(), keepers_of(std::process::id())), (vec![], vec![]));
        stage.close(Alone::No);
    }
}

#[test]
#[serial]
fn a_detached_tree_lives_as_long_as_its_supervisor() {
    in_both(|stage| {
        let supervisor = Supervisor::builder().containment(Containment::Keeper).build().unwrap();
        let mut command = stage.sh("exec sleep 20");
        command.supervisor(&supervisor);
        async move {
            command.spawn_async().unwrap().detach();
            assert_eq!(keepers_of(std::process::id()).len(), 1);
            drop((command, supervisor));
        }
    });
}

#[test]
#[serial]
fn a_keeper_that_is_killed_or_stopped_is_no_hang() {
    in_both(|stage| {
        let mut command = stage.sh("echo ready; exec sleep 20");
        let mut short = stage.sh("echo ready; sleep 0.05");
        short.timeout(Duration::from_millis(300));
        async move {
            let child = ready(&mut command).await;
            kill(keeper(), Signal::SIGKILL).unwrap();
            let error = timeout(SOON, child.wait()).await.unwrap().unwrap_err();
            assert!(error.is_keeper_lost(), "{error}");
            let error = timeout(SOON, child.finish()).await.unwrap().unwrap_err();
            assert!(error.is_keeper_lost(), "{error}");
            assert_eq!(keepers_of(std::process::id()), [], "it is buried though it was lost");
            let child = ready(&mut short).await;
            kill(keeper(), Signal::SIGSTOP).unwrap();
            let early = timeout(SOON, child.wait_timeout(Duration::from_millis(100))).await;
            assert_eq!(early.unwrap().unwrap(), None);
            assert_eq!(timeout(SOON, child.wait()).await.unwrap().unwrap().code(), Some(0));
            timeout(SOON, child.finish()).await.unwrap().unwrap();
        }
    });
}
