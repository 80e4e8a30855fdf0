//! Describes many processes at a bounded cost of time, memory and threads.
//!
//! Processes are described before they are killed, so the description must end. A thread reads,
//! because a read may block (see `read`): when it finds nothing for 50 ms another thread goes on
//! with the rest, and at the end of the time blocked threads are left behind, with an entry that
//! says so. A read that is left behind ends when the kernel lets go of it; while 16 of them are
//! blocked, no command line is read any more.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::proc::info::{ProcessInfo, Survey};
use crate::proc::read::{self, Start};
use crate::proc::sockets::ports_of;
use crate::sys::SignalsBlocked;

/// The time for all processes that are described at once.
const BUDGET: Duration = Duration::from_secs(1);

/// After this long without a find a thread may be blocked, and another one goes on. What the first
/// one finds still counts until the end.
const STALLED: Duration = Duration::from_millis(50);

/// The most threads at a time.
const READERS: usize = 8;

/// The most threads of earlier surveys that are still blocked.
const LEFT_BEHIND: usize = 16;

/// Bytes of a thread's stack: it reads a few files.
const STACK: usize = 256 * 1024;

const OVER: &str = "not read: the time for it was over";
const BLOCKED: &str = "not read: reading it blocks";
const ENOUGH: &str = "not read: earlier reads are still blocked";
const STUCK: &str = "not read: the process is in state D";
const ALONE: &str = "not read: no thread could be started for that";

/// Describes the first 100 of these processes; those that are gone by now do not count.
pub(crate) fn of(pids: &[i32]) -> Survey {
    gathered(&[pids.to_vec()], false).pop().unwrap_or_default()
}

/// Describes these processes, with the ports that they listen on.
pub(crate) fn with_ports(pids: &[i32]) -> Survey {
    gathered(&[pids.to_vec()], true).pop().unwrap_or_default()
}

/// Describes several groups of processes, all in the time for one.
pub(crate) fn of_each(groups: &[Vec<i32>]) -> Vec<Survey> {
    gathered(groups, false)
}

/// Describes these processes without a thread, and so without command lines.
pub(crate) fn in_brief(pids: &[i32]) -> Survey {
    let mut all = Survey::default();
    for &pid in pids.iter().take(Survey::NAMED) {
        read::facts(pid).into_iter().for_each(|(process, _)| all.push(process));
    }
    all.count += pids.len().saturating_sub(Survey::NAMED);
    all
}

fn gathered(groups: &[Vec<i32>], ports: bool) -> Vec<Survey> {
    let first = |group: &Vec<i32>| group.iter().take(Survey::NAMED).copied().collect::<Vec<_>>();
    let named: Vec<Vec<i32>> = groups.iter().map(first).collect();
    let mut found = look(named.concat(), ports).into_iter();
    let each = groups.iter().zip(named).map(|(group, named)| {
        let mut survey = Survey::default();
        found.by_ref().take(named.len()).flatten().for_each(|process| survey.push(process));
        survey.count += group.len() - named.len();
        survey
    });
    each.collect()
}

/// Reads an entry for each of these, in their order; none for one that is gone.
fn look(pids: Vec<i32>, ports: bool) -> Vec<Option<ProcessInfo>> {
    if pids.is_empty() {
        return Vec::new();
    }
    let until = Instant::now() + BUDGET;
    let desk = Arc::new(Desk::new(pids, ports, until));
    if behind().is_full() {
        return desk.without_readers(ENOUGH);
    }
    if !desk.start_reader() {
        return desk.without_readers(ALONE);
    }
    desk.wait(until);
    let found = desk.close();
    desk.join();
    found
}

/// What the readers share: what is to be read, and what was found. Tasks are numbered: first the
/// facts of each process that do not block, then the command lines, in the end the ports of all.
struct Desk {
    pids: Vec<i32>,
    ports: bool,
    until: Instant,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    /// The next task.
    next: usize,
    /// Tasks done.
    done: usize,
    found: Vec<Entry>,
    /// Readers at work.
    readers: usize,
    threads: Vec<JoinHandle<()>>,
    has_ports: bool,
    /// The survey is over: what a reader finds from now on is dropped.
    closed: bool,
}

#[derive(Clone)]
enum Entry {
    Unread,
    Gone,
    Read(Box<ProcessInfo>, Option<Start>),
}

impl Desk {
    fn new(pids: Vec<i32>, ports: bool, until: Instant) -> Self {
        let state = State { found: vec![Entry::Unread; pids.len()], ..State::default() };
        Self { pids, ports, until, state: Mutex::new(state), news: Condvar::new() }
    }

    fn tasks(&self) -> usize {
        self.pids.len() * 2 + usize::from(self.ports)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_reader(self: &Arc<Self>) -> bool {
        self.lock().readers += 1;
        let desk = Arc::clone(self);
        // A signal must never find this thread: the caller's threads know what to do with it.
        let blocked = SignalsBlocked::new();
        let builder = Builder::new().name("tidy-process-see".to_owned()).stack_size(STACK);
        let started = builder.spawn(move || desk.read());
        drop(blocked);
        let mut state = self.lock();
        match started {
            Ok(thread) => {
                state.threads.push(thread);
                true
            }
            Err(_) => {
                state.readers -= 1;
                false
            }
        }
    }

    /// Performs one task after the other, until none is left or the time is over; a reader's loop.
    fn read(&self) {
        let mut kept = None;
        while let Some(task) = self.next(kept.take()) {
            kept = Some(self.perform(task));
        }
    }

    /// Stores what the last task has found, and hands out the next one. A reader that is given none
    /// leaves the count at once, so that it is never taken for one that is blocked.
    fn next(&self, kept: Option<Option<(usize, Entry)>>) -> Option<usize> {
        let mut state = self.lock();
        state.done += usize::from(kept.is_some());
        if let Some((place, entry)) = kept.flatten()
            && let Some(slot) = state.found.get_mut(place)
        {
            *slot = entry;
        }
        self.news.notify_all();
        if state.closed || Instant::now() >= self.until || state.next >= self.tasks() {
            state.readers -= 1;
            if state.closed {
                behind().number -= 1;
            }
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    /// Performs a task: what was found, and the place of the process that it is about.
    fn perform(&self, task: usize) -> Option<(usize, Entry)> {
        let number = self.pids.len();
        let place = task % number;
        let pid = *self.pids.get(place)?;
        match task / number {
            0 => Some((place, facts(pid))),
            1 => self.command(place, pid).map(|entry| (place, entry)),
            _ => self.find_ports(),
        }
    }

    fn command(&self, place: usize, pid: i32) -> Option<Entry> {
        let Some(Entry::Read(mut process, Some(start))) = self.lock().found.get(place).cloned()
        else {
            return None;
        };
        if may_block(&process) {
            return None;
        }
        process.lacks("command", BLOCKED);
        if let Some(slot) = self.lock().found.get_mut(place) {
            *slot = Entry::Read(process.clone(), Some(start));
        }
        let same = read::command(pid, start, &mut process).is_some();
        same.then_some(Entry::Read(process, Some(start)))
    }

    fn find_ports(&self) -> Option<(usize, Entry)> {
        // The rest of the time is for storing what was found.
        let ports = ports_of(&self.pids, self.until - BUDGET / 5);
        let mut state = self.lock();
        state.has_ports = true;
        for (entry, (ports, cut)) in state.found.iter_mut().zip(ports) {
            if let Entry::Read(process, _) = entry {
                process.listens(ports, cut);
            }
        }
        None
    }

    /// Waits until all is read or the time is over; where a reader blocks, another one starts.
    fn wait(self: &Arc<Self>, until: Instant) {
        let mut seen = 0;
        loop {
            let state = self.lock();
            let left = until.saturating_duration_since(Instant::now());
            if state.readers == 0 || state.done >= self.tasks() || left.is_zero() {
                return;
            }
            let waited = self.news.wait_timeout(state, STALLED.min(left));
            let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            let stalled = timeout.timed_out() && state.done == seen;
            let more = state.next < self.tasks() && state.readers < READERS;
            seen = state.done;
            drop(state);
            if stalled && more {
                self.start_reader();
            }
        }
    }

    /// Ends the survey: what was found. Readers that are still at work are left behind.
    fn close(&self) -> Vec<Option<ProcessInfo>> {
        let mut state = self.lock();
        state.closed = true;
        behind().number += state.readers;
        let found = std::mem::take(&mut state.found);
        let entries = found.into_iter().zip(&self.pids).map(|(entry, &pid)| match entry {
            Entry::Unread => Some(ProcessInfo::unread(pid, OVER)),
            Entry::Gone => None,
            Entry::Read(mut process, _) => {
                if self.ports && !state.has_ports {
                    process.lacks("ports", OVER);
                }
                Some(*process)
            }
        });
        entries.collect()
    }

    /// Joins the threads, unless one was left behind: then none of a finished survey can be seen.
    fn join(&self) {
        let mut state = self.lock();
        let threads = std::mem::take(&mut state.threads);
        let none_left = state.readers == 0;
        drop(state);
        if none_left {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
    }

    /// Describes all processes here, without command lines: nothing else blocks.
    fn without_readers(&self, why: &str) -> Vec<Option<ProcessInfo>> {
        let entry = |&pid: &i32| {
            let (mut process, start) = read::facts(pid)?;
            start.into_iter().for_each(|_| process.lacks("command", why));
            Some(process)
        };
        let mut all: Vec<_> = self.pids.iter().map(entry).collect();
        if self.ports {
            for (process, (ports, cut)) in all.iter_mut().zip(ports_of(&self.pids, self.until)) {
                process.iter_mut().for_each(|process| process.listens(ports.clone(), cut.clone()));
            }
        }
        all
    }
}

fn facts(pid: i32) -> Entry {
    let Some((mut process, start)) = read::facts(pid) else { return Entry::Gone };
    if start.is_some() {
        process.lacks("command", if may_block(&process) { STUCK } else { OVER });
    }
    Entry::Read(Box::new(process), start)
}

/// Whether what holds the process up may hold up one that reads its memory too. A parent in
/// vfork(2) is in state D as well, and holds nothing: a shell is, whenever it starts a program.
fn may_block(process: &ProcessInfo) -> bool {
    process.state == 'D' && process.wchan.as_deref() != Some("kernel_clone")
}

/// Counts the readers that were left behind; a fork of the process has none.
struct Behind {
    owner: u32,
    number: usize,
}

static BEHIND: Mutex<Behind> = Mutex::new(Behind { owner: 0, number: 0 });

impl Behind {
    fn is_full(&self) -> bool {
        self.number >= LEFT_BEHIND
    }
}

fn behind() -> MutexGuard<'static, Behind> {
    let mut behind = BEHIND.lock().unwrap_or_else(PoisonError::into_inner);
    if behind.owner != std::process::id() {
        *behind = Behind { owner: std::process::id(), number: 0 };
    }
    behind
}
