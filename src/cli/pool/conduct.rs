//! The main thread of the pool: signals, and the end.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use tidy_process::cli_support;

use crate::exit::Failure;
use crate::pool::clerk::{Books, Clerk};
use crate::pool::desk::{Desk, Event};
use crate::print::text::line;
use crate::wait::request::{Answer, Requests};
use crate::wait::signals::{Asked, Signals, end_by, is_init, suspend};

/// How long the last words may take, once a second signal has come: their reader may read no more.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// When orphans are looked for again that could not be told from commands that are being started;
/// after so many times no more are started until they could.
const REAP_AGAIN: Duration = Duration::from_millis(10);
const PUT_OFF: u32 = 100;

pub(crate) struct Conduct<'a> {
    desk: &'a Desk<'a>,
    signals: &'a Signals,
    requests: Requests,
    /// When what runs is killed.
    kill_at: Option<Instant>,
    /// When the last words are given up.
    leave_at: Option<Instant>,
    /// How many times orphans were not reaped, since some command was being started.
    put_off: u32,
}

impl<'a> Conduct<'a> {
    pub(crate) fn new(desk: &'a Desk<'a>, signals: &'a Signals) -> Self {
        let requests = Requests::default();
        Self { desk, signals, requests, kill_at: None, leave_at: None, put_off: 0 }
    }

    /// Runs all commands; returns what was told of them, and the signal to end by.
    pub(crate) fn run(
        mut self,
        at_a_time: usize,
        (books, events): (Books, Receiver<Event>),
    ) -> Result<(Books, Option<Signal>), Failure> {
        let desk = self.desk;
        let over = (AtomicBool::new(false), AtomicBool::new(false));
        let (has_run, has_told) = (&over.0, &over.1);
        thread::scope(|scope| {
            let clerk = scope.spawn(move || {
                let books = Clerk::new(desk, books).work(&events);
                has_told.store(true, Ordering::SeqCst);
                desk.wake();
                books
            });
            let crew = scope.spawn(move || {
                let ran = desk.crew.run(desk, at_a_time);
                desk.hang_up();
                has_run.store(true, Ordering::SeqCst);
                desk.wake();
                ran
            });
            let conducted = self.until(has_run, has_told);
            if conducted.is_err() {
                desk.crew.kill();
            }
            let ran = crew.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let books = clerk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            conducted?;
            ran?;
            self.requests.note_late(self.signals)?;
            Ok((books, self.requests.asked))
        })
    }

    fn until(&mut self, has_run: &AtomicBool, has_told: &AtomicBool) -> Result<(), Failure> {
        while !has_told.load(Ordering::SeqCst) {
            self.sleep()?;
            self.answer()?;
            let now = Instant::now();
            if self.desk.stops_now() && self.kill_at.is_none() {
                self.kill_at = now.checked_add(self.desk.args.ending.kill_after);
                let grace = self.desk.args.ending.kill_after;
                self.desk.crew.each(|child| cli_support::begin_stop(child, grace));
            }
            if self.kill_at.is_some_and(|at| now >= at) {
                self.kill_at = None;
                self.desk.crew.kill();
            }
            // A start may hang in reading an input that another process has read away.
            let is_idle = || has_run.load(Ordering::SeqCst) || self.running() == 0;
            if self.leave_at.is_some_and(|at| now >= at) && is_idle() {
                self.leave();
            }
        }
        Ok(())
    }

    fn sleep(&mut self) -> Result<(), Failure> {
        let reaps_at = (self.put_off > 0).then(|| Instant::now() + REAP_AGAIN);
        let until = self.kill_at.into_iter().chain(self.leave_at).chain(reaps_at).min();
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let fds = [self.signals.as_fd(), self.desk.as_fd()];
        match poll(&mut fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)), left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.desk.hush();
        if is_init() {
            self.reap_orphans();
        }
        Ok(())
    }

    /// As the first process of a container, whose duty that is, reaps what is orphaned; not what is
    /// being started, which is not known by its number yet.
    fn reap_orphans(&mut self) {
        let crew = &self.desk.crew;
        let reaped = crew.between_births(|| {
            let mut ours = Vec::new();
            crew.each(|child| ours.push(child.id()));
            cli_support::reap_all_but(&ours);
        });
        self.put_off = if reaped { 0 } else { self.put_off.saturating_add(1) };
        self.desk.has_orphans.store(self.put_off > PUT_OFF, Ordering::SeqCst);
    }

    fn answer(&mut self) -> Result<(), Failure> {
        for came in self.signals.take()? {
            match came.asked {
                Asked::Suspend => self.suspend()?,
                // It is no command's in particular.
                Asked::Pass(..) => {}
                // Nothing waits for the pool any more, so what runs does not go on to its end.
                Asked::Orphaned => {
                    let _ = self.requests.answer_orphaned();
                    self.desk.stop_now();
                }
                Asked::Stop(signal) => match self.requests.answer(signal, false) {
                    Answer::Nothing => {}
                    Answer::Stop => self.close(signal),
                    Answer::Kill => {
                        self.leave_at = Instant::now().checked_add(LAST_WORDS);
                        self.desk.crew.kill();
                    }
                },
            }
        }
        Ok(())
    }

    /// How many commands run.
    fn running(&self) -> usize {
        let mut running = 0;
        self.desk.crew.each(|_| running += 1);
        running
    }

    fn close(&self, signal: Signal) {
        self.desk.crew.close();
        let running = self.running();
        if self.desk.args.quiet {
            return;
        }
        // One that is being started is not counted yet, and may run on too.
        let on = match running {
            0 => "what runs, runs on: once more kills it".to_owned(),
            _ => format!("{running} run on, once more kills them"),
        };
        line(format_args!("{signal}: no more commands are started; {on}"));
    }

    /// Stops this process and all that runs; returns when it is continued.
    fn suspend(&self) -> Result<(), Failure> {
        let desk = self.desk;
        desk.is_paused.store(true, Ordering::SeqCst);
        // A second look finds what was being started during the first one.
        for _ in 0..2 {
            desk.crew.each(|child| drop(cli_support::set_still(child.tree(), true)));
        }
        suspend()?;
        desk.crew.each(|child| drop(cli_support::set_still(child.tree(), false)));
        desk.is_paused.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// All commands are gone, and what reads of them does not read. The guard removes the rest.
    fn leave(&self) {
        if let Some(signal) = self.requests.asked {
            end_by(signal);
        }
        std::process::exit(i32::from(crate::exit::FAILED));
    }
}
