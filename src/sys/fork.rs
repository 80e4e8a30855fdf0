//! Starts a process in a copy of this one.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. `exec/child_side.rs` and
//! `keeper/birth.rs` say what a child may do.
#![expect(unsafe_code, reason = "fork and raw calls")]

use std::ffi::{c_long, c_void};
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, write};

use crate::sys::clone::{Entry, check};
use crate::sys::poll::BackOff;
use crate::sys::raw::{call, int};
use crate::sys::{Newborn, handle};

/// Starts a child in a copy of this process, with libc's fork handlers run, where `entry` must
/// never return.
///
/// The child waits until there is a handle on it. Before, its pid is only a number: where SIGCHLD
/// is ignored, or another thread waits for every child, a child that has ended gives its pid to
/// another process. So a child without a handle is never signalled: it reads the end of the file,
/// and ends.
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
    // This process's own end of it was open until here: the write could not meet SIGPIPE.
    drop((hold, go));
    newborn.inspect_err(|_| reap_number(pid))
}

/// Reaps a child that ends by itself, within a second. Does nothing if the pid is no child's.
fn reap_number(pid: i32) {
    let mut back_off = BackOff::doubling(Duration::from_micros(100), Duration::from_millis(400));
    // SAFETY: a null status is allowed.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) } == 0 {
        if !back_off.sleep(None) {
            return;
        }
    }
}

/// Forks with a pidfd from birth on, for where pidfd_open(2) is refused. libc's fork handlers do
/// not run, so a lock that another thread holds stays locked in the child.
///
/// # Safety
/// As for [`fork`]; besides, nothing in the child may take a lock, as an allocation does. Nothing
/// else owns the fd.
pub(crate) unsafe fn fork_with_pidfd(
    entry: Entry,
    arg: *const c_void,
) -> Result<(i32, RawFd), Errno> {
    let mut pidfd: RawFd = -1;
    let flags = int(libc::CLONE_PIDFD | libc::SIGCHLD);
    let place = (&raw mut pidfd).expose_provenance();
    // SAFETY: without CLONE_VM the child runs on in a copy of this memory, on a copy of this stack;
    // the kernel writes the fd before the call returns.
    let answer = unsafe { call(libc::SYS_clone, [flags, 0, place, 0, 0]) };
    let pid = check(answer as c_long)?;
    if pid == 0 {
        entry(arg);
    }
    Ok((pid, pidfd))
}

/// Forks without a handle: the caller has to get one, or see the child's end.
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
