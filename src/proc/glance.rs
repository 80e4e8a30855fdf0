//! Reads of a process what a recording needs of it: little, since it is read often.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, sysconf};

use crate::proc::read::{Start, since_boot, ticks, understood, words};

/// Bytes of a `stat`, which has some 300.
const STAT_BYTES: usize = 2048;

/// Bytes of a command line that are kept.
const COMMAND_BYTES: usize = 1024;

/// What `/proc/PID/stat` says. Never blocks.
#[derive(Debug, Clone)]
pub(crate) struct Glance {
    pub(crate) pid: i32,
    pub(crate) ppid: i32,
    pub(crate) name: String,
    pub(crate) start: Start,
    /// How long it has been running.
    pub(crate) running: Duration,
    /// Where its stack begins: another place after each exec. 0 where that may not be seen.
    pub(crate) stack: u64,
    /// Bytes of memory that are resident.
    pub(crate) resident: u64,
    /// Bytes that it and those that it has waited for have read from and written to devices.
    pub(crate) io: Option<(u64, u64)>,
}

/// Looks at a process; none if it is gone, or hidden.
pub(crate) fn glance(pid: i32) -> Option<Glance> {
    let text = first_bytes(pid, "stat", STAT_BYTES).ok()?;
    let stat = understood(&String::from_utf8_lossy(&text))?;
    let page =
        sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok());
    Some(Glance {
        pid,
        ppid: stat.ppid,
        name: stat.comm,
        start: stat.starttime,
        running: since_boot().saturating_sub(ticks(stat.starttime)),
        stack: stat.startstack,
        resident: stat.rss.saturating_mul(page.unwrap_or(4096)),
        io: None,
    })
}

/// Reads what it has read and written. Never blocks.
pub(crate) fn io(pid: i32) -> Option<(u64, u64)> {
    let text = String::from_utf8(first_bytes(pid, "io", COMMAND_BYTES).ok()?).ok()?;
    let number = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")?.parse().ok())
    };
    Some((number("read_bytes")?, number("write_bytes")?))
}

/// Reads the command line, which may block (see `read`); also says whether it was cut. None if the
/// process is gone.
pub(crate) fn command_line(pid: i32) -> Option<(Vec<String>, bool)> {
    let mut bytes = first_bytes(pid, "cmdline", COMMAND_BYTES + 1).ok()?;
    let long = bytes.len() > COMMAND_BYTES;
    bytes.truncate(COMMAND_BYTES);
    let (words, cut) = words(&bytes);
    Some((words, long || cut.is_some()))
}

fn first_bytes(pid: i32, file: &str, most: usize) -> Result<Vec<u8>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file: OwnedFd = open(&*format!("/proc/{pid}/{file}"), flags, Mode::empty())?;
    let mut bytes = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    let read = std::fs::File::from(file).take(most).read_to_end(&mut bytes);
    read.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    Ok(bytes)
}
