//! Acts on what is due: sends the stop signal, kills. Looks at the child first, then at the clock:
//! a child that has ended in time did not time out, however late it is waited for.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};

use crate::child::Child;
use crate::child::deadline::{Due, EndState, KILL_RETRY, Scope};
use crate::error::{Result, Step};
use crate::record::timeline::EventKind;
use crate::report::Cause;
use crate::sys::poll::{self, earlier, lock};

impl Child {
    /// When [`enforce`](Self::enforce) is to be called next, to send the stop signal, to kill, or
    /// to look at the CPU time: a moment that has passed means now. `None`: only the child's own
    /// end is to come, or that of the process that it [dies with](Self::partner_fd).
    ///
    /// For event loops round [`AsFd`] (every `wait` here acts by itself). Changes nothing.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next_step(self.scope())
    }

    /// Enforces the timeout, the CPU time and the grace: sends the stop signal or kills if that is
    /// due (which may take long), and says when the next step is, as
    /// [`next_deadline`](Self::next_deadline) does.
    ///
    /// A main process that has ended did so in time, however late this is called: what it has left
    /// behind are leftovers then. Where the command [lingers](crate::Command::linger) this holds
    /// for the whole tree.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tidy_process::Command;
    ///
    /// let child = Command::new("sleep").arg("60").timeout(Duration::from_millis(5)).spawn()?;
    /// while child.try_wait()?.is_none() {
    ///     // An event loop would wait for this moment, and for the child's fd.
    ///     let next = child.enforce();
    /// #   std::thread::sleep(Duration::from_millis(1));
    /// }
    /// assert_eq!(child.finish()?.cause, tidy_process::Cause::TimedOut);
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    pub fn enforce(&self) -> Option<Instant> {
        self.enforce_for(self.scope())
    }

    /// Acts on what is due now; returns the moment until which a wait may sleep: `deadline` or the
    /// next step.
    pub(crate) fn sleep_until(&self, scope: Scope, deadline: Option<Instant>) -> Option<Instant> {
        earlier(deadline, self.enforce_for(scope))
    }

    /// Sleeps until one of these fds has news, the next step is due, or the deadline has come; may
    /// return early.
    pub(crate) fn rest(
        &self,
        fds: &mut [PollFd<'_>],
        deadline: Option<Instant>,
    ) -> Result<(), Errno> {
        let until = self.sleep_until(self.scope(), deadline);
        let Some(partner) = self.awaited(self.scope()) else {
            return poll::news(fds, until).map(drop);
        };
        let mut all = fds.to_vec();
        all.push(PollFd::new(partner, PollFlags::POLLIN));
        poll::news(&mut all, until).map(drop)
    }

    /// The pidfd whose news end the child, while what is waited for goes on.
    pub(crate) fn awaited(&self, scope: Scope) -> Option<BorrowedFd<'_>> {
        self.ending.awaited().filter(|_| !self.is_over(scope)).map(AsFd::as_fd)
    }

    /// Waits for the main process and, lingering, for the whole tree; for the sole holder of the
    /// child. No other thread can take the status meanwhile, so that one call both waits and takes
    /// it where nothing is due before the end.
    pub(crate) fn wait_alone(&self) -> Result<()> {
        if self.ending.awaited().is_none() && self.next_step(Scope::Main).is_none() {
            let mut status = lock(&self.status);
            let ended = self.tree().container().await_main(self.pidfd.as_fd());
            *status = ended.map_err(|errno| self.failed(Step::Wait, errno))?;
            status.iter().for_each(|status| self.recorded.main_ended(*status));
        }
        self.wait()?;
        if self.policy().linger { self.wait_tree() } else { Ok(()) }
    }

    /// Waits until nothing is left of the tree, and enforces what is due meanwhile.
    pub(crate) fn wait_tree(&self) -> Result<()> {
        while self.ending.awaited().is_some() && !self.tree().is_empty()? {
            let (empty, news) = self.tree().container().empty_news();
            let rested = self.rest(&mut [PollFd::new(empty, news)], None);
            rested.map_err(|errno| self.failed(Step::Wait, errno))?;
        }
        while !self.tree().wait_empty_until(self.enforce_for(Scope::Tree))? {}
        Ok(())
    }

    pub(crate) fn scope(&self) -> Scope {
        if self.policy().linger { Scope::Tree } else { Scope::Main }
    }

    pub(crate) fn next_step(&self, scope: Scope) -> Option<Instant> {
        let Some(state) = self.ending.seen() else {
            // Another thread holds the state and acts.
            return Some(Instant::now() + Duration::from_millis(1));
        };
        match self.ending.due(state, || self.cpu_time()) {
            Due::Nothing => None,
            Due::At(at) => Some(at),
            Due::Stop(..) if self.is_over(scope) && self.has_ended() => None,
            Due::Stop(..) | Due::Kill(_) => Some(Instant::now()),
        }
    }

    pub(crate) fn enforce_for(&self, scope: Scope) -> Option<Instant> {
        let mut state = self.ending.turn();
        match self.ending.due(*state, || self.cpu_time()) {
            Due::Nothing => None,
            Due::At(at) => Some(at),
            Due::Stop(..) if self.is_over(scope) => {
                // The status may be late: a keeper or a tracer has it.
                let late = !self.has_ended();
                if late {
                    self.tree().container().wake();
                }
                late.then(|| Instant::now() + KILL_RETRY)
            }
            Due::Stop(cause, grace) => self.stop_for(cause, grace, &mut state),
            Due::Kill(cause) => Some(self.kill_for(cause, &mut state)),
        }
    }

    /// Asks the tree to end for this cause, or kills it; returns when to look again.
    fn stop_for(
        &self,
        cause: Cause,
        grace: Option<Duration>,
        state: &mut EndState,
    ) -> Option<Instant> {
        match cause {
            // Stopping a running tree leaves nothing to describe.
            Cause::Stopped => {}
            Cause::CpuTimeExceeded => self.note_interrupted(EventKind::CpuTimeExceeded),
            _ => self.note_interrupted(EventKind::TimedOut),
        }
        // A look that takes its whole budget does not shorten the grace.
        let kill_at = grace.map(|grace| Instant::now().checked_add(grace));
        let Some(kill_at) = kill_at else { return Some(self.kill_for(cause, state)) };
        self.send_stop_signal();
        if kill_at.is_some_and(|at| Instant::now() >= at) {
            return Some(self.kill_for(cause, state));
        }
        *state = EndState::Asked(cause, kill_at);
        kill_at
    }

    /// Describes what is alive when the time is over: it is gone when a report is made.
    fn note_interrupted(&self, event: EventKind) {
        // Before the look, which takes a moment in which the main process may end.
        let behind = self.is_over(Scope::Main);
        let alive = self.tree().alive();
        if behind {
            *lock(&self.left) = alive.clone();
        }
        *lock(&self.interrupted) = alive;
        self.recorded.note(event);
    }

    /// Kills for this cause; returns when to look again: at once if all are gone.
    fn kill_for(&self, cause: Cause, state: &mut EndState) -> Instant {
        if self.is_over(Scope::Main) {
            let left = self.leftovers();
            *lock(&self.left) = left;
        }
        let now = Instant::now();
        if self.kill_all().is_ok() {
            *state = EndState::Killed(cause);
            return now;
        }
        let again = Instant::now() + KILL_RETRY;
        *state = EndState::Asked(cause, Some(again));
        again
    }

    /// Whether the main process or, for that scope, the whole tree has ended by itself.
    fn is_over(&self, scope: Scope) -> bool {
        let now = Some(Instant::now());
        let main = self.has_ended() || poll::ended(self.pidfd.as_fd(), now).unwrap_or(false);
        main && (scope == Scope::Main || self.tree().is_empty().unwrap_or(true))
    }

    fn cpu_time(&self) -> Option<Duration> {
        self.tree().container().cpu_time()
    }
}
