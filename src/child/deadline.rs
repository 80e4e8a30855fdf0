//! When a tree is due to end, and how far that has come. There is no thread: whoever waits takes
//! the next step.

use std::sync::Mutex;
#[cfg(feature = "tokio")]
use std::sync::TryLockError;
use std::time::{Duration, Instant};

use crate::command::Keep;
use crate::report::Cause;
use crate::sys::poll::lock;

/// Between two looks at the CPU time, however near the limit is: two CPUs burn 20 ms in it.
const LOOK: Duration = Duration::from_millis(10);

/// Between two attempts to kill what the kernel does not let go of.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Ending {
    keep: Keep,
    spawned: Instant,
    state: Mutex<State>,
}

/// One step at a time.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Nobody has asked for it. The timeout, if there is one, is still to come.
    Unasked,
    /// It was asked to end for this cause; at this time the kill is due (never, for an endless
    /// grace).
    Asked(Cause, Option<Instant>),
    /// It was killed for this cause, and nothing of it is left.
    Killed(Cause),
}

/// What is due to happen to a tree that nobody has asked to end.
enum Due {
    Nothing,
    Look(Instant),
    End(Cause, Duration),
}

/// What it is that ends: a tree, and its main process wherever that has gone.
pub(crate) trait Mortal {
    /// CPU time used so far, where the kernel says.
    fn cpu_time(&self) -> Option<Duration>;
    /// Sends the stop signal to all.
    fn ask(&self);
    /// Kills all; true once nothing is left.
    fn kill(&self) -> bool;
}

impl Ending {
    pub(crate) fn new(keep: Keep, spawned: Instant) -> Self {
        Self { keep, spawned, state: Mutex::new(State::Unasked) }
    }

    pub(crate) fn keep(&self) -> Keep {
        self.keep
    }

    pub(crate) fn spawned(&self) -> Instant {
        self.spawned
    }

    /// Why we ended it, if we did.
    pub(crate) fn cause(&self) -> Option<Cause> {
        match *lock(&self.state) {
            State::Unasked => None,
            State::Asked(cause, _) | State::Killed(cause) => Some(cause),
        }
    }

    /// Somebody wants it to end for this cause, with the kill due after the grace. An earlier kill
    /// stands, an earlier cause too.
    pub(crate) fn ask(&self, cause: Cause, grace: Duration) {
        let mut state = lock(&self.state);
        let kill_at = Instant::now().checked_add(grace);
        *state = match *state {
            State::Unasked => State::Asked(cause, kill_at),
            State::Asked(cause, before) => {
                State::Asked(cause, [before, kill_at].into_iter().flatten().min())
            }
            killed @ State::Killed(_) => killed,
        };
    }

    /// Takes the step that is due, if one is; says when to look again (at once, after a kill).
    pub(crate) fn step(&self, mortal: &impl Mortal) -> Option<Instant> {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if let State::Unasked = *state {
            match self.due(mortal, now) {
                Due::Nothing => return None,
                Due::Look(at) => return Some(at),
                Due::End(cause, grace) => {
                    if !grace.is_zero() {
                        mortal.ask();
                    }
                    *state = State::Asked(cause, now.checked_add(grace));
                }
            }
        }
        let State::Asked(cause, kill_at) = *state else {
            return None;
        };
        let kill_at = kill_at?;
        if now < kill_at {
            return Some(kill_at);
        }
        let killed = mortal.kill();
        let again = if killed { now } else { Instant::now() + AGAIN };
        *state = if killed { State::Killed(cause) } else { State::Asked(cause, Some(again)) };
        Some(again)
    }

    /// When the next step is due, for who must not be kept: it has passed if `step` would send a
    /// signal or kill now, which may take long.
    #[cfg(feature = "tokio")]
    pub(crate) fn next(&self, mortal: &impl Mortal) -> Option<Instant> {
        let now = Instant::now();
        let state = match self.state.try_lock() {
            Ok(state) => *state,
            Err(TryLockError::Poisoned(state)) => *state.into_inner(),
            // Somebody is at it.
            Err(TryLockError::WouldBlock) => return Some(now + Duration::from_millis(1)),
        };
        match state {
            State::Unasked => match self.due(mortal, now) {
                Due::Nothing => None,
                Due::Look(at) => Some(at),
                Due::End(..) => Some(now),
            },
            State::Asked(_, kill_at) => kill_at,
            State::Killed(_) => None,
        }
    }

    fn due(&self, mortal: &impl Mortal, now: Instant) -> Due {
        let timeout = self.keep.timeout.and_then(|timeout| self.spawned.checked_add(timeout));
        if timeout.is_some_and(|timeout| now >= timeout) {
            return Due::End(Cause::TimedOut, self.keep.grace);
        }
        let look = match self.keep.cpu_time {
            None => None,
            Some(limit) => match left(limit, mortal.cpu_time()) {
                // No grace: what it burns meanwhile is what it may not have.
                None => return Due::End(Cause::CpuTimeExceeded, Duration::ZERO),
                Some(left) => now.checked_add((left / cpus()).max(LOOK)),
            },
        };
        [timeout, look].into_iter().flatten().min().map_or(Due::Nothing, Due::Look)
    }
}

/// CPU time that is left of the limit. If the kernel does not say how much was used, all of it.
fn left(limit: Duration, used: Option<Duration>) -> Option<Duration> {
    limit.checked_sub(used.unwrap_or_default()).filter(|left| !left.is_zero())
}

/// However many run at once, they cannot burn faster than this.
fn cpus() -> u32 {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
    let online = online.ok().flatten().and_then(|number| u32::try_from(number).ok());
    online.unwrap_or(1).max(1)
}
