//! Paces the checks: as often as a hundredth of a CPU allows, every 4 to 250 ms.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::child::Child;
use crate::child::deadline::Scope;
use crate::sys::poll::{self, earlier};

/// The shortest rest: on average a thing is found half of this late.
const SHORT: Duration = Duration::from_millis(4);
const LONG: Duration = Duration::from_millis(250);

/// Rest after a check, in multiples of the CPU time that checks take.
const REST: u32 = 150;

pub(crate) struct Pace {
    since: Duration,
    /// None before the first check, which also opens what the others use.
    mean: Option<Duration>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { since: cpu_time(), mean: None }
    }

    /// Sleeps until the next check is due, the deadline or the child's own next step has come, or
    /// its main process has ended.
    pub(crate) fn rest(&mut self, child: &Child, deadline: Option<Instant>) {
        let due = earlier(Some(self.due()), deadline);
        let until = child.sleep_until(Scope::Tree, due);
        if child.has_ended() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            thread::sleep(left.unwrap_or_default());
        } else {
            let _ = poll::ended(child.as_fd(), until);
        }
    }

    /// Notes that a check begins, in a thread that has done other work since the last one.
    pub(crate) fn begin(&mut self) {
        self.since = cpu_time();
    }

    /// Returns when the next check is due, after one by this thread.
    pub(crate) fn due(&mut self) -> Instant {
        let now = cpu_time();
        let cost = now.saturating_sub(self.since);
        self.since = now;
        let mean = self.mean.map_or(Duration::ZERO, |mean| (mean * 7 + cost) / 8);
        self.mean = Some(mean);
        Instant::now() + (mean * REST).clamp(SHORT, LONG)
    }
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
