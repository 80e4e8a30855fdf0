//! A child in a tokio runtime: the same child, waited for without a thread.
//!
//! Three things in a [`Child`] take long: killing a tree, listing its leftovers, and waiting. The
//! first two run on a thread of their own (see `offload.rs`), so that they happen whether or not
//! the future that began them is polled again; waiting uses the runtime's readiness and timers.

use std::fmt;
#[cfg(any(test, feature = "sandbox"))]
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::runtime::Handle;
use tokio::time::sleep_until;

use crate::child::Child;
use crate::child::deadline::Scope;
use crate::error::{Error, Result, Step, errno_of};
use crate::ready::condition::Found;
use crate::ready::http;
use crate::ready::interval::Pace;
use crate::ready::{Ready, Search};
use crate::report::Report;
use crate::runtime::offload::aside;
use crate::sys;
use crate::sys::poll::{Deadline, earlier};
use crate::tree::Tree;

/// A [`Child`] in a [tokio] runtime, of either kind, with its io and time enabled (feature
/// `tokio`). No thread waits for it, and no signal handler is set.
///
/// Every future here that waits enforces the timeout, the CPU time limit and the grace of the
/// [`Command`](crate::Command), as the blocking waits do.
///
/// Every future here can be dropped at any time and nothing is lost: the exit status is still to be
/// had, and a kill, a stop signal or a teardown that has begun goes on.
///
/// # Cleanup
/// Dropping it kills the tree *at once*, without the grace: one write and one signal, and the
/// runtime goes on. A thread that ends with it kills the survivors and removes the cgroup, a few
/// milliseconds later. A runtime that is dropped waits for that; outside of any runtime, Drop does
/// it itself, as [`Child`]'s does. Await [`finish`](Self::finish) to know when nothing is left.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tidy_process::{Cause, Command};
///
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// runtime.block_on(async {
///     let server = Command::new("sh").args(["-c", "sleep 60 & sleep 60"]).spawn_async()?;
///     assert_eq!(server.wait_timeout(Duration::from_millis(5)).await?, None);
///     let report = server.finish().await?; // whatever it started is gone now
///     assert_eq!(report.cause, Cause::Stopped);
///     Ok::<(), tidy_process::Error>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [tokio]: https://docs.rs/tokio
pub struct AsyncChild {
    /// The write end of its standard input, if that was piped.
    pub stdin: Option<Sender>,
    /// The read end of its standard output, if that was piped.
    pub stdout: Option<Receiver>,
    /// The read end of its standard error, if that was piped.
    pub stderr: Option<Receiver>,
    /// As [`Child::forwarded`], in the runtime (feature `sandbox`).
    #[cfg(feature = "sandbox")]
    pub forwarded: Option<tokio::net::TcpListener>,
    pub(super) child: Arc<Child>,
    pub(super) pidfd: AsyncFd<Arc<OwnedFd>>,
    /// Of the process that it dies with.
    pub(super) partner: Option<AsyncFd<Arc<OwnedFd>>>,
}

/// Takes a listening socket into the runtime.
#[cfg(feature = "sandbox")]
fn listening(listener: std::net::TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// A copy of the fd, since a poller takes one only once and others may die with the same process.
fn watch_partner(child: &Child) -> Result<Option<AsyncFd<Arc<OwnedFd>>>> {
    let copy = child
        .partner_fd()
        .map(|fd| fd.try_clone_to_owned().and_then(|fd| sys::watch(Arc::new(fd))));
    copy.transpose().map_err(|error| child.failed(Step::Wait, errno_of(&error)))
}

impl AsyncChild {
    /// Takes a child, however it was spawned, into the runtime of the caller.
    ///
    /// # Errors
    /// There is no runtime here, or fds cannot be watched (`ENOMEM`, `ENOSPC`: see
    /// `/proc/sys/fs/epoll/max_user_watches`). The child is ended then.
    ///
    /// # Panics
    /// The runtime has no io (`enable_io`).
    pub fn new(mut child: Child) -> Result<Self> {
        if Handle::try_current().is_err() {
            let why = "there is no tokio runtime here";
            return Err(Error::broken(Step::Wait, format!("process {}", child.id()), why));
        }
        let failed = |error| Error::os(Step::Stdio, "for the runtime", errno_of(&error));
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let reads = |pipe: OwnedFd| Receiver::from_owned_fd(pipe).map_err(failed);
        #[cfg(feature = "sandbox")]
        let forwarded = child.forwarded.take().map(listening).transpose().map_err(failed)?;
        let child = Arc::new(child);
        let pidfd = sys::watch(Arc::clone(&child.pidfd));
        Ok(Self {
            partner: watch_partner(&child)?,
            pidfd: pidfd.map_err(|error| child.failed(Step::Wait, errno_of(&error)))?,
            stdin: stdin
                .map(|pipe| Sender::from_owned_fd(pipe.into()))
                .transpose()
                .map_err(failed)?,
            #[cfg(feature = "sandbox")]
            forwarded,
            stdout: stdout.map(Into::into).map(reads).transpose()?,
            stderr: stderr.map(Into::into).map(reads).transpose()?,
            child,
        })
    }

    /// The main process's pid: a label to print.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The tree that the main process lives in.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        self.child.tree()
    }

    /// The child itself, for what does not wait: [`signal`](Child::signal),
    /// [`signal_all`](Child::signal_all).
    #[must_use]
    pub fn as_child(&self) -> &Child {
        &self.child
    }

    /// Waits until the main process has ended. The rest of the tree lives on until
    /// [`finish`](Self::finish) or Drop. Unlike tokio's, it does not close a piped stdin.
    ///
    /// # Errors
    /// Other code of this process took the exit status (`ECHILD`), or the runtime that the child
    /// was spawned in has shut down.
    pub async fn wait(&self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.wait_until(None).await? {
                return Ok(status);
            }
        }
    }

    /// Waits until the main process has ended, this long at the most; then `None`, and it runs on.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub async fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.wait_until(Instant::now().checked_add(timeout)).await
    }

    /// Waits until the main process has ended or the deadline has passed; then `None`, and it runs
    /// on.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub async fn wait_deadline(&self, deadline: Instant) -> Result<Option<ExitStatus>> {
        self.wait_until(Some(deadline)).await
    }

    /// Waits until the child is ready, as [`Child::wait_ready`] does. Each look is taken by the
    /// task itself and costs some ten microseconds to a few milliseconds; an HTTP request does not.
    /// A [`Duration`] counts from the first poll.
    ///
    /// # Errors
    /// As for [`Child::wait_ready`].
    pub async fn wait_ready(&self, ready: Ready<'_>, deadline: impl Into<Deadline>) -> Result<()> {
        let Deadline(deadline) = deadline.into();
        let mut search = Search::new(&self.child, ready, deadline)?;
        let mut pace = Pace::new();
        loop {
            let status = self.child.reap()?;
            let step = self.step(Scope::Tree).await?;
            pace.begin();
            let found = search.look(status)?;
            let due = pace.due();
            let found = match found {
                Found::Ask(question) => {
                    self.aside(move |_| http::answer(&question, deadline)).await?
                }
                found => found,
            };
            let behind = matches!(found, Found::Behind);
            if search.judge(found)? {
                return Ok(());
            }
            if behind {
                tokio::task::yield_now().await;
                continue;
            }
            let next = earlier(deadline, step).map_or(due, |next| next.min(due));
            if status.is_some() {
                sleep_until(next.into()).await;
            } else {
                self.news(Some(next)).await?;
            }
        }
    }

    /// Sends the stop signal to all (or to the main process,
    /// [`stop_main_only`](crate::Command::stop_main_only)), gives them `grace` to end, then kills
    /// what is left.
    ///
    /// # Errors
    /// A process outlived SIGKILL for 10 s: [`Error::is_survivors`].
    pub async fn stop(&self, grace: impl Into<Deadline>) -> Result<()> {
        let Deadline(kill_at) = grace.into();
        self.aside(move |child| child.begin_stop(kill_at)).await?;
        if self.over(kill_at).await? {
            return Ok(());
        }
        self.kill().await
    }

    /// Kills the whole tree; completes when nothing is left.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop).
    pub async fn kill(&self) -> Result<()> {
        self.aside(Child::kill).await?
    }

    /// Ends the tree: kills what is left of it, removes its cgroup, and reports what happened. If
    /// the main process still runs it is stopped, with the command's grace. A second call returns
    /// the same report; dropping the child then does nothing.
    ///
    /// Dropping the future stops nothing that has begun; what has not is done by the child's own
    /// Drop.
    ///
    /// # Errors
    /// As for [`Child::finish`].
    pub async fn finish(&self) -> Result<Report> {
        // The teardown meets the same error and reports it.
        if !self.tree().is_done() {
            if self.child.runs().unwrap_or(false) {
                self.end_running().await?;
            }
            if self.child.reap().is_ok_and(|status| status.is_some()) {
                self.wind_down(&AtomicBool::new(false)).await?;
            }
        }
        if self.is_quick() {
            return self.child.finish();
        }
        self.aside(Child::finish).await?
    }

    /// Asks a running tree to end, or gives one that is being stopped the rest of its grace.
    async fn end_running(&self) -> Result<()> {
        // A timeout that has passed becomes the cause: the grace still applies.
        self.step(Scope::Main).await?;
        // A failed stop does not keep it from the kill.
        let _ = match (self.child.grace_due(), self.child.ending.asked()) {
            (_, Some(kill_at)) => self.over(kill_at).await,
            (Some(grace), None) => self.stop(grace).await.map(|()| true),
            (None, None) => Ok(true),
        };
        Ok(())
    }

    /// Lets the tree live on without this handle, until its [`Supervisor`](crate::Supervisor) ends;
    /// see [`Child::detach`].
    pub fn detach(self) {
        self.child.leave_to_supervisor();
    }

    /// Whether finishing takes microseconds: the main process and the tree have ended, and no
    /// thread reads for its log.
    fn is_quick(&self) -> bool {
        matches!(self.is_over(), Ok(true))
            && !self.child.log.has_reader()
            && !self.child.recorded.is_on()
    }

    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Child) -> T + Send + 'static,
    ) -> Result<T> {
        let child = Arc::clone(&self.child);
        let why = "the thread that was to do it has panicked";
        let answer = aside(move || work(&child)).await;
        answer.map_err(|_| Error::broken(Step::Wait, self.named(), why))
    }

    pub(super) fn named(&self) -> String {
        format!("process {}", self.id())
    }
}

/// The main process's pidfd: readable once it has ended.
impl AsFd for AsyncChild {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }
}

impl fmt::Debug for AsyncChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncChild").field(&self.child).finish()
    }
}

impl Drop for AsyncChild {
    fn drop(&mut self) {
        if self.tree().is_done() || !self.tree().is_ours() {
            return;
        }
        // First of all: the tree gets SIGKILL even if the rest fails.
        self.tree().container().kill_at_once();
        let _ = self.child.signal(libc::SIGKILL);
        let child = Arc::clone(&self.child);
        let finish = move || {
            child.note_stop(Some(Instant::now()));
            child.finish_unread()
        };
        if self.is_quick() || Handle::try_current().is_err() {
            let _ = finish();
        } else {
            drop(aside(finish));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::containment::Containment;
    use crate::supervisor::Supervisor;

    #[test]
    fn a_helper_thread_that_panics_is_no_fault_of_the_input() -> std::result::Result<(), io::Error>
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let supervisor = Supervisor::builder().containment(Containment::BestEffort).build()?;
            let mut command = Command::new("sleep");
            let child = command.arg("20").supervisor(&supervisor).spawn_async()?;
            #[expect(clippy::panic, reason = "this is what is tested")]
            let error = child.aside(|_| panic!("on purpose")).await.err();
            assert_eq!(error.map(|error: Error| error.kind()), Some(io::ErrorKind::Other));
            child.finish().await?;
            Ok(())
        })
    }
}
