//! On what it was measured.

use std::fs;

/// A heading that says when, how and on what.
pub(crate) fn describe(command: String) -> String {
    format!("Command: `{command}`. Machine: {}. Load at the start: {}.", machine(), load())
}

fn machine() -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let models = cpuinfo.lines().filter_map(|line| line.strip_prefix("model name"));
    let models: Vec<&str> = models.map(|rest| rest.trim_start_matches([' ', '\t', ':'])).collect();
    let meminfo = read("/proc/meminfo");
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = total.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).unwrap_or(0);
    format!(
        "{}, {} CPUs, {} GiB, Linux {}",
        models.first().unwrap_or(&"unknown CPU"),
        models.len(),
        kib >> 20,
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// Processes that want a CPU, on average of the last minute.
pub(crate) fn load() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
