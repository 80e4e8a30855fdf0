//! Opens and closes lanes, with the threads that fill them.

use std::io::{PipeReader, pipe};
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;

use crate::error::{Error, Result, Step, errno_of};
use crate::exec::stdio::set_nonblocking;
use crate::proc::info::Survey;
use crate::record::Recording;
use crate::record::lane::{LaneState, Start};
pub(crate) use crate::record::origin::Holder;
use crate::record::origin::Origin;
use crate::record::sampler::{self, MET_BRIEFLY, Sampler};
use crate::record::state::{Inner, LANES, State};
use crate::record::timeline::{Births, EventKind, LaneLimits};
use crate::record::witness::{self, STACK};
use crate::report::{Cause, Report, Usage};
use crate::sys::SignalsBlocked;
use crate::sys::proc_events::ProcEvents;

/// How long the kernel's last news of a lane are waited for.
const LAST_NEWS: Duration = Duration::from_millis(20);

/// A spawn that is to be recorded: the kernel's news wait for it.
#[derive(Debug)]
pub(crate) struct Pending(Arc<Inner>);

/// What a lane begins with, once its main process is there.
pub(crate) struct Opening {
    pub(crate) name: Option<String>,
    pub(crate) pid: i32,
    pub(crate) command: Vec<String>,
    /// How long ago the spawn began.
    pub(crate) age: Duration,
    pub(crate) holder: Holder,
    /// Of a sandbox.
    pub(crate) init: Option<i32>,
    /// Those that the cgroup does not say.
    pub(crate) limits: LaneLimits,
}

/// The lane of a child; none for a child that is not recorded.
#[derive(Debug, Default)]
pub(crate) struct Recorded(Option<Open>);

#[derive(Debug)]
struct Open {
    inner: Arc<Inner>,
    place: usize,
    origin: Arc<Origin>,
}

impl Recording {
    /// Prepares for a spawn: starts the threads, unless they are at work. None in a fork of the
    /// process. The lock is held meanwhile: several threads may spawn at the same time.
    pub(crate) fn prepare(&self) -> Result<Option<Pending>> {
        let inner = &self.0;
        if !inner.is_ours() {
            return Ok(None);
        }
        let mut state = inner.lock();
        if state.wake.is_none() {
            let started = start(inner, &mut state);
            started.map_err(|errno| Error::os(Step::Record, "the command", errno))?;
        }
        state.pending += 1;
        drop(state);
        Ok(Some(Pending(Arc::clone(inner))))
    }
}

/// Starts both threads.
fn start(inner: &Arc<Inner>, state: &mut State) -> std::result::Result<(), Errno> {
    let (reader, writer) = pipe().map_err(|error| errno_of(&error))?;
    let reader = OwnedFd::from(reader);
    set_nonblocking(&reader)?;
    let wake = Arc::new(reader.into());
    (state.rung, state.reader, state.reading) = (false, 0, None);
    let sampler = start_threads(inner, state.shift, &wake).inspect_err(|_| {
        // One of them may be there.
        state.shift += 1;
    })?;
    state.events = ProcEvents::open().ok().map(Arc::new);
    (state.wake, state.sampler) = (Some(writer), Some(sampler));
    Ok(())
}

/// Starts them for this shift; returns the one that takes samples.
fn start_threads(
    inner: &Arc<Inner>,
    shift: u64,
    wake: &Arc<PipeReader>,
) -> std::result::Result<JoinHandle<()>, Errno> {
    let failed = |error: std::io::Error| errno_of(&error);
    witness::start(inner, (shift, 0), wake).map_err(failed)?;
    let sampler = Sampler::new(inner, shift, wake);
    let _blocked = SignalsBlocked::new()?;
    let builder = Builder::new().name("tidy-process-rec".to_owned()).stack_size(STACK);
    builder.spawn(move || sampler.work()).map_err(failed)
}

impl Pending {
    /// Opens the lane.
    pub(crate) fn open(self, opening: Opening) -> Recorded {
        let inner = Arc::clone(&self.0);
        let Opening { name, pid, command, age, holder, init, limits } = opening;
        let told = inner.lock().events.is_some();
        let origin = Origin::new(holder, init, told);
        let own = origin.limits();
        let limits = LaneLimits { cpu_time: limits.cpu_time, timeout: limits.timeout, ..own };
        let mut state = inner.lock();
        state.lane_count += 1;
        if state.lanes.len() >= LANES {
            return Recorded(None);
        }
        let births = if told { Births::Told } else { Births::Sampled };
        let parent = std::process::id().cast_signed();
        let at = inner.now().saturating_sub(age);
        let start = Start { name, pid, parent, command, at, births, limits };
        let mut lane = LaneState::new(start);
        (lane.lane.memory_from, lane.lane.io_from) = (origin.memory_from, origin.io_from);
        let place = state.lanes.len();
        state.lanes.push(lane);
        state.running.insert(place, Arc::clone(&origin));
        state.join(place, pid);
        drop(state);
        inner.news.notify_all();
        Recorded(Some(Open { inner, place, origin }))
    }
}

/// Lets the kernel's news in again.
impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.pending = state.pending.saturating_sub(1);
        state.ring();
        drop(state);
        dismiss(&self.0);
    }
}

/// Ends the threads where no lane is open and none is about to be.
fn dismiss(inner: &Inner) {
    let mut state = inner.lock();
    if !state.running.is_empty() || state.pending > 0 {
        return;
    }
    state.shift += 1;
    state.ring();
    (state.events, state.wake) = (None, None);
    state.unread.clear();
    let sampler = state.sampler.take();
    drop(state);
    inner.news.notify_all();
    // The other thread may be in a read that blocks; it ends by itself.
    sampler.into_iter().for_each(|thread| drop(JoinHandle::join(thread)));
}

impl Recorded {
    fn open(&self) -> Option<&Open> {
        self.0.as_ref().filter(|open| open.inner.is_ours())
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn note(&self, kind: EventKind) {
        if let Some(Open { inner, place, .. }) = self.open() {
            sampler::note(inner, *place, kind);
        }
    }

    /// Notes how the main process has ended.
    pub(crate) fn main_ended(&self, status: ExitStatus) {
        let Some(Open { inner, place, .. }) = self.open() else { return };
        let (now, mut state) = (inner.now(), inner.lock());
        if let Some(lane) = state.lanes.get_mut(*place) {
            lane.main_ended(now, status);
        }
    }

    /// Takes a last sample, before what is left is killed, and notes what that is.
    pub(crate) fn kills(&self, left: &Survey) {
        let Some(Open { inner, place, origin }) = self.open() else { return };
        sampler::sample(inner, *place, origin, MET_BRIEFLY);
        let (now, mut state) = (inner.now(), inner.lock());
        if let Some(lane) = state.lanes.get_mut(*place) {
            lane.mark_left(now, left);
            lane.note(now, EventKind::Killed);
        }
    }

    /// Ends the lane, once nothing of its tree is left.
    pub(crate) fn close_with(&self, torn: &Result<Report>) {
        let report = torn.as_ref().map_or_else(Error::report, Some);
        let (cause, usage) = (report.map(|report| report.cause), report.map(|it| &it.usage));
        self.close(cause, usage.unwrap_or(&Usage::default()));
    }

    fn close(&self, cause: Option<Cause>, usage: &Usage) {
        let Some(Open { inner, place, .. }) = self.open() else { return };
        let mut state = inner.lock();
        if !state.running.contains_key(place) {
            return;
        }
        let end = inner.now();
        while inner.now().saturating_sub(end) < LAST_NEWS {
            inner.catch_up(&mut state);
            let Some(lane) = state.lanes.get(*place) else { return };
            if !lane.is_told() || !lane.has_living() || state.pending > 0 {
                break;
            }
            drop(state);
            // The news of an end come a moment after the end.
            thread::sleep(Duration::from_micros(200));
            state = inner.lock();
        }
        state.running.remove(place);
        if let Some(lane) = state.lanes.get_mut(*place) {
            lane.used(end, usage);
            lane.close(end, cause);
        }
        state.tidy(*place);
        drop(state);
        dismiss(inner);
    }
}

/// Ends a lane that nothing else has ended.
impl Drop for Recorded {
    fn drop(&mut self) {
        self.close(None, &Usage::default());
    }
}
