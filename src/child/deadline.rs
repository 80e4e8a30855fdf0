//! Decides when a tree is stopped and killed, and remembers how far that has come. Every wait on
//! the child acts on it (see `enforce.rs`); there is no thread.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::report::Cause;
use crate::supervisor::partner::Partner;
use crate::sys::poll::{earlier, lock};

/// Samples CPU time every 10 ms at the most; bounds the overshoot to 10 ms for each CPU.
const CPU_SAMPLE: Duration = Duration::from_millis(10);

/// The pause before a kill that left survivors is tried again.
pub(crate) const KILL_RETRY: Duration = Duration::from_millis(100);

/// How to stop a command, as its caller set it; kept for the life of its child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StopPolicy {
    pub(crate) timeout: Option<Duration>,
    pub(crate) cpu_time: Option<Duration>,
    /// None: killed at once, without the stop signal.
    pub(crate) grace: Option<Duration>,
    pub(crate) stop_signal: i32,
    pub(crate) stop_main_only: bool,
    pub(crate) linger: bool,
    pub(crate) settle: Duration,
    pub(crate) stop_leftovers: bool,
}

/// The policy of one child, and how far it is carried out.
#[derive(Debug)]
pub(crate) struct Ending {
    policy: StopPolicy,
    spawned: Instant,
    /// Its end is a stop.
    partner: Option<Partner>,
    state: Mutex<EndState>,
}

/// What a wait waits for: a timeout counts only if it passed before that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Main,
    Tree,
}

/// How far the end has come. The thread that holds the lock takes the next step.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EndState {
    /// Nothing has asked the tree to end. The timeout, if there is one, is still to come.
    Unasked,
    /// It was asked to end for this cause; at this time the kill is due (never, for an endless
    /// grace).
    Asked(Cause, Option<Instant>),
    /// It was killed for this cause, and nothing of it is left.
    Killed(Cause),
}

/// What is due.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Due {
    Nothing,
    /// Nothing until this moment.
    At(Instant),
    /// Send the stop signal, for this cause, and kill after this grace (zero for CPU time: a grace
    /// would use more of it); without a grace, kill.
    Stop(Cause, Option<Duration>),
    Kill(Cause),
}

impl Ending {
    pub(crate) fn new(policy: StopPolicy, spawned: Instant) -> Self {
        Self { policy, spawned, partner: None, state: Mutex::new(EndState::Unasked) }
    }

    pub(crate) fn die_with(&mut self, partner: Option<Partner>) {
        self.partner = partner;
    }

    /// The process whose end is still to be acted on.
    pub(crate) fn awaited(&self) -> Option<&Partner> {
        match self.seen() {
            // Another thread holds the state; the next step waits for it.
            Some(EndState::Unasked) | None => self.partner.as_ref(),
            Some(EndState::Asked(..) | EndState::Killed(_)) => None,
        }
    }

    pub(crate) fn policy(&self) -> StopPolicy {
        self.policy
    }

    pub(crate) fn spawned(&self) -> Instant {
        self.spawned
    }

    /// The cause for which this process ended it, if it did.
    pub(crate) fn cause(&self) -> Option<Cause> {
        match *lock(&self.state) {
            EndState::Unasked => None,
            EndState::Asked(cause, _) | EndState::Killed(cause) => Some(cause),
        }
    }

    /// When the kill is due, if it was asked to end and was not killed yet; after an endless grace
    /// never.
    pub(crate) fn asked(&self) -> Option<Option<Instant>> {
        match *lock(&self.state) {
            EndState::Asked(_, kill_at) => Some(kill_at),
            EndState::Unasked | EndState::Killed(_) => None,
        }
    }

    /// Notes that it is to end for this cause, with the kill due at that time. An earlier cause
    /// stays, and so does an earlier kill.
    pub(crate) fn note(&self, cause: Cause, kill_at: Option<Instant>) {
        let mut state = lock(&self.state);
        *state = match *state {
            EndState::Unasked => EndState::Asked(cause, kill_at),
            EndState::Asked(cause, before) => EndState::Asked(cause, earlier(before, kill_at)),
            killed @ EndState::Killed(_) => killed,
        };
    }

    /// Locks the state, to act on what is due.
    pub(crate) fn turn(&self) -> MutexGuard<'_, EndState> {
        lock(&self.state)
    }

    /// The state, unless another thread is acting on it right now.
    pub(crate) fn seen(&self) -> Option<EndState> {
        use std::sync::TryLockError;
        match self.state.try_lock() {
            Ok(state) => Some(*state),
            Err(TryLockError::Poisoned(state)) => Some(*state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What is due in this state. Calls `used` only for a limit of CPU time.
    pub(crate) fn due(&self, state: EndState, used: impl Fn() -> Option<Duration>) -> Due {
        let now = Instant::now();
        match state {
            EndState::Unasked => self.unasked(now, used),
            EndState::Asked(cause, Some(kill_at)) if now >= kill_at => Due::Kill(cause),
            EndState::Asked(_, Some(kill_at)) => Due::At(kill_at),
            EndState::Asked(_, None) | EndState::Killed(_) => Due::Nothing,
        }
    }

    fn unasked(&self, now: Instant, used: impl Fn() -> Option<Duration>) -> Due {
        if self.partner.as_ref().is_some_and(Partner::has_ended) {
            return Due::Stop(Cause::Stopped, self.policy.grace);
        }
        let timeout = self.policy.timeout.and_then(|timeout| self.spawned.checked_add(timeout));
        if timeout.is_some_and(|timeout| now >= timeout) {
            return Due::Stop(Cause::TimedOut, self.policy.grace);
        }
        let sample = match self.policy.cpu_time {
            None => None,
            Some(limit) => match left(limit, used()) {
                None => {
                    let grace = self.policy.grace.map(|_| Duration::ZERO);
                    return Due::Stop(Cause::CpuTimeExceeded, grace);
                }
                Some(left) => now.checked_add((left / cpus()).max(CPU_SAMPLE)),
            },
        };
        earlier(timeout, sample).map_or(Due::Nothing, Due::At)
    }
}

/// The CPU time left of the limit; the whole limit if the usage is unknown.
fn left(limit: Duration, used: Option<Duration>) -> Option<Duration> {
    limit.checked_sub(used.unwrap_or_default()).filter(|left| !left.is_zero())
}

/// The number of CPUs, which bounds how fast CPU time is used.
fn cpus() -> u32 {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
    let online = online.ok().flatten().and_then(|number| u32::try_from(number).ok());
    online.unwrap_or(1).max(1)
}
