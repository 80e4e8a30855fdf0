//! Where a lane's facts are read from: the cgroup's files, and `/proc`. Nothing here blocks, and
//! nothing keeps the tree.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::cgroup::usage::{sum, value};
use crate::cgroup::view::View;
use crate::keeper::handle::Kept;
use crate::proc::glance::{self, Glance};
use crate::record::lane::Counted;
use crate::record::timeline::{EventKind, LaneLimits, Source};

/// Processes that are looked at in one sample; of a larger tree the new ones, and no sums.
const LOOKED_AT: usize = 512;

/// What holds a tree.
#[derive(Debug)]
pub(crate) enum Holder {
    Cgroup(View),
    Keeper(Weak<Kept>),
}

/// A tree as a recording has it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) holder: Holder,
    /// The init of a sandbox, which is not of what was started.
    pub(crate) init: Option<i32>,
    pub(crate) memory_from: Source,
    pub(crate) io_from: Source,
    /// The most memory that its cgroup has had; none where that does not say.
    peak: Option<AtomicU64>,
    /// Whether it counts processes and threads.
    counts_pids: bool,
    /// Each process is looked at for what neither the cgroup nor the kernel tells.
    looks_at_all: bool,
}

impl Origin {
    pub(crate) fn new(holder: Holder, init: Option<i32>, told: bool) -> Arc<Self> {
        let has = |file| match &holder {
            Holder::Cgroup(view) if view.read(file).is_ok() => Source::Cgroup,
            _ => Source::Processes,
        };
        let (memory_from, io_from) = (has("memory.current"), has("io.stat"));
        let counts_pids = has("pids.events") == Source::Cgroup;
        let peak = (has("memory.peak") == Source::Cgroup).then(AtomicU64::default);
        let sums = [memory_from, io_from].contains(&Source::Processes);
        Arc::new(Self {
            holder,
            init,
            memory_from,
            io_from,
            peak,
            counts_pids,
            looks_at_all: sums || !told,
        })
    }

    /// Its processes, in order.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let mut pids = match &self.holder {
            Holder::Cgroup(view) => view.pids().unwrap_or_default(),
            Holder::Keeper(kept) => kept.upgrade().map(|kept| kept.pids()).unwrap_or_default(),
        };
        pids.retain(|pid| Some(*pid) != self.init);
        pids
    }

    /// Looks at the strangers among the processes; at all of them where that tells more.
    pub(crate) fn look_at(&self, pids: &[i32], strangers: &[i32], most: usize) -> Vec<Glance> {
        let all = self.looks_at_all && pids.len() <= most.min(LOOKED_AT);
        let wanted = if all { pids } else { strangers };
        let wanted = wanted.iter().take(most);
        wanted
            .filter_map(|&pid| {
                let mut seen = glance::glance(pid)?;
                if all && self.io_from == Source::Processes {
                    seen.io = glance::io(pid);
                }
                Some(seen)
            })
            .collect()
    }

    /// Reads the counters; `seen` stands in for those that the cgroup has not.
    pub(crate) fn count(&self, pids: &[i32], seen: &[Glance]) -> Counted {
        let whole = pids.len() <= LOOKED_AT;
        let mut row = match &self.holder {
            Holder::Cgroup(view) => self.counters(view),
            Holder::Keeper(_) => Counted::default(),
        };
        if self.memory_from == Source::Processes && whole {
            row.memory = Some(seen.iter().map(|one| one.resident).sum());
        }
        if self.io_from == Source::Processes && whole {
            let add = |(a, b): (u64, u64), (c, d)| (a.saturating_add(c), b.saturating_add(d));
            row.io = seen.iter().filter_map(|one| one.io).reduce(add);
        }
        row
    }

    /// Reads no file that is not there: what is missing at the start stays so.
    fn counters(&self, view: &View) -> Counted {
        let read = |there: bool, file| there.then(|| view.read(file).ok()).flatten();
        let has_memory = self.memory_from == Source::Cgroup;
        let cpu = read(true, "cpu.stat").unwrap_or_default();
        let memory = read(has_memory, "memory.events").unwrap_or_default();
        let pids = read(self.counts_pids, "pids.events").unwrap_or_default();
        let bytes = |text: String| (sum(&text, "rbytes="), sum(&text, "wbytes="));
        let number = |text: Option<String>| text.and_then(|it| it.trim().parse().ok());
        let event = |kind, text: &str, key| (Some(kind), value(text, key).unwrap_or(0));
        Counted {
            cpu: value(&cpu, "usage_usec").map(Duration::from_micros),
            memory: number(read(has_memory, "memory.current")).map(|now| self.most(view, now)),
            io: read(self.io_from == Source::Cgroup, "io.stat").map(bytes),
            events: [
                event(EventKind::OutOfMemory, &memory, "oom_kill"),
                event(EventKind::MemoryHigh, &memory, "high"),
                event(EventKind::Throttled, &cpu, "nr_throttled"),
                event(EventKind::PidsExhausted, &pids, "max"),
            ],
        }
    }

    /// The most memory since the row before, where that is more than ever; else what it has now.
    fn most(&self, view: &View, now: u64) -> u64 {
        let Some(known) = &self.peak else { return now };
        let peak = view.read("memory.peak").ok().and_then(|it| it.trim().parse().ok());
        let peak = peak.unwrap_or(now);
        if known.fetch_max(peak, Ordering::Relaxed) < peak { peak.max(now) } else { now }
    }

    /// The limits of its own cgroup.
    pub(crate) fn limits(&self) -> LaneLimits {
        let Holder::Cgroup(view) = &self.holder else { return LaneLimits::default() };
        let number = |file| view.read(file).ok()?.trim().parse().ok();
        let share = || {
            let text = view.read("cpu.max").ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
        };
        LaneLimits {
            memory_max: number("memory.max"),
            memory_high: number("memory.high"),
            pids_max: number("pids.max"),
            cpus: share(),
            ..LaneLimits::default()
        }
    }
}
