//! What a lane takes when its tree is ended, and all of it at any time.

use std::process::ExitStatus;
use std::time::Duration;

use crate::proc::info::{Gap, ProcessInfo, Survey};
use crate::record::lane::{LaneState, Live};
use crate::record::timeline::{EventKind, Lane, Sample};
use crate::report::{Cause, Usage};

impl LaneState {
    /// Marks what was left when the main process had ended, as it is described.
    pub(crate) fn mark_left(&mut self, at: Duration, left: &Survey) {
        for process in &left.named {
            let pid = process.pid.cast_signed();
            if !self.alive.contains_key(&pid) && pid > 0 {
                let born = at.saturating_sub(process.running).max(self.lane.began);
                self.born(born, pid, process.ppid.cast_signed());
            }
            self.describe(pid, process);
            self.listens(at, pid, &process.ports);
        }
        self.lane.left_count = left.count;
        let all = left.count > left.named.len();
        self.alive.values_mut().filter(|_| all).for_each(|live| live.span.left = true);
    }

    fn describe(&mut self, pid: i32, process: &ProcessInfo) {
        if let Some(Live { span, .. }) = self.alive.get_mut(&pid) {
            span.left = true;
            if !process.name.is_empty() {
                span.name.clone_from(&process.name);
            }
            if !process.command.is_empty() && span.command.is_empty() {
                span.command = process.command.clone().into();
            }
        }
    }

    pub(crate) fn note(&mut self, at: Duration, kind: EventKind) {
        if kind == EventKind::Killed {
            if !self.has_living() || self.killed.is_some() {
                return;
            }
            self.killed = Some(at);
        }
        self.events.note(at, kind, 1, Duration::ZERO);
    }

    /// Notes how the main process has ended, which a sample does not tell.
    pub(crate) fn main_ended(&mut self, at: Duration, status: ExitStatus) {
        self.lane.status = Some(status);
        self.exited(at, self.main(), Some(status));
        self.past.of_main().into_iter().for_each(|span| span.status = Some(status));
    }

    /// Adds a last row, with the CPU time that its report has.
    pub(crate) fn used(&mut self, at: Duration, usage: &Usage) {
        let Some(last) = self.samples.rows().last().copied() else { return };
        let cpu = usage.user.zip(usage.system).map(|(user, system)| user + system);
        let row = Sample { at, cpu: cpu.or(last.cpu), processes: 0, memory: None, ..last };
        self.samples.push(row);
    }

    /// Ends the lane: nothing of it is alive any more.
    pub(crate) fn close(&mut self, at: Duration, cause: Option<Cause>) {
        // What was left to live on has not ended.
        if cause.is_some() {
            self.pids().into_iter().for_each(|pid| self.exited(at, pid, None));
        }
        (self.lane.ended, self.lane.cause) = (Some(at), cause);
        self.past.prune();
    }

    pub(crate) fn lacks(&mut self, field: &'static str, reason: String) {
        if self.lane.gaps.iter().all(|gap| gap.field != field) {
            self.lane.gaps.push(Gap { field, reason });
        }
    }

    /// All of it, as of now.
    pub(crate) fn snapshot(&self) -> Lane {
        let mut lane = self.lane.clone();
        let alive = self.alive.values().map(|live| live.span.clone());
        (lane.processes, lane.omitted) = self.past.with(alive);
        lane.samples = self.samples.rows().to_vec();
        lane.events = self.events.all().to_vec();
        lane.events.sort_unstable_by_key(|event| event.at);
        lane.event_count = self.events.count();
        lane
    }
}
