//! The thread that takes samples. It never blocks, and takes a small part of a CPU at the most:
//! where a look costs more it looks less often.

use std::collections::{BTreeMap, HashMap};
use std::io::PipeReader;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::proc::port::ListeningPort;
use crate::proc::sockets::ports_of;
use crate::record::lane::Look;
use crate::record::origin::Origin;
use crate::record::state::{Inner, own_time};
use crate::record::timeline::EventKind;
use crate::record::witness;

/// The share of a CPU that this thread may take, in parts (more in a debug build, which is
/// slower); and what it may take at once. With the
/// other thread that is less than a hundredth.
const SHARE: u32 = if cfg!(debug_assertions) { 60 } else { 300 };
const BURST: Duration = Duration::from_millis(4);

/// The part of a run that is between two samples, at the least.
const THIN: u32 = 256;

/// The share of the time that looking for ports may take, in parts, and its bound.
const PORTS_SHARE: u32 = 400;
const PORTS_BUDGET: Duration = Duration::from_millis(100);
const PORTS_FIRST: Duration = Duration::from_millis(100);
const PORTS_LAST: Duration = Duration::from_secs(60);

/// New processes that are looked at in one sample, and in one that a kill waits for.
const MET: usize = 4096;
pub(crate) const MET_BRIEFLY: usize = 100;

/// Processes whose ports are looked for.
const PORTS_OF: usize = 256;

/// After this long in one read a reader is left behind, and another one goes on; so many of them.
const STALLED: Duration = Duration::from_millis(250);
const LEFT_BEHIND: u32 = 4;

pub(crate) struct Sampler {
    inner: Arc<Inner>,
    shift: u64,
    wake: Arc<PipeReader>,
    began: Duration,
    /// What the first look has cost. It is dearer than all others, since nothing of it is in any
    /// cache, and no pause would make up for it: on a slow machine a whole run might pass.
    first: Option<Duration>,
    /// What looking for ports has cost, which has a share of its own.
    ports: Duration,
    /// When each lane is due.
    due: HashMap<usize, Due>,
}

struct Due {
    sample: Duration,
    ports: Duration,
    /// The time between two looks for ports.
    pace: Duration,
}

impl Sampler {
    pub(crate) fn new(inner: &Arc<Inner>, shift: u64, wake: &Arc<PipeReader>) -> Self {
        let (inner, wake) = (Arc::clone(inner), Arc::clone(wake));
        let began = inner.now();
        let (first, ports) = (None, Duration::ZERO);
        Self { inner, shift, wake, began, first, ports, due: HashMap::new() }
    }

    pub(crate) fn work(mut self) {
        while let Some(lanes) = self.await_due() {
            let at_once = std::mem::take(&mut self.inner.lock().ask_ports);
            for (place, origin) in lanes {
                let interval = sample(&self.inner, place, &origin, MET);
                let now = self.inner.now();
                let due = self.due.entry(place).or_insert(Due {
                    sample: now,
                    ports: now + PORTS_FIRST,
                    pace: PORTS_FIRST,
                });
                due.sample = now + interval;
                if now >= due.ports || at_once {
                    let before = own_time();
                    find_ports(&self.inner, place, &origin);
                    let cost = own_time().saturating_sub(before);
                    self.ports += cost;
                    due.pace = (due.pace * 2).min(PORTS_LAST).max(cost * PORTS_SHARE);
                    due.ports = now + due.pace;
                }
            }
            let ports = self.ports;
            self.first.get_or_insert_with(|| own_time().saturating_sub(ports));
            self.replace_reader();
        }
    }

    /// Sleeps until a lane is due; none when this shift is over.
    fn await_due(&mut self) -> Option<BTreeMap<usize, Arc<Origin>>> {
        let mut state = self.inner.lock();
        loop {
            if state.shift != self.shift {
                return None;
            }
            self.due.retain(|place, _| state.running.contains_key(place));
            let now = self.inner.now();
            // What was used beyond the share is waited for.
            let free = self.first.unwrap_or_default() + self.ports + BURST;
            let used = own_time().saturating_sub(free);
            let earliest = self.began + used.saturating_mul(SHARE);
            let when = |place: &usize| self.due.get(place).map_or(now, |due| due.sample);
            let next = state.running.keys().map(when).min();
            let next =
                next.map(|next| if self.is_new(&state.running) { now } else { next.max(earliest) });
            if next.is_some_and(|next| next <= now) || state.ask_ports {
                let all =
                    state.running.iter().filter(|(place, _)| when(place) <= now || state.ask_ports);
                return Some(all.map(|(place, origin)| (*place, Arc::clone(origin))).collect());
            }
            let pause = next.map_or(PORTS_LAST, |next| next.saturating_sub(now));
            let woken = self.inner.news.wait_timeout(state, pause);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether a lane has no sample yet.
    fn is_new(&self, running: &HashMap<usize, Arc<Origin>>) -> bool {
        running.keys().any(|place| !self.due.contains_key(place))
    }

    /// Lets another thread go on where one is blocked in a read; after some of them none.
    fn replace_reader(&self) {
        let mut state = self.inner.lock();
        let now = self.inner.now();
        if state.reading.is_none_or(|since| now.saturating_sub(since) < STALLED) {
            return;
        }
        if state.reader < LEFT_BEHIND {
            (state.reader, state.reading) = (state.reader + 1, None);
            let number = (self.shift, state.reader);
            drop(state);
            let _ = witness::start(&self.inner, number, &self.wake);
        } else {
            // Births and ends are heard all the same.
            self.inner.catch_up(&mut state);
        }
    }
}

/// Takes one sample of a lane; returns the time to the next one.
pub(crate) fn sample(inner: &Inner, place: usize, origin: &Origin, most: usize) -> Duration {
    let began = inner.now();
    let pids = origin.pids();
    let (strangers, told) = {
        let state = inner.lock();
        let Some(lane) = state.lanes.get(place) else { return PORTS_LAST };
        (lane.strangers(&pids), lane.is_told())
    };
    let seen = origin.look_at(&pids, &strangers, most);
    let row = origin.count(&pids, &seen);
    let at = inner.now();
    let mut state = inner.lock();
    let running = state.running.contains_key(&place);
    let Some(lane) = state.lanes.get_mut(place).filter(|_| running) else { return PORTS_LAST };
    lane.absorb(at, Look { began, pids: pids.clone(), seen, row });
    let age = at.saturating_sub(lane.lane.began);
    let (unasked, interval) = (lane.unasked(), lane.samples.interval().max(age / THIN));
    if !strangers.is_empty() || !told {
        state.tidy(place);
    }
    if !unasked.is_empty() {
        state.unread.extend(unasked);
        state.ring();
    }
    interval
}

fn find_ports(inner: &Inner, place: usize, origin: &Origin) {
    let mut pids = origin.pids();
    pids.truncate(PORTS_OF);
    let found: Vec<(Vec<ListeningPort>, _)> = ports_of(&pids, Instant::now() + PORTS_BUDGET);
    let (now, mut state) = (inner.now(), inner.lock());
    let Some(lane) = state.lanes.get_mut(place) else { return };
    for (pid, (ports, _)) in pids.iter().zip(found) {
        lane.listens(now, *pid, &ports);
    }
}

/// Asks for the ports of a lane that is ready.
pub(crate) fn note(inner: &Inner, place: usize, kind: EventKind) {
    let (now, mut state) = (inner.now(), inner.lock());
    let Some(lane) = state.lanes.get_mut(place) else { return };
    lane.note(now, kind);
    if kind == EventKind::Ready {
        state.ask_ports = true;
        drop(state);
        inner.news.notify_all();
    }
}
