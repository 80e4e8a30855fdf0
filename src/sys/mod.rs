//! The system calls that nix lacks, as safe functions over owned and borrowed fds.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. Everything here is a thin wrapper:
//! the kernel checks what it is given, and no pointer outlives its call. The exceptions are
//! [`clone_into`] and [`fork`], which start a child that runs in this address space or in a copy of
//! it: what such a child may do is the business of `born.rs` and `keeper.rs`.
#![expect(unsafe_code, reason = "raw system calls that no safe crate of our choice wraps")]

pub(crate) mod bury;
pub(crate) mod pass;
pub(crate) mod poll;
pub(crate) mod identity;
mod safe;

use std::ffi::{CStr, CString, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::ptr;
use std::time::Duration;
#[cfg(feature = "tokio")]
use std::{io, sync::Arc};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, write};
#[cfg(feature = "tokio")]
use tokio::io::{Interest, unix::AsyncFd};

use crate::sys::poll::BackOff;
pub(crate) use crate::sys::safe::{SignalsBlocked, above_two};

/// A function that a child starts in and never returns from.
pub(crate) type Entry = extern "C" fn(*const c_void) -> !;

/// A new process: its pid (a label) and its pidfd (the handle).
#[derive(Debug)]
pub(crate) struct Newborn {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// libc's constants of these names are too narrow for their values.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Starts a child, in `cgroup` or beside us, that shares our memory until it execs or exits, as
/// vfork(2) has it: this thread is suspended until then, other threads run on.
///
/// Sharing the memory keeps the cost of a spawn independent of the caller's size (a copy of 1 GiB
/// of page tables costs 77 ms). `CLONE_CLEAR_SIGHAND` makes sure that no signal handler of ours
/// ever runs in the child, which stands on this thread's stack. Minimum Linux version: 5.7
/// (`CLONE_INTO_CGROUP`); see [clone3(2)].
///
/// # Safety
/// `entry` must be fit to run in shared memory, beside all other threads of this process:
/// async-signal-safe, no allocation, no locks, no unwinding, and it must end by exec or `_exit`.
/// `arg` must be what it expects. All signals must be blocked.
///
/// [clone3(2)]: https://man7.org/linux/man-pages/man2/clone.2.html
pub(crate) unsafe fn clone_into(
    cgroup: Option<BorrowedFd<'_>>,
    entry: Entry,
    arg: *const c_void,
) -> Result<Newborn, Errno> {
    let mut pidfd: RawFd = -1;
    let mut args = sharing();
    args.flags |= u64::from(libc::CLONE_PIDFD.cast_unsigned());
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    // SAFETY: the caller's obligation.
    let pid = unsafe { share(&args, entry, arg) }?;
    // SAFETY: the kernel has just opened this pidfd for us, and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Newborn { pid, pidfd })
}

/// The same for a caller that may not allocate, and without a handle.
///
/// # Safety
/// As for [`clone_into`].
pub(crate) unsafe fn clone_plain(entry: Entry, arg: *const c_void) -> Result<i32, Errno> {
    // SAFETY: the caller's obligation.
    unsafe { share(&sharing(), entry, arg) }
}

fn sharing() -> libc::clone_args {
    // SAFETY: clone_args is a plain struct of integers, for which zero means "not given".
    let mut args: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    args.flags = u64::from(flags.cast_unsigned()) | CLONE_CLEAR_SIGHAND;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    args
}

unsafe fn share(args: &libc::clone_args, entry: Entry, arg: *const c_void) -> Result<i32, Errno> {
    // SAFETY: the child stands on our stack, below the frame of this call, where nobody else writes
    // until it has executed or ended (CLONE_VFORK); what `entry` may do is the caller's obligation.
    check(unsafe { clone3(args, entry, arg) })
}

/// The parent gets the pid or a negative errno; the child calls `entry` below the frame that the
/// parent still needs, and never returns to it.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &libc::clone_args, entry: Entry, arg: *const c_void) -> libc::c_long {
    let answer: libc::c_long;
    // SAFETY: the system call clobbers rax, rcx and r11 only; the child's branch never comes back
    // here. Without `nostack` the compiler has aligned the stack for a call, and keeps nothing in
    // the red zone below it.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r8",
            "call r9",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => answer,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of::<libc::clone_args>(),
            in("r8") arg,
            in("r9") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &libc::clone_args, entry: Entry, arg: *const c_void) -> libc::c_long {
    let answer: libc::c_long;
    // SAFETY: the system call clobbers x0 only; the child's branch never comes back here. The stack
    // is aligned for a call, as always.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x9",
            "blr x10",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") ptr::from_ref(args).expose_provenance() as libc::c_long => answer,
            in("x1") size_of::<libc::clone_args>(),
            in("x9") arg,
            in("x10") entry,
        );
    }
    answer
}

/// Elsewhere the caller falls back to [`fork`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_: &libc::clone_args, _: Entry, _: *const c_void) -> libc::c_long {
    -libc::c_long::from(Errno::ENOSYS as i32)
}

fn check(answer: libc::c_long) -> Result<i32, Errno> {
    i32::try_from(answer)
        .map_or(Err(Errno::EOVERFLOW), |n| if n < 0 { Err(Errno::from_raw(-n)) } else { Ok(n) })
}

/// Starts a child in a copy of this process, with libc's fork handlers run, where `entry` must
/// never return.
///
/// The child waits until there is a handle on it. Before, its pid is only a number: where SIGCHLD
/// is ignored, or another thread waits for every child, one that has ended gives it to a stranger.
/// So a child without a handle is never signalled: it reads the end of the file, and ends.
///
/// # Safety
/// `entry` runs after a fork of a process that may have threads: only async-signal-safe work.
pub(crate) unsafe fn fork(entry: Entry, arg: *const c_void) -> Result<Newborn, Errno> {
    let (hold, go) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the child reads and closes two fds, then goes on to `entry`: the caller's obligation.
    let pid = Errno::result(unsafe { libc::fork() })?;
    if pid == 0 {
        drop(go);
        let told = read(&hold, &mut [0]);
        drop(hold);
        if told != Ok(1) {
            // SAFETY: ends this process without running anything of the parent's.
            unsafe { libc::_exit(127) };
        }
        entry(arg);
    }
    let newborn = handle(pid).and_then(|newborn| write(&go, b"1").map(|_| newborn));
    // Our own end of it was open until here: a write could not meet SIGPIPE.
    drop((hold, go));
    newborn.inspect_err(|_| reap_number(pid))
}

/// Reaps a child that ends by itself, within a second. Nothing happens if it is none of ours.
fn reap_number(pid: i32) {
    let mut back_off = BackOff::doubling(Duration::from_micros(100), Duration::from_millis(400));
    // SAFETY: a null status is allowed.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) } == 0 {
        if !back_off.sleep(None) {
            return;
        }
    }
}

/// The same without a handle: the caller has to get one, or see the child's end.
///
/// # Safety
/// As for [`fork`].
pub(crate) unsafe fn fork_alone(entry: Entry, arg: *const c_void) -> Result<i32, Errno> {
    // SAFETY: the child goes straight to `entry`, whose fitness is the caller's obligation.
    let pid = Errno::result(unsafe { libc::fork() })?;
    if pid == 0 {
        entry(arg);
    }
    Ok(pid)
}

/// The handle on a child that is not reaped yet.
pub(crate) fn handle(pid: i32) -> Result<Newborn, Errno> {
    pidfd_open(pid).and_then(own_child).map(|pidfd| Newborn { pid, pidfd })
}

/// A handle on the process that has this pid now. Minimum Linux version: 5.3.
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    let answer = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(answer).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just opened this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The pidfd, if it is a child of ours: where SIGCHLD is ignored, or somebody waits for every
/// child, the pid of one that has ended may belong to a stranger by now.
fn own_child(pidfd: OwnedFd) -> Result<OwnedFd, Errno> {
    let id = pidfd.as_raw_fd().cast_unsigned();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: a null siginfo is allowed, and nothing is reaped.
    let answer = unsafe { libc::waitid(libc::P_PIDFD, id, ptr::null_mut(), flags) };
    Errno::result(answer).map(|_| pidfd)
}

/// An fd whose readiness the tokio runtime of the caller hears of.
#[cfg(feature = "tokio")]
pub(crate) fn watch(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `OwnedFd` is one and the same open fd for as long as this `Arc` is held.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// Makes SIGCHLD the default again. A parent that ignores it hands that down over exec, and then
/// the kernel keeps no exit status.
#[cfg(feature = "cli")]
pub fn reset_sigchld() {
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Whether this process ignores the signal: what was so when it was started, unless that was
/// changed since.
#[must_use]
#[cfg(feature = "cli")]
pub fn ignores(signal: i32) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `now` is writable, and nothing is changed.
    let answer = unsafe { libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) };
    // SAFETY: zeroed is a valid sigaction, and the kernel has filled it since.
    let now = unsafe { now.assume_init() };
    answer == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// A netlink socket to ask about sockets with ([sock_diag(7)]).
///
/// [sock_diag(7)]: https://man7.org/linux/man-pages/man7/sock_diag.7.html
pub(crate) fn sock_diag() -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is involved.
    let answer = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
    let fd = Errno::result(answer)?;
    // SAFETY: the kernel has just opened this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to exactly the process behind `pidfd`; `ESRCH` once it is reaped. Signal 0 only
/// asks.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let fd = pidfd.as_raw_fd();
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed: the kernel then fills in what kill(2) would.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
    Errno::result(answer).map(drop)
}

/// Whether the kernel knows a signal of this number, or it is 0 (which only asks).
pub(crate) fn is_signal(number: i32) -> bool {
    (0..=libc::SIGRTMAX()).contains(&number)
}

/// Reaps the child behind `pidfd` if it has ended. `ECHILD` where somebody else took its status.
///
/// Not nix's `waitid`: that one has no value for a real-time signal.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> Result<Option<ExitStatus>, Errno> {
    let id = pidfd.as_raw_fd().cast_unsigned();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG;
    // SAFETY: `info` is writable for the length of the call.
    let answer = unsafe { libc::waitid(libc::P_PIDFD, id, info.as_mut_ptr(), flags) };
    Errno::result(answer)?;
    // SAFETY: zeroed is a valid siginfo, and the kernel has filled it since.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills the SIGCHLD fields, or leaves zeroes when nobody has ended.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    Ok((pid != 0).then(|| decode(info.si_code, status)))
}

/// The status word of wait(2) from the two fields of waitid(2).
fn decode(code: i32, status: i32) -> ExitStatus {
    ExitStatus::from_raw(match code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    })
}

/// The same directory in a mount of its own that nobody else sees, without what is mounted below.
/// Needs the right to mount. Minimum Linux version: 5.2; see [open_tree(2)].
///
/// [open_tree(2)]: https://man7.org/linux/man-pages/man2/open_tree.2.html
pub(crate) fn without_mounts(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const OPEN_TREE_CLONE: c_int = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
    // SAFETY: an empty string that ends in NUL.
    let answer =
        unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), c"".as_ptr(), flags) };
    let fd = RawFd::try_from(Errno::result(answer)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just opened this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an extended attribute of an open file.
pub(crate) fn set_attribute(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let (data, len) = (value.as_ptr().cast(), value.len());
    // SAFETY: a string that ends in NUL, and `len` readable bytes.
    let answer = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), data, len, 0) };
    Errno::result(answer).map(drop)
}

/// The value of an extended attribute of an open file; `ERANGE` if the buffer is too small for it.
pub(crate) fn get_attribute<'a>(
    fd: BorrowedFd<'_>,
    name: &CStr,
    buffer: &'a mut [u8],
) -> Result<&'a [u8], Errno> {
    let (place, room) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: a string that ends in NUL, and `room` writable bytes.
    let answer = unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), place, room) };
    let len = Errno::result(answer)?;
    Ok(usize::try_from(len).ok().and_then(|len| buffer.get(..len)).unwrap_or_default())
}

/// Closes every fd but these; false where that is refused (a seccomp filter, a kernel before 5.9).
///
/// # Safety
/// Nothing in this process may use those that are closed. Async-signal-safe.
pub(crate) unsafe fn close_all_but(mut kept: [RawFd; 3]) -> bool {
    kept.sort_unstable();
    let mut next: RawFd = 0;
    let mut closed = true;
    for fd in kept {
        closed &= next >= fd || close_range(next, fd.wrapping_sub(1));
        next = fd.wrapping_add(1);
    }
    closed & close_range(next, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> bool {
    // SAFETY: what is closed is the business of `close_all_but`'s caller.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
}

/// Sends one byte through a socket, or fails at once. No SIGPIPE: a caller that is no Rust program
/// may die of one.
pub(crate) fn send(socket: BorrowedFd<'_>, byte: u8) -> Result<(), Errno> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the kernel reads one byte.
    let answer = unsafe { libc::send(socket.as_raw_fd(), ptr::from_ref(&byte).cast(), 1, flags) };
    Errno::result(answer).map(drop)
}

/// Fills the buffer with entries of a directory ([getdents64(2)]); none is left when it is empty.
///
/// [getdents64(2)]: https://man7.org/linux/man-pages/man2/getdents.2.html
pub(crate) fn getdents<'a>(dir: BorrowedFd<'_>, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let (place, room) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes into the buffer, no more than its length.
    let answer = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), place, room) };
    let len = Errno::result(answer)?;
    Ok(usize::try_from(len).ok().and_then(|len| buffer.get(..len)).unwrap_or_default())
}

/// Whether a path has an extended attribute of this name, whatever its value.
pub(crate) fn has_attribute(path: &Path, name: &CStr) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: two strings that end in NUL; a size of 0 asks for the length alone.
    let answer = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), ptr::null_mut(), 0) };
    answer >= 0
}
