//! Victims that do not run: stopped, traced, suspended, or without their main thread.

use std::mem::zeroed;
use std::ptr::null_mut;
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};

use super::life::{child, exit, fail, hold, mortal, must, ready, state, until};

pub(super) fn stopped() -> ! {
    let stopped = child(|| {
        killed_in(28);
        must("stop", raise(Signal::SIGSTOP));
        hold()
    });
    see_stopped(stopped, WaitPidFlag::WUNTRACED);
    ready();
    hold()
}

/// No alarm reaches a stopped process: only SIGKILL does, and a timer may send it.
fn killed_in(seconds: i32) {
    // SAFETY: all zeroes is a valid `sigevent`.
    let mut event: libc::sigevent = unsafe { zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    let mut timer = null_mut();
    // SAFETY: both pointers are to live variables.
    let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
    must("make a timer", Errno::result(made));
    // SAFETY: all zeroes is a valid `itimerspec`.
    let mut when: libc::itimerspec = unsafe { zeroed() };
    when.it_value.tv_sec = seconds.into();
    // SAFETY: the timer was just made, and is never deleted.
    let set = unsafe { libc::timer_settime(timer, 0, &raw const when, null_mut()) };
    must("set a timer", Errno::result(set));
}

fn see_stopped(pid: Pid, flags: WaitPidFlag) {
    match waitpid(pid, Some(flags)) {
        Ok(WaitStatus::Stopped(..)) => {}
        other => fail("see the child stopped", &format!("{other:?}")),
    }
}

pub(super) fn ptrace_stopped() -> ! {
    let traced = child(|| {
        // SAFETY: no memory is read or written.
        let asked = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        must("be traced", Errno::result(asked));
        must("stop", raise(Signal::SIGSTOP));
        hold()
    });
    see_stopped(traced, WaitPidFlag::empty());
    let options = libc::PTRACE_O_EXITKILL;
    // SAFETY: the child is in a ptrace stop; no memory is read or written.
    let set = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, traced.as_raw(), 0, options) };
    must("bind the child's life to ours", Errno::result(set));
    ready();
    hold()
}

pub(super) fn dead_leader() -> ! {
    lose_leader(|| {
        ready();
        hold()
    })
}

/// Goes on with `rest` in another thread of a process whose main thread is a zombie.
pub(super) fn lose_leader(rest: impl FnOnce() + Send + 'static) -> ! {
    let body = || {
        until("the leader is a zombie", || state("self") == Some('Z'));
        rest();
        exit(0)
    };
    // Small, as a fork keeps the stacks of all its ancestors' threads.
    let thread = thread::Builder::new().stack_size(1 << 17).spawn(body);
    must("start a thread", thread.map(drop));
    // SAFETY: ends this thread alone, without its destructors; the other borrows nothing from its
    // stack.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    fail("leave the main thread", &Errno::last())
}

/// `CLONE_VFORK` alone suspends the parent as vfork does, but leaves it its memory.
pub(super) fn vfork_parent() -> ! {
    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: as fork, of a process of one thread; nothing that follows uses glibc's stale thread
    // id.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid != 0 {
        must("clone", Errno::result(pid));
        hold()
    }
    mortal();
    until("the parent is suspended", || state(&getppid().to_string()) == Some('D'));
    ready();
    hold()
}
