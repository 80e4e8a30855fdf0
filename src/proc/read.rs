//! Reads one process from `/proc`: what can be read at once, and what can block.
//!
//! `stat`, `wchan` and the link to the directory are answered from the kernel's own memory.
//! `cmdline` is in the memory of the process: the read waits for its memory lock, for as long as
//! any thread holds that, and for the page, which may be of a file on a file system that hangs. So
//! a command line is only read by a thread that can be left behind (see `survey`).

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::signal::kill;
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};
use procfs_core::FromRead;
use procfs_core::process::Stat;

use crate::proc::info::ProcessInfo;

/// Bytes that are read of a file of the kernel's: a `stat` has some 300.
pub(crate) const FILE_BYTES: u64 = 4096;

/// Bytes and words that are read of a command line, which a process may stretch over gigabytes
/// (PR_SET_MM_MAP).
const COMMAND_BYTES: u64 = 4096;
const COMMAND_WORDS: usize = 64;

/// When a process started, in ticks since boot: tells it from a later one with the same pid.
pub(crate) type Start = u64;

/// Reads what does not block. None if the process is gone; one that `/proc` does not show has an
/// entry that says so.
pub(crate) fn facts(pid: i32) -> Option<(ProcessInfo, Option<Start>)> {
    match stated(pid) {
        Ok((process, start)) => Some((process, Some(start))),
        Err(_) if is_gone(pid) => None,
        Err(why) => Some((ProcessInfo::unread(pid, &format!("/proc does not say: {why}")), None)),
    }
}

/// Reads the state letter.
#[cfg(feature = "cli")]
pub(crate) fn state(pid: i32) -> Option<char> {
    stat_of(pid).map(|stat| stat.state)
}

/// Asks the kernel by kill(2): a `/proc` that hides a process looks as if it were gone.
fn is_gone(pid: i32) -> bool {
    pid > 0 && kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

/// Parses `/proc/PID/stat`.
pub(crate) fn stat_of(pid: i32) -> Option<Stat> {
    directory(pid).ok().and_then(|dir| stat(&dir).ok())
}

/// Reads all by one open directory: never of another process that has got the same pid meanwhile.
fn stated(pid: i32) -> Result<(ProcessInfo, Start), String> {
    let dir = directory(pid).map_err(|errno| named(&errno.into()))?;
    let stat = stat(&dir)?;
    let wchan = (stat.state == 'D').then(|| text(&dir, c"wchan").ok()).flatten();
    let mut process = ProcessInfo::unread(pid, "");
    process.gaps.clear();
    process.ppid = stat.ppid.cast_unsigned();
    process.session = stat.session.cast_unsigned();
    process.name = stat.comm;
    process.state = stat.state;
    process.wchan = wchan.filter(|place| !place.is_empty() && place != "0");
    process.running = since_boot().saturating_sub(ticks(stat.starttime));
    match readlinkat(&dir, c"cwd") {
        Ok(cwd) => process.cwd = Some(cwd.into()),
        // A zombie has none.
        Err(Errno::ENOENT | Errno::ESRCH) => {}
        Err(errno) => process.lacks("cwd", named(&errno.into())),
    }
    Ok((process, stat.starttime))
}

/// Reads the command line, which may block. None if it is of another process by now.
pub(crate) fn command(pid: i32, start: Start, process: &mut ProcessInfo) -> Option<()> {
    let dir = directory(pid).ok()?;
    stat(&dir).ok().filter(|stat| stat.starttime == start)?;
    process.has("command");
    let mut bytes = Vec::new();
    let file = file(&dir, c"cmdline").map_err(io::Error::from);
    match file.and_then(|file| file.take(COMMAND_BYTES + 1).read_to_end(&mut bytes)) {
        Ok(_) => {}
        // It has just ended.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
        Err(error) => process.lacks("command", named(&error)),
    }
    let (words, cut) = words(&bytes);
    process.command = words;
    if let Some(cut) = cut {
        process.lacks("command", cut);
    }
    Some(())
}

fn directory(pid: i32) -> Result<File, Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(&*format!("/proc/{pid}"), flags, Mode::empty()).map(File::from)
}

/// Opens a file of the directory; does not block, whatever stands in the place of the kernel's
/// file.
fn file(dir: &File, name: &CStr) -> Result<File, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    openat(dir, name, flags, Mode::empty()).map(File::from)
}

fn text(dir: &File, name: &CStr) -> Result<String, io::Error> {
    let mut bytes = Vec::new();
    file(dir, name)?.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn stat(dir: &File) -> Result<Stat, String> {
    let text = text(dir, c"stat").map_err(|error| named(&error))?;
    understood(&text).ok_or_else(|| "it cannot be understood".to_owned())
}

/// Parses `PID (NAME) STATE ...`. What stands in the place of the kernel's file may be anything,
/// and procfs panics where the brackets or the spaces around them are missing.
pub(crate) fn understood(text: &str) -> Option<Stat> {
    let text = text.trim();
    let (before, behind) = text.split_once('(')?;
    let (_, behind) = behind.rsplit_once(')')?;
    let is_whole = before.ends_with(' ') && behind.starts_with(' ');
    is_whole.then(|| Stat::from_read(text.as_bytes()).ok()).flatten()
}

fn named(error: &io::Error) -> String {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    format!("{} ({errno:?})", errno.desc())
}

/// Splits a command line at its NULs, of which a process that has written over its own may have
/// more at the end; also says what was cut, if anything.
pub(crate) fn words(bytes: &[u8]) -> (Vec<String>, Option<String>) {
    let most = usize::try_from(COMMAND_BYTES).unwrap_or(usize::MAX);
    let kept = bytes.get(..most).unwrap_or(bytes);
    let end = kept.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let kept = kept.get(..end).unwrap_or_default();
    if bytes.len() > most {
        let mut all = split(kept);
        all.truncate(COMMAND_WORDS);
        return (all, Some(format!("cut after {COMMAND_BYTES} bytes or {COMMAND_WORDS} words")));
    }
    let mut all = split(kept);
    let cut = (all.len() > COMMAND_WORDS)
        .then(|| format!("cut after {COMMAND_WORDS} of {} words", all.len()));
    all.truncate(COMMAND_WORDS);
    (all, cut)
}

fn split(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let words = bytes.split(|&byte| byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The clock that start times are told by. Not `/proc/uptime`: a container may have its own there.
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    now.unwrap_or_default()
}

pub(crate) fn ticks(ticks: u64) -> Duration {
    let second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|n| u64::try_from(n).ok());
    Duration::from_millis(ticks.saturating_mul(1000) / second.unwrap_or(100).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a file stands in the place of the kernel's: a made-up `/proc`.
    #[test]
    fn a_stat_that_no_kernel_writes_is_not_understood() {
        let fields = " S 1 7 7 0 -1".to_owned() + &" 1".repeat(44);
        assert_eq!(understood(&format!("7 (a) (b){fields}\n")).map(|stat| stat.ppid), Some(1));
        for odd in ["", "(", ")", "(a) S", ") (a", "7(a)", "7 (a)\u{fffd}1", "\u{fffd}(a) S 1"] {
            assert!(understood(&format!("{odd}{fields}")).is_none(), "{odd:?}");
            assert!(understood(odd).is_none(), "{odd:?}");
        }
    }

    #[test]
    fn a_command_line_is_cut_and_says_so() {
        let are = |bytes: &[u8]| words(bytes);
        assert_eq!(are(b""), (vec![], None));
        assert_eq!(are(b"\0\0\0"), (vec![], None));
        assert_eq!(are(b"a\0\0b\0"), (vec!["a".into(), String::new(), "b".into()], None));
        assert_eq!(are(b"title   \0\0\0"), (vec!["title   ".into()], None));
        let (all, cut) = are(&b"x\0".repeat(65));
        assert_eq!((all.len(), cut.as_deref()), (64, Some("cut after 64 of 65 words")));
        let (all, cut) = are(&b"x\0".repeat(4000));
        assert_eq!((all.len(), cut.as_deref()), (64, Some("cut after 4096 bytes or 64 words")));
        let (all, cut) = are(&[0; 4097]);
        assert_eq!((all.len(), cut.is_some()), (0, true));
        let (all, cut) = are(&[b'x'; 4097]);
        assert_eq!((all[0].len(), cut.is_some()), (4096, true));
        assert_eq!(are(b"\xff\xfe\0").0, ["\u{fffd}\u{fffd}"]);
    }
}
