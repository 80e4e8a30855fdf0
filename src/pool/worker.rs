//! One thread of a pool: starts commands, and awaits those that it has started.

use std::io::PipeReader;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use crate::child::Child;
use crate::child::finish::with_report;
use crate::child::settle::Rest;
use crate::command::Command;
use crate::error::{Error, Result, Step, errno_of};
use crate::pool::crew::{Crew, Next, Work};
use crate::report::Report;
use crate::sys::poll::{earlier, news};

/// The time after which a look is repeated where no event may come: a status that a keeper or a
/// tracer has, and poll(2) failing.
const AGAIN: Duration = Duration::from_millis(1);

/// The same for a tree whose news may be late.
const LATE_NEWS: Duration = Duration::from_millis(100);

pub(crate) struct Worker<'a, W: Work> {
    crew: &'a Crew,
    work: &'a W,
    bell: &'a PipeReader,
    /// How many it may have running.
    share: usize,
    running: Vec<Running<W::Job>>,
}

struct Running<J> {
    key: u64,
    job: J,
    child: Arc<Child>,
    phase: Phase,
}

/// What is awaited of a command.
#[derive(Clone, Copy)]
enum Phase {
    /// The end of its main process.
    Main,
    /// Its status, which is to be asked for again then.
    Status(Instant),
    /// The end of what it has left, which is to be looked at again then.
    Left(Option<Instant>),
}

/// Why no more was started.
enum Why {
    Full,
    /// One could not be started: others may have ended meanwhile.
    Failed,
    Later(Instant),
    NotYet,
    Over,
}

impl<'a, W: Work> Worker<'a, W> {
    pub(crate) fn new(crew: &'a Crew, work: &'a W, bell: &'a PipeReader, share: usize) -> Self {
        Self { crew, work, bell, share, running: Vec::new() }
    }

    /// Works until there is nothing to start, and nothing of its own runs.
    pub(crate) fn work(mut self) {
        loop {
            let why = self.fill();
            if self.running.is_empty() && matches!(why, Why::Over) {
                return;
            }
            let ready = self.sleep(&why);
            self.reap(&ready);
        }
    }

    fn fill(&mut self) -> Why {
        while self.running.len() < self.share {
            if self.crew.is_closed() {
                return Why::Over;
            }
            match self.work.next() {
                Next::Start(job, command) => {
                    if !self.start(job, *command) {
                        return Why::Failed;
                    }
                }
                Next::Later(at) => return Why::Later(at),
                Next::NotYet => return Why::NotYet,
                Next::Over => return Why::Over,
            }
        }
        Why::Full
    }

    /// Whether it was started.
    fn start(&mut self, mut job: W::Job, mut command: Command) -> bool {
        let birth = self.crew.birth();
        match self.work.spawn(&mut job, &mut command) {
            Ok(child) => {
                let child = Arc::new(child);
                let key = self.crew.enter(&child);
                drop(birth);
                self.running.push(Running { key, job, child, phase: Phase::Main });
                true
            }
            Err(error) => {
                // The files are the command's.
                drop((birth, command));
                self.work.ended(job, Err(error));
                false
            }
        }
    }

    /// Sleeps until something is to be done; says of each that runs whether it has news.
    fn sleep(&self, why: &Why) -> Vec<bool> {
        let mut until = match why {
            Why::Later(at) => Some(*at),
            Why::Failed => Some(Instant::now()),
            Why::Full | Why::NotYet | Why::Over => None,
        };
        let mut fds = Vec::with_capacity(self.running.len() + 2);
        for running in &self.running {
            let (fd, next) = running.awaited();
            until = earlier(until, next);
            fds.push(fd);
        }
        if !self.crew.is_closed() {
            fds.push(PollFd::new(self.bell.as_fd(), PollFlags::POLLIN));
            let input = self.work.news().filter(|_| matches!(why, Why::NotYet));
            fds.extend(input.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        }
        if news(&mut fds, until).is_err() {
            thread::sleep(AGAIN);
        }
        let has_news = |fd: &PollFd<'_>| fd.any() == Some(true);
        fds.iter().take(self.running.len()).map(has_news).collect()
    }

    fn reap(&mut self, ready: &[bool]) {
        for at in (0..ready.len()).rev() {
            let ready = ready.get(at).copied().unwrap_or_default();
            let Some(running) = self.running.get_mut(at) else { continue };
            if !running.is_due(ready) {
                continue;
            }
            if let Some(result) = running.step(self.work.is_counted()) {
                let Running { key, job, child, .. } = self.running.swap_remove(at);
                self.crew.leave(key);
                drop(child);
                self.work.ended(job, result);
            }
        }
    }
}

/// Where it is left before its time, by a panic, nothing that runs is.
impl<W: Work> Drop for Worker<'_, W> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.crew.kill();
        }
        for running in self.running.drain(..) {
            self.crew.leave(running.key);
            let _ = running.child.finish_unread();
        }
    }
}

#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "the tool has a pool too"))]
impl Crew {
    /// Works until nothing is left to start and nothing runs.
    ///
    /// # Errors
    /// No fd or no thread can be had.
    pub fn run<W: Work>(&self, work: &W, at_a_time: usize) -> Result<()> {
        let bell = self.open_bell()?;
        let _ringer = Ringer(self);
        let count = at_a_time.min(thread::available_parallelism().map_or(1, usize::from) + 1);
        let share = |number| at_a_time / count + usize::from(number < at_a_time % count);
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for number in 1..count {
                let bell = &bell;
                let work = move || Worker::new(self, work, bell, share(number)).work();
                match thread::Builder::new().spawn_scoped(scope, work) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        self.kill();
                        return Err(Error::os(Step::Prepare, "a thread", errno_of(&error)));
                    }
                }
            }
            Worker::new(self, work, &bell, share(0)).work();
            let mut panics = threads.into_iter().filter_map(|thread| thread.join().err());
            panics.next().map_or(Ok(()), |panic| resume_unwind(panic))
        })
    }
}

/// A run of the crew: when it is over the next one may begin.
struct Ringer<'a>(&'a Crew);

impl Drop for Ringer<'_> {
    fn drop(&mut self) {
        self.0.ring();
    }
}

impl<J> Running<J> {
    /// What to poll for, and when the next step is due. Enforces the timeout.
    fn awaited(&self) -> (PollFd<'_>, Option<Instant>) {
        let main = self.child.as_fd();
        match self.phase {
            Phase::Main => (PollFd::new(main, PollFlags::POLLIN), self.child.enforce()),
            Phase::Status(at) => (PollFd::new(main, PollFlags::empty()), Some(at)),
            Phase::Left(at) => {
                let (fd, flags) = self.child.tree().container().empty_news();
                (PollFd::new(fd, flags), earlier(at, self.child.enforce()))
            }
        }
    }

    fn is_due(&self, ready: bool) -> bool {
        let is_over = |at: Instant| at <= Instant::now();
        match self.phase {
            Phase::Main => ready,
            Phase::Status(at) => is_over(at),
            Phase::Left(at) => ready || at.is_some_and(is_over),
        }
    }

    /// Takes the next step towards its end; its result, if it has come to that.
    fn step(&mut self, is_counted: bool) -> Option<Result<Report>> {
        let waited = match self.rest() {
            Ok(Some(phase)) => {
                self.phase = phase;
                return None;
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        let finish = if is_counted { Child::finish } else { Child::finish_uncounted };
        Some(with_report(waited, finish(&self.child)).map(|((), report)| report))
    }

    /// What is awaited still; nothing if it can be torn down.
    fn rest(&self) -> Result<Option<Phase>> {
        let soon = |time: Duration| Instant::now().checked_add(time);
        if self.child.try_wait()?.is_none() {
            return Ok(soon(AGAIN).map(Phase::Status));
        }
        if self.child.policy().linger && !self.child.tree().is_empty()? {
            return Ok(Some(Phase::Left(soon(LATE_NEWS))));
        }
        Ok(match self.child.after_main(false) {
            Rest::Over => None,
            Rest::Until(at) => Some(Phase::Left(earlier(at, soon(LATE_NEWS)))),
        })
    }
}
