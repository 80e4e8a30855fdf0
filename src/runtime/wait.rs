//! Waits without a thread: for the main process, the tree, and the next step of the policy.

use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, sleep_until, timeout_at};

use crate::child::deadline::Scope;
use crate::child::settle::Rest;
use crate::error::{Error, Result, Step};
use crate::runtime::child::AsyncChild;
use crate::sys::poll::earlier;

/// The pauses between checks whether a tree is empty, once its main process has ended.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

impl AsyncChild {
    pub(super) fn is_over(&self) -> Result<bool> {
        Ok(self.child.reap()?.is_some() && self.tree().is_empty()?)
    }

    /// The one wait path: status, timeout, pidfd, deadline.
    pub(super) async fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.reap()? {
                return Ok(Some(status));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            let step = self.step(Scope::Main).await?;
            self.news(earlier(deadline, step)).await?;
        }
    }

    /// Enforces what is due, on a thread of its own; returns when the next step is.
    pub(super) async fn step(&self, scope: Scope) -> Result<Option<Instant>> {
        match self.child.next_step(scope) {
            Some(at) if at <= Instant::now() => {
                self.aside(move |child| child.enforce_for(scope)).await
            }
            next => Ok(next),
        }
    }

    /// Waits until the main process has ended, or this moment.
    pub(super) async fn news(&self, until: Option<Instant>) -> Result<()> {
        let ended = async {
            let why = "the runtime that it was spawned in has shut down";
            let gone = |_| Error::broken(Step::Wait, self.named(), why);
            self.pidfd.readable().await.map_err(gone)?.retain_ready();
            if self.child.reap()?.is_none() {
                // Its tracer has not released it yet.
                sleep(SHORTEST_PAUSE).await;
            }
            Ok(())
        };
        let either = async {
            match self.partner.as_ref().filter(|_| self.child.awaited(Scope::Main).is_some()) {
                None => ended.await,
                Some(partner) => first(ended, self.gone(partner)).await,
            }
        };
        match until {
            None => either.await,
            Some(until) => timeout_at(until.into(), either).await.unwrap_or(Ok(())),
        }
    }

    /// Waits until the process that it dies with has ended.
    async fn gone(&self, partner: &AsyncFd<Arc<OwnedFd>>) -> Result<()> {
        let why = "the runtime that it was spawned in has shut down";
        let down = |_| Error::broken(Step::Wait, self.named(), why);
        partner.readable().await.map_err(down)?.retain_ready();
        Ok(())
    }

    /// Waits until the main process and the tree have ended; false at the deadline.
    pub(super) async fn over(&self, deadline: Option<Instant>) -> Result<bool> {
        let mut pause = SHORTEST_PAUSE;
        while !self.is_over()? {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            if !self.child.has_ended() {
                self.news(deadline).await?;
                continue;
            }
            let next = Instant::now() + pause;
            sleep_until(deadline.map_or(next, |deadline| next.min(deadline)).into()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(true)
    }

    /// Gives what the main process has left its time; see [`Child::wind_down`]. `moved`: output has
    /// come since it was last looked at.
    pub(super) async fn wind_down(&self, moved: &AtomicBool) -> Result<()> {
        loop {
            let moved = moved.swap(false, Ordering::Relaxed);
            // Naming leftovers and asking them to end may take long.
            let rest = match self.child.policy().stop_leftovers {
                true => self.aside(move |child| child.after_main(moved)).await?,
                false => self.child.after_main(moved),
            };
            match rest {
                Rest::Over => return Ok(()),
                Rest::Until(at) => drop(self.over(at).await?),
            }
        }
    }

    /// Waits until the main process or, lingering, the whole tree has ended. Enforces the timeout.
    pub(crate) async fn all_that_is_waited_for(&self) -> Result<()> {
        self.wait().await?;
        while self.child.policy().linger {
            let step = self.step(Scope::Tree).await?;
            let look = self.child.partner_fd().map(|_| Instant::now() + LONGEST_PAUSE);
            if self.over(earlier(step, look)).await? {
                break;
            }
        }
        Ok(())
    }
}

/// Waits for the one that is over first.
async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Pending => other.as_mut().poll(cx),
        ready => ready,
    })
    .await
}
