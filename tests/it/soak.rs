//! A storm of spawns on all cores, with random victims and random ends: nothing is left, nothing
//! grows. Seconds at the desk, a minute with `TIDY_LONG=1`, and as many seconds as `TIDY_SOAK`
//! says.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use serial_test::serial;
use tidy_process::{Child, Command, Stdio};

use crate::support::{Alone, Stage, rounds};
use crate::victim;

const THREADS: usize = 4;

/// Numbers that differ from run to run; the test is right for all of them.
struct Dice {
    state: RandomState,
    thrown: u64,
}

impl Dice {
    fn new() -> Self {
        Self { state: RandomState::new(), thrown: 0 }
    }

    fn throw(&mut self, sides: usize) -> usize {
        self.thrown += 1;
        usize::try_from(self.state.hash_one(self.thrown) >> 33).unwrap() % sides
    }

    fn moment(&mut self) -> Duration {
        Duration::from_micros(u64::try_from(self.throw(8000)).unwrap())
    }
}

/// One command, from birth to an end that comes at any moment of its life.
fn one(stage: &Stage, dice: &mut Dice) {
    let names = victim::names();
    let mut command = match dice.throw(names.len() + 8) {
        number if number < names.len() => stage.victim(names[number]),
        _ => stage.sh("sleep 20 & (setsid sleep 20 &) ; true"),
    };
    command.stdout(Stdio::null()).stderr(Stdio::null()).force_join(dice.throw(4) == 0);
    if dice.throw(4) == 0 {
        command.timeout(dice.moment());
    }
    let child = command.spawn().unwrap();
    let path = child.tree().path().unwrap().to_owned();
    thread::sleep(dice.moment());
    let start = Instant::now();
    end(child, dice);
    if path.exists() {
        let events = fs::read_to_string(path.join("cgroup.events"));
        let members = fs::read_to_string(path.join("cgroup.procs"));
        panic!("{path:?} is left after {:?}: {events:?}, {members:?}", start.elapsed());
    }
    collect(&mut command, dice);
}

fn end(child: Child, dice: &mut Dice) {
    match dice.throw(6) {
        0 => drop(child),
        1 => child.finish().map(drop).unwrap(),
        2 => {
            child.kill().unwrap();
            child.finish().unwrap();
        }
        3 => {
            child.stop(dice.moment()).unwrap();
            child.wait().unwrap();
        }
        4 => {
            child.wait_timeout(dice.moment()).unwrap();
        }
        _ => {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _child = child;
                resume_unwind(Box::new("on purpose"));
            }));
            assert!(panicked.is_err());
        }
    }
}

/// The same again with its output, bounded by a timeout.
fn collect(command: &mut Command, dice: &mut Dice) {
    if dice.throw(4) == 0 {
        command.timeout(dice.moment());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    }
}

/// Fds of this process, and the memory it has touched, in KiB.
fn held() -> (usize, u64) {
    let fds = fs::read_dir("/proc/self/fd").unwrap().count();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (fds, line.trim().trim_end_matches(" kB").parse().unwrap())
}

fn seconds() -> u64 {
    let asked = std::env::var("TIDY_SOAK").ok().map(|seconds| seconds.parse().unwrap());
    asked.unwrap_or_else(|| rounds(4, 60).into())
}

#[test]
#[serial]
fn a_storm_of_victims_leaves_nothing_and_nothing_grows() {
    let Some(stage) = Stage::set() else { return };
    let (runs, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let storm = |time: Duration| {
        let until = Instant::now() + time;
        let worker = || {
            let mut dice = Dice::new();
            while Instant::now() < until {
                one(&stage, &mut dice);
                runs.fetch_add(1, Ordering::Relaxed);
                most.fetch_max(held().0 as u64, Ordering::Relaxed);
            }
        };
        thread::scope(|scope| {
            (0..THREADS).for_each(|_| drop(scope.spawn(worker)));
        });
        stage.assert_clean("after a storm");
        held()
    };
    // The first one warms up: buffers and stacks are kept.
    let time = Duration::from_secs(seconds());
    let before = storm(time / 4);
    let after = storm(time);
    let runs = runs.into_inner();
    println!("{runs} runs; fds {} -> {}, KiB {} -> {}", before.0, after.0, before.1, after.1);
    assert_eq!(before.0, after.0, "fds are left open");
    assert!(after.1 < before.1 + before.1 / 4 + 2048, "memory: {before:?} -> {after:?} KiB");
    let limit = getrlimit(Resource::RLIMIT_NOFILE).unwrap().0;
    assert!(most.into_inner() < limit.min(300), "fds at the most");
    stage.close(Alone::Yes);
}
