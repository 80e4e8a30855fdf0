//! What a recording has: values, of which each is bounded.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::proc::info::Gap;
use crate::proc::port::Protocol;
use crate::report::Cause;

/// What was recorded of one or more commands: a lane for each, on one axis of time.
///
/// Every time in it is counted from [`began`](Self::began). With the feature `serde` it can be
/// serialized.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Timeline {
    /// When the first command was started, by the clock of the wall.
    pub began: SystemTime,
    /// From there to the end of the last lane; of one that runs, to now.
    pub wall: Duration,
    /// One for each command, in the order of their starts; the first 256.
    pub lanes: Vec<Lane>,
    /// How many commands there were.
    pub lane_count: usize,
}

/// One command: its processes, what it has used over time, and what has happened.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Lane {
    /// The tree's name, if it was given one.
    pub name: Option<String>,
    /// The main process's pid.
    pub main: u32,
    /// The spawn.
    pub began: Duration,
    /// The end of teardown; `None` while it runs.
    pub ended: Option<Duration>,
    /// How the main process has ended, if it has.
    #[cfg_attr(feature = "serde", serde(serialize_with = "status"))]
    pub status: Option<ExitStatus>,
    /// Why, once the tree is torn down.
    pub cause: Option<Cause>,
    /// Its processes by their birth; where there were more than 2,000, those that ran longest,
    /// that failed and that had to be killed.
    pub processes: Vec<Span>,
    /// How many there were.
    pub process_count: usize,
    /// How many were alive when the main process had ended, and had to be killed or stopped.
    pub left_count: usize,
    /// The others, by their name: the 100 that were most often left out.
    pub omitted: Vec<Omitted>,
    /// Whether the kernel told of each birth and each end ([`Births::Told`]).
    pub births: Births,
    /// What it has used; at most 1,024 rows, at ever longer intervals.
    pub samples: Vec<Sample>,
    /// Where the numbers of memory are from.
    pub memory_from: Source,
    /// Where those of `io_read` and `io_written` are from.
    pub io_from: Source,
    /// The limits in force at the start.
    pub limits: LaneLimits,
    /// What has happened; the first 256, of which each may stand for several.
    pub events: Vec<Event>,
    /// How many there were.
    pub event_count: usize,
    /// What is not known or not whole, and why.
    pub gaps: Vec<Gap>,
}

/// One process, from its birth to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Span {
    /// Its process id: a label, which another process of the same lane may have had before.
    pub pid: u32,
    /// The process that started it: also for a daemon, whose parent is another one by now, where
    /// the kernel tells of births.
    pub ppid: u32,
    /// The base name of its program, or the kernel's name of it; empty where it ended before that
    /// could be read.
    pub name: String,
    /// Its last command line, 1 KiB and 64 words at the most; that of its parent before its first
    /// exec. Empty where it could not be read in time.
    #[cfg_attr(feature = "serde", serde(serialize_with = "words"))]
    pub command: Arc<[String]>,
    /// Whether the command line was cut.
    pub cut: bool,
    /// Its fork.
    pub born: Duration,
    /// Its first exec that was seen. A process that was found by a sample shows none.
    pub executed: Option<Duration>,
    /// How many there were.
    pub exec_count: u32,
    /// Its end; `None` while it runs.
    pub ended: Option<Duration>,
    /// How it ended, where the kernel tells, or for the main process.
    #[cfg_attr(feature = "serde", serde(serialize_with = "status"))]
    pub status: Option<ExitStatus>,
    /// Whether it was alive when the main process had ended, and had to be killed or stopped.
    pub left: bool,
    /// Whether it died of a kill of its tree, or of another SIGKILL.
    pub killed: bool,
    /// The ports it was seen to listen on, 16 at the most.
    pub ports: Vec<SeenPort>,
}

/// A port that a process listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SeenPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The local address and port.
    pub address: std::net::SocketAddr,
    /// When it was first seen: it is looked for at 0.1 s, 0.2 s, 0.4 s and so on, each minute at
    /// the least, when the command is ready, and when it has left processes.
    pub seen: Duration,
}

/// Processes of one name that have no [`Span`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Omitted {
    /// Their name.
    pub name: String,
    /// How many.
    pub count: usize,
    /// How long they ran, all together.
    pub running: Duration,
}

/// How births and ends of processes were noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Births {
    /// The kernel told of each, with its time and its exit status.
    Told,
    /// By samples: a process that lived between two of them is missing, and ends are as late as
    /// the next one.
    Sampled,
}

/// Where a curve is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Source {
    /// The tree's cgroup.
    Cgroup,
    /// The sum over the processes that were alive, as `/proc` shows them. Of memory it counts what
    /// several share once for each; of io it lacks what ended unseen.
    Processes,
    /// It is not known.
    Unknown,
}

/// One row of what a lane has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// CPU time so far.
    pub cpu: Option<Duration>,
    /// Bytes of memory; the most since the row before.
    pub memory: Option<u64>,
    /// Processes; the most since the row before.
    pub processes: usize,
    /// Bytes read from block devices so far.
    pub io_read: Option<u64>,
    /// Bytes written to them so far.
    pub io_written: Option<u64>,
}

/// The limits that a lane began with.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LaneLimits {
    /// Bytes of memory.
    pub memory_max: Option<u64>,
    /// Bytes of memory above which it is slowed down.
    pub memory_high: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
    /// CPUs.
    pub cpus: Option<f64>,
    /// CPU time.
    pub cpu_time: Option<Duration>,
    /// Time from the spawn.
    pub timeout: Option<Duration>,
}

/// Something that has happened to a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Event {
    /// When it was noticed first.
    pub at: Duration,
    /// When it was noticed last.
    pub until: Duration,
    /// What.
    pub kind: EventKind,
    /// How often.
    pub count: u64,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum EventKind {
    /// A wait found that it is ready.
    Ready,
    /// Its timeout passed.
    TimedOut,
    /// Its CPU time was used up.
    CpuTimeExceeded,
    /// It was sent this signal, to end it.
    StopSignal(i32),
    /// All that was left of it was killed.
    Killed,
    /// Its main process ended.
    MainEnded,
    /// The kernel killed processes for want of memory.
    OutOfMemory,
    /// It was slowed down above its `memory_high`.
    MemoryHigh,
    /// It had to wait, having used its share of the CPUs for a period.
    Throttled,
    /// Forks were refused at its limit of processes.
    PidsExhausted,
    /// The kernel's news of processes came faster than they were read, and some were lost.
    NewsLost,
}

impl EventKind {
    /// Its name, as JSON has it: `ready`, `timed-out`, `stop-signal`, ...
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::TimedOut => "timed-out",
            Self::CpuTimeExceeded => "cpu-time-exceeded",
            Self::StopSignal(_) => "stop-signal",
            Self::Killed => "killed",
            Self::MainEnded => "main-ended",
            Self::OutOfMemory => "out-of-memory",
            Self::MemoryHigh => "memory-high",
            Self::Throttled => "throttled",
            Self::PidsExhausted => "pids-exhausted",
            Self::NewsLost => "news-lost",
        }
    }
}

#[cfg(feature = "serde")]
fn status<S: serde::Serializer>(
    status: &Option<ExitStatus>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match status {
        Some(status) => crate::report::status(status, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(feature = "serde")]
fn words<S: serde::Serializer>(words: &Arc<[String]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(words.iter())
}
