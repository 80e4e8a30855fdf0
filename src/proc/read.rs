//! Processes as `/proc` shows them.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

use nix::fcntl::{OFlag, readlinkat};
use nix::unistd::{SysconfVar, sysconf};
use procfs_core::process::Stat;
use procfs_core::{FromRead, Uptime};

use crate::proc::info::ProcessInfo;
use crate::proc::walk::open_at;

/// Reads `/proc` for each pid; a process that is gone by now has nothing to say.
///
/// Command lines only if asked for: reading one takes the process's memory lock, and hangs
/// where that hangs in the kernel.
pub(crate) fn read_all(pids: &[i32], with_command: bool) -> Vec<ProcessInfo> {
    // A container may put a file of its own there, with any number in it.
    let now = Uptime::from_file("/proc/uptime").ok();
    let now = now.and_then(|up| Duration::try_from_secs_f64(up.uptime).ok()).unwrap_or_default();
    pids.iter().filter_map(|&pid| read(pid, now, with_command)).collect()
}

/// What `/proc/PID/stat` says.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    Stat::from_file(format!("/proc/{pid}/stat")).ok()
}

/// All by one directory: never of a stranger that has got the same pid meanwhile.
fn read(pid: i32, now: Duration, with_command: bool) -> Option<ProcessInfo> {
    let process = File::open(format!("/proc/{pid}")).ok()?;
    let file = |name: &CStr| open_at(&process, name, OFlag::empty()).map(File::from);
    let stat = Stat::from_read(file(c"stat")?).ok()?;
    let started = ticks(stat.starttime);
    let stuck = stat.state == 'D';
    let command = if with_command && !stuck { file(c"cmdline").and_then(text) } else { None };
    let wchan = if stuck { file(c"wchan").and_then(text) } else { None };
    Some(ProcessInfo {
        pid: stat.pid.cast_unsigned(),
        ppid: stat.ppid.cast_unsigned(),
        session: stat.session.cast_unsigned(),
        name: stat.comm,
        command: words(&command.unwrap_or_default()),
        state: stat.state,
        wchan: wchan.filter(|place| !place.is_empty() && place != "0"),
        running: now.saturating_sub(started),
        cwd: readlinkat(&process, c"cwd").ok().map(Into::into),
        ports: Vec::new(),
    })
}

fn text(mut file: File) -> Option<String> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Each ends in NUL; who has written over its own may have more of them.
fn words(command: &str) -> Vec<String> {
    match command.trim_end_matches('\0') {
        "" => Vec::new(),
        command => command.split('\0').map(str::to_owned).collect(),
    }
}

fn ticks(ticks: u64) -> Duration {
    let second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|n| u64::try_from(n).ok());
    Duration::from_millis(ticks.saturating_mul(1000) / second.unwrap_or(100).max(1))
}
