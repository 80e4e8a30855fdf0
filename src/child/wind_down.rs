//! What comes between the end of a main process and the teardown of its tree: what it has left may
//! end by itself, or after a stop signal.

use std::time::Instant;

use crate::child::Child;
use crate::child::deadline::EndState;
use crate::child::settle::{After, Rest, Settling, WORK_PAUSE};
use crate::record::timeline::EventKind;
use crate::sys::poll::{earlier, lock};

impl Child {
    /// Gives what the main process has left its time: to end by itself, or after a stop signal.
    /// Returns when nothing is left, or the rest is to be killed.
    pub(crate) fn wind_down(&self) {
        while let Rest::Until(at) = self.after_main(false) {
            let _ = self.tree().wait_empty_until(at);
        }
    }

    /// What is next, now that the main process has ended; costs one read where nothing is left.
    /// `moved`: output has come since the last call.
    pub(crate) fn after_main(&self, moved: bool) -> Rest {
        let mut after = lock(&self.after);
        if matches!(*after, After::Empty | After::Lost) {
            return Rest::Over;
        }
        match self.tree().is_empty() {
            Ok(false) => {}
            // The teardown meets the same error and reports it.
            Err(_) => return over(&mut after, After::Lost),
            Ok(true) => return over(&mut after, After::Empty),
        }
        let rest = match self.ending.seen() {
            // Another thread holds the state and acts.
            None => Rest::Until(Instant::now().checked_add(WORK_PAUSE)),
            // The grace belongs to the whole tree.
            Some(EndState::Asked(_, kill_at)) => before(kill_at),
            Some(EndState::Killed(_)) => Rest::Over,
            Some(EndState::Unasked) => self.next_look(&mut after, moved),
        };
        match rest {
            Rest::Until(at) => Rest::Until(at),
            Rest::Over => over(&mut after, After::Lost),
        }
    }

    fn next_look(&self, after: &mut After, moved: bool) -> Rest {
        if let After::Unbegun = after {
            *after = After::Settling(Settling::new(self.policy().settle));
        }
        match after {
            After::Settling(settling) => {
                if let Some(at) = settling.look(self.tree().container(), moved) {
                    return Rest::Until(Some(at));
                }
                if !self.policy().stop_leftovers {
                    return Rest::Over;
                }
                let kill_at = self.stop_leftovers();
                *after = After::Stopping(kill_at);
                before(kill_at)
            }
            After::Stopping(kill_at) => before(*kill_at),
            After::Unbegun | After::Empty | After::Lost => Rest::Over,
        }
    }

    /// Names the leftovers and asks them to end; returns when the kill is due.
    fn stop_leftovers(&self) -> Option<Instant> {
        let kill_at = Instant::now().checked_add(self.policy().grace.unwrap_or_default());
        *lock(&self.left) = self.tree().leftovers();
        self.recorded.note(EventKind::StopSignal(self.policy().stop_signal));
        let _ = self.tree().ask_to_end(self.policy().stop_signal);
        kill_at
    }

    /// Notes that the main process has ended, and what it left is being stopped.
    pub(crate) fn note_stop_of_leftovers(&self, kill_at: Option<Instant>) {
        let mut after = lock(&self.after);
        *after = match *after {
            After::Unbegun | After::Settling(_) => After::Stopping(kill_at),
            After::Stopping(before) => After::Stopping(earlier(before, kill_at)),
            After::Empty => After::Empty,
            After::Lost => After::Lost,
        };
    }

    /// Whether nothing was left when the time after the main process's end was over.
    pub(crate) fn left_nothing(&self) -> bool {
        matches!(*lock(&self.after), After::Empty)
    }
}

fn over(after: &mut After, how: After) -> Rest {
    *after = how;
    Rest::Over
}

/// A wait until this moment, unless it has come; without end for an endless grace.
fn before(kill_at: Option<Instant>) -> Rest {
    match kill_at {
        Some(at) if Instant::now() >= at => Rest::Over,
        to_come => Rest::Until(to_come),
    }
}
