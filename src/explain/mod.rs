//! Explains what a confined command is denied: sees its calls as they are made, by the listener of
//! its filter, lets them go on, and works out which of them its level denies.
//!
//! Nothing is decided here: what a call may do is decided by the kernel, as without a listener. A
//! thread answers, and touches nothing that can hang but the memory of the waiting process; another
//! one looks at the file system, and is left alone where that hangs. Between them stands a bounded
//! queue: what does not fit is not explained.

mod calls;
mod judge;
mod listener;
mod needs;
mod paths;
mod process;
mod walk;

use std::io::{PipeWriter, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use crate::denied::Denials;
use crate::error::{Error, Result, Step, errno_of};
use crate::explain::judge::Judge;
use crate::explain::listener::Listener;
#[cfg(feature = "cli")]
pub use crate::explain::needs::Needs;
use crate::sandbox::scope::Watch;
use crate::sandbox::{Confinement, Prepared};
use crate::sys::poll::lock;
use crate::sys::{above_two, pass};

/// Calls that wait to be judged, at the most.
const QUEUED: usize = 4096;

/// The time in which what was seen is judged at the end; a file system that hangs takes longer.
const JUDGING: Duration = Duration::from_secs(1);

/// The line on which the listener comes out of a child that is confined in this process's memory.
#[derive(Debug)]
pub(crate) struct Line {
    ours: UnixStream,
    theirs: OwnedFd,
}

impl Line {
    /// Of a child that is confined without a program that does so.
    pub(crate) fn of(prepared: Option<&Prepared>) -> Result<Option<Self>> {
        let explains = prepared.filter(|made| made.watch().is_some());
        explains.filter(|made| made.enclosure().is_none()).map(|_| Self::new()).transpose()
    }

    /// Refuses what has no process to answer: exec in the place of this one.
    pub(crate) fn refuse(prepared: Option<&Prepared>) -> Result<()> {
        if prepared.is_some_and(|made| made.watch().is_some()) {
            let why = "nothing would answer the listener of its filter: leave Sandbox::explain out";
            return Err(Error::invalid(Step::Prepare, "exec", why));
        }
        Ok(())
    }

    /// What a child confines itself by, with the line on which a listener comes out.
    pub(crate) fn confinement<'a>(
        prepared: Option<&'a Prepared>,
        line: Option<&'a Self>,
    ) -> Option<Confinement<'a>> {
        prepared.and_then(|made| made.confinement(line.map(Self::theirs)))
    }

    fn new() -> Result<Self> {
        let failed = |errno| Error::os(Step::Listen, "of the child", errno);
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed(errno_of(&error)))?;
        ours.set_nonblocking(true).map_err(|error| failed(errno_of(&error)))?;
        let theirs = above_two(theirs.into()).map_err(failed)?;
        Ok(Self { ours, theirs })
    }

    fn theirs(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// The listener of the child that runs: the last one that came, since an exec may have been
    /// tried more than once.
    fn listener(self) -> Result<OwnedFd> {
        let mut last = Err(Errno::ENOENT);
        while let Ok(Some(fd)) = pass::receive_fd(self.ours.as_fd()) {
            last = above_two(fd);
        }
        last.map_err(|errno| Error::os(Step::Listen, "of the child", errno))
    }
}

/// Serves the listener of one command.
#[derive(Debug)]
pub(crate) struct Explainer {
    denials: Arc<Mutex<Judge>>,
    /// Ends when all is judged.
    done: Mutex<Receiver<()>>,
    /// Its end tells the thread that answers to stop.
    stop: Mutex<Option<PipeWriter>>,
}

impl Explainer {
    /// Serves the listener that has come out: by a program, or on the line.
    pub(crate) fn of(
        prepared: Option<&Prepared>,
        listener: Option<OwnedFd>,
        line: Option<Line>,
    ) -> Result<Option<Self>> {
        let Some(watch) = prepared.and_then(Prepared::watch) else { return Ok(None) };
        let listener = match (listener, line) {
            (None, Some(line)) => Some(line.listener()?),
            (listener, _) => listener,
        };
        let listener =
            listener.ok_or_else(|| Error::os(Step::Listen, "of the child", Errno::ENOENT))?;
        Self::start(listener, Arc::clone(watch)).map(Some)
    }

    /// Starts both threads. The command waits in its first call until then.
    fn start(listener: OwnedFd, watch: Arc<Watch>) -> Result<Self> {
        let failed = |error: &std::io::Error| Error::os(Step::Listen, "thread", errno_of(error));
        let (stopped, stop) = pipe().map_err(|error| failed(&error))?;
        let stopped = above_two(stopped.into());
        let stopped = stopped.map_err(|errno| Error::os(Step::Listen, "thread", errno))?;
        let (queue, seen) = mpsc::sync_channel(QUEUED);
        let (judged, done) = mpsc::channel();
        let denials = Arc::new(Mutex::new(Judge::new(Arc::clone(&watch))));
        let judge = Arc::clone(&denials);
        let judges = move || {
            for each in seen {
                judge::hear(&judge, each);
            }
            drop(judged);
        };
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        named("tidy-judge").spawn(judges).map_err(|error| failed(&error))?;
        let answers = move || {
            Listener::new(listener).serve(stopped.as_fd(), &watch, |seen| queue.try_send(seen));
        };
        named("tidy-explain").spawn(answers).map_err(|error| failed(&error))?;
        Ok(Self { denials, done: Mutex::new(done), stop: Mutex::new(Some(stop)) })
    }

    /// Stops serving once the command has ended; returns what it was denied. What hangs is left.
    pub(crate) fn finish(&self) -> Denials {
        self.settle();
        lock(&self.denials).denials()
    }

    /// As `finish`: what a profile has to name.
    #[cfg(feature = "cli")]
    pub(crate) fn needs(&self) -> Needs {
        self.settle();
        lock(&self.denials).needs()
    }

    fn settle(&self) {
        drop(lock(&self.stop).take());
        let _ = lock(&self.done).recv_timeout(JUDGING);
    }
}
