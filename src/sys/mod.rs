//! System calls that nix lacks, as safe functions over owned and borrowed fds, and what is built on
//! these alone: births (`clone`), waits (`poll`), this process's identity.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. The functions of this file are thin
//! wrappers: the kernel checks what it is given, and no pointer outlives its call.
#![expect(unsafe_code, reason = "raw system calls that no safe crate of our choice wraps")]

pub(crate) mod bury;
pub(crate) mod clone;
mod clone_args;
pub(crate) mod environ;
pub(crate) mod fork;
pub(crate) mod inmates;
#[cfg(feature = "cli")]
pub(crate) mod opening;
pub(crate) mod pass;
pub(crate) mod poll;
pub(crate) mod proc_events;
pub(crate) mod raw;
pub(crate) mod identity;
mod safe;
mod status;
#[cfg(feature = "cli")]
pub(crate) mod standin;
#[cfg(feature = "cli")]
pub(crate) mod terminal;

use std::ffi::{CStr, CString, c_int};
#[cfg(feature = "cli")]
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
#[cfg(feature = "tokio")]
use std::{io, sync::Arc};

use nix::errno::Errno;
use nix::fcntl::OFlag;
#[cfg(feature = "cli")]
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
#[cfg(feature = "tokio")]
use tokio::io::{Interest, unix::AsyncFd};

pub(crate) use crate::sys::safe::{SignalsBlocked, above_two};
pub(crate) use crate::sys::status::{await_end, check_child, is_stopped, reap};

/// The kernel's name of a stand-in, which is no stranger in its parent's cgroup.
pub(crate) const STAND_IN: &CStr = c"tidy-stand-in";

/// The value that comes with a signal for a whole tree: a supervisor in that tree need not send it
/// on to its own.
pub(crate) const TO_ALL: i32 = 0x7469_6479;

/// A new process: its pid (a label) and its pidfd (the handle).
#[derive(Debug)]
pub(crate) struct Newborn {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

impl Newborn {
    /// Moves the handle out of the place of a stream that is closed in this process: the caller
    /// may put another file there.
    pub(crate) fn above_the_streams(self) -> Self {
        match self.pidfd.as_raw_fd() {
            // The copy is above 2; without one the handle is good where it is.
            0..=2 => match self.pidfd.try_clone() {
                Ok(pidfd) => Self { pidfd, ..self },
                Err(_) => self,
            },
            _ => self,
        }
    }
}

/// Opens the handle on a child that is not reaped yet.
pub(crate) fn handle(pid: i32) -> Result<Newborn, Errno> {
    pidfd_open(pid).and_then(own_child).map(|pidfd| Newborn { pid, pidfd })
}

/// Opens a handle on the process that has this pid now. Minimum Linux version: 5.3.
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    let answer = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(answer).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just opened this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of the mount at `/`, which no other mount has or had since the machine's start: each
/// mount namespace has one of its own. None before Linux 6.8; see [statx(2)].
///
/// [statx(2)]: https://man7.org/linux/man-pages/man2/statx.2.html
#[cfg(feature = "sandbox")]
pub(crate) fn root_mount() -> Option<u64> {
    const UNIQUE_MOUNT: u64 = 0x4000;
    // `struct statx`, of 256 bytes: what is known is in the lower half of the first word, the
    // mount's number at 144.
    let mut all = [0u64; 32];
    let (root, place) = (c"/".as_ptr(), all.as_mut_ptr());
    // SAFETY: a string that ends in NUL, and room for what the kernel writes.
    let answer =
        unsafe { libc::syscall(libc::SYS_statx, libc::AT_FDCWD, root, 0, UNIQUE_MOUNT, place) };
    let known = u64::from_ne_bytes(all[0].to_ne_bytes()) & UNIQUE_MOUNT != 0;
    (answer == 0 && known).then_some(all[18])
}

/// Whether this process is confined by a fence: it can have no new privileges, and a filter answers
/// openat2(2) as a kernel without it would, which those of containers do not.
pub(crate) fn is_fenced() -> bool {
    let no_openat2 = answer_of(libc::SYS_openat2) == Errno::ENOSYS;
    no_openat2 && nix::sys::prctl::get_no_new_privs() == Ok(true)
}

/// Makes a system call with arguments that it refuses, so that it does nothing: its errno, or that
/// of a filter.
fn answer_of(call: std::ffi::c_long) -> Errno {
    // SAFETY: no memory is at -1, and no fd, process or flags.
    let answer = unsafe { libc::syscall(call, -1, -1, -1, -1, -1) };
    Errno::result(answer).err().unwrap_or(Errno::UnknownErrno)
}

/// Whether a filter refuses one of the calls that a fence has to.
#[cfg(feature = "cli")]
#[must_use]
pub fn is_refused(call: &str) -> bool {
    let (call, errno) = match call {
        "clone3" => (libc::SYS_clone3, Errno::ENOSYS),
        "setns" => (libc::SYS_setns, Errno::EPERM),
        "mount" => (libc::SYS_mount, Errno::EPERM),
        "ptrace" => (libc::SYS_ptrace, Errno::EPERM),
        "pidfd_getfd" => (libc::SYS_pidfd_getfd, Errno::EPERM),
        "process_vm_writev" => (libc::SYS_process_vm_writev, Errno::EPERM),
        "unshare" => (libc::SYS_unshare, Errno::EPERM),
        "bpf" => (libc::SYS_bpf, Errno::EPERM),
        "keyctl" => (libc::SYS_keyctl, Errno::EPERM),
        "io_uring_setup" => (libc::SYS_io_uring_setup, Errno::EPERM),
        _ => return false,
    };
    answer_of(call) == errno
}

/// Whether this kernel lacks pidfd_open(2), or a seccomp filter refuses it.
pub(crate) fn refuses_pidfds() -> bool {
    let me = pidfd_open(std::process::id().cast_signed());
    matches!(me, Err(Errno::ENOSYS | Errno::EPERM))
}

/// Opens what signals can be sent through to the process that has this pid now: a pidfd, or where
/// that is refused its directory in `/proc` (pidfd_send_signal(2)).
pub(crate) fn signal_fd(pid: i32) -> Result<OwnedFd, Errno> {
    match pidfd_open(pid) {
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            nix::fcntl::open(&*format!("/proc/{pid}"), flags, Mode::empty())
        }
        opened => opened,
    }
}

/// Returns the pidfd if it is a child's: where SIGCHLD is ignored, or another thread waits for
/// every child, the pid of a child that has ended may belong to another process by now.
fn own_child(pidfd: OwnedFd) -> Result<OwnedFd, Errno> {
    check_child(pidfd.as_fd()).map(|()| pidfd)
}

/// Registers an fd with the caller's tokio runtime, for its readiness.
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

/// Whether this process ignores the signal: by default it does if its parent did at the exec.
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

/// Opens a netlink socket for requests about sockets ([sock_diag(7)]).
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

/// Sends a signal with a value, as sigqueue(3) does.
pub(crate) fn pidfd_queue(pidfd: BorrowedFd<'_>, signal: i32, value: u64) -> Result<(), Errno> {
    /// The fields of a queued signal's siginfo, which libc keeps to itself.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Fields {
        signal: c_int,
        errno: c_int,
        code: c_int,
        sender: Sender,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Sender {
        pid: libc::pid_t,
        uid: libc::uid_t,
        value: usize,
    }
    #[repr(C)]
    union Info {
        all: libc::siginfo_t,
        fields: Fields,
    }
    // SAFETY: plain numbers, for which zero is valid.
    let mut info = Info { all: unsafe { std::mem::zeroed() } };
    let (pid, uid) = (std::process::id().cast_signed(), nix::unistd::getuid().as_raw());
    // A value is as wide as a pointer.
    let value = usize::try_from(value).unwrap_or_default();
    let sender = Sender { pid, uid, value };
    info.fields = Fields { signal, errno: 0, code: libc::SI_QUEUE, sender };
    let fd = pidfd.as_raw_fd();
    // SAFETY: the kernel reads one siginfo, all of whose bytes are set.
    let answer =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, &raw const info, 0) };
    Errno::result(answer).map(drop)
}

/// The set of these signals, real-time ones too.
#[must_use]
#[cfg(feature = "cli")]
pub fn signal_set(signals: impl Iterator<Item = i32>) -> SigSet {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is writable.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset has made it a set.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: a set, and a number that is refused if it is no signal's.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: a set that libc has made.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

/// Whether the kernel knows a signal of this number, or it is 0 (which only asks).
pub(crate) fn is_signal(number: i32) -> bool {
    (0..=libc::SIGRTMAX()).contains(&number)
}

/// Opens the same directory in a detached mount, which no other process sees, without the mounts
/// below it.
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

/// Reads an extended attribute of an open file; `ERANGE` if the buffer is too small for it.
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
#[cfg(feature = "cli")]
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

/// Makes the fd stand for what is open under this number, closed by exec.
pub(crate) fn dup_to(from: RawFd, to: &mut OwnedFd) -> Result<(), Errno> {
    // SAFETY: plain integers; `to` is this caller's alone, and stays open.
    let answer = unsafe { libc::dup3(from, to.as_raw_fd(), libc::O_CLOEXEC) };
    Errno::result(answer).map(drop)
}

#[cfg(feature = "cli")]
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
