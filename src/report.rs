//! What became of a tree: facts, not logs.

use std::process::ExitStatus;
use std::time::Duration;

use crate::containment::{Mechanism, Placement};
use crate::proc::info::ProcessInfo;

/// How a tree ended, and what had to be done about it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The main process's exit status, as std has it. For a [`Tree`](crate::Tree) without a main
    /// process: the default (success), since there is nothing to say.
    pub status: ExitStatus,
    /// Why the main process ended.
    pub cause: Cause,
    /// What the whole tree has used.
    pub usage: Usage,
    /// What else is worth knowing: it did not end the main process.
    pub notes: Vec<Note>,
    /// From the spawn to the end of teardown.
    pub wall: Duration,
    /// Who was alive when the main process had ended and had to be killed. Empty when the tree was
    /// stopped while its main process ran: its helpers are no leftovers then.
    pub leftovers: Vec<ProcessInfo>,
    /// How the main process came into its cgroup.
    pub placement: Placement,
    /// What held the tree together.
    pub mechanism: Mechanism,
}

/// Why a tree ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The main process exited by itself.
    Exited,
    /// The main process died of this signal, which did not come from a timeout or a stop of ours.
    Signaled(i32),
    /// The command's timeout passed.
    TimedOut,
    /// The tree's CPU time reached its limit.
    CpuTimeExceeded,
    /// The kernel killed the main process because the tree's memory was used up.
    OutOfMemory,
    /// It was stopped: `finish`, `kill`, `stop` or Drop while the main process was running.
    Stopped,
    /// The main process was alive outside its cgroup when the tree was torn down; it was killed
    /// through its pidfd.
    Escaped,
}

/// What a tree has used, daemons and everything included. `None` where the kernel does not say;
/// [`missing`](Self::missing) has the reason then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// CPU time in user mode. Needs no controller.
    pub user: Option<Duration>,
    /// CPU time in the kernel. Needs no controller.
    pub system: Option<Duration>,
    /// The most memory at one time, in bytes; page cache included.
    pub memory_peak: Option<u64>,
    /// The most processes and threads at one time.
    pub pids_peak: Option<u64>,
    /// Bytes read from block devices.
    pub io_read: Option<u64>,
    /// Bytes written to block devices. What is still in the page cache is not among them.
    pub io_written: Option<u64>,
    /// Time in which somebody in the tree had to wait for a CPU. This and all above but the CPU
    /// time is read if there is a limit, or [`account`](crate::SupervisorBuilder::account) asks for
    /// it.
    pub cpu_pressure: Option<Duration>,
    /// Time in which somebody in the tree had to wait for memory.
    pub memory_pressure: Option<Duration>,
    /// Time in which somebody in the tree had to wait for a device.
    pub io_pressure: Option<Duration>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Forks that were refused at the limit of processes.
    pub pids_denied: Option<u64>,
    /// What is `None`, and why.
    pub missing: Vec<Missing>,
    /// Kills of the tree's own cgroup as one, not of one below it.
    pub(crate) group_kills: Option<u64>,
}

/// Something that could not be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// The field of [`Usage`].
    pub field: &'static str,
    /// The file that would say.
    pub file: &'static str,
    /// Why it does not.
    pub reason: &'static str,
}

/// Something that happened to the tree without ending its main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// So many forks were refused at the tree's limit of processes.
    PidsExhausted(u64),
    /// So many processes were killed for want of memory, not the main process.
    OutOfMemory(u64),
}

impl Note {
    /// What happened to a tree besides the cause of its end.
    pub(crate) fn of(usage: &Usage, cause: Cause) -> Vec<Self> {
        let some = |count: Option<u64>| count.filter(|&count| count > 0);
        let denied = some(usage.pids_denied).map(Self::PidsExhausted);
        let kills = some(usage.oom_kills).filter(|_| cause != Cause::OutOfMemory);
        denied.into_iter().chain(kills.map(Self::OutOfMemory)).collect()
    }
}
