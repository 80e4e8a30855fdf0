//! `Pool`: all commands end and are told, so many at a time, and nothing is left whatever happens.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serial_test::{parallel, serial};
use tidy_process::{Cause, Command, Pool, Stdio};

use crate::support::{Alone, SOON, Stage, until};

fn sleeping(stage: &Stage) -> Command {
    stage.sh("setsid sleep 60 & exec sleep 60")
}

#[test]
#[serial]
fn every_command_is_told_once_by_its_key() {
    for stage in [Stage::set(), Stage::of_keepers()].into_iter().flatten() {
        let commands = (0..60).map(|key| (key, stage.sh(&format!("exit {}", key % 3))));
        let told = Mutex::new(BTreeSet::new());
        Pool::new(7)
            .run(commands, |key, result| {
                assert_eq!(result.unwrap().status.code(), Some(key % 3));
                assert!(told.lock().unwrap().insert(key), "{key} was told twice");
            })
            .unwrap();
        assert_eq!(told.into_inner().unwrap(), (0..60).collect());
        // Keepers have a fd of /proc for all of this process.
        stage.close(Alone::No);
    }
}

#[test]
#[serial]
fn so_many_run_at_a_time_and_no_more() {
    let Some(stage) = Stage::set() else { return };
    let (started, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let most = AtomicUsize::new(0);
    let commands = (0..30).map(|key| {
        // The command before this one that was asked for is running by now.
        let running = started.fetch_add(1, Ordering::SeqCst) - ended.load(Ordering::SeqCst);
        most.fetch_max(running + 1, Ordering::SeqCst);
        (key, stage.sh("sleep 0.05"))
    });
    Pool::new(5)
        .run(commands, |_, result| {
            assert!(result.unwrap().success());
            ended.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    assert_eq!(most.into_inner(), 5);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn timeouts_leftovers_and_errors_are_each_commands_own() {
    let Some(stage) = Stage::set() else { return };
    let mut late = stage.command("sleep");
    late.arg("60").timeout(Duration::from_millis(50));
    let mut stubborn = stage.sh("trap '' TERM; while :; do sleep 0.01; done");
    stubborn.timeout(Duration::from_millis(50)).grace(Duration::from_millis(50));
    let mut piped = stage.command("true");
    piped.stdout(Stdio::piped());
    let leaking = stage.sh("sleep 60 & exit 0");
    let mut lingering = stage.sh("sleep 0.2 & exit 0");
    lingering.linger(true);
    let missing = stage.command("no-such-program");
    let commands = [late, stubborn, piped, leaking, lingering, missing];
    let told = Mutex::new(vec![None; 6]);
    Pool::new(6)
        .run(commands.into_iter().enumerate(), |key, result| {
            let what = match &result {
                Ok(report) => format!("{:?} {}", report.cause, report.leftover_count),
                Err(error) if error.is_not_found() => "not found".to_owned(),
                Err(error) if error.is_invalid_input() => "invalid".to_owned(),
                Err(error) => error.to_string(),
            };
            told.lock().unwrap()[key] = Some(what);
        })
        .unwrap();
    let told: Vec<_> = told.into_inner().unwrap().into_iter().flatten().collect();
    let wanted = ["TimedOut 0", "TimedOut 0", "invalid", "Exited 1", "Exited 0", "not found"];
    assert_eq!(told, wanted);
    stage.close(Alone::Yes);
}

/// What runs when the function, or the iterator, panics is killed; the panic goes on.
#[test]
#[serial]
fn a_panic_leaves_nothing() {
    let Some(stage) = Stage::set() else { return };
    let run = |at_a_time: usize, in_iterator: bool| {
        let commands = (0..9).map(|key| {
            assert!(!(in_iterator && key == 6), "the iterator's panic");
            (key, if key == 5 { stage.sh("exit 0") } else { sleeping(&stage) })
        });
        Pool::new(at_a_time).run(commands, |_, _| panic!("the function's panic"))
    };
    for (at_a_time, in_iterator) in [(6, false), (9, true)] {
        let start = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| run(at_a_time, in_iterator)));
        assert!(ended.is_err(), "it did not panic");
        assert!(start.elapsed() < SOON, "it waited for what ran");
        stage.assert_clean("after a panic");
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_kill_ends_what_runs_and_starts_no_more() {
    let Some(stage) = Stage::set() else { return };
    let pool = Pool::new(4);
    let (asked, stopped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let other = pool.clone();
        let stage = &stage;
        scope.spawn(move || {
            // Two processes in each of four trees.
            let is_full = until(SOON, || stage.alive().len() >= 8);
            other.kill();
            assert!(is_full, "{:?}", stage.alive());
        });
        let endless = std::iter::repeat_with(|| {
            asked.fetch_add(1, Ordering::SeqCst);
            ((), sleeping(stage))
        });
        let ended = pool.run(endless, |(), result| {
            assert_eq!(result.unwrap().cause, Cause::Stopped);
            stopped.fetch_add(1, Ordering::SeqCst);
        });
        ended.unwrap();
    });
    assert_eq!((asked.into_inner(), stopped.into_inner()), (4, 4));
    stage.close(Alone::Yes);
}

#[test]
#[parallel]
fn a_closed_pool_lets_what_runs_go_on() {
    let Some(stage) = Stage::set() else { return };
    let pool = Pool::new(3);
    let well = AtomicUsize::new(0);
    let endless = std::iter::repeat_with(|| ((), stage.sh("sleep 0.1")));
    pool.run(endless, |(), result| {
        well.fetch_add(usize::from(result.unwrap().success()), Ordering::SeqCst);
        pool.close();
    })
    .unwrap();
    assert!((1..=3).contains(&well.into_inner()));
    stage.close(Alone::No);
}

/// More commands may come of what has ended.
#[test]
#[parallel]
fn an_iterator_may_have_more_after_its_end() {
    let Some(stage) = Stage::set() else { return };
    let again = Mutex::new(vec![0]);
    let commands = std::iter::from_fn(|| {
        let key: i32 = again.lock().unwrap().pop()?;
        Some((key, stage.sh("true")))
    });
    let last = Mutex::new(0);
    Pool::new(2)
        .run(commands, |key, _| {
            *last.lock().unwrap() = key;
            if key < 5 {
                again.lock().unwrap().push(key + 1);
            }
        })
        .unwrap();
    assert_eq!(last.into_inner().unwrap(), 5);
    stage.close(Alone::No);
}

/// All are started at once, and it ends with them.
#[test]
#[serial]
fn as_many_as_there_may_be_is_a_number() {
    let Some(stage) = Stage::set() else { return };
    for number in [usize::MAX, usize::MAX - 1] {
        let told = AtomicUsize::new(0);
        let commands = (0..9).map(|key| (key, stage.sh("exit 0")));
        let count = |_, result: tidy_process::Result<tidy_process::Report>| {
            told.fetch_add(usize::from(result.unwrap().success()), Ordering::SeqCst);
        };
        Pool::new(number).run(commands, count).unwrap();
        assert_eq!(told.into_inner(), 9);
    }
    stage.close(Alone::Yes);
}
