//! A wait for readiness in steps, for callers that have other things to heed meanwhile.

use std::time::Instant;

use crate::child::Child;
use crate::error::Result;
use crate::ready::condition::Found;
use crate::ready::interval::Pace;
use crate::ready::{Ready, Search, http};
use crate::record::timeline::EventKind;
use crate::sys::poll::{Deadline, earlier};

/// [`Child::wait_ready`] cut into its checks; see [`Child::readiness`].
pub struct Readiness<'a> {
    search: Search<'a>,
    pace: Pace,
    child: &'a Child,
    deadline: Option<Instant>,
}

impl Child {
    /// As [`wait_ready`](Self::wait_ready), for a caller that sleeps between the checks by itself:
    /// in an event loop, or where a signal is to end the wait.
    ///
    /// # Errors
    /// A log line is waited for without a log.
    ///
    /// # Examples
    /// ```
    /// use std::time::{Duration, Instant};
    /// use tidy_process::{Command, Ready};
    ///
    /// let child = Command::new("sleep").arg("60").spawn()?;
    /// let begun = Instant::now();
    /// let ready = Ready::when(|| begun.elapsed() > Duration::from_millis(20));
    /// let mut readiness = child.readiness(ready, Duration::from_secs(30))?;
    /// while let Some(next) = readiness.check()? {
    ///     std::thread::sleep(next.saturating_duration_since(Instant::now()));
    /// }
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    pub fn readiness<'a>(
        &'a self,
        ready: Ready<'a>,
        deadline: impl Into<Deadline>,
    ) -> Result<Readiness<'a>> {
        let Deadline(deadline) = deadline.into();
        let search = Search::new(self, ready, deadline)?;
        Ok(Readiness { search, pace: Pace::new(), child: self, deadline })
    }
}

impl Readiness<'_> {
    /// Checks once; returns when to check again, or `None` when the child is ready. Enforces the
    /// command's timeout, as every wait does. A check takes up to 1 s where an HTTP server is slow
    /// to answer; a signal that has a handler without `SA_RESTART` cuts that short.
    ///
    /// # Errors
    /// As for [`wait_ready`](Child::wait_ready).
    pub fn check(&mut self) -> Result<Option<Instant>> {
        self.pace.begin();
        let status = self.child.try_wait()?;
        let found = match self.search.look(status)? {
            Found::Ask(question) => http::answer(&question, self.deadline),
            found => found,
        };
        let behind = matches!(found, Found::Behind);
        if self.search.judge(found)? {
            self.child.recorded.note(EventKind::Ready);
            return Ok(None);
        }
        let due = if behind { Instant::now() } else { self.pace.due() };
        Ok(Some(earlier(Some(due), self.deadline).unwrap_or(due)))
    }
}

impl std::fmt::Debug for Readiness<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}
