//! Processes as `/proc` shows them.

use std::time::Duration;

use procfs::Current;
use procfs::process::Process;

use crate::process::ProcessInfo;

/// Reads `/proc` for each pid; a process that is gone by now has nothing to say.
///
/// Command lines only if asked for: reading one takes the process's memory lock, and hangs
/// where that hangs in the kernel.
pub(crate) fn read_all(pids: &[i32], with_command: bool) -> Vec<ProcessInfo> {
    let now = procfs::Uptime::current().map(|up| Duration::from_secs_f64(up.uptime));
    let now = now.unwrap_or_default();
    pids.iter().filter_map(|&pid| read(pid, now, with_command)).collect()
}

fn read(pid: i32, now: Duration, with_command: bool) -> Option<ProcessInfo> {
    let process = Process::new(pid).ok()?;
    let stat = process.stat().ok()?;
    let started = ticks(stat.starttime);
    let with_command = with_command && stat.state != 'D';
    let command = with_command.then(|| process.cmdline().ok()).flatten();
    let wchan = (stat.state == 'D').then(|| process.wchan().ok()).flatten();
    Some(ProcessInfo {
        pid: stat.pid.cast_unsigned(),
        ppid: stat.ppid.cast_unsigned(),
        session: stat.session.cast_unsigned(),
        name: stat.comm,
        command: command.unwrap_or_default(),
        state: stat.state,
        wchan: wchan.filter(|place| !place.is_empty() && place != "0"),
        running: now.saturating_sub(started),
        cwd: process.cwd().ok(),
        ports: Vec::new(),
    })
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1))
}
