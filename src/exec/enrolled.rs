//! What a child of std's does between its fork and its exec to join a tree. The rules of
//! `child_side.rs` hold.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them.
#![expect(unsafe_code, reason = "the child between fork and exec")]

use std::ffi::{c_int, c_long};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command as StdCommand;
use std::sync::Weak;

use crate::sys::raw::{call, int};

/// Makes a command of std's join a cgroup before its exec, so that whatever builds on std's Command
/// may spawn it. The fd is the tree's: once the tree is gone the spawn fails.
pub(crate) fn join_before_exec(command: &mut StdCommand, procs: Weak<OwnedFd>) {
    let join = move || {
        end_unless_executed();
        let procs = procs.upgrade().ok_or(io::Error::from_raw_os_error(libc::ENOENT))?;
        nix::unistd::write(&*procs, b"0")?;
        Ok(())
    };
    // SAFETY: two atomic counts, two calls for a timer and one write(2) of a constant:
    // async-signal-safe, no allocation. The fork has copied a count that the parent's tree takes
    // part in, so the drop frees nothing.
    unsafe { command.pre_exec(join) };
}

/// Seconds in which an enrolled child has to execute; the same as for the library's own children.
const ENROLLED_AT_MOST: c_long = 10;

/// Makes the kernel kill this process unless it executes in time: exec deletes the timer. In a
/// frozen cgroup nothing else ends it, and its parent waits in std for the exec. Where timers are
/// refused the child does without.
fn end_unless_executed() {
    // SAFETY: sigevent is a plain struct of integers and pointers, which may be null.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_SIGNAL, libc::SIGKILL);
    let mut timer: c_int = 0;
    let (what, place) = (&raw const event, &raw mut timer);
    let args = [int(libc::CLOCK_MONOTONIC), what.expose_provenance(), place.expose_provenance()];
    let [clock, what, place] = args;
    // SAFETY: `event` is whole, and `timer` is writable.
    if unsafe { call(libc::SYS_timer_create, [clock, what, place, 0, 0]) } < 0 {
        return;
    }
    // No interval; the kernel's longs, whatever `time_t` is.
    let time: [c_long; 4] = [0, 0, ENROLLED_AT_MOST, 0];
    let time = (&raw const time).expose_provenance();
    // SAFETY: the kernel reads four longs.
    unsafe { call(libc::SYS_timer_settime, [int(timer), 0, time, 0, 0]) };
}
