//! Limits of a tree: their values, and the control files that take them.

use std::path::PathBuf;
use std::time::Duration;

/// Limits of what a tree, or everything in a supervisor, may use.
///
/// Each limit is written to the kernel and read back before the first instruction of the command.
/// One that this machine cannot enforce is an error that names the controller, the file, the value
/// and the remedy; it is never ignored. Kernel reference: [cgroup-v2].
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tidy_process::{Command, Limits};
///
/// # // A keeper's tree has no limits.
/// # if matches!(tidy_process::Tree::new(), Err(error) if error.is_unsupported()) { return Ok(()) }
/// // CPU time needs no controller: this works in every cgroup.
/// let limits = Limits::new().cpu_time(Duration::from_millis(50));
/// let report = Command::new("sh").args(["-c", "while :; do :; done"]).limits(limits).run()?;
/// assert_eq!(report.cause, tidy_process::Cause::CpuTimeExceeded);
/// # Ok::<(), tidy_process::Error>(())
/// ```
///
/// [cgroup-v2]: https://docs.kernel.org/admin-guide/cgroup-v2.html
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    memory_max: Option<u64>,
    memory_high: Option<u64>,
    swap_max: Option<u64>,
    pids_max: Option<u64>,
    cpus: Option<f64>,
    cpu_weight: Option<u64>,
    cpuset: Option<String>,
    io: Vec<(PathBuf, IoLimit)>,
    pub(crate) cpu_time: Option<Duration>,
}

/// What a tree may read from and write to one block device, per second.
///
/// # Examples
/// ```
/// use tidy_process::{IoLimit, Limits};
///
/// let limits = Limits::new().io("/dev/vda", IoLimit::new().read_bytes(1 << 20).write_ops(100));
/// # drop(limits);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoLimit {
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Read operations.
    pub read_ops: Option<u64>,
    /// Write operations.
    pub write_ops: Option<u64>,
}

/// One value for one control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) controller: &'static str,
    pub(crate) file: &'static str,
    pub(crate) value: String,
}

/// A controller of cgroup v2.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "cli"),
    expect(dead_code, unreachable_pub, reason = "the command line reads the rest")
)]
pub struct Controller {
    /// Its name in cgroup v2.
    pub name: &'static str,
    /// Its name in cgroup v1.
    pub(crate) v1_name: &'static str,
    /// Whether its counters are useful without a limit.
    pub(crate) counts: bool,
    /// The options of the command line that need it.
    pub used_for: &'static str,
    /// Adds limits that no command notices, to test whether the kernel takes them.
    pub harmless: fn(Limits, &Example) -> Limits,
}

/// Values of this machine, to test limits with.
#[derive(Debug)]
#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "the command line reads it"))]
pub struct Example {
    /// A CPU that may be used: `0`.
    pub cpu: String,
    /// A block device by its number: `8:0`.
    pub device: String,
}

/// Every controller that a limit needs, in the order of messages. Its settings are in
/// `Limits::settings`.
#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "the command line reads it"))]
pub const CONTROLLERS: [Controller; 5] = [
    Controller {
        name: "memory",
        v1_name: "memory",
        counts: true,
        used_for: "--memory, --memory-high, --swap, peak memory in reports",
        harmless: |limits, _| limits.memory_max(1 << 30),
    },
    Controller {
        name: "pids",
        v1_name: "pids",
        counts: true,
        used_for: "--pids, peak number of processes in reports",
        harmless: |limits, _| limits.pids_max(1000),
    },
    Controller {
        name: "cpu",
        v1_name: "cpu",
        counts: false,
        used_for: "--cpus, --cpu-weight",
        harmless: |limits, _| limits.cpus(1.0).cpu_weight(100),
    },
    Controller {
        name: "io",
        v1_name: "blkio",
        counts: true,
        used_for: "--io, bytes read and written in reports",
        harmless: |limits, example| limits.io(&example.device, IoLimit::new().read_bytes(1 << 30)),
    },
    Controller {
        name: "cpuset",
        v1_name: "cpuset",
        counts: false,
        used_for: "--cpuset",
        harmless: |limits, example| limits.cpuset(&*example.cpu),
    },
];

/// One period of the CPU bandwidth controller, in microseconds; the kernel's own default.
const PERIOD: f64 = 100_000.0;

impl Limits {
    /// No limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of memory, a multiple of the page size. At the limit the kernel reclaims, then kills
    /// the *whole tree* (`memory.oom.group`). Swap is 0 unless [`swap_max`](Self::swap_max) says
    /// otherwise.
    #[must_use]
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.memory_max = Some(bytes);
        self
    }

    /// Bytes of memory above which the tree is slowed down, not killed.
    #[must_use]
    pub fn memory_high(mut self, bytes: u64) -> Self {
        self.memory_high = Some(bytes);
        self
    }

    /// Bytes of swap.
    #[must_use]
    pub fn swap_max(mut self, bytes: u64) -> Self {
        self.swap_max = Some(bytes);
        self
    }

    /// Number of processes and threads. At the limit fork fails with `EAGAIN`.
    #[must_use]
    pub fn pids_max(mut self, number: u64) -> Self {
        self.pids_max = Some(number);
        self
    }

    /// CPUs' worth of time in each 100 ms: 0.5 is half of one CPU, 2.0 is two. At least 0.01.
    #[must_use]
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// Share of the CPU against siblings under load, 1 to 10,000; others have 100.
    #[must_use]
    pub fn cpu_weight(mut self, weight: u64) -> Self {
        self.cpu_weight = Some(weight);
        self
    }

    /// CPUs that may be used, as a list: `0-3,8`.
    #[must_use]
    pub fn cpuset(mut self, list: impl Into<String>) -> Self {
        self.cpuset = Some(list.into());
        self
    }

    /// Rates for a block device, by its path (`/dev/vda`) or number (`8:0`).
    #[must_use]
    pub fn io(mut self, device: impl Into<PathBuf>, limit: IoLimit) -> Self {
        self.io.push((device.into(), limit));
        self
    }

    /// CPU time of the whole tree. The kernel has no such limit: every wait on the child enforces
    /// it, as it does a timeout, and it overshoots by some milliseconds. For a
    /// [`Command`](crate::Command) alone: nothing would enforce it for a supervisor, a tree without
    /// a command, or a tree that runs already, so there it is an error.
    #[must_use]
    pub fn cpu_time(mut self, time: Duration) -> Self {
        self.cpu_time = Some(time);
        self
    }

    /// Whether nothing is limited.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::new()
    }

    /// Whether memory is limited.
    pub(crate) fn has_memory(&self) -> bool {
        self.memory_max.is_some() || self.memory_high.is_some()
    }

    /// The settings, in the order in which they have to be written. An `Err` has the value that
    /// cannot be written.
    pub(crate) fn settings(&self) -> Result<Vec<Setting>, (Setting, &'static str)> {
        let mut all = Vec::new();
        self.memory(&mut all);
        set(&mut all, "pids", "pids.max", self.pids_max.map(number));
        self.cpu(&mut all)?;
        set(&mut all, "cpuset", "cpuset.cpus", self.cpuset.as_ref());
        for (device, limit) in &self.io {
            set(&mut all, "io", "io.max", Some(limit.line(device)?));
        }
        Ok(all)
    }

    /// Requested values come first, so that an error names one of them.
    fn memory(&self, all: &mut Vec<Setting>) {
        let limited = self.has_memory();
        let swap = self.swap_max.or(limited.then_some(0));
        set(all, "memory", "memory.max", self.memory_max.map(number));
        set(all, "memory", "memory.high", self.memory_high.map(number));
        set(all, "memory", "memory.swap.max", swap.map(number));
        set(all, "memory", "memory.oom.group", limited.then_some(1));
    }

    fn cpu(&self, all: &mut Vec<Setting>) -> Result<(), (Setting, &'static str)> {
        if let Some(cpus) = self.cpus {
            let quota = (cpus * PERIOD).round();
            let value = format!("{quota} {PERIOD}");
            set(all, "cpu", "cpu.max", Some(&value));
            // The kernel takes no quota below 1 ms, and the period is 100 ms.
            if !(1_000.0..=1e12).contains(&quota) {
                let setting = Setting { controller: "cpu", file: "cpu.max", value };
                return Err((setting, "the number of CPUs is between 0.01 and ten million"));
            }
        }
        set(all, "cpu", "cpu.weight", self.cpu_weight);
        Ok(())
    }
}

/// `u64::MAX` is the kernel's `max`: no limit.
fn number(value: u64) -> String {
    if value == u64::MAX { "max".to_owned() } else { value.to_string() }
}

fn set(
    all: &mut Vec<Setting>,
    controller: &'static str,
    file: &'static str,
    value: Option<impl ToString>,
) {
    if let Some(value) = value {
        all.push(Setting { controller, file, value: value.to_string() });
    }
}

impl IoLimit {
    /// No limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes read.
    #[must_use]
    pub fn read_bytes(mut self, bytes: u64) -> Self {
        self.read_bytes = Some(bytes);
        self
    }

    /// Bytes written.
    #[must_use]
    pub fn write_bytes(mut self, bytes: u64) -> Self {
        self.write_bytes = Some(bytes);
        self
    }

    /// Read operations.
    #[must_use]
    pub fn read_ops(mut self, operations: u64) -> Self {
        self.read_ops = Some(operations);
        self
    }

    /// Write operations.
    #[must_use]
    pub fn write_ops(mut self, operations: u64) -> Self {
        self.write_ops = Some(operations);
        self
    }

    /// `8:0 rbps=1048576 wiops=max`
    fn line(&self, device: &std::path::Path) -> Result<String, (Setting, &'static str)> {
        let device = device_number(device).ok_or_else(|| {
            let value = device.display().to_string();
            let setting = Setting { controller: "io", file: "io.max", value };
            (setting, "no block device has this path or number")
        })?;
        let parts = [
            ("rbps", self.read_bytes),
            ("wbps", self.write_bytes),
            ("riops", self.read_ops),
            ("wiops", self.write_ops),
        ];
        let each =
            parts.iter().filter_map(|(key, value)| Some(format!(" {key}={}", number((*value)?))));
        Ok(device + &each.collect::<String>())
    }
}

/// The number of a device, by its path or number: `254:0` for `/dev/vda`.
fn device_number(device: &std::path::Path) -> Option<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let text = device.to_str()?;
    if let Some((major, minor)) = text.split_once(':') {
        let number = |part: &str| part.parse::<u32>().is_ok();
        return (number(major) && number(minor)).then(|| text.to_owned());
    }
    let meta = std::fs::metadata(device).ok().filter(|meta| meta.file_type().is_block_device())?;
    let number = meta.rdev();
    Some(format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(limits: &Limits) -> Vec<String> {
        let settings = limits.settings().unwrap_or_default();
        settings.iter().map(|s| format!("{} {} {}", s.controller, s.file, s.value)).collect()
    }

    #[test]
    fn limited_memory_means_group_kill_and_no_swap() {
        let expected =
            ["memory memory.max 4096", "memory memory.swap.max 0", "memory memory.oom.group 1"];
        assert_eq!(texts(&Limits::new().memory_max(4096)), expected);
        assert_eq!(texts(&Limits::new().swap_max(4096)), ["memory memory.swap.max 4096"]);
    }

    #[test]
    fn cpus_are_a_quota_in_each_period() {
        assert_eq!(texts(&Limits::new().cpus(0.5)), ["cpu cpu.max 50000 100000"]);
        assert_eq!(texts(&Limits::new().cpus(2.0)), ["cpu cpu.max 200000 100000"]);
        for odd in [0.0, -1.0, 0.001, f64::NAN, f64::INFINITY] {
            assert!(Limits::new().cpus(odd).settings().is_err(), "{odd}");
        }
    }

    #[test]
    fn a_device_is_named_by_number_or_path() {
        let limit = IoLimit { read_bytes: Some(1), write_ops: Some(2), ..IoLimit::default() };
        assert_eq!(texts(&Limits::new().io("8:0", limit)), ["io io.max 8:0 rbps=1 wiops=2"]);
        for odd in ["8:x", "/dev/null", "/no/such", ":"] {
            assert!(Limits::new().io(odd, limit).settings().is_err(), "{odd}");
        }
    }
}
