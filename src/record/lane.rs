//! One lane while it is recorded: the processes that are alive, and those that were.
//!
//! A workload chooses how many processes it makes and how they are called: what is kept of them is
//! bounded here, and what is left out is counted.

use std::collections::{HashMap, HashSet};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::proc::glance::Glance;
use crate::proc::port::ListeningPort;
use crate::record::past::Past;
use crate::record::samples::{Events, GOES_ON, Samples};
use crate::record::timeline::{
    Births, EventKind, Lane, LaneLimits, Sample, SeenPort, Source, Span,
};

/// Processes that are followed at one time; more are counted.
const FOLLOWED: usize = 16 * 1024;

/// The precision of a start time in `/proc`.
const TICK: Duration = Duration::from_millis(10);

/// Ports of one process.
const PORTS: usize = 16;

/// A process that is alive.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) span: Span,
    /// In ticks since boot, once it was looked at.
    start: Option<u64>,
    stack: u64,
    /// The last samples that have not found it.
    missed: u8,
    /// Whether its command line is being read, or was.
    asked: bool,
}

/// What a sample has found.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// When it began: before the pids were listed.
    pub(crate) began: Duration,
    pub(crate) pids: Vec<i32>,
    /// Of the processes that were looked at.
    pub(crate) seen: Vec<Glance>,
    pub(crate) row: Counted,
}

/// What the counters say; none where one cannot be read.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) cpu: Option<Duration>,
    pub(crate) memory: Option<u64>,
    pub(crate) io: Option<(u64, u64)>,
    /// Events so far, and what they are of.
    pub(crate) events: [(Option<EventKind>, u64); 4],
}

#[derive(Debug)]
pub(crate) struct LaneState {
    pub(crate) lane: Lane,
    pub(crate) samples: Samples,
    pub(crate) events: Events,
    pub(crate) alive: HashMap<i32, Live>,
    pub(crate) past: Past,
    /// What ended since the last sample, and when.
    ended: HashMap<i32, Duration>,
    /// Event counters of the last sample.
    counted: [u64; 4],
    /// What io the processes had, at the most: one that ends takes its own with it.
    io: (u64, u64),
    /// When all that was left was killed.
    pub(crate) killed: Option<Duration>,
}

/// What a lane begins with.
pub(crate) struct Start {
    pub(crate) name: Option<String>,
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) command: Vec<String>,
    pub(crate) at: Duration,
    pub(crate) births: Births,
    pub(crate) limits: LaneLimits,
}

impl LaneState {
    pub(crate) fn new(start: Start) -> Self {
        let lane = Lane {
            name: start.name,
            main: start.pid.cast_unsigned(),
            began: start.at,
            ended: None,
            status: None,
            cause: None,
            processes: Vec::new(),
            process_count: 0,
            left_count: 0,
            omitted: Vec::new(),
            births: start.births,
            samples: Vec::new(),
            memory_from: Source::Unknown,
            io_from: Source::Unknown,
            limits: start.limits,
            events: Vec::new(),
            event_count: 0,
            gaps: Vec::new(),
        };
        let mut state = Self {
            lane,
            samples: Samples::new(),
            events: Events::default(),
            alive: HashMap::new(),
            past: Past::new(start.pid.cast_unsigned()),
            ended: HashMap::new(),
            counted: [0; 4],
            io: (0, 0),
            killed: None,
        };
        state.born(start.at, start.pid, start.parent);
        // It has executed when a spawn returns.
        state.executed(start.at, start.pid);
        state.called(start.pid, (start.command, false));
        state
    }

    pub(crate) fn main(&self) -> i32 {
        self.lane.main.cast_signed()
    }

    pub(crate) fn is_told(&self) -> bool {
        self.lane.births == Births::Told
    }

    /// Whether a process that is followed is alive.
    pub(crate) fn has_living(&self) -> bool {
        !self.alive.is_empty()
    }

    pub(crate) fn pids(&self) -> Vec<i32> {
        self.alive.keys().copied().collect()
    }

    /// Those of these pids of which too little is known.
    pub(crate) fn strangers(&self, pids: &[i32]) -> Vec<i32> {
        let told = self.is_told();
        let known =
            |pid: &i32| self.alive.get(pid).is_some_and(|live| told || live.start.is_some());
        pids.iter().filter(|pid| !known(pid)).copied().collect()
    }

    /// Notes a fork; false where it is only counted. Until its exec a process is called as its
    /// parent is.
    pub(crate) fn born(&mut self, at: Duration, pid: i32, parent: i32) -> bool {
        if self.alive.contains_key(&pid) {
            // The birth of the main process is told after it has begun, and so is its exec.
            self.alive.entry(pid).and_modify(|Live { span, .. }| {
                (span.born, span.executed, span.exec_count) = (at, None, 0);
            });
            return true;
        }
        self.lane.process_count += 1;
        let above = self.alive.get(&parent).map(|live| &live.span);
        let name = above.map(|span| span.name.clone()).unwrap_or_default();
        if self.alive.len() >= FOLLOWED {
            self.past.omit(name);
            return false;
        }
        let span = Span {
            pid: pid.cast_unsigned(),
            ppid: parent.cast_unsigned(),
            name,
            command: above.map(|span| Arc::clone(&span.command)).unwrap_or_else(|| Arc::from([])),
            cut: above.is_some_and(|span| span.cut),
            born: at,
            executed: None,
            exec_count: 0,
            ended: None,
            status: None,
            left: false,
            killed: false,
            ports: Vec::new(),
        };
        self.alive.insert(pid, Live { span, start: None, stack: 0, missed: 0, asked: true });
        true
    }

    pub(crate) fn executed(&mut self, at: Duration, pid: i32) {
        let main = self.main();
        if let Some(Live { span, .. }) = self.alive.get_mut(&pid) {
            span.executed.get_or_insert(at);
            span.exec_count = span.exec_count.saturating_add(1);
            // What it is called is to be read; what the main process is was asked for.
            if pid != main || span.exec_count > 1 {
                (span.name, span.command) = (String::new(), Arc::from([]));
            }
        }
    }

    /// Notes a command line, which may have come too late.
    pub(crate) fn called(&mut self, pid: i32, (words, cut): (Vec<String>, bool)) {
        let Some(Live { span, .. }) = self.alive.get_mut(&pid) else { return };
        if let Some(program) = words.first() {
            let base = program.rsplit('/').find(|part| !part.is_empty()).unwrap_or(program);
            span.name = base.chars().take(64).collect();
            (span.command, span.cut) = (words.into(), cut);
        }
    }

    /// Notes the end of a process; `status` where it is known.
    pub(crate) fn exited(&mut self, at: Duration, pid: i32, status: Option<ExitStatus>) {
        let Some(Live { mut span, .. }) = self.alive.remove(&pid) else { return };
        let known = self.lane.status.filter(|_| pid == self.main());
        span.status = status.or(span.status).or(known);
        span.ended = Some(at.max(span.born));
        if self.ended.len() < FOLLOWED {
            self.ended.insert(pid, at);
        }
        span.killed = match span.status {
            Some(status) => status.signal() == Some(libc::SIGKILL),
            None => self.killed.is_some(),
        };
        if pid == self.main() {
            self.events.note(at, EventKind::MainEnded, 1, Duration::ZERO);
        }
        self.past.push(span);
    }

    /// Takes what a sample has found: new processes, execs and ends, where nothing tells of them,
    /// and a row.
    pub(crate) fn absorb(&mut self, at: Duration, look: Look) {
        self.ended.retain(|_, at| *at >= look.began);
        look.seen.iter().for_each(|glance| self.met(at, glance));
        self.miss(at, &look.pids);
        let missing = !look.pids.is_empty() && look.row.io.is_none();
        let io = match (self.lane.io_from, look.row.io) {
            (Source::Processes, Some((read, written))) => {
                self.io = (self.io.0.max(read), self.io.1.max(written));
                Some(self.io)
            }
            (Source::Processes, None) if !missing => Some(self.io),
            (_, io) => io,
        };
        let row = Sample {
            at,
            cpu: look.row.cpu,
            memory: look.row.memory,
            processes: look.pids.len(),
            io_read: io.map(|(read, _)| read),
            io_written: io.map(|(_, written)| written),
        };
        // What was found by the row before this one goes on.
        let before = self.samples.rows().last().map_or(self.lane.began, |row| row.at);
        let within = at.saturating_sub(before).max(GOES_ON);
        self.samples.push(row);
        let counters = self.counted.iter_mut().zip(look.row.events);
        for (before, (kind, now)) in counters {
            let more = now.saturating_sub(*before);
            *before = now.max(*before);
            if let Some(kind) = kind.filter(|_| more > 0) {
                self.events.note(at, kind, more, within);
            }
        }
    }

    /// A process that was looked at.
    fn met(&mut self, at: Duration, glance: &Glance) {
        let born = at.saturating_sub(glance.running).max(self.lane.began);
        let other = |live: &Live| live.start.is_some_and(|start| start != glance.start);
        if self.alive.get(&glance.pid).is_some_and(other) {
            self.exited(born, glance.pid, None);
        }
        // It was listed, and has ended since, which the kernel has told.
        if self.is_told() && self.ended.contains_key(&glance.pid) {
            return;
        }
        if !self.alive.contains_key(&glance.pid) {
            if self.revive(born, glance) || !self.born(born, glance.pid, glance.ppid) {
                return;
            }
            self.rename(glance);
        }
        let (told, main) = (self.is_told(), self.main());
        let Some(live) = self.alive.get_mut(&glance.pid) else { return };
        let execs = live.start.is_some() && live.stack != glance.stack;
        (live.start, live.stack) = (Some(glance.start), glance.stack);
        if told || glance.pid == main || live.span.name.is_empty() {
            live.span.name.clone_from(&glance.name);
        }
        if execs && !told {
            self.executed(at, glance.pid);
            self.rename(glance);
        }
    }

    /// Calls a process as the kernel does; its command line is still to be read.
    fn rename(&mut self, glance: &Glance) {
        if let Some(live) = self.alive.get_mut(&glance.pid) {
            live.span.name.clone_from(&glance.name);
            (live.span.command, live.asked) = (Arc::from([]), false);
        }
    }

    /// A main thread that ends before the others looks like the end of its process.
    fn revive(&mut self, born: Duration, glance: &Glance) -> bool {
        let pid = glance.pid.cast_unsigned();
        // It began before it seemed to end; start times are told in hundredths of a second.
        let is_it = |span: &Span| span.pid == pid && span.ended > Some(born + TICK);
        let found = self.is_told().then(|| self.past.take(is_it)).flatten();
        let Some(mut span) = found else { return false };
        (span.ended, span.status) = (None, None);
        let live =
            Live { span, start: Some(glance.start), stack: glance.stack, missed: 0, asked: true };
        self.alive.insert(glance.pid, live);
        true
    }

    /// Ends what a sample has not found; where the kernel tells of ends, only after several: its
    /// news may be late, or were lost.
    fn miss(&mut self, at: Duration, pids: &[i32]) {
        let most = if self.is_told() { 3 } else { 1 };
        let there: HashSet<i32> = pids.iter().copied().collect();
        let mut gone = Vec::new();
        for (pid, live) in &mut self.alive {
            live.missed = if there.contains(pid) { 0 } else { live.missed.saturating_add(1) };
            if live.missed >= most {
                gone.push(*pid);
            }
        }
        gone.into_iter().for_each(|pid| self.exited(at, pid, None));
    }

    /// Processes whose command lines are to be read, which the caller does.
    pub(crate) fn unasked(&mut self) -> Vec<i32> {
        let unasked = self.alive.iter_mut().filter(|(_, live)| !live.asked);
        unasked
            .map(|(pid, live)| {
                live.asked = true;
                *pid
            })
            .collect()
    }

    pub(crate) fn listens(&mut self, at: Duration, pid: i32, ports: &[ListeningPort]) {
        let Some(Live { span, .. }) = self.alive.get_mut(&pid) else { return };
        for port in ports {
            let (protocol, address) = (port.protocol, port.address);
            let known = |seen: &SeenPort| (seen.protocol, seen.address) == (protocol, address);
            if span.ports.len() < PORTS && !span.ports.iter().any(known) {
                span.ports.push(SeenPort { protocol, address, seen: at });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn glance(pid: i32, start: u64) -> Glance {
        let (running, name) = (Duration::ZERO, "sh".to_owned());
        Glance { pid, ppid: 1, name, start, running, stack: 0, resident: 0, io: None }
    }

    /// The news may be read between the list of a sample and the look at what is listed.
    #[test]
    fn a_process_that_ends_during_a_sample_is_one() {
        let command = vec!["sh".to_owned()];
        let mut lane = LaneState::new(Start {
            name: None,
            pid: 10,
            parent: 1,
            command,
            at: ms(0),
            births: Births::Told,
            limits: LaneLimits::default(),
        });
        let look = |began, start| {
            let (pids, seen) = (vec![10, 11], vec![glance(11, start)]);
            Look { began, pids, seen, row: Counted::default() }
        };
        lane.born(ms(20), 11, 10);
        lane.exited(ms(21), 11, None);
        lane.absorb(ms(22), look(ms(20), 2));
        assert_eq!((lane.lane.process_count, lane.alive.len()), (2, 1));
        // One that is listed after that end is another, or lives on in other threads.
        lane.absorb(ms(60), look(ms(50), 6));
        assert_eq!((lane.lane.process_count, lane.alive.len()), (3, 2));
    }
}
