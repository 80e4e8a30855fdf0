//! The system calls of a keeper: raw, since it has no libc. A negative answer is an errno.
//!
//! # Safety
//! Each pointer that is handed to the kernel is valid for its one call; the kernel checks the rest.
#![expect(unsafe_code, reason = "system calls without libc")]

use core::ffi::CStr;

pub(crate) use crate::bare::exit;
use crate::bare::{self, at, int, into, numbers};
pub(super) use crate::bare::{close, getdents, read};

pub(super) const SIGKILL: i32 = 9;
#[expect(clippy::cast_possible_truncation, reason = "signals have small numbers")]
pub(super) const SIGSTOP: i32 = numbers::SIGSTOP as i32;

const ECHILD: isize = -10;

/// A call whose arguments are numbers, or addresses that are valid across it.
fn call<const N: usize>(number: usize, args: [usize; N]) -> isize {
    // SAFETY: the functions below are the only callers, and each keeps the line above.
    unsafe { bare::call(number, args) }
}

/// An open file, closed when dropped.
pub(super) struct Fd(i32);

impl Fd {
    pub(super) fn number(&self) -> i32 {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        close(self.0);
    }
}

pub(super) fn open_file(dir: i32, name: &CStr) -> Option<Fd> {
    open(dir, name, 0)
}

pub(super) fn open_dir(dir: i32, name: &CStr) -> Option<Fd> {
    open(dir, name, numbers::O_DIRECTORY)
}

fn open(dir: i32, name: &CStr, flags: usize) -> Option<Fd> {
    let name = name.as_ptr().expose_provenance();
    let answer = call(numbers::OPENAT, [int(dir), name, flags | numbers::O_CLOEXEC]);
    i32::try_from(answer).ok().filter(|&fd| fd >= 0).map(Fd)
}

pub(super) fn write(fd: i32, records: &[u64]) {
    call(numbers::WRITE, [int(fd), at(records), size_of_val(records)]);
}

/// Closes all fds from this one on; false where that is refused (a seccomp filter, a kernel before
/// 5.9).
pub(super) fn close_from(first: i32) -> bool {
    call(numbers::CLOSE_RANGE, [int(first), u32::MAX as usize]) == 0
}

/// Makes a session of its own, with the root as its directory and this name. Asks for SIGURG at the
/// end of its parent's thread again: an exec may have taken that back.
pub(super) fn settle(name: &CStr) {
    const SET_PDEATHSIG: usize = 1;
    const SET_NAME: usize = 15;
    call(numbers::PRCTL, [SET_PDEATHSIG, numbers::SIGURG]);
    call(numbers::SETSID, []);
    call(numbers::CHDIR, [c"/".as_ptr().expose_provenance()]);
    call(numbers::PRCTL, [SET_NAME, name.as_ptr().expose_provenance()]);
}

/// Takes the highest priority that it may have: without CAP_SYS_NICE nothing changes.
pub(super) fn hurry() {
    const HIGHEST: i32 = -20;
    call(numbers::SETPRIORITY, [0, 0, int(HIGHEST)]);
}

pub(super) fn own_pid() -> i32 {
    i32::try_from(call(numbers::GETPID, [])).unwrap_or(-1)
}

pub(super) fn parent() -> i32 {
    i32::try_from(call(numbers::GETPPID, [])).unwrap_or(-1)
}

/// Waits until one of two fds is readable, or for so many milliseconds; a negative number means for
/// ever. Says which are.
pub(super) fn poll(fds: [i32; 2], milliseconds: i32) -> [bool; 2] {
    let milliseconds = milliseconds as isize;
    let time = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    bare::poll(fds, (milliseconds >= 0).then_some(time))
}

/// What one wait has brought.
pub(super) enum Waited {
    /// This child has ended, with this status.
    Reaped(i32, i32),
    /// There are children, and none has ended.
    Nobody,
    NoChild,
}

/// Reaps a child that has ended.
pub(super) fn reap() -> Waited {
    const NOHANG_ALL: usize = 1 | 0x4000_0000;
    let mut status = 0i32;
    match call(numbers::WAIT4, [int(-1), into(&mut status), NOHANG_ALL]) {
        ECHILD => Waited::NoChild,
        pid => match i32::try_from(pid) {
            Ok(pid @ 1..) => Waited::Reaped(pid, status),
            _ => Waited::Nobody,
        },
    }
}

/// Whether a child has ended with all its threads, and so has no children any more.
pub(super) fn is_dead(pid: i32) -> bool {
    const BY_PID: usize = 1;
    // WNOHANG, WEXITED, WNOWAIT, __WALL.
    const LOOK: usize = 1 | 4 | 0x100_0000 | 0x4000_0000;
    // 128 bytes, the first four of which stay 0 if it has not.
    let mut info = [0u64; 16];
    let answer = call(numbers::WAITID, [BY_PID, int(pid), into(&mut info), LOOK]);
    answer != 0 || info.first().is_some_and(|&first| first != 0)
}

pub(super) fn kill(pid: i32, signal: i32) {
    call(numbers::KILL, [int(pid), int(signal)]);
}

/// Signals the process whose directory in `/proc` this is, as through a pidfd.
pub(super) fn signal(process: &Fd, signal: i32) {
    call(numbers::PIDFD_SEND_SIGNAL, [int(process.0), int(signal)]);
}

/// Milliseconds on the monotonic clock; None without one.
pub(super) fn now() -> Option<isize> {
    let [seconds, nanoseconds] = bare::now()?;
    Some(seconds.wrapping_mul(1000).wrapping_add(nanoseconds / 1_000_000))
}
