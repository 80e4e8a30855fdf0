//! What the threads of a recording share with those that spawn and finish: the lanes, and
//! which processes are in them.

use std::collections::HashMap;
use std::io::{PipeWriter, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

use crate::record::lane::LaneState;
use crate::record::origin::Origin;
use crate::record::timeline::EventKind;
use crate::sys::identity::Identity;
use crate::sys::poll::lock;
use crate::sys::proc_events::{News, ProcEvents, What};

/// The most lanes.
pub(crate) const LANES: usize = 256;

#[derive(Debug)]
pub(crate) struct Inner {
    /// By the monotonic clock, as the kernel's news are.
    began: u64,
    pub(crate) wall: SystemTime,
    owner: Identity,
    state: Mutex<State>,
    /// Tells the sampler that it has something to do.
    pub(crate) news: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) lanes: Vec<LaneState>,
    pub(crate) lane_count: usize,
    /// Those that run.
    pub(crate) running: HashMap<usize, Arc<Origin>>,
    /// The lanes that living processes are in.
    members: HashMap<i32, usize>,
    /// Spawns under way: the kernel's news wait until it is known which process is whose.
    pub(crate) pending: usize,
    /// The number of the threads that are at work: others end.
    pub(crate) shift: u64,
    pub(crate) events: Option<Arc<ProcEvents>>,
    /// Wakes the thread that reads command lines.
    pub(crate) wake: Option<PipeWriter>,
    /// Whether it was woken, and has not woken yet.
    pub(crate) rung: bool,
    /// Processes whose command lines it is to read.
    pub(crate) unread: Vec<i32>,
    /// Since when it is in a read.
    pub(crate) reading: Option<Duration>,
    /// Its number: those before it are left behind in a read.
    pub(crate) reader: u32,
    /// The thread that takes samples.
    pub(crate) sampler: Option<JoinHandle<()>>,
    /// Whether ports are to be looked for at once.
    pub(crate) ask_ports: bool,
}

impl Inner {
    pub(crate) fn new() -> Self {
        Self {
            began: clock(),
            wall: SystemTime::now(),
            owner: Identity::of_this_process(),
            state: Mutex::default(),
            news: Condvar::new(),
        }
    }

    /// Whether this process made it: in a fork of that nothing may be locked, and no thread is.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner.is_this_process()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn now(&self) -> Duration {
        self.since(clock())
    }

    fn since(&self, clock: u64) -> Duration {
        Duration::from_nanos(clock.saturating_sub(self.began))
    }

    /// Takes the kernel's next news, if there is any and no spawn is under way. Returns a process
    /// whose command line is to be read with it.
    pub(crate) fn next_news(&self, state: &mut State) -> Option<Option<i32>> {
        let events = state.events.clone().filter(|_| state.pending == 0)?;
        match events.next() {
            Ok(Some(news)) => Some(state.hear(self.since(news.at), news)),
            Ok(None) | Err(Errno::EINTR) => Some(None),
            Err(Errno::ENOBUFS) => {
                let now = self.now();
                let running: Vec<usize> = state.running.keys().copied().collect();
                for place in running {
                    if let Some(lane) = state.lanes.get_mut(place) {
                        lane.note(now, EventKind::NewsLost);
                        lane.lacks("processes", LOST.to_owned());
                    }
                }
                Some(None)
            }
            Err(_) => None,
        }
    }

    /// Takes all news that there are, without command lines.
    pub(crate) fn catch_up(&self, state: &mut State) {
        while self.next_news(state).is_some() {}
    }
}

const LOST: &str = "the kernel told of more births and ends than were read: some are missing";

impl State {
    /// Notes the processes of a lane that begins.
    pub(crate) fn join(&mut self, lane: usize, pid: i32) {
        self.members.insert(pid, lane);
    }

    pub(crate) fn lane_of(&mut self, pid: i32) -> Option<&mut LaneState> {
        let place = *self.members.get(&pid)?;
        self.lanes.get_mut(place)
    }

    /// Forgets those of a lane that has ended, or that have ended in it.
    pub(crate) fn tidy(&mut self, lane: usize) {
        let alive = match self.running.contains_key(&lane) {
            true => self.lanes.get(lane).map(LaneState::pids).unwrap_or_default(),
            false => Vec::new(),
        };
        self.members.retain(|_, place| *place != lane);
        self.members.extend(alive.into_iter().map(|pid| (pid, lane)));
    }

    fn hear(&mut self, at: Duration, news: News) -> Option<i32> {
        let News { pid, what, .. } = news;
        match what {
            What::Forked(parent) => {
                let place = self.members.get(&parent).copied();
                // The main process has a parent that is no member.
                let place = place.or_else(|| self.members.get(&pid).copied())?;
                if self.lanes.get_mut(place)?.born(at, pid, parent) {
                    self.members.insert(pid, place);
                }
                None
            }
            What::Executed => {
                self.lane_of(pid)?.executed(at, pid);
                Some(pid)
            }
            What::Exited(status) => {
                self.lane_of(pid)?.exited(at, pid, Some(ExitStatus::from_raw(status)));
                self.members.remove(&pid);
                None
            }
        }
    }

    /// Wakes the thread that reads news and command lines.
    pub(crate) fn ring(&mut self) {
        if !std::mem::replace(&mut self.rung, true) {
            self.wake.iter_mut().for_each(|wake| drop(wake.write(b"!")));
        }
    }
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn clock() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The CPU time of this thread.
pub(crate) fn own_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
