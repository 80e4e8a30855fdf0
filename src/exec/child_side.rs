//! What a child does between its birth and its exec. It opens with the reason for its odd style:
//!
//! 1. The child runs in its parent's memory (`CLONE_VM`), or in a copy of it taken while other
//!    threads held locks (fork). So it may not allocate, lock, panic or unwind, and it has no way
//!    to return.
//! 2. Therefore everything it needs was prepared before: each string ends in NUL, each list in
//!    null, each fd is above 2 (so that no `dup2` overwrites another's source).
//! 3. libc's `setuid` and its kin would change all threads *of the parent* when memory is shared:
//!    the raw calls are made.
//! 4. Signal handlers are gone before signals are let in again: a handler of the parent's must
//!    never run here.
//! 5. What failed goes out as one word: step and errno, into shared memory and, after a fork,
//!    through a pipe whose end of file means that exec has happened.
//! 6. The word is `UNBORN` until the first instruction: so the parent knows a child that was killed
//!    at birth from one that has executed and was killed later. Only the former may be started
//!    again.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. `born` relies on an `Orders` whose
//! pointers are all valid until exec: `Image` owns what they point to, and its borrow lasts across
//! the clone.
#![expect(unsafe_code, reason = "the child between clone and exec lives outside the safe world")]

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command as StdCommand;
use std::ptr;
use std::sync::Weak;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

use crate::sys::{self, Newborn};

/// A `pre_exec` closure, as std has it.
pub(crate) type Closure = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// The child has not run its first instruction.
pub(crate) const UNBORN: u32 = 0;
/// The child runs, and nothing has failed: after `vfork` semantics this means that exec has
/// happened.
pub(crate) const RUNNING: u32 = u32::MAX;

/// Places in `CHILD_STEPS`.
const JOIN: u32 = 0;
const STDIO: u32 = 1;
const GROUPS: u32 = 2;
const GID: u32 = 3;
const UID: u32 = 4;
const CHDIR: u32 = 5;
const PROCESS_GROUP: u32 = 6;
const SIGNALS: u32 = 7;
const PRE_EXEC: u32 = 8;
const EXEC: u32 = 9;
const ASIDE: u32 = 10;
pub(crate) const FORK: u32 = 11;
pub(crate) const KEEPER: u32 = 12;

/// What a guard, which stands aside from everything of ours, becomes.
#[derive(Clone, Copy)]
pub(crate) enum Aside<'a> {
    /// An open program.
    Program(BorrowedFd<'a>),
    /// A function that is given the first argument, in a fork.
    Fork(unsafe extern "C" fn(*const c_char) -> !),
}

/// Everything the child is told, prepared; -1 and null mean "leave it as it is".
pub(crate) struct Orders<'a> {
    pub(crate) word: AtomicU32,
    /// Write end of the error pipe; used after a fork only.
    pub(crate) channel: c_int,
    /// `cgroup.procs` to join; used after a fork only.
    pub(crate) join: c_int,
    pub(crate) forked: bool,
    /// The child is a guard.
    pub(crate) aside: Option<Aside<'a>>,
    pub(crate) stdio: [c_int; 3],
    pub(crate) groups: Option<&'a [libc::gid_t]>,
    pub(crate) gid: Option<libc::gid_t>,
    pub(crate) uid: Option<libc::uid_t>,
    pub(crate) cwd: *const c_char,
    pub(crate) process_group: Option<libc::pid_t>,
    pub(crate) closures: *mut [Closure],
    /// Paths to try in turn; argv; envp.
    pub(crate) candidates: &'a [*const c_char],
    pub(crate) argv: *const *const c_char,
    pub(crate) envp: *const *const c_char,
}

/// Starts the child in `cgroup` by clone3, sharing our memory. On return it has executed or ended.
pub(crate) fn clone_into(cgroup: Option<&OwnedFd>, orders: &Orders<'_>) -> Result<Newborn, Errno> {
    let arg = ptr::from_ref(orders).cast();
    // SAFETY: `born` keeps the rules at the top of this file, `arg` is the Orders it expects,
    // and `Launch` has blocked all signals.
    unsafe { sys::clone_into(cgroup.map(AsFd::as_fd), born, arg) }
}

/// Starts the child by fork; it joins its cgroup by itself before anything else.
pub(crate) fn fork(orders: &Orders<'_>) -> Result<Newborn, Errno> {
    let arg = ptr::from_ref(orders).cast();
    // SAFETY: as above; closures are the caller's own promise (`Command::pre_exec` is unsafe).
    unsafe { sys::fork(born, arg) }
}

/// Follows the orders in this process itself; returns only if a step fails.
pub(crate) fn exec(orders: &Orders<'_>) -> Failure {
    orders.follow()
}

pub(crate) extern "C" fn born(orders: *const c_void) -> ! {
    // SAFETY: all callers pass an Orders that outlives the child's use of it.
    let orders: &Orders<'_> = unsafe { &*orders.cast() };
    orders.word.store(RUNNING, Ordering::Relaxed);
    end(orders, &orders.follow())
}

/// Says which step failed, and ends this process.
pub(crate) fn end(orders: &Orders<'_>, failure: &Failure) -> ! {
    let Failure { step, errno } = *failure;
    let word = (step << 24) | (errno.cast_unsigned() & 0x00ff_ffff);
    orders.word.store(word, Ordering::Relaxed);
    if orders.channel >= 0 {
        // SAFETY: four bytes of our own, to a fd that the parent keeps open.
        unsafe { libc::write(orders.channel, ptr::from_ref(&word).cast(), 4) };
    }
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

pub(crate) struct Failure {
    pub(crate) step: u32,
    pub(crate) errno: c_int,
}

/// `?` on a libc return value: -1 becomes the step's failure.
pub(crate) fn ok(step: u32, answer: libc::c_long) -> Result<(), Failure> {
    if answer == -1 {
        let errno = Errno::last_raw();
        return Err(Failure { step, errno });
    }
    Ok(())
}

impl Orders<'_> {
    /// Runs the steps in std's order; returns only if one of them fails.
    fn follow(&self) -> Failure {
        match self.prepare_tied() {
            Err(failure) => failure,
            Ok(()) => match self.aside {
                None => self.exec(),
                Some(Aside::Program(program)) => self.exec_open(program),
                Some(Aside::Fork(live)) => self.live(live),
            },
        }
    }

    /// A child that is to die with its parent stays so: a change of user, which a closure may make
    /// too, unties it.
    fn prepare_tied(&self) -> Result<(), Failure> {
        let same_user = self.groups.is_none() && self.gid.is_none() && self.uid.is_none();
        if same_user && self.closures.is_empty() {
            return self.prepare();
        }
        // SAFETY: no memory is involved.
        let parent = unsafe { libc::getppid() };
        let mut tie: c_int = 0;
        // SAFETY: `tie` is writable.
        ok(UID, unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut tie) }.into())?;
        self.prepare()?;
        if tie == 0 {
            return Ok(());
        }
        // SAFETY: plain integers.
        ok(UID, unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, tie) }.into())?;
        // SAFETY: no memory is involved.
        match unsafe { libc::getppid() } == parent {
            true => Ok(()),
            false => Err(Failure { step: UID, errno: libc::ESRCH }),
        }
    }

    fn prepare(&self) -> Result<(), Failure> {
        if self.join >= 0 {
            // SAFETY: "0" means the writing process itself.
            let answer = unsafe { libc::write(self.join, c"0".as_ptr().cast(), 1) };
            ok(JOIN, answer as libc::c_long)?;
        }
        let mut target: c_int = 0;
        for &fd in &self.stdio {
            if fd >= 0 {
                // SAFETY: plain integers; fd is above 2, so no source is overwritten.
                let answer = unsafe { libc::dup2(fd, target) };
                ok(STDIO, answer.into())?;
            }
            target = target.wrapping_add(1);
        }
        self.identity()?;
        if !self.cwd.is_null() {
            // SAFETY: a string that ends in NUL.
            let answer = unsafe { libc::chdir(self.cwd) };
            ok(CHDIR, answer.into())?;
        }
        if let Some(group) = self.process_group {
            // SAFETY: plain integers.
            let answer = unsafe { libc::setpgid(0, group) };
            ok(PROCESS_GROUP, answer.into())?;
        }
        match self.aside {
            None => self.signals()?,
            Some(_) => self.stand_aside()?,
        }
        self.pre_exec()
    }

    /// Raw calls: libc's would reach for all threads of the parent.
    fn identity(&self) -> Result<(), Failure> {
        if let Some(groups) = self.groups {
            // SAFETY: the kernel reads `len` ids from the slice.
            let answer = unsafe { libc::syscall(SYS_SETGROUPS, groups.len(), groups.as_ptr()) };
            ok(GROUPS, answer)?;
        }
        if let Some(gid) = self.gid {
            // SAFETY: plain integers.
            let answer = unsafe { libc::syscall(SYS_SETGID, gid) };
            ok(GID, answer)?;
        }
        if let Some(uid) = self.uid {
            // SAFETY: plain integers.
            let answer = unsafe { libc::syscall(SYS_SETUID, uid) };
            ok(UID, answer)?;
        }
        Ok(())
    }

    /// Handlers go (ignored signals stay ignored, for nohup's sake), but SIGPIPE, which Rust
    /// ignores, becomes the default; then the mask is emptied.
    fn signals(&self) -> Result<(), Failure> {
        if self.forked {
            // clone3 has done this already (CLONE_CLEAR_SIGHAND); fork has not.
            (1..=64).for_each(default_unless_ignored);
        }
        // SAFETY: SIG_DFL is a valid disposition.
        let answer = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        ok(SIGNALS, if answer == libc::SIG_ERR { -1 } else { 0 })?;
        let none: u64 = 0;
        // SAFETY: the kernel reads eight bytes; the raw call, since libc's hides two signals from
        // us.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const none,
                ptr::null_mut::<u64>(),
                8,
            )
        };
        ok(SIGNALS, answer)
    }

    /// A session of its own, no fds but the three streams. All signals are blocked, as they were at
    /// its birth, and stay so: what a terminal or a service manager sends never reaches it, not in
    /// its first moments either.
    fn stand_aside(&self) -> Result<(), Failure> {
        // SAFETY: no memory is involved.
        let answer = unsafe { libc::setsid() };
        ok(ASIDE, answer.into())?;
        // Marked, not closed: the error pipe is needed until exec.
        // SAFETY: plain integers.
        let answer = unsafe {
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
        };
        ok(ASIDE, answer)
    }

    fn pre_exec(&self) -> Result<(), Failure> {
        // SAFETY: after a fork this is the only user of the (copied) closures; without one the list
        // is empty.
        let closures = unsafe { &mut *self.closures };
        for closure in closures {
            if let Err(error) = closure() {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                return Err(Failure { step: PRE_EXEC, errno });
            }
        }
        Ok(())
    }

    /// execvp(3): each candidate in turn; a refusal by permissions is remembered. A file that is no
    /// program is an error, as with std, and does not go to `/bin/sh`.
    fn exec(&self) -> Failure {
        let mut errno = libc::ENOENT;
        for &path in self.candidates {
            // SAFETY: all three end in NUL or null.
            unsafe { libc::execve(path, self.argv, self.envp) };
            match Errno::last_raw() {
                libc::EACCES => errno = libc::EACCES,
                libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {
                    if errno != libc::EACCES {
                        errno = Errno::last_raw();
                    }
                }
                other => {
                    errno = other;
                    break;
                }
            }
        }
        Failure { step: EXEC, errno }
    }

    /// An empty path and this flag: the fd itself.
    fn exec_open(&self, program: BorrowedFd<'_>) -> Failure {
        let (fd, here) = (program.as_raw_fd(), c"".as_ptr());
        let flags = libc::AT_EMPTY_PATH;
        // SAFETY: a string that ends in NUL, and two lists that end in null.
        unsafe { libc::syscall(libc::SYS_execveat, fd, here, self.argv, self.envp, flags) };
        Failure { step: EXEC, errno: Errno::last_raw() }
    }

    /// Closes what exec would close, the error pipe too: its end says that all went well.
    fn live(&self, live: unsafe extern "C" fn(*const c_char) -> !) -> Failure {
        // SAFETY: a list that ends in null; a guard has an argument.
        let first = unsafe { self.argv.add(1) };
        // SAFETY: as above.
        let first = unsafe { first.read() };
        // SAFETY: nothing in this process uses what was the owner's.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
        // SAFETY: the first argument is what it expects.
        unsafe { live(first) }
    }
}

fn default_unless_ignored(signal: c_int) {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `now` is writable; SIGKILL, SIGSTOP and libc's own two answer EINVAL.
    let answer = unsafe { libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) };
    // SAFETY: zeroed is a valid sigaction, and the kernel has filled it since.
    let now = unsafe { now.assume_init() };
    if answer == 0 && now.sa_sigaction != libc::SIG_IGN {
        // SAFETY: SIG_DFL is a valid disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Makes a command of std's join a cgroup before its exec: whatever builds on std's Command can
/// then do the spawning. The fd is the tree's: once that is gone the spawn fails.
pub(crate) fn join_before_exec(command: &mut StdCommand, procs: Weak<OwnedFd>) {
    let join = move || {
        let procs = procs.upgrade().ok_or(io::Error::from_raw_os_error(libc::ENOENT))?;
        nix::unistd::write(&*procs, b"0")?;
        Ok(())
    };
    // SAFETY: two atomic counts and one write(2) of a constant: async-signal-safe, no allocation.
    // The fork has copied a count that the parent's tree takes part in, so the drop frees nothing.
    unsafe { command.pre_exec(join) };
}

// On 32-bit machines the plain calls take 16-bit ids.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setgid as SYS_SETGID, SYS_setgroups as SYS_SETGROUPS, SYS_setuid as SYS_SETUID};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{
    SYS_setgid32 as SYS_SETGID, SYS_setgroups32 as SYS_SETGROUPS, SYS_setuid32 as SYS_SETUID,
};
