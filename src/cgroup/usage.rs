//! Reads what a tree has used: once, when it is empty and before its directory is removed.

use std::time::Duration;

use crate::cgroup::{Cgroup, SHORT_FILE};
use crate::report::{Metric, Missing, Usage};

/// Read only on request: reading ten files would slow a short run.
const UNASKED: [(Metric, &str); 9] = [
    (Metric::OomKills, "memory.events"),
    (Metric::PidsDenied, "pids.events"),
    (Metric::IoRead, "io.stat"),
    (Metric::IoWritten, "io.stat"),
    (Metric::MemoryPeak, "memory.peak"),
    (Metric::PidsPeak, "pids.peak"),
    (Metric::CpuPressure, "cpu.pressure"),
    (Metric::MemoryPressure, "memory.pressure"),
    (Metric::IoPressure, "io.pressure"),
];

/// Which counters are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counters {
    /// None: no report will show them. `cpu.stat` is the dearest file of a short run.
    Unread,
    CpuTime,
    All,
}

impl Usage {
    /// Reads these counters.
    pub(crate) fn of(cgroup: &Cgroup, counters: Counters) -> Self {
        let mut usage = match counters {
            Counters::Unread => return Self::none("not read: no report was asked for"),
            Counters::CpuTime => Self::unasked(),
            Counters::All => Self::counted(cgroup),
        };
        match cgroup.read_short("cpu.stat", &mut [0; SHORT_FILE]) {
            Ok(text) => {
                usage.user = value(text, "user_usec").map(Duration::from_micros);
                usage.system = value(text, "system_usec").map(Duration::from_micros);
            }
            Err(_) => {
                let both = [Metric::User, Metric::System];
                usage.missing.extend(both.map(|field| absent(field, "cpu.stat")));
            }
        }
        usage
    }

    fn unasked() -> Self {
        let reason = "not asked for: a limit does, or SupervisorBuilder::account";
        let missing = UNASKED.map(|(field, file)| Missing { field, file, reason });
        Self { missing: missing.to_vec(), ..Self::default() }
    }

    fn counted(cgroup: &Cgroup) -> Self {
        let mut reader = Reader { cgroup, missing: Vec::new() };
        let memory = reader.read("memory.events", Metric::OomKills);
        let pids = reader.read("pids.events", Metric::PidsDenied);
        let io = reader.read("io.stat", Metric::IoRead);
        if io.is_none() {
            reader.missing.push(absent(Metric::IoWritten, "io.stat"));
        }
        let bytes = |key: &str| io.as_ref().map(|text| sum(text, key));
        Self {
            memory_peak: reader.number("memory.peak", Metric::MemoryPeak),
            pids_peak: reader.number("pids.peak", Metric::PidsPeak),
            io_read: bytes("rbytes="),
            io_written: bytes("wbytes="),
            cpu_pressure: reader.pressure("cpu.pressure", Metric::CpuPressure),
            memory_pressure: reader.pressure("memory.pressure", Metric::MemoryPressure),
            io_pressure: reader.pressure("io.pressure", Metric::IoPressure),
            oom_kills: memory.as_deref().and_then(|text| value(text, "oom_kill")),
            pids_denied: pids.as_deref().and_then(|text| value(text, "max")),
            group_kills: memory.is_some().then(|| reader.group_kills()).flatten(),
            missing: reader.missing,
            ..Self::default()
        }
    }
}

impl Usage {
    /// The usage of a tree without a cgroup: nothing is known, since only a cgroup sums up what
    /// ended processes used.
    pub(crate) fn uncounted() -> Self {
        Self::none("there is no cgroup: a keeper holds the tree")
    }

    fn none(reason: &'static str) -> Self {
        let counted =
            [(Metric::User, "cpu.stat"), (Metric::System, "cpu.stat")].into_iter().chain(UNASKED);
        let missing = counted.map(|(field, file)| Missing { field, file, reason });
        Self { missing: missing.collect(), ..Self::default() }
    }

    /// Whether the OOM killer sent the SIGKILL that ended the main process. The kernel counts kills
    /// of a whole tree; without such a count any OOM kill in the tree is taken for it.
    pub(crate) fn main_was_oom_killed(&self) -> bool {
        self.oom_kills.is_some_and(|kills| kills > 0) && self.group_kills != Some(0)
    }
}

/// Reads the CPU time so far.
pub(crate) fn cpu_time(cgroup: &Cgroup) -> Option<Duration> {
    let mut buffer = [0; SHORT_FILE];
    let text = cgroup.read_short("cpu.stat", &mut buffer).ok()?;
    value(text, "usage_usec").map(Duration::from_micros)
}

/// Reads the CPU time so far, with the time in which a process had to wait for a CPU: the sum grows
/// while one could run, on a busy machine too. CPU time is counted up to the last tick.
pub(crate) fn cpu_demand(cgroup: &Cgroup) -> Option<Duration> {
    let waited = cgroup.read("cpu.pressure").ok().and_then(|text| stalled(&text));
    cpu_time(cgroup).map(|used| used + waited.unwrap_or_default())
}

fn absent(field: Metric, file: &'static str) -> Missing {
    let reason = match file {
        "memory.peak" => "the memory controller is not enabled, or Linux is before 5.19",
        "pids.peak" => "the pids controller is not enabled, or Linux is before 6.1",
        "cpu.stat" => "the kernel does not account CPU time for cgroups",
        name if name.ends_with("pressure") => "this kernel does not measure pressure (psi)",
        _ => "the controller is not enabled for this tree",
    };
    Missing { field, file, reason }
}

struct Reader<'a> {
    cgroup: &'a Cgroup,
    missing: Vec<Missing>,
}

impl Reader<'_> {
    fn read(&mut self, file: &'static str, field: Metric) -> Option<String> {
        let text = self.cgroup.read(file);
        if text.is_err() {
            self.missing.push(absent(field, file));
        }
        text.ok()
    }

    /// Kills of the whole group, counted since Linux 5.17.
    fn group_kills(&self) -> Option<u64> {
        value(&self.cgroup.read("memory.events.local").ok()?, "oom_group_kill")
    }

    fn number(&mut self, file: &'static str, field: Metric) -> Option<u64> {
        self.read(file, field)?.trim().parse().ok()
    }

    fn pressure(&mut self, file: &'static str, field: Metric) -> Option<Duration> {
        stalled(&self.read(file, field)?)
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`
pub(crate) fn stalled(pressure: &str) -> Option<Duration> {
    let line = pressure.lines().find(|line| line.starts_with("some "))?;
    let (_, total) = line.rsplit_once("total=")?;
    total.trim().parse().ok().map(Duration::from_micros)
}

/// The number behind a key at the start of a line.
pub(crate) fn value(text: &str, key: &str) -> Option<u64> {
    let numbers = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(numbers)
}

/// The sum over all devices of `key=number`.
pub(crate) fn sum(text: &str, key: &str) -> u64 {
    let numbers =
        text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    numbers.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_files_are_read_by_their_keys() {
        let text = "low 0\noom 1\noom_kill 2\noom_group_kill 3\n";
        assert_eq!(value(text, "oom_kill"), Some(2));
        assert_eq!(value(text, "oom_group_kill"), Some(3));
        assert_eq!(value(text, "nothing"), None);
        assert_eq!(value("", "oom"), None);
    }

    #[test]
    fn devices_are_added_up() {
        let text = "8:0 rbytes=10 wbytes=1 rios=1\n8:16 rbytes=5 wbytes=2 rios=1\n";
        assert_eq!((sum(text, "rbytes="), sum(text, "wbytes=")), (15, 3));
        assert_eq!(sum("", "rbytes="), 0);
        assert_eq!(sum("a=18446744073709551615 a=1", "a="), u64::MAX);
    }
}
