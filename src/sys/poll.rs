//! Waits for fds and deadlines. Only a child's pidfd tells that the child has ended.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::time::TimeSpec;

/// When a wait gives up: at an [`Instant`], or a [`Duration`] after it began.
/// Every wait with a bound takes either; a time too long for the clock is no bound.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// use tidy_process::Command;
///
/// let child = Command::new("sleep").arg("60").spawn()?;
/// assert!(!child.tree().wait_empty(Duration::from_millis(5))?);
/// assert!(!child.tree().wait_empty(Instant::now())?);
/// # Ok::<(), tidy_process::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub(crate) Option<Instant>);

impl From<Instant> for Deadline {
    fn from(at: Instant) -> Self {
        Self(Some(at))
    }
}

impl From<Duration> for Deadline {
    fn from(time: Duration) -> Self {
        Self(Instant::now().checked_add(time))
    }
}

/// Returns the earlier of two instants; none is never.
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    [one, other].into_iter().flatten().min()
}

/// Returns how long poll(2) may wait; rounded up, so that poll never returns just before the
/// deadline.
pub(crate) fn timeout_until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
}

/// Waits until one of these has news; false at the deadline, and after a signal.
pub(crate) fn news(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool, Errno> {
    match poll(fds, timeout_until(deadline)) {
        Ok(number) => Ok(number > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Waits until a cgroup's file has news, this long at the most; a signal ends it too.
pub(crate) fn told(file: BorrowedFd<'_>, patience: Duration) -> Result<(), Errno> {
    let mut fds = [PollFd::new(file, PollFlags::POLLPRI)];
    match ppoll(&mut fds, Some(TimeSpec::from_duration(patience)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Waits until the process behind the pidfd has ended; false at the deadline.
pub(crate) fn ended(pidfd: BorrowedFd<'_>, deadline: Option<Instant>) -> Result<bool, Errno> {
    readable(pidfd, deadline)
}

/// Waits until the process behind the first pidfd has ended; false at the deadline, and when only
/// the other one has.
pub(crate) fn ended_beside(
    pidfd: BorrowedFd<'_>,
    other: Option<BorrowedFd<'_>>,
    deadline: Option<Instant>,
) -> Result<bool, Errno> {
    let Some(other) = other else { return ended(pidfd, deadline) };
    let mut fds = [pidfd, other].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    news(&mut fds, deadline)?;
    Ok(fds.first().and_then(PollFd::any) == Some(true))
}

/// Waits until there is something to read; false at the deadline.
pub(crate) fn readable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> Result<bool, Errno> {
    loop {
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, timeout_until(deadline)) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() < deadline) => {}
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sleeps that grow, and end.
pub(crate) struct BackOff {
    next: Duration,
    last: Duration,
    /// Each sleep is longer than the one before by one part in this many.
    parts: u32,
}

impl BackOff {
    pub(crate) fn doubling(first: Duration, last: Duration) -> Self {
        Self { next: first, last, parts: 1 }
    }

    /// Grows by a quarter: an event is found late by a quarter of the time that it took, at the
    /// most.
    pub(crate) fn gentle(first: Duration, last: Duration) -> Self {
        Self { next: first, last, parts: 4 }
    }

    /// Sleeps; false, without sleeping, after the longest sleep.
    pub(crate) fn sleep(&mut self, deadline: Option<Instant>) -> bool {
        self.pause(deadline).map(thread::sleep).is_some()
    }

    /// How long the next sleep is; None after the longest.
    pub(crate) fn pause(&mut self, deadline: Option<Instant>) -> Option<Duration> {
        if self.next > self.last {
            return None;
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let pause = left.map_or(self.next, |left| left.min(self.next));
        self.next += self.next / self.parts;
        Some(pause)
    }
}

/// Locks, even after a panic of another thread: that leaves nothing half done in what is locked so.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
