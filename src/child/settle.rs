//! Tells whether what a main process has left is about to end by itself.
//!
//! A filter at the end of a pipe (`exec > >(sed ..)`) ends when its input does, so *after* the main
//! process. When the last writer of a pipe exits its reader is made runnable before that exit can
//! be seen; so a process that is about to end because another one has is at work already when it is
//! looked at. One that sleeps waits for something else, and gets no time.
//!
//! A look is not atomic: work may be handed on behind its back. So only two looks in a row that
//! find all asleep, and no CPU time used between them, end the wait.

use std::time::{Duration, Instant};

use crate::proc::activity::Activity;
use crate::sys::poll::earlier;
use crate::tree::container::Container;

/// The time that leftovers have by default, as long as one of them works.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);

/// The pause before the next look while one works, and before the one that confirms that none does.
pub(crate) const WORK_PAUSE: Duration = Duration::from_millis(1);
const QUIET_PAUSE: Duration = Duration::from_micros(500);

/// Quiet looks in a row that end the wait; where processes are hidden and the CPU time alone tells,
/// more than a tick of the slowest clock (10 ms) takes in a virtual machine that has to wait.
const QUIET_LOOKS: u32 = 2;
const BLIND_LOOKS: u32 = 40;

/// How far the time after the main process's end has come.
#[derive(Debug)]
pub(crate) enum After {
    /// The main process runs, or nothing was done since its end.
    Unbegun,
    /// What is left works, or was not looked at long enough.
    Settling(Settling),
    /// What is left has got the stop signal; the kill is due then.
    Stopping(Option<Instant>),
    /// Nothing is left.
    Empty,
    /// What is left is to be killed.
    Lost,
}

/// What to do with a tree whose main process has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rest {
    /// Tear it down: it is empty, or its time is over.
    Over,
    /// Wait until it is empty, or this moment, and ask again.
    Until(Option<Instant>),
}

/// Looks at what is left, again and again.
#[derive(Debug)]
pub(crate) struct Settling {
    until: Option<Instant>,
    quiet: u32,
    used: Option<Duration>,
}

impl Settling {
    pub(crate) fn new(time: Duration) -> Self {
        Self { until: Instant::now().checked_add(time), quiet: 0, used: None }
    }

    /// When to look again; none once all sleep, or the time is over. `moved`: output has come since
    /// the last look, so a process has worked.
    pub(crate) fn look(&mut self, tree: &Container, moved: bool) -> Option<Instant> {
        let now = Instant::now();
        if self.until.is_some_and(|until| now >= until) {
            return None;
        }
        let activity = if moved { Activity::Works } else { tree.activity() };
        let (enough, pause, used) = match activity {
            Activity::Works => {
                self.quiet = 0;
                return earlier(self.until, now.checked_add(WORK_PAUSE));
            }
            Activity::Sleeps => (QUIET_LOOKS, QUIET_PAUSE, tree.cpu_time()),
            Activity::Unseen => (BLIND_LOOKS, WORK_PAUSE, tree.cpu_demand()),
        };
        self.quiet = if self.quiet > 0 && used == self.used { self.quiet + 1 } else { 1 };
        self.used = used;
        if self.quiet >= enough { None } else { earlier(self.until, now.checked_add(pause)) }
    }
}
