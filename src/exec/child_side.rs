//! What a child does between its birth and its exec. The reasons for the odd style:
//!
//! 1. The child runs in its parent's memory (`CLONE_VM`), or in a copy of it taken while other
//!    threads held locks (fork). So it may not allocate, lock, panic or unwind, and it has no way
//!    to return.
//! 2. Therefore everything it needs was prepared before: each string ends in NUL, each list in
//!    null, each fd is above 2 (so that no `dup2` overwrites another's source).
//! 3. libc's `setuid` and its kin would change all threads *of the parent* when memory is shared,
//!    and errno would be the parent's: all calls are raw ones.
//! 4. Signal handlers are gone before signals are let in again: a handler of the parent's must
//!    never run here. A signal may stop this process then, before its exec: the parent continues
//!    it.
//! 5. What failed goes out as one word: step and errno, into shared memory and, after a fork,
//!    through a pipe whose end of file means that exec has happened.
//! 6. The word is `UNBORN` until the first instruction: so the parent knows a child that was killed
//!    at birth from one that has executed and was killed later. Only the first kind may be
//!    started again.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. `born` relies on an `Orders` whose
//! pointers are all valid until exec: `Image` owns what they point to, and its borrow lasts across
//! the clone.
#![expect(unsafe_code, reason = "the child between clone and exec lives outside the safe world")]

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::error::Step;
pub(crate) use crate::exec::orders::{Closure, GuardImage, Orders, RUNNING, UNBORN};
use crate::exec::set_up::SetUp;
use crate::sys::Newborn;
use crate::sys::clone::{self, Birth};
use crate::sys::fork;
use crate::sys::raw::{call, default_unless_ignored, dispose, errno, int, prctl};

/// Starts the child in `cgroup` by clone3, sharing its memory with this process until it has
/// executed or ended. `help` is called for a child that takes long, and answers whether to wait on.
pub(crate) fn clone_into(
    cgroup: Option<&OwnedFd>,
    orders: &Orders<'_>,
    help: &mut dyn FnMut(&Newborn) -> bool,
) -> Result<Birth, Errno> {
    let arg = ptr::from_ref(orders).cast();
    let home =
        clone::Home { cgroup: cgroup.map(AsFd::as_fd), shares_files: orders.leaves_at.is_some() };
    // SAFETY: `born` keeps the rules at the top of this file, and `arg` is the Orders it expects.
    unsafe { clone::clone_into(home, born, arg, help) }
}

/// Starts the child by fork; the child joins its cgroup before anything else.
pub(crate) fn fork(orders: &Orders<'_>) -> Result<Newborn, Errno> {
    let arg = ptr::from_ref(orders).cast();
    // SAFETY: as above; closures are the caller's own promise (`Command::pre_exec` is unsafe).
    unsafe { fork::fork(born, arg) }
}

/// Follows the orders in this process itself; returns only if a step fails.
pub(crate) fn exec(orders: &Orders<'_>) -> Failure {
    orders.follow()
}

pub(crate) extern "C" fn born(orders: *const c_void) -> ! {
    // SAFETY: all callers pass an Orders that outlives the child's use of it.
    let orders: &Orders<'_> = unsafe { &*orders.cast() };
    orders.word.store(RUNNING, Ordering::Relaxed);
    fail(orders, &orders.follow())
}

/// Tells the parent which step failed, and ends this process.
pub(crate) fn fail(orders: &Orders<'_>, failure: &Failure) -> ! {
    let Failure { step, errno } = *failure;
    let word = ((step as u32) << 24) | (errno.cast_unsigned() & 0x00ff_ffff);
    orders.word.store(word, Ordering::Relaxed);
    if let Ok(channel) = usize::try_from(orders.channel) {
        let word = (&raw const word).expose_provenance();
        // SAFETY: four bytes of this stack, to an fd that the parent keeps open.
        unsafe { call(libc::SYS_write, [channel, word, 4, 0, 0]) };
    }
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) errno: c_int,
}

/// `?` on a raw call's answer: a negative errno becomes the step's failure.
pub(crate) fn ok(step: Step, answer: isize) -> Result<(), Failure> {
    if answer < 0 {
        return Err(Failure { step, errno: errno(answer) });
    }
    Ok(())
}

impl Orders<'_> {
    /// Runs the steps in std's order; returns only if one of them fails.
    fn follow(&self) -> Failure {
        if let Err(failure) = self.leave_files() {
            return failure;
        }
        if let Some(set_up) = self.set_up {
            return self.bring(set_up);
        }
        match self.prepare_tied().and_then(|()| self.confine()) {
            Err(failure) => failure,
            Ok(()) => match self.guard {
                None => self.exec(),
                Some(GuardImage::Program(program)) => self.exec_fd(program.as_raw_fd(), self.argv),
                Some(GuardImage::Fork(live)) => self.live(live),
            },
        }
    }

    /// Leaves the open files that it shares with its parent, before anything is done to one: with
    /// those below a number. What is closed in its own table then is not closed in the parent's,
    /// whose locks stay.
    fn leave_files(&self) -> Result<(), Failure> {
        let Some(first) = self.leaves_at else { return Ok(()) };
        let (last, own) = (libc::c_uint::MAX as usize, libc::CLOSE_RANGE_UNSHARE as usize);
        // SAFETY: plain integers.
        let left = unsafe { call(libc::SYS_close_range, [int(first), last, own, 0, 0]) };
        let confined = self.confine.is_some();
        ok(if confined { Step::CloseFds } else { Step::InheritFds }, left)
    }

    /// Keeps the parent-death signal: the kernel clears it when the user changes, which a closure
    /// may do too.
    fn prepare_tied(&self) -> Result<(), Failure> {
        let same_user = self.groups.is_none() && self.gid.is_none() && self.uid.is_none();
        if same_user && self.closures.is_empty() {
            return self.prepare();
        }
        // SAFETY: no memory is involved.
        let parent = unsafe { libc::getppid() };
        let mut tie: c_int = 0;
        let place = (&raw mut tie).expose_provenance();
        // SAFETY: `tie` is writable.
        let answer = unsafe { prctl(libc::PR_GET_PDEATHSIG, place) };
        ok(Step::Uid, answer)?;
        self.prepare()?;
        if tie == 0 {
            return Ok(());
        }
        // SAFETY: plain integers.
        let answer = unsafe { prctl(libc::PR_SET_PDEATHSIG, int(tie)) };
        ok(Step::Uid, answer)?;
        // SAFETY: no memory is involved.
        match unsafe { libc::getppid() } == parent {
            true => Ok(()),
            false => Err(Failure { step: Step::Uid, errno: libc::ESRCH }),
        }
    }

    /// Executes the program that brings the command, with the fds that it needs. Its signals stay
    /// blocked until it has a process for the command.
    fn bring(&self, set_up: &SetUp) -> Failure {
        if let Err(failure) = self.stand() {
            return failure;
        }
        for &fd in &set_up.fds {
            if let Err(failure) = unmark(fd, Step::CloseFds) {
                return failure;
            }
        }
        let Failure { errno, .. } = self.exec_fd(set_up.program, set_up.argv.as_ptr());
        Failure { step: Step::SetUp, errno }
    }

    fn prepare(&self) -> Result<(), Failure> {
        self.stand()?;
        self.identity()?;
        if !self.cwd.is_null() {
            let cwd = self.cwd.expose_provenance();
            // SAFETY: a string that ends in NUL.
            let answer = unsafe { call(libc::SYS_chdir, [cwd, 0, 0, 0, 0]) };
            ok(Step::Chdir, answer)?;
        }
        if let Some(umask) = self.umask {
            // SAFETY: plain integers; this process has its own mask.
            unsafe { call(libc::SYS_umask, [umask as usize, 0, 0, 0, 0]) };
        }
        if self.session {
            // SAFETY: no memory is involved.
            ok(Step::Session, unsafe { call(libc::SYS_setsid, [0; 5]) })?;
        }
        if let Some(group) = self.process_group {
            // SAFETY: plain integers.
            let answer = unsafe { call(libc::SYS_setpgid, [0, int(group), 0, 0, 0]) };
            ok(Step::ProcessGroup, answer)?;
        }
        match self.guard {
            None => self.signals()?,
            Some(_) => self.stand_apart()?,
        }
        self.pre_exec()?;
        self.keep_fds()
    }

    /// Joins the cgroup, if it was not born there, and takes its streams.
    fn stand(&self) -> Result<(), Failure> {
        if let Ok(join) = usize::try_from(self.join) {
            let zero = c"0".as_ptr().expose_provenance();
            // SAFETY: "0" means the writing process itself.
            let answer = unsafe { call(libc::SYS_write, [join, zero, 1, 0, 0]) };
            ok(Step::Join, answer)?;
        }
        let mut target: usize = 0;
        for &fd in &self.stdio {
            if let Ok(fd) = usize::try_from(fd) {
                // SAFETY: plain integers; fd is above 2, so no source is overwritten.
                let answer = unsafe { call(libc::SYS_dup3, [fd, target, 0, 0, 0]) };
                ok(Step::Stdio, answer)?;
            }
            target = target.wrapping_add(1);
        }
        Ok(())
    }

    fn identity(&self) -> Result<(), Failure> {
        if let Some(groups) = self.groups {
            let list = groups.as_ptr().expose_provenance();
            // SAFETY: the kernel reads `len` ids from the slice.
            let answer = unsafe { call(SYS_SETGROUPS, [groups.len(), list, 0, 0, 0]) };
            ok(Step::Groups, answer)?;
        }
        if let Some(gid) = self.gid {
            // SAFETY: plain integers.
            let answer = unsafe { call(SYS_SETGID, [gid as usize, 0, 0, 0, 0]) };
            ok(Step::Gid, answer)?;
        }
        if let Some(uid) = self.uid {
            // SAFETY: plain integers.
            let answer = unsafe { call(SYS_SETUID, [uid as usize, 0, 0, 0, 0]) };
            ok(Step::Uid, answer)?;
        }
        Ok(())
    }

    /// Handlers go (ignored signals stay ignored, for nohup's sake), but SIGPIPE, which Rust
    /// and Python ignore, and SIGXFSZ, which Python ignores, become the default; then the mask is
    /// emptied.
    fn signals(&self) -> Result<(), Failure> {
        if self.forked {
            // clone3 has done this already (CLONE_CLEAR_SIGHAND); fork has not.
            (1..=64).for_each(default_unless_ignored);
        }
        ok(Step::Signals, dispose(libc::SIGPIPE, libc::SIG_DFL))?;
        ok(Step::Signals, dispose(libc::SIGXFSZ, libc::SIG_DFL))?;
        let none: u64 = 0;
        let (how, none) = (int(libc::SIG_SETMASK), (&raw const none).expose_provenance());
        // SAFETY: the kernel reads eight bytes.
        let answer = unsafe { call(libc::SYS_rt_sigprocmask, [how, none, 0, 8, 0]) };
        ok(Step::Signals, answer)
    }

    /// Makes a session of its own and keeps no fds but the three streams. All signals stay blocked,
    /// as they were at birth: what a terminal or a service manager sends never reaches the guard,
    /// from its first instruction on.
    fn stand_apart(&self) -> Result<(), Failure> {
        // SAFETY: no memory is involved.
        let answer = unsafe { call(libc::SYS_setsid, [0; 5]) };
        ok(Step::Guard, answer)?;
        mark_above(Step::Guard)
    }

    fn pre_exec(&self) -> Result<(), Failure> {
        // SAFETY: after a fork this is the only user of the (copied) closures; without one the list
        // is empty.
        let closures = unsafe { &mut *self.closures };
        for closure in closures {
            if let Err(error) = closure() {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                return Err(Failure { step: Step::PreExec, errno });
            }
        }
        Ok(())
    }

    /// Marks every fd above 2 to be closed by exec, then unmarks those that are listed.
    fn keep_fds(&self) -> Result<(), Failure> {
        let Some(fds) = self.fds else { return Ok(()) };
        mark_above(Step::InheritFds)?;
        fds.iter().try_for_each(|&fd| unmark(fd, Step::InheritFds))
    }

    fn confine(&self) -> Result<(), Failure> {
        let Some(confinement) = self.confine else { return Ok(()) };
        confinement.enter().map_err(|(step, errno)| Failure { step, errno })
    }

    /// Tries each candidate in turn, as execvp(3): a refusal by permissions is remembered. A file
    /// that is no program is an error, as with std, and does not go to `/bin/sh`.
    fn exec(&self) -> Failure {
        let mut errno = libc::ENOENT;
        for &path in self.candidates {
            match self.execve(path, self.argv) {
                libc::EACCES => errno = libc::EACCES,
                other @ (libc::ENOENT
                | libc::ENOTDIR
                | libc::ESTALE
                | libc::ENODEV
                | libc::ETIMEDOUT) => {
                    if errno != libc::EACCES {
                        errno = other;
                    }
                }
                other => {
                    errno = other;
                    break;
                }
            }
        }
        Failure { step: Step::Exec, errno }
    }

    /// Executes the open program: an empty path and `AT_EMPTY_PATH` mean the fd itself.
    fn exec_fd(&self, program: RawFd, argv: *const *const c_char) -> Failure {
        let (fd, here) = (int(program), c"".as_ptr().expose_provenance());
        let (argv, envp) = (argv.expose_provenance(), self.envp.expose_provenance());
        let flags = int(libc::AT_EMPTY_PATH);
        // SAFETY: a string that ends in NUL, and two lists that end in null.
        let answer = unsafe { call(libc::SYS_execveat, [fd, here, argv, envp, flags]) };
        Failure { step: Step::Exec, errno: errno(answer) }
    }

    /// Closes what exec would close, then calls the function. The end of the error pipe tells the
    /// parent that all went well.
    fn live(&self, live: unsafe extern "C" fn(*const c_char) -> !) -> Failure {
        // SAFETY: a list that ends in null; a guard has an argument.
        let first = unsafe { self.argv.add(1) };
        // SAFETY: as above.
        let first = unsafe { first.read() };
        let last = libc::c_uint::MAX as usize;
        // SAFETY: nothing in this process uses what was the owner's.
        unsafe { call(libc::SYS_close_range, [3, last, 0, 0, 0]) };
        // SAFETY: the first argument is what it expects.
        unsafe { live(first) }
    }

    /// Executes the file; returns the errno if that fails.
    fn execve(&self, path: *const c_char, argv: *const *const c_char) -> c_int {
        let (path, argv) = (path.expose_provenance(), argv.expose_provenance());
        let envp = self.envp.expose_provenance();
        // SAFETY: all three end in NUL or null.
        errno(unsafe { call(libc::SYS_execve, [path, argv, envp, 0, 0]) })
    }
}

/// Marks the fds above 2 to be closed by exec. Not closed: the error pipe is needed until then.
fn mark_above(step: Step) -> Result<(), Failure> {
    let (last, mark) = (libc::c_uint::MAX as usize, libc::CLOSE_RANGE_CLOEXEC as usize);
    // SAFETY: plain integers.
    ok(step, unsafe { call(libc::SYS_close_range, [3, last, mark, 0, 0]) })
}

fn unmark(fd: RawFd, step: Step) -> Result<(), Failure> {
    // SAFETY: plain integers.
    ok(step, unsafe { call(libc::SYS_fcntl, [int(fd), int(libc::F_SETFD), 0, 0, 0]) })
}

// On 32-bit machines the plain calls take 16-bit ids.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setgid as SYS_SETGID, SYS_setgroups as SYS_SETGROUPS, SYS_setuid as SYS_SETUID};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{
    SYS_setgid32 as SYS_SETGID, SYS_setgroups32 as SYS_SETGROUPS, SYS_setuid32 as SYS_SETUID,
};
