//! The system calls of a guard: raw, since it has no libc. They return what the kernel returns: a
//! negative value is an errno.
//!
//! # Safety
//! Each pointer that is handed to the kernel is valid for its one call; the kernel checks the rest.
#![expect(unsafe_code, reason = "system calls without libc")]

use core::ffi::CStr;

pub(crate) use crate::bare::exit;
use crate::bare::{self, at, int, into, numbers};
pub(super) use crate::bare::{close, getdents, read};

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
pub(super) const DIRECTORY: usize = numbers::O_DIRECTORY | numbers::O_NOFOLLOW;
/// O_NOFOLLOW, O_NONBLOCK, O_NOCTTY: where a FIFO or a terminal may be met.
const CAREFUL: usize = numbers::O_NOFOLLOW | 0o4000 | 0o400;

const NO_XDEV: u64 = 1;
const NO_SYMLINKS: u64 = 4;
const BENEATH: u64 = 8;

const AT_EMPTY_PATH: usize = 0x1000;
const SIGKILL: usize = 9;

/// A call whose arguments are numbers, or addresses that are valid across it.
fn call<const N: usize>(number: usize, args: [usize; N]) -> isize {
    // SAFETY: the functions below are the only callers, and each keeps the line above.
    unsafe { bare::call(number, args) }
}

/// The kernel's answer, if it is an fd.
fn fd(answer: isize) -> Result<i32, isize> {
    if answer < 0 { Err(answer) } else { i32::try_from(answer).map_err(|_| ENOSYS) }
}

/// Blocks all 64 signals for good: only SIGKILL and SIGSTOP reach a guard.
pub(super) fn block_signals() {
    let all = u64::MAX;
    call(numbers::RT_SIGPROCMASK, [2, at(&all), 0, 8]);
}

/// Sets a name that `pkill tidy-process` does not match, exact timers, and the highest limit of
/// fds.
pub(super) fn settle() {
    const SET_NAME: usize = 15;
    const SET_TIMERSLACK: usize = 29;
    const NOFILE: usize = 7;
    call(numbers::PRCTL, [SET_NAME, c"tidy-guard".as_ptr().addr()]);
    call(numbers::PRCTL, [SET_TIMERSLACK, 1]);
    let mut limit = [0u64; 2];
    if call(numbers::PRLIMIT64, [0, NOFILE, 0, into(&mut limit)]) == 0 {
        let [_, hard] = limit;
        call(numbers::PRLIMIT64, [0, NOFILE, at(&[hard, hard])]);
    }
}

pub(super) fn write(fd: i32, text: &[u8]) -> isize {
    call(numbers::WRITE, [int(fd), at(text), text.len()])
}

pub(super) fn seek(fd: i32, to: u32) {
    call(numbers::LSEEK, [int(fd), to as usize]);
}

/// Views the words as bytes.
pub(super) fn bytes(words: &mut [u64; 512]) -> &mut [u8] {
    // SAFETY: each value of a word is eight valid bytes, and the borrow goes on with them.
    unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
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
    let how = [(access | numbers::O_CLOEXEC) as u64, 0, resolve];
    match call(numbers::OPENAT2, [int(dir), name.as_ptr().addr(), at(&how), size_of_val(&how)]) {
        // An old seccomp filter does not know the call.
        ENOSYS | EPERM => open_at(dir, name, access),
        answer => fd(answer),
    }
}

/// Opens as `openat2` would, and looks where that has led instead.
pub(super) fn open_at(dir: i32, name: &CStr, access: usize) -> Result<i32, isize> {
    let how = access | CAREFUL | numbers::O_CLOEXEC;
    let found = fd(call(numbers::OPENAT, [int(dir), name.as_ptr().addr(), how]))?;
    if Facts::of(found).mount == Facts::of(dir).mount {
        return Ok(found);
    }
    close(found);
    Err(EXDEV)
}

/// Whether a file of this name is there, on the same mount. Needs no permission for the file.
pub(super) fn is_here(dir: i32, name: &CStr) -> bool {
    open_in(dir, name, numbers::O_PATH).map(close).is_ok()
}

/// Opens the same directory without the mounts in it; needs CAP_SYS_ADMIN.
pub(super) fn open_below_mounts(dir: i32) -> Result<i32, isize> {
    const CLONE: usize = 1;
    let flags = CLONE | numbers::O_CLOEXEC | AT_EMPTY_PATH;
    let tree = fd(call(numbers::OPEN_TREE, [int(dir), c"".as_ptr().addr(), flags]))?;
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
        let args = [int(fd), empty, AT_EMPTY_PATH, LINKS_INODE_MOUNT, into(&mut all)];
        if call(numbers::STATX, args) != 0 {
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
    call(numbers::FCHMOD, [int(fd), mode])
}

pub(super) fn chmod_in(dir: i32, name: &CStr, mode: usize) -> isize {
    call(numbers::FCHMODAT, [int(dir), name.as_ptr().addr(), mode])
}

pub(super) fn rmdir(dir: i32, name: &CStr) -> isize {
    const REMOVEDIR: usize = 0x200;
    call(numbers::UNLINKAT, [int(dir), name.as_ptr().addr(), REMOVEDIR])
}

pub(super) fn pidfd(pid: u32) -> Result<i32, isize> {
    fd(call(numbers::PIDFD_OPEN, [pid as usize]))
}

pub(super) fn send_kill(pidfd: i32) {
    call(numbers::PIDFD_SEND_SIGNAL, [int(pidfd), SIGKILL]);
}

/// The monotonic clock, in nanoseconds.
pub(super) fn now() -> u64 {
    let [seconds, nanoseconds] = bare::now().unwrap_or_default();
    (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(nanoseconds as u64)
}

pub(super) fn sleep(nanoseconds: u64) {
    let time = [(nanoseconds / 1_000_000_000) as isize, (nanoseconds % 1_000_000_000) as isize];
    bare::poll([], Some(time));
}

/// Waits until one of two fds is readable; says which are.
pub(super) fn poll(one: i32, other: i32) -> [bool; 2] {
    bare::poll([one, other], None)
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
    let answer = call(numbers::RECVMSG, [int(line), into(&mut message), CLOSE_ON_EXEC]);
    let Control { fds: [dir, kill, events, _], .. } = control;
    (answer, [dir, kill, events])
}
