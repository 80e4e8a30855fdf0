//! What the threads of the pool ask: which command is next, and to whom its end is told.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tidy_process::cli_support::{Crew, Next, Work};
use tidy_process::{Child, Command, Error, Report, Stdio, Supervisor};

use crate::exit::{Failure, Leaks, exit, exit_of, open_failure};
use crate::options::command_of;
use crate::pool::args::PoolArgs;
use crate::pool::backlog;
use crate::pool::gate::Gate;
use crate::pool::joblog::Numbers;
use crate::pool::source::{Args, Recipe, Source, Upcoming};
use crate::pool::spool::{Spool, Spools, lent};
use crate::pool::values::{How, What};
use crate::proxy::Proxy;
use crate::script;

/// Until the next question, where only time helps.
const SOON: Duration = Duration::from_millis(10);

/// Ends that are not told yet: more of them hold up the next start.
const UNTOLD: usize = 64;

/// One try of a command.
pub(crate) struct Job {
    /// From 1, in the order of the input.
    pub(crate) number: u64,
    /// From 0, of those that are started.
    pub(crate) order: u64,
    pub(crate) attempt: u32,
    pub(crate) args: Args,
    pub(crate) words: Vec<OsString>,
    pub(crate) slot: usize,
    pub(crate) spool: Option<Spool>,
    pub(crate) start: SystemTime,
    begun: Instant,
}

/// What is told to the clerk.
pub(crate) enum Event {
    Started { number: u64, attempt: u32, words: Vec<OsString>, pid: u32, start: SystemTime },
    Ended(Box<End>),
}

pub(crate) struct End {
    pub(crate) job: Job,
    pub(crate) result: Result<Report, Error>,
    /// As a shell sees it.
    pub(crate) exit: u8,
    pub(crate) wall: Duration,
    /// Another try follows.
    pub(crate) is_retried: bool,
}

/// What there is to start.
pub(crate) struct Feed {
    pub(crate) source: Source,
    pub(crate) gate: Gate,
    pub(crate) done: Numbers,
    again: VecDeque<(Job, u32)>,
    number: u64,
    order: u64,
    /// Places that are free; the lowest is given away first.
    slots: Vec<bool>,
}

impl Feed {
    pub(crate) fn new(source: Source, gate: Gate, done: Numbers) -> Self {
        let again = VecDeque::new();
        Self { source, gate, done, again, number: 0, order: 0, slots: Vec::new() }
    }

    fn slot(&mut self) -> usize {
        let free = self.slots.iter().position(|is_free| *is_free);
        let slot = free.unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(is_free) => *is_free = false,
            None => self.slots.push(false),
        }
        slot
    }

    fn release(&mut self, slot: usize) {
        if let Some(is_free) = self.slots.get_mut(slot) {
            *is_free = true;
        }
    }
}

/// How far it has come.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) failed: u64,
    pub(crate) succeeded: u64,
    pub(crate) leaked: u64,
    /// The status of the command that ended it all, by --halt.
    pub(crate) halted: Option<u8>,
    pub(crate) failure: Option<Failure>,
}

pub(crate) struct Desk<'a> {
    pub(crate) args: &'a PoolArgs,
    pub(crate) crew: Crew,
    pub(crate) recipe: Recipe,
    supervisor: Supervisor,
    proxy: Option<Proxy>,
    pub(crate) spools: Spools,
    feed: Mutex<Feed>,
    input: Option<OwnedFd>,
    tally: Mutex<Tally>,
    clerk: Mutex<Option<Sender<Event>>>,
    pub(crate) untold: AtomicUsize,
    /// Those that wait for their turn.
    pub(crate) held_up: AtomicUsize,
    pub(crate) is_paused: AtomicBool,
    /// Orphans wait to be told from commands that are being started.
    pub(crate) has_orphans: AtomicBool,
    pub(crate) is_counted: bool,
    stops_now: AtomicBool,
    pub(crate) is_unread: AtomicBool,
    /// Wakes the main thread.
    news: EventFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Desk<'a> {
    pub(crate) fn new(
        args: &'a PoolArgs,
        (supervisor, proxy): (Supervisor, Option<Proxy>),
        (recipe, feed): (Recipe, Feed),
        spools: Spools,
        clerk: Sender<Event>,
    ) -> Result<Self, Failure> {
        let news = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let input = feed.source.fd().map(|fd| fd.try_clone_to_owned()).transpose();
        let input = input.map_err(|error| open_failure("the input".as_ref(), error))?;
        Ok(Self {
            args,
            crew: Crew::default(),
            recipe,
            supervisor,
            proxy,
            spools,
            feed: Mutex::new(feed),
            input,
            tally: Mutex::default(),
            clerk: Mutex::new(Some(clerk)),
            untold: AtomicUsize::new(0),
            held_up: AtomicUsize::new(0),
            is_paused: AtomicBool::new(false),
            has_orphans: AtomicBool::new(false),
            is_counted: args.is_accounted(),
            stops_now: AtomicBool::new(false),
            is_unread: AtomicBool::new(false),
            news,
        })
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    /// Notes that the tool itself has failed, and starts no more.
    pub(crate) fn fail(&self, failure: Failure) {
        self.tally().failure.get_or_insert(failure);
        self.crew.close();
    }

    /// Starts no more, and has what runs stopped.
    pub(crate) fn stop_now(&self) {
        self.stops_now.store(true, Ordering::SeqCst);
        self.crew.close();
        self.wake();
    }

    pub(crate) fn stops_now(&self) -> bool {
        self.stops_now.swap(false, Ordering::SeqCst)
    }

    /// Tells the clerk that nothing more comes.
    pub(crate) fn hang_up(&self) {
        drop(lock(&self.clerk).take());
    }

    pub(crate) fn wake(&self) {
        let _ = self.news.write(1);
    }

    pub(crate) fn hush(&self) {
        let _ = self.news.read();
    }

    /// How many commands were to be tried again when all was over.
    pub(crate) fn untried(&self) -> u64 {
        lock(&self.feed).again.len() as u64
    }

    fn tell(&self, event: Event) {
        self.untold.fetch_add(1, Ordering::SeqCst);
        if let Some(clerk) = &*lock(&self.clerk) {
            // The clerk goes last.
            let _ = clerk.send(event);
        }
    }

    /// When to ask again; none if one may be started.
    fn wait(&self, feed: &mut Feed, now: Instant) -> Option<Instant> {
        let is_held_up = self.untold.load(Ordering::SeqCst) >= UNTOLD
            || self.held_up.load(Ordering::SeqCst) >= backlog::MOST
            || self.is_paused.load(Ordering::SeqCst)
            || self.has_orphans.load(Ordering::SeqCst);
        if is_held_up { Some(now + SOON) } else { feed.gate.closed_until(now) }
    }

    /// The next try, if there is one now.
    fn take(&self) -> Result<Next<Job>, Failure> {
        let now = Instant::now();
        let mut feed = lock(&self.feed);
        if feed.again.is_empty() && feed.source.is_over() {
            return Ok(Next::Over);
        }
        if let Some(at) = self.wait(&mut feed, now) {
            return Ok(Next::Later(at));
        }
        let (number, order, attempt, args) = match feed.again.pop_front() {
            Some((job, attempt)) => (job.number, job.order, attempt, job.args),
            None => loop {
                let upcoming = feed.source.next();
                let args = match upcoming.map_err(|error| open_failure("input".as_ref(), error))? {
                    Upcoming::Is(args) => args,
                    Upcoming::NotYet => return Ok(Next::NotYet),
                    Upcoming::End => return Ok(Next::Over),
                };
                feed.number += 1;
                if !feed.done.has(feed.number) {
                    let order = feed.order;
                    feed.order += 1;
                    break (feed.number, order, 1, args);
                }
            },
        };
        feed.gate.note_start(now);
        let slot = feed.slot();
        drop(feed);
        let words = self.recipe.words(&args, number, slot + 1);
        let spool = self.spools.open(number)?;
        let start = SystemTime::now();
        let job = Job { number, order, attempt, args, words, slot, spool, start, begun: now };
        let command = self.command(&job)?;
        Ok(Next::Start(job, Box::new(command)))
    }

    fn command(&self, job: &Job) -> Result<Command, Failure> {
        let args = self.args;
        let mut command = command_of(&job.words, &self.supervisor);
        args.ending.apply(&mut command);
        command.limits(args.limits.limits());
        // A signal to this process's group is no signal to what runs.
        command.stdin(Stdio::null()).process_group(0);
        if let Some(spool) = &job.spool {
            let lent = |file: &std::fs::File| {
                lent(file).map_err(|error| open_failure("an output".as_ref(), error))
            };
            command.stdout(lent(&spool.out)?).stderr(lent(&spool.err)?);
        }
        if let Some(name) = &args.name {
            let mut name = name.clone();
            name.push(format!("-{}", job.number));
            command.name(name);
        }
        command.env("PARALLEL_SEQ", job.number.to_string());
        command.env("PARALLEL_JOBSLOT", (job.slot + 1).to_string());
        self.proxy.iter().for_each(|proxy| proxy.tell(&mut command));
        args.setting.apply(&mut command);
        Ok(command)
    }

    /// Counts an end, and does what --halt says.
    fn count(&self, is_good: bool, leaks: bool, exit: u8) {
        let halt = self.args.halt;
        let mut tally = self.tally();
        tally.succeeded += u64::from(is_good);
        tally.failed += u64::from(!is_good);
        tally.leaked += u64::from(leaks);
        let number = match halt.what {
            What::Fail => tally.failed,
            What::Success => tally.succeeded,
            What::Done => tally.failed + tally.succeeded,
        };
        if halt.how == How::Never || number < halt.number || tally.halted.is_some() {
            return;
        }
        tally.halted = Some(exit);
        drop(tally);
        match halt.how {
            How::Now => self.stop_now(),
            _ => self.crew.close(),
        }
    }
}

impl Work for Desk<'_> {
    type Job = Job;

    fn next(&self) -> Next<Job> {
        self.take().unwrap_or_else(|failure| {
            self.fail(failure);
            Next::Over
        })
    }

    fn spawn(&self, job: &mut Job, command: &mut Command) -> Result<Child, Error> {
        let mut child = script::spawn(command)?;
        self.proxy.iter().for_each(|proxy| proxy.serve(&mut child));
        if self.args.json.is_some() {
            let Job { number, attempt, start, .. } = *job;
            let (words, pid) = (job.words.clone(), child.id());
            self.tell(Event::Started { number, attempt, words, pid, start });
        }
        Ok(child)
    }

    fn ended(&self, job: Job, result: Result<Report, Error>) {
        let wall = job.begun.elapsed();
        let leaks = result.as_ref().is_ok_and(|report| report.leftover_count > 0);
        let exit = match &result {
            Ok(report) => exit(report, Leaks::Kill),
            Err(error) => exit_of(error),
        };
        let is_good = exit == 0;
        let is_retried = !is_good && job.attempt < self.args.retries && !self.crew.is_closed();
        let mut feed = lock(&self.feed);
        feed.release(job.slot);
        if is_retried {
            let Job { number, order, attempt, start, begun, slot, .. } = job;
            let (args, words, spool) = (job.args.clone(), Vec::new(), None);
            let next = Job { number, order, attempt, args, words, slot, spool, start, begun };
            feed.again.push_back((next, attempt + 1));
        }
        drop(feed);
        if !is_retried {
            self.count(is_good, leaks, exit);
        }
        self.tell(Event::Ended(Box::new(End { job, result, exit, wall, is_retried })));
    }

    fn news(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    fn is_counted(&self) -> bool {
        self.is_counted
    }
}

impl AsFd for Desk<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}
