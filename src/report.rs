//! Reports: how a tree ended, what it used, and what had to be killed.

use std::fmt;
#[cfg(any(test, feature = "serde"))]
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

#[cfg(feature = "sandbox")]
use crate::changes::Changes;
use crate::confinement::Confined;
use crate::containment::{Mechanism, Placement};
#[cfg(feature = "sandbox")]
use crate::denied::Denied;
use crate::proc::info::ProcessInfo;
use crate::proc::quote::enumerated;

/// How a command's tree ended, and what had to be done about it.
///
/// With the feature `serde` it can be serialized: times as seconds and nanoseconds, the status as
/// `{"code": 3}` or `{"signal": 9}`, what a process chose and is no UTF-8 with replacements.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// The main process's exit status, as std has it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "status"))]
    pub status: ExitStatus,
    /// Why the main process ended.
    pub cause: Cause,
    /// What the whole tree has used.
    pub usage: Usage,
    /// Events that did not end the main process.
    pub notes: Vec<Note>,
    /// From the spawn to the end of teardown.
    pub wall: Duration,
    /// The processes that were alive when the main process had ended, did not end by themselves (in
    /// the grace, if the tree was being stopped; see [`settle`](crate::Command::settle)), and had
    /// to be killed, or [asked to end](crate::Command::stop_leftovers). Empty when the tree was
    /// stopped while its main process ran: its helpers are no leftovers then.
    pub leftovers: Vec<ProcessInfo>,
    /// How many there were; [`leftovers`](Self::leftovers) has the first 100.
    pub leftover_count: usize,
    /// The processes that were alive when the timeout passed or the CPU time was used up, the main
    /// process among them; empty if neither happened.
    pub interrupted: Vec<ProcessInfo>,
    /// How many there were; [`interrupted`](Self::interrupted) has the first 100.
    pub interrupted_count: usize,
    /// How the main process came into its cgroup.
    pub placement: Placement,
    /// What held the tree together.
    pub mechanism: Mechanism,
    /// How it was confined beyond that, if it was.
    pub sandbox: Option<Confined>,
    /// What it has written in its overlays, one each in order of their directories (feature
    /// `sandbox`). What it takes to keep them is in [`Changes`].
    #[cfg(feature = "sandbox")]
    pub changes: Vec<Changes>,
    /// What it was denied, where [`Sandbox::explain`](crate::Sandbox::explain) asks for it: one
    /// for each thing that is missing, in the order in which they were tried (feature `sandbox`).
    #[cfg(feature = "sandbox")]
    pub denied: Vec<Denied>,
    /// How many there were; [`denied`](Self::denied) has the first 100.
    #[cfg(feature = "sandbox")]
    pub denied_count: usize,
}

/// How a [`Tree`](crate::Tree) without a command of its own ended: it has no main process, so no
/// status.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TreeReport {
    /// What the whole tree has used.
    pub usage: Usage,
    /// Events in the tree, such as refused forks.
    pub notes: Vec<Note>,
    /// From its making to the end of teardown.
    pub wall: Duration,
    /// The processes that were alive and had to be killed.
    pub leftovers: Vec<ProcessInfo>,
    /// How many there were; [`leftovers`](Self::leftovers) has the first 100.
    pub leftover_count: usize,
    /// What held the tree together.
    pub mechanism: Mechanism,
}

/// Why a tree ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
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
    /// The main process ended by itself, and other code of this process took its exit status
    /// (`waitpid(-1)`, SIGCHLD ignored): [`Report::status`] is a made-up 255, and no success.
    StatusTaken,
}

/// What a tree has used, daemons and everything included. `None` where the kernel does not say;
/// [`missing`](Self::missing) has the reason then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
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
    /// Time in which a process of the tree had to wait for a CPU. Everything but the CPU time is
    /// read only if there is a limit, or [`account`](crate::SupervisorBuilder::account) asks for
    /// it.
    pub cpu_pressure: Option<Duration>,
    /// Time in which a process of the tree had to wait for memory.
    pub memory_pressure: Option<Duration>,
    /// Time in which a process of the tree had to wait for a device.
    pub io_pressure: Option<Duration>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Forks that were refused at the limit of processes.
    pub pids_denied: Option<u64>,
    /// The fields that are `None`, and why.
    pub missing: Vec<Missing>,
    /// Kills of the tree's own cgroup as one, not of one below it.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) group_kills: Option<u64>,
}

/// Something that could not be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Missing {
    /// The field of [`Usage`].
    pub field: Metric,
    /// The file that would say.
    pub file: &'static str,
    /// Why it does not.
    pub reason: &'static str,
}

/// A field of [`Usage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Metric {
    /// [`Usage::user`]
    User,
    /// [`Usage::system`]
    System,
    /// [`Usage::memory_peak`]
    MemoryPeak,
    /// [`Usage::pids_peak`]
    PidsPeak,
    /// [`Usage::io_read`]
    IoRead,
    /// [`Usage::io_written`]
    IoWritten,
    /// [`Usage::cpu_pressure`]
    CpuPressure,
    /// [`Usage::memory_pressure`]
    MemoryPressure,
    /// [`Usage::io_pressure`]
    IoPressure,
    /// [`Usage::oom_kills`]
    OomKills,
    /// [`Usage::pids_denied`]
    PidsDenied,
}

/// The field's name: `memory_peak`.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::System => "system",
            Self::MemoryPeak => "memory_peak",
            Self::PidsPeak => "pids_peak",
            Self::IoRead => "io_read",
            Self::IoWritten => "io_written",
            Self::CpuPressure => "cpu_pressure",
            Self::MemoryPressure => "memory_pressure",
            Self::IoPressure => "io_pressure",
            Self::OomKills => "oom_kills",
            Self::PidsDenied => "pids_denied",
        })
    }
}

/// Something that happened to the tree without ending its main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Note {
    /// This many forks were refused at the tree's limit of processes.
    PidsExhausted(u64),
    /// This many processes were killed for want of memory, not the main process.
    OutOfMemory(u64),
}

impl Report {
    /// Whether the main process exited by itself, with status 0. A command that was stopped or
    /// timed out was no success, whatever its status.
    #[must_use]
    pub fn success(&self) -> bool {
        self.cause == Cause::Exited && self.status.success()
    }
}

/// Characters that the names of leftovers take at the most; the others are counted.
const NAMED_CHARS: usize = 160;

/// One line: `exit status: 0 after 0.82 s, killed 2 leftovers: 4711 sleep 30, 4712 sleep 60`
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Exited | Cause::Signaled(_) => write!(f, "{}", self.status)?,
            cause => write!(f, "{cause} ({})", self.status)?,
        }
        write!(f, " after {:.2} s", self.wall.as_secs_f64())?;
        leftovers(f, &self.leftovers, self.leftover_count)
    }
}

/// One line: `ended after 0.82 s, killed 1 leftover: 4711 sleep 30`
impl fmt::Display for TreeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended after {:.2} s", self.wall.as_secs_f64())?;
        leftovers(f, &self.leftovers, self.leftover_count)
    }
}

fn leftovers(f: &mut fmt::Formatter<'_>, left: &[ProcessInfo], count: usize) -> fmt::Result {
    if count == 0 {
        return Ok(());
    }
    let names: Vec<String> = left.iter().map(ToString::to_string).collect();
    let noun = if count == 1 { "leftover" } else { "leftovers" };
    write!(f, ", killed {count} {noun}: {}", enumerated(&names, count, NAMED_CHARS))
}

/// `exited`, `ended by signal 9`, `timed out`, `used up its CPU time`, ...
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exited => "exited",
            Self::Signaled(signal) => return write!(f, "ended by signal {signal}"),
            Self::TimedOut => "timed out",
            Self::CpuTimeExceeded => "used up its CPU time",
            Self::OutOfMemory => "ran out of memory",
            Self::Stopped => "stopped",
            Self::Escaped => "killed outside its cgroup",
            Self::StatusTaken => "ended, and its exit status was taken by other code",
        })
    }
}

impl Note {
    /// The notes for a usage, without what is the cause already.
    pub(crate) fn of(usage: &Usage, cause: Option<Cause>) -> Vec<Self> {
        let some = |count: Option<u64>| count.filter(|&count| count > 0);
        let denied = some(usage.pids_denied).map(Self::PidsExhausted);
        let kills = some(usage.oom_kills).filter(|_| cause != Some(Cause::OutOfMemory));
        denied.into_iter().chain(kills.map(Self::OutOfMemory)).collect()
    }
}

#[cfg(feature = "serde")]
pub(crate) fn status<S: serde::Serializer>(
    status: &ExitStatus,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "kebab-case")]
    enum Status {
        Code(i32),
        Signal(i32),
    }
    let signal = || status.signal().map(Status::Signal);
    let status = status.code().map(Status::Code).or_else(signal);
    serde::Serialize::serialize(&status, serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cause: Cause, raw: i32) -> Report {
        Report {
            status: ExitStatus::from_raw(raw),
            cause,
            usage: Usage::default(),
            notes: Vec::new(),
            wall: Duration::from_millis(820),
            leftovers: Vec::new(),
            leftover_count: 0,
            interrupted: Vec::new(),
            interrupted_count: 0,
            placement: Placement::Born,
            mechanism: Mechanism::Cgroup,
            sandbox: None,
            #[cfg(feature = "sandbox")]
            changes: Vec::new(),
            #[cfg(feature = "sandbox")]
            denied: Vec::new(),
            #[cfg(feature = "sandbox")]
            denied_count: 0,
        }
    }

    #[test]
    fn success_is_an_exit_by_itself_with_status_0() {
        assert!(report(Cause::Exited, 0).success());
        assert!(!report(Cause::Exited, 0x100).success());
        assert!(!report(Cause::TimedOut, 0).success());
    }

    #[test]
    fn a_report_is_one_line() {
        let text = |cause, raw| report(cause, raw).to_string();
        assert_eq!(text(Cause::Exited, 0x300), "exit status: 3 after 0.82 s");
        assert_eq!(text(Cause::Signaled(9), 9), "signal: 9 (SIGKILL) after 0.82 s");
        assert_eq!(text(Cause::TimedOut, 0), "timed out (exit status: 0) after 0.82 s");
    }
}
