//! Futures and children that are dropped: nothing is lost, nothing is left, and nobody is kept.

use std::future::{Future, poll_fn};
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use serial_test::{parallel, serial};
use tidy_process::{AsyncChild, Cause};
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::async_child::{current_thread, multi_thread, ready};
use crate::support::{Alone, SOON, Stage, rounds};

const HUNDRED: &str = "for i in $(seq 99); do sleep 20 & done; echo ready; wait";

fn on_both(check: impl Fn(&Stage, Runtime)) {
    for runtime in [current_thread, multi_thread] {
        let Some(stage) = Stage::set() else { return };
        check(&stage, runtime());
        stage.close(Alone::No);
    }
}

/// Nobody tells when a tree that was dropped is gone.
fn until_clean(stage: &Stage) {
    let deadline = Instant::now() + SOON;
    while stage.cgroups() > 0 || !stage.alive().is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", stage.alive());
        sleep(Duration::from_millis(1));
    }
}

/// Drops the future after this long, unless it is done before.
async fn cut<T>(future: impl Future<Output = T>, micros: u64) -> Option<T> {
    timeout(Duration::from_micros(micros), future).await.ok()
}

#[test]
#[parallel]
fn a_wait_that_is_dropped_loses_nothing() {
    on_both(|stage, runtime| {
        let mut command = stage.sh("sleep 0.0$0; exit 7");
        command.arg("02");
        runtime.block_on(async {
            for round in 0..u64::from(rounds(40, 1000)) {
                let child = command.spawn_async().unwrap();
                let mut status = None;
                while status.is_none() {
                    status = cut(child.wait(), round * 37 % 900).await;
                    yield_now().await;
                }
                assert_eq!(status.unwrap().unwrap().code(), Some(7));
                assert_eq!(child.finish().await.unwrap().cause, Cause::Exited);
            }
        });
        drop(command);
    });
}

#[test]
#[parallel]
fn a_timeout_that_is_due_is_kept_though_waits_are_dropped() {
    on_both(|stage, runtime| {
        let mut command = stage.sh("sleep 20 & sleep 20");
        command.timeout(Duration::from_millis(20));
        runtime.block_on(async {
            let child = command.spawn_async().unwrap();
            let start = Instant::now();
            while cut(child.wait(), 700).await.is_none() {
                assert!(start.elapsed() < SOON);
            }
            assert_eq!(child.finish().await.unwrap().cause, Cause::TimedOut);
        });
        drop(command);
    });
}

#[test]
#[parallel]
fn a_stop_a_kill_and_a_finish_that_are_dropped_go_on() {
    on_both(|stage, runtime| {
        let mut command = stage.sh("setsid sleep 20 & sleep 20");
        command.grace(Duration::from_millis(10));
        runtime.block_on(async {
            for round in 0..u64::from(rounds(30, 600)) {
                let micros = round * 53 % 2000;
                let child = command.spawn_async().unwrap();
                let _ = cut(child.stop(SOON), micros).await;
                let _ = cut(child.kill(), micros).await;
                assert!(child.wait().await.unwrap().signal().is_some());
                let _ = cut(child.finish(), micros).await;
                let child = command.spawn_async().unwrap();
                let _ = cut(child.finish(), micros).await;
                let _ = cut(command.output_async(), micros).await;
                let _ = cut(command.run_async(), micros).await;
            }
        });
        drop((runtime, command));
        stage.assert_clean("the runtime is gone");
    });
}

#[test]
#[parallel]
fn a_dropped_tree_ends_though_nobody_drives_the_runtime() {
    on_both(|stage, runtime| {
        runtime.block_on(async {
            for name in ["dead-leader", "daemon", "chain"] {
                drop(ready(&mut stage.victim(name)).await);
            }
        });
        until_clean(stage);
        drop(runtime);
    });
}

#[test]
#[parallel]
fn a_runtime_that_is_dropped_waits_for_the_trees_of_its_tasks() {
    on_both(|stage, runtime| {
        for name in ["dead-leader", "daemon", "chain", "plain"] {
            let mut command = stage.victim(name);
            let started = Arc::new(AtomicBool::new(false));
            let has_started = Arc::clone(&started);
            runtime.spawn(async move {
                let child = ready(&mut command).await;
                has_started.store(true, Ordering::Release);
                child.wait().await
            });
            runtime.block_on(async {
                while !started.load(Ordering::Acquire) {
                    yield_now().await;
                }
            });
        }
        drop(runtime);
        stage.assert_clean("the runtime is gone");
    });
}

#[test]
#[parallel]
fn a_child_that_outlives_its_runtime_can_be_dropped() {
    on_both(|stage, runtime| {
        let child = runtime.block_on(async { ready(&mut stage.victim("dead-leader")).await });
        drop(runtime);
        let error = current_thread().block_on(child.wait()).unwrap_err();
        assert!(error.to_string().ends_with("has shut down"), "{error}");
        drop(child);
        stage.assert_clean("dropped");
    });
}

#[test]
#[parallel]
fn a_panic_ends_the_tree_of_its_task() {
    on_both(|stage, runtime| {
        let mut command = stage.victim("daemon");
        let task = runtime.spawn(async move {
            let _child = ready(&mut command).await;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(runtime.block_on(task).is_err());
        drop(runtime);
        stage.assert_clean("the runtime is gone");
    });
}

#[test]
#[parallel]
fn a_detached_tree_lives_on() {
    on_both(|stage, runtime| {
        let pid = runtime.block_on(async {
            let child = stage.command("sleep").arg("20").spawn_async().unwrap();
            let pid = child.id().cast_signed();
            child.detach();
            pid
        });
        drop(runtime);
        assert_eq!(stage.alive(), [pid]);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
        let left = std::fs::read_dir(stage.supervisor.path().unwrap()).unwrap().flatten();
        left.filter(|entry| entry.path().is_dir())
            .for_each(|entry| std::fs::remove_dir(entry.path()).unwrap());
    });
}

/// What this thread has done with its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    cpu: Duration,
    wall: Duration,
    /// How often it slept in the kernel. A busy machine takes the CPU away: that does not count.
    sleeps: i64,
}

fn cost<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let now = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        let cpu: Duration = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into();
        (usage.voluntary_context_switches(), cpu)
    };
    let (start, (slept, cpu)) = (Instant::now(), now());
    let done = work();
    let (wall, (slept_then, cpu_then)) = (start.elapsed(), now());
    (done, Cost { cpu: cpu_then - cpu, wall, sleeps: slept_then - slept })
}

/// The dearest poll of a future.
async fn dearest_poll<T>(future: impl Future<Output = T>) -> (T, Cost) {
    let (mut future, mut dearest) = (pin!(future), Cost::default());
    let done = poll_fn(|cx| {
        let (poll, cost) = cost(|| future.as_mut().poll(cx));
        dearest.cpu = dearest.cpu.max(cost.cpu);
        dearest.wall = dearest.wall.max(cost.wall);
        dearest.sleeps += cost.sleeps;
        poll
    });
    (done.await, dearest)
}

fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

fn check(what: &str, costs: &[Cost]) {
    let wall = costs.iter().map(|cost| cost.wall);
    let (cpu, sleeps) = (costs.iter().map(|cost| cost.cpu), costs.iter().map(|cost| cost.sleeps));
    let (cpu, sleeps) = (median(cpu), median(sleeps));
    let worst = wall.clone().max().unwrap();
    eprintln!("{what}: CPU {cpu:?}, wall {:?}, worst {worst:?}, slept {sleeps}", median(wall));
    assert!(cpu < Duration::from_millis(5) && sleeps == 0, "{what}");
}

/// The figures are printed.
#[test]
#[serial]
fn neither_drop_nor_finish_keeps_the_runtime() {
    // The first runtime of a process makes two sockets, for signals, that stay.
    drop(current_thread());
    let Some(stage) = Stage::set() else { return };
    let runtime = current_thread();
    let (mut drops, mut finishes, mut kills) = (Vec::new(), Vec::new(), Vec::new());
    runtime.block_on(async {
        for _ in 0..rounds(20, 200) {
            let child = ready(&mut stage.sh(HUNDRED)).await;
            drops.push(cost(|| drop(child)).1);
            let child = ready(&mut stage.sh(HUNDRED)).await;
            let (killed, cost) = dearest_poll(child.kill()).await;
            killed.unwrap();
            kills.push(cost);
            let child = ready(&mut stage.sh(HUNDRED)).await;
            let (report, cost) = dearest_poll(child.finish()).await;
            assert_eq!(report.unwrap().cause, Cause::Stopped);
            finishes.push(cost);
        }
    });
    check("drop of 100 processes", &drops);
    check("the dearest poll of kill", &kills);
    check("the dearest poll of finish", &finishes);
    drop(runtime);
    stage.close(Alone::Yes);
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
#[serial]
fn two_hundred_children_in_one_thread() {
    // The first runtime of a process makes two sockets, for signals, that stay.
    drop(current_thread());
    let Some(stage) = Stage::set() else { return };
    let runtime = current_thread();
    // The most of some looks: the thread of the next test may just not have been started.
    let before = (0..20)
        .map(|_| {
            sleep(Duration::from_millis(2));
            threads()
        })
        .max()
        .unwrap();
    runtime.block_on(async {
        let spawn = |n: i32| {
            stage
                .sh("sleep 20 & read line; exit $0")
                .arg((n % 100).to_string())
                .stdin(tidy_process::Stdio::piped())
                .spawn_async()
                .unwrap()
        };
        let mut children: Vec<AsyncChild> = (0..200).map(spawn).collect();
        let inputs: Vec<_> = children.iter_mut().map(|child| child.stdin.take()).collect();
        let waits = children.into_iter().map(|child| {
            tokio::spawn(async move {
                let status = child.wait().await.unwrap();
                (status.code(), child.finish().await.unwrap())
            })
        });
        let waits: Vec<_> = waits.collect();
        yield_now().await;
        assert!(threads() <= before, "a thread waits for children");
        let start = Instant::now();
        drop(inputs);
        for (n, wait) in (0..).zip(waits) {
            let (code, report) = wait.await.unwrap();
            assert_eq!(code, Some(n % 100));
            assert_eq!(report.leftovers.len(), 1);
        }
        eprintln!(
            "200 children with a leftover each waited for and ended in {:?}",
            start.elapsed()
        );
    });
    drop(runtime);
    stage.close(Alone::Yes);
}
