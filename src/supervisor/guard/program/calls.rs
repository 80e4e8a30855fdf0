//! The system calls of a guard: raw, since it has no libc. They return what the kernel returns: a
//! negative value is an errno.
//!
//! # Safety
//! Each pointer that is handed to the kernel is valid for its one call; the kernel checks the rest.
#![expect(unsafe_code, reason = "system calls without libc")]

use core::ffi::CStr;

pub(super) const ENOENT: isize = -2;
pub(super) const EINTR: isize = -4;
pub(super) const EAGAIN: isize = -11;
pub(super) const EACCES: isize = -13;
pub(super) const EXDEV: isize = -18;
pub(super) const ENODEV: isize = -19;
const EPERM: isize = -1;
const ENOSYS: isize = -38;

pub(super) const READ: usize = 0;
pub(super) const WRITE: usize = 1;
const CLOEXEC: usize = 0o2_000_000;
/// O_DIRECTORY, O_NOFOLLOW.
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm", target_arch = "powerpc64")))]
const FLAGS: (usize, usize) = (0o200_000, 0o400_000);
#[cfg(any(target_arch = "aarch64", target_arch = "arm", target_arch = "powerpc64"))]
const FLAGS: (usize, usize) = (0o40_000, 0o100_000);
pub(super) const DIRECTORY: usize = FLAGS.0 | FLAGS.1;
/// O_NOFOLLOW, O_NONBLOCK, O_NOCTTY: where a FIFO or a terminal may be met.
const CAREFUL: usize = FLAGS.1 | 0o4000 | 0o400;
const PATH_ONLY: usize = 0o10_000_000;

const NO_XDEV: u64 = 1;
const NO_SYMLINKS: u64 = 4;
const BENEATH: u64 = 8;

const AT_EMPTY_PATH: usize = 0x1000;
const SIGKILL: usize = 9;

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod raw {
    pub(super) const CLOCK_GETTIME: usize = 228;
    pub(super) const CLOSE: usize = 3;
    pub(super) const EXIT_GROUP: usize = 231;
    pub(super) const FCHMOD: usize = 91;
    pub(super) const FCHMODAT: usize = 268;
    pub(super) const GETDENTS64: usize = 217;
    pub(super) const LSEEK: usize = 8;
    pub(super) const OPENAT: usize = 257;
    pub(super) const PPOLL: usize = 271;
    pub(super) const PRCTL: usize = 157;
    pub(super) const PRLIMIT64: usize = 302;
    pub(super) const READ: usize = 0;
    pub(super) const RECVMSG: usize = 47;
    pub(super) const RT_SIGPROCMASK: usize = 14;
    pub(super) const STATX: usize = 332;
    pub(super) const UNLINKAT: usize = 263;
    pub(super) const WRITE: usize = 1;
    pub(super) const PIDFD_SEND_SIGNAL: usize = 424;
    pub(super) const OPEN_TREE: usize = 428;
    pub(super) const PIDFD_OPEN: usize = 434;
    pub(super) const OPENAT2: usize = 437;

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
    pub(super) const CLOCK_GETTIME: usize = 113;
    pub(super) const CLOSE: usize = 57;
    pub(super) const EXIT_GROUP: usize = 94;
    pub(super) const FCHMOD: usize = 52;
    pub(super) const FCHMODAT: usize = 53;
    pub(super) const GETDENTS64: usize = 61;
    pub(super) const LSEEK: usize = 62;
    pub(super) const OPENAT: usize = 56;
    pub(super) const PPOLL: usize = 73;
    pub(super) const PRCTL: usize = 167;
    pub(super) const PRLIMIT64: usize = 261;
    pub(super) const READ: usize = 63;
    pub(super) const RECVMSG: usize = 212;
    pub(super) const RT_SIGPROCMASK: usize = 135;
    pub(super) const STATX: usize = 291;
    pub(super) const UNLINKAT: usize = 35;
    pub(super) const WRITE: usize = 64;
    pub(super) const PIDFD_SEND_SIGNAL: usize = 424;
    pub(super) const OPEN_TREE: usize = 428;
    pub(super) const PIDFD_OPEN: usize = 434;
    pub(super) const OPENAT2: usize = 437;

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
    pub(super) const CLOCK_GETTIME: usize = libc::SYS_clock_gettime as usize;
    pub(super) const CLOSE: usize = libc::SYS_close as usize;
    pub(super) const EXIT_GROUP: usize = libc::SYS_exit_group as usize;
    pub(super) const FCHMOD: usize = libc::SYS_fchmod as usize;
    pub(super) const FCHMODAT: usize = libc::SYS_fchmodat as usize;
    pub(super) const GETDENTS64: usize = libc::SYS_getdents64 as usize;
    pub(super) const LSEEK: usize = libc::SYS_lseek as usize;
    pub(super) const OPENAT: usize = libc::SYS_openat as usize;
    pub(super) const PPOLL: usize = libc::SYS_ppoll as usize;
    pub(super) const PRCTL: usize = libc::SYS_prctl as usize;
    pub(super) const PRLIMIT64: usize = libc::SYS_prlimit64 as usize;
    pub(super) const READ: usize = libc::SYS_read as usize;
    pub(super) const RECVMSG: usize = libc::SYS_recvmsg as usize;
    pub(super) const RT_SIGPROCMASK: usize = libc::SYS_rt_sigprocmask as usize;
    pub(super) const STATX: usize = libc::SYS_statx as usize;
    pub(super) const UNLINKAT: usize = libc::SYS_unlinkat as usize;
    pub(super) const WRITE: usize = libc::SYS_write as usize;
    pub(super) const PIDFD_SEND_SIGNAL: usize = libc::SYS_pidfd_send_signal as usize;
    pub(super) const OPEN_TREE: usize = libc::SYS_open_tree as usize;
    pub(super) const PIDFD_OPEN: usize = libc::SYS_pidfd_open as usize;
    pub(super) const OPENAT2: usize = libc::SYS_openat2 as usize;

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
    core::ptr::from_ref(place).cast::<u8>().addr()
}

/// The address of memory that the kernel writes to: exposed, so that the compiler does not take it
/// for unchanged.
fn into<T: ?Sized>(place: &mut T) -> usize {
    core::ptr::from_mut(place).cast::<u8>().expose_provenance()
}

const fn number(fd: i32) -> usize {
    fd as isize as usize
}

/// The kernel's answer, if it is an fd.
fn fd(answer: isize) -> Result<i32, isize> {
    if answer < 0 { Err(answer) } else { i32::try_from(answer).map_err(|_| ENOSYS) }
}

pub(crate) fn exit(status: i32) -> ! {
    loop {
        call(raw::EXIT_GROUP, [number(status), 0, 0, 0, 0]);
    }
}

/// Blocks all 64 signals for good: only SIGKILL and SIGSTOP reach a guard.
pub(super) fn block_signals() {
    let all = u64::MAX;
    call(raw::RT_SIGPROCMASK, [2, at(&all), 0, 8, 0]);
}

/// Sets a name that `pkill tidy-process` does not match, exact timers, and the highest limit of
/// fds.
pub(super) fn settle() {
    const SET_NAME: usize = 15;
    const SET_TIMERSLACK: usize = 29;
    const NOFILE: usize = 7;
    call(raw::PRCTL, [SET_NAME, c"tidy-guard".as_ptr().addr(), 0, 0, 0]);
    call(raw::PRCTL, [SET_TIMERSLACK, 1, 0, 0, 0]);
    let mut limit = [0u64; 2];
    if call(raw::PRLIMIT64, [0, NOFILE, 0, into(&mut limit), 0]) == 0 {
        let [_, hard] = limit;
        call(raw::PRLIMIT64, [0, NOFILE, at(&[hard, hard]), 0, 0]);
    }
}

pub(super) fn close(fd: i32) {
    call(raw::CLOSE, [number(fd), 0, 0, 0, 0]);
}

pub(super) fn write(fd: i32, text: &[u8]) -> isize {
    call(raw::WRITE, [number(fd), at(text), text.len(), 0, 0])
}

/// Fills the buffer as far as one read goes. None at the end of file and on an error.
pub(super) fn read(fd: i32, buffer: &mut [u8]) -> Option<&[u8]> {
    let len = call(raw::READ, [number(fd), into(buffer), buffer.len(), 0, 0]);
    usize::try_from(len).ok().filter(|&len| len > 0).and_then(|len| buffer.get(..len))
}

pub(super) fn seek(fd: i32, to: u32) {
    call(raw::LSEEK, [number(fd), to as usize, 0, 0, 0]);
}

/// Views the words as bytes.
pub(super) fn bytes(words: &mut [u64; 512]) -> &mut [u8] {
    // SAFETY: each value of a word is eight valid bytes, and the borrow goes on with them.
    unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}

/// Reads entries of a directory; None at the end and on an error.
pub(super) fn getdents(dir: i32, buffer: &mut [u8]) -> Option<&[u8]> {
    let len = call(raw::GETDENTS64, [number(dir), into(buffer), buffer.len(), 0, 0]);
    usize::try_from(len).ok().filter(|&len| len > 0).and_then(|len| buffer.get(..len))
}

/// Opens a file in this directory, on the same mount; no symbolic link.
pub(super) fn open_in(dir: i32, name: &CStr, access: usize) -> Result<i32, isize> {
    open_how(dir, name, access, NO_XDEV | NO_SYMLINKS | BENEATH)
}

/// Opens the parent directory.
pub(super) fn open_above(dir: i32) -> Result<i32, isize> {
    open_how(dir, c"..", DIRECTORY, NO_XDEV | NO_SYMLINKS)
}

fn open_how(dir: i32, name: &CStr, access: usize, resolve: u64) -> Result<i32, isize> {
    let how = [(access | CLOEXEC) as u64, 0, resolve];
    match call(raw::OPENAT2, [number(dir), name.as_ptr().addr(), at(&how), size_of_val(&how), 0]) {
        // An old seccomp filter does not know the call.
        ENOSYS | EPERM => open_at(dir, name, access),
        answer => fd(answer),
    }
}

/// Opens as `openat2` would, and looks where that has led instead.
pub(super) fn open_at(dir: i32, name: &CStr, access: usize) -> Result<i32, isize> {
    let how = access | CAREFUL | CLOEXEC;
    let found = fd(call(raw::OPENAT, [number(dir), name.as_ptr().addr(), how, 0, 0]))?;
    if Facts::of(found).mount == Facts::of(dir).mount {
        return Ok(found);
    }
    close(found);
    Err(EXDEV)
}

/// Whether a file of this name is there, on the same mount. Needs no permission for the file.
pub(super) fn is_here(dir: i32, name: &CStr) -> bool {
    open_in(dir, name, PATH_ONLY).map(close).is_ok()
}

/// Opens the same directory without the mounts in it; needs CAP_SYS_ADMIN.
pub(super) fn open_below_mounts(dir: i32) -> Result<i32, isize> {
    const CLONE: usize = 1;
    let flags = CLONE | CLOEXEC | AT_EMPTY_PATH;
    let tree = fd(call(raw::OPEN_TREE, [number(dir), c"".as_ptr().addr(), flags, 0, 0]))?;
    let opened = open_in(tree, c".", DIRECTORY);
    close(tree);
    opened
}

/// Facts from statx(2) about an open file.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) links: u32,
    pub(super) inode: u64,
    mount: u64,
}

impl Facts {
    pub(super) fn of(fd: i32) -> Self {
        const LINKS_INODE_MOUNT: usize = 0x4 | 0x100 | 0x1000;
        // 256 bytes: links at 16, inode at 32, mount at 144.
        let mut all = [0u64; 32];
        let empty = c"".as_ptr().addr();
        let args = [number(fd), empty, AT_EMPTY_PATH, LINKS_INODE_MOUNT, into(&mut all)];
        if call(raw::STATX, args) != 0 {
            return Self::default();
        }
        let [_, _, links_uid, _, inode, ..] = all;
        let links = links_uid.to_ne_bytes();
        let [a, b, c, d, ..] = links;
        let mount = all.get(18).copied().unwrap_or(0);
        Self { links: u32::from_ne_bytes([a, b, c, d]), inode, mount }
    }
}

pub(super) fn chmod(fd: i32, mode: usize) -> isize {
    call(raw::FCHMOD, [number(fd), mode, 0, 0, 0])
}

pub(super) fn chmod_in(dir: i32, name: &CStr, mode: usize) -> isize {
    call(raw::FCHMODAT, [number(dir), name.as_ptr().addr(), mode, 0, 0])
}

pub(super) fn rmdir(dir: i32, name: &CStr) -> isize {
    const REMOVEDIR: usize = 0x200;
    call(raw::UNLINKAT, [number(dir), name.as_ptr().addr(), REMOVEDIR, 0, 0])
}

pub(super) fn pidfd(pid: u32) -> Result<i32, isize> {
    fd(call(raw::PIDFD_OPEN, [pid as usize, 0, 0, 0, 0]))
}

pub(super) fn send_kill(pidfd: i32) {
    call(raw::PIDFD_SEND_SIGNAL, [number(pidfd), SIGKILL, 0, 0, 0]);
}

/// The monotonic clock, in nanoseconds.
pub(super) fn now() -> u64 {
    const MONOTONIC: usize = 1;
    let mut time = [0isize; 2];
    call(raw::CLOCK_GETTIME, [MONOTONIC, into(&mut time), 0, 0, 0]);
    let [seconds, nanoseconds] = time;
    (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(nanoseconds as u64)
}

pub(super) fn sleep(nanoseconds: u64) {
    let time = [(nanoseconds / 1_000_000_000) as isize, (nanoseconds % 1_000_000_000) as isize];
    call(raw::PPOLL, [0, 0, at(&time), 0, 8]);
}

/// Waits until one of two fds is readable; says which are.
pub(super) fn poll(one: i32, other: i32) -> [bool; 2] {
    #[repr(C)]
    struct Poll {
        fd: i32,
        events: i16,
        revents: i16,
    }
    const IN: i16 = 1;
    let mut both = [one, other].map(|fd| Poll { fd, events: IN, revents: 0 });
    let answer = call(raw::PPOLL, [into(&mut both), 2, 0, 0, 8]);
    both.map(|each| answer > 0 && each.revents != 0)
}

/// Receives one message and the fds that came with it; the length is 0 at the line's end.
pub(super) fn receive(line: i32) -> (isize, [i32; 3]) {
    #[repr(C)]
    struct Message {
        name: usize,
        name_len: u32,
        pieces: usize,
        pieces_len: usize,
        control: usize,
        control_len: usize,
        flags: u32,
    }
    #[repr(C)]
    struct Control {
        len: usize,
        level: i32,
        kind: i32,
        fds: [i32; 4],
    }
    const CLOSE_ON_EXEC: usize = 0x4000_0000;
    let mut byte = [0u8; 1];
    let mut control = Control { len: 0, level: 0, kind: 0, fds: [-1; 4] };
    let piece = [into(&mut byte), 1];
    let mut message = Message {
        name: 0,
        name_len: 0,
        pieces: at(&piece),
        pieces_len: 1,
        // Room for three.
        control: into(&mut control),
        control_len: size_of::<usize>() + 20,
        flags: 0,
    };
    let answer = call(raw::RECVMSG, [number(line), into(&mut message), CLOSE_ON_EXEC, 0, 0]);
    let Control { fds: [dir, kill, events, _], .. } = control;
    (answer, [dir, kill, events])
}
