//! The system calls of a keeper: raw, since it has no libc. A negative answer is an errno.
//!
//! # Safety
//! Each pointer that is handed to the kernel is valid for its one call; the kernel checks the rest.
#![expect(unsafe_code, reason = "system calls without libc")]

use core::ffi::CStr;

pub(super) const SIGKILL: i32 = 9;
pub(super) const SIGSTOP: i32 = raw::SIGSTOP;

const ECHILD: isize = -10;

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod raw {
    pub(super) const CHDIR: usize = 80;
    pub(super) const CLOCK_GETTIME: usize = 228;
    pub(super) const CLOSE: usize = 3;
    pub(super) const CLOSE_RANGE: usize = 436;
    pub(super) const EXIT_GROUP: usize = 231;
    pub(super) const GETDENTS64: usize = 217;
    pub(super) const GETPID: usize = 39;
    pub(super) const GETPPID: usize = 110;
    pub(super) const KILL: usize = 62;
    pub(super) const OPENAT: usize = 257;
    pub(super) const PIDFD_SEND_SIGNAL: usize = 424;
    pub(super) const PPOLL: usize = 271;
    pub(super) const PRCTL: usize = 157;
    pub(super) const READ: usize = 0;
    pub(super) const SETPRIORITY: usize = 141;
    pub(super) const SETSID: usize = 112;
    pub(super) const WAIT4: usize = 61;
    pub(super) const WAITID: usize = 247;
    pub(super) const WRITE: usize = 1;
    pub(super) const CLOEXEC: usize = 0o2_000_000;
    pub(super) const DIRECTORY: usize = 0o200_000;
    pub(super) const SIGSTOP: i32 = 19;
    pub(super) const SIGURG: usize = 23;

    pub(super) unsafe fn call(number: usize, args: [usize; 5]) -> isize {
        let answer: isize;
        let [a, b, c, d, e] = args;
        // SAFETY: the caller's obligation; the call clobbers rax, rcx and r11 only.
        unsafe {
            core::arch::asm!(
                "syscall",
                inlateout("rax") number => answer,
                in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        answer
    }
}

#[cfg(target_arch = "aarch64")]
mod raw {
    pub(super) const CHDIR: usize = 49;
    pub(super) const CLOCK_GETTIME: usize = 113;
    pub(super) const CLOSE: usize = 57;
    pub(super) const CLOSE_RANGE: usize = 436;
    pub(super) const EXIT_GROUP: usize = 94;
    pub(super) const GETDENTS64: usize = 61;
    pub(super) const GETPID: usize = 172;
    pub(super) const GETPPID: usize = 173;
    pub(super) const KILL: usize = 129;
    pub(super) const OPENAT: usize = 56;
    pub(super) const PIDFD_SEND_SIGNAL: usize = 424;
    pub(super) const PPOLL: usize = 73;
    pub(super) const PRCTL: usize = 167;
    pub(super) const READ: usize = 63;
    pub(super) const SETPRIORITY: usize = 140;
    pub(super) const SETSID: usize = 157;
    pub(super) const WAIT4: usize = 260;
    pub(super) const WAITID: usize = 95;
    pub(super) const WRITE: usize = 64;
    pub(super) const CLOEXEC: usize = 0o2_000_000;
    pub(super) const DIRECTORY: usize = 0o40_000;
    pub(super) const SIGSTOP: i32 = 19;
    pub(super) const SIGURG: usize = 23;

    pub(super) unsafe fn call(number: usize, args: [usize; 5]) -> isize {
        let answer: isize;
        let [a, b, c, d, e] = args;
        // SAFETY: the caller's obligation; the call clobbers x0 only.
        unsafe {
            core::arch::asm!(
                "svc #0",
                in("x8") number,
                inlateout("x0") a as isize => answer,
                in("x1") b, in("x2") c, in("x3") d, in("x4") e,
                options(nostack),
            );
        }
        answer
    }
}

/// Elsewhere no program is built, and the fork of the owner has its libc.
#[cfg(not(any(
    all(target_arch = "x86_64", target_pointer_width = "64"),
    target_arch = "aarch64"
)))]
mod raw {
    pub(super) const CHDIR: usize = libc::SYS_chdir as usize;
    pub(super) const CLOCK_GETTIME: usize = libc::SYS_clock_gettime as usize;
    pub(super) const CLOSE: usize = libc::SYS_close as usize;
    pub(super) const CLOSE_RANGE: usize = libc::SYS_close_range as usize;
    pub(super) const EXIT_GROUP: usize = libc::SYS_exit_group as usize;
    pub(super) const GETDENTS64: usize = libc::SYS_getdents64 as usize;
    pub(super) const GETPID: usize = libc::SYS_getpid as usize;
    pub(super) const GETPPID: usize = libc::SYS_getppid as usize;
    pub(super) const KILL: usize = libc::SYS_kill as usize;
    pub(super) const OPENAT: usize = libc::SYS_openat as usize;
    pub(super) const PIDFD_SEND_SIGNAL: usize = libc::SYS_pidfd_send_signal as usize;
    pub(super) const PPOLL: usize = libc::SYS_ppoll as usize;
    pub(super) const PRCTL: usize = libc::SYS_prctl as usize;
    pub(super) const READ: usize = libc::SYS_read as usize;
    pub(super) const SETPRIORITY: usize = libc::SYS_setpriority as usize;
    pub(super) const SETSID: usize = libc::SYS_setsid as usize;
    pub(super) const WAIT4: usize = libc::SYS_wait4 as usize;
    pub(super) const WAITID: usize = libc::SYS_waitid as usize;
    pub(super) const WRITE: usize = libc::SYS_write as usize;
    pub(super) const CLOEXEC: usize = libc::O_CLOEXEC as usize;
    pub(super) const DIRECTORY: usize = libc::O_DIRECTORY as usize;
    pub(super) const SIGSTOP: i32 = libc::SIGSTOP;
    pub(super) const SIGURG: usize = libc::SIGURG as usize;

    pub(super) unsafe fn call(number: usize, args: [usize; 5]) -> isize {
        let [a, b, c, d, e] = args;
        // SAFETY: the caller's obligation.
        match unsafe { libc::syscall(number as libc::c_long, a, b, c, d, e) } {
            // SAFETY: no memory but this thread's own errno is read.
            -1 => -(unsafe { *libc::__errno_location() } as isize),
            answer => answer as isize,
        }
    }
}

/// A call whose arguments are numbers, or addresses that are valid across it.
fn call(number: usize, args: [usize; 5]) -> isize {
    // SAFETY: the functions below are the only callers, and each keeps the line above.
    unsafe { raw::call(number, args) }
}

fn at<T: ?Sized>(place: &T) -> usize {
    core::ptr::from_ref(place).cast::<u8>().expose_provenance()
}

/// The address of memory that the kernel writes to.
fn into<T: ?Sized>(place: &mut T) -> usize {
    core::ptr::from_mut(place).cast::<u8>().expose_provenance()
}

const fn number(value: i32) -> usize {
    value as isize as usize
}

pub(crate) fn exit(status: i32) -> ! {
    loop {
        call(raw::EXIT_GROUP, [number(status), 0, 0, 0, 0]);
    }
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
    open(dir, name, raw::DIRECTORY)
}

fn open(dir: i32, name: &CStr, flags: usize) -> Option<Fd> {
    let name = name.as_ptr().expose_provenance();
    let answer = call(raw::OPENAT, [number(dir), name, flags | raw::CLOEXEC, 0, 0]);
    i32::try_from(answer).ok().filter(|&fd| fd >= 0).map(Fd)
}

/// Reads into the buffer; None at the end and after an error.
pub(super) fn read(fd: i32, buffer: &mut [u8]) -> Option<&[u8]> {
    filled(call(raw::READ, [number(fd), into(buffer), buffer.len(), 0, 0]), buffer)
}

/// Reads entries of a directory; None at the end and after an error.
pub(super) fn getdents(dir: i32, buffer: &mut [u8]) -> Option<&[u8]> {
    filled(call(raw::GETDENTS64, [number(dir), into(buffer), buffer.len(), 0, 0]), buffer)
}

fn filled(len: isize, buffer: &[u8]) -> Option<&[u8]> {
    usize::try_from(len).ok().filter(|&len| len > 0).and_then(|len| buffer.get(..len))
}

pub(super) fn write(fd: i32, records: &[u64]) {
    call(raw::WRITE, [number(fd), at(records), size_of_val(records), 0, 0]);
}

pub(super) fn close(fd: i32) {
    call(raw::CLOSE, [number(fd), 0, 0, 0, 0]);
}

/// Closes all fds from this one on; false where that is refused (a seccomp filter, a kernel before
/// 5.9).
pub(super) fn close_from(first: i32) -> bool {
    call(raw::CLOSE_RANGE, [number(first), u32::MAX as usize, 0, 0, 0]) == 0
}

/// Makes a session of its own, with the root as its directory and this name. Asks for SIGURG at the
/// end of its parent's thread again: an exec may have taken that back.
pub(super) fn settle(name: &CStr) {
    const SET_PDEATHSIG: usize = 1;
    const SET_NAME: usize = 15;
    call(raw::PRCTL, [SET_PDEATHSIG, raw::SIGURG, 0, 0, 0]);
    call(raw::SETSID, [0; 5]);
    call(raw::CHDIR, [c"/".as_ptr().expose_provenance(), 0, 0, 0, 0]);
    call(raw::PRCTL, [SET_NAME, name.as_ptr().expose_provenance(), 0, 0, 0]);
}

/// Takes the highest priority that it may have: without CAP_SYS_NICE nothing changes.
pub(super) fn hurry() {
    const HIGHEST: i32 = -20;
    call(raw::SETPRIORITY, [0, 0, number(HIGHEST), 0, 0]);
}

pub(super) fn own_pid() -> i32 {
    i32::try_from(call(raw::GETPID, [0; 5])).unwrap_or(-1)
}

pub(super) fn parent() -> i32 {
    i32::try_from(call(raw::GETPPID, [0; 5])).unwrap_or(-1)
}

/// Waits until one of two fds is readable, or for so many milliseconds; a negative number means for
/// ever. Says which are.
pub(super) fn poll(fds: [i32; 2], milliseconds: i32) -> [bool; 2] {
    #[repr(C)]
    struct Poll {
        fd: i32,
        events: i16,
        revents: i16,
    }
    const IN: i16 = 1;
    let mut both = fds.map(|fd| Poll { fd, events: IN, revents: 0 });
    let milliseconds = milliseconds as isize;
    let time = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    let time = if milliseconds < 0 { 0 } else { at(&time) };
    let answer = call(raw::PPOLL, [into(&mut both), 2, time, 0, 8]);
    both.map(|each| answer > 0 && each.revents != 0)
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
    match call(raw::WAIT4, [number(-1), into(&mut status), NOHANG_ALL, 0, 0]) {
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
    let answer = call(raw::WAITID, [BY_PID, number(pid), into(&mut info), LOOK, 0]);
    answer != 0 || info.first().is_some_and(|&first| first != 0)
}

pub(super) fn kill(pid: i32, signal: i32) {
    call(raw::KILL, [number(pid), number(signal), 0, 0, 0]);
}

/// Signals the process whose directory in `/proc` this is, as through a pidfd.
pub(super) fn signal(process: &Fd, signal: i32) {
    call(raw::PIDFD_SEND_SIGNAL, [number(process.0), number(signal), 0, 0, 0]);
}

/// Milliseconds on the monotonic clock; None without one.
pub(super) fn now() -> Option<isize> {
    const MONOTONIC: usize = 1;
    let mut time = [0isize; 2];
    let answer = call(raw::CLOCK_GETTIME, [MONOTONIC, into(&mut time), 0, 0, 0]);
    let [seconds, nanoseconds] = time;
    (answer == 0).then(|| seconds.wrapping_mul(1000).wrapping_add(nanoseconds / 1_000_000))
}
