//! The birth of a main process below its keeper.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. The rules of `child_side.rs` hold for
//! all of it: no allocation, no lock, no panic, no return; and until its exec the main process may
//! share the keeper's memory.
#![expect(unsafe_code, reason = "a process that is born in its keeper's memory")]

use std::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;
use std::ptr;

use nix::errno::Errno;

use crate::error::Step;
use crate::exec::child_side::{Failure, Orders, born};
use crate::sys::clone;
use crate::sys::pass;
use crate::sys::raw::{dispose, int, prctl};

/// The orders for a keeper, with those for the main process; fds by number.
pub(crate) struct Charge<'a> {
    pub(crate) orders: &'a Orders<'a>,
    /// The main process may share the keeper's memory until its exec.
    pub(crate) share: bool,
    /// The owner can open no pidfd: the keeper sends it the main process's, before all else.
    pub(crate) sends_pidfd: bool,
    pub(crate) owner: libc::pid_t,
    /// The directory `/proc`.
    pub(crate) proc: BorrowedFd<'a>,
    /// The keeper's end of the line between the two, and the owner's.
    pub(crate) line: c_int,
    pub(crate) owners_end: c_int,
}

/// The orders for a main process, from its keeper.
pub(crate) struct MainOrders<'a> {
    pub(crate) charge: &'a Charge<'a>,
    pub(crate) keeper: libc::pid_t,
    /// SIGCHLD was ignored before.
    pub(crate) ignored: bool,
}

impl MainOrders<'_> {
    /// Forks the main process, in shared memory where that is allowed, which saves a second copy of
    /// the owner's. The keeper is suspended until the exec then; the owner watches over the main
    /// process meanwhile.
    pub(crate) fn fork_main(&self) -> Result<libc::pid_t, Failure> {
        let arg = ptr::from_ref(self).cast();
        if self.charge.sends_pidfd {
            return self.fork_and_send(arg);
        }
        if self.charge.share {
            // SAFETY: `main_process` ends by exec or `_exit`, and all signals are blocked.
            match unsafe { clone::clone_suspended(main_process, arg) } {
                Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => {}
                born => return born.map_err(failed),
            }
        }
        // SAFETY: this process has one thread; closures are the caller's own promise.
        unsafe { clone::fork_alone(main_process, arg) }.map_err(failed)
    }
}

impl MainOrders<'_> {
    /// Forks the main process with a pidfd, and sends that to the owner.
    fn fork_and_send(&self, arg: *const c_void) -> Result<libc::pid_t, Failure> {
        // SAFETY: `main_process` takes no lock: the owner gives no closures where pidfds are sent.
        let born = unsafe { clone::fork_with_pidfd(main_process, arg) };
        let (pid, pidfd) = born.map_err(failed)?;
        // SAFETY: the line is open for as long as this process lives.
        let line = unsafe { BorrowedFd::borrow_raw(self.charge.line) };
        // Without it the owner gives up; there is a main process, so this one has to stay and kill.
        let _ = pass::send_fds(line, 0, [pidfd]);
        // SAFETY: nothing else owns it.
        unsafe { libc::close(pidfd) };
        Ok(pid)
    }
}

fn failed(errno: Errno) -> Failure {
    Failure { step: Step::Fork, errno: errno as i32 }
}

/// Runs as the main process; dies with its keeper if that is killed.
extern "C" fn main_process(orders: *const c_void) -> ! {
    // SAFETY: `fork_main` passes MainOrders that outlive the child's use of it.
    let MainOrders { charge, keeper, ignored } = unsafe { &*orders.cast() };
    if *ignored {
        dispose(libc::SIGCHLD, libc::SIG_IGN);
    }
    // SAFETY: no memory is involved.
    unsafe { prctl(libc::PR_SET_PDEATHSIG, int(libc::SIGKILL)) };
    if !is_parent(*keeper) {
        // SAFETY: ends this process without running anything of the owner's.
        unsafe { libc::_exit(127) }
    }
    born(ptr::from_ref(charge.orders).cast())
}

pub(crate) fn is_parent(pid: libc::pid_t) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::getppid() == pid }
}
