//! The birth of a keeper, and of the main process below it.
//!
//! 1. *In the owner's memory* ([`bear`]), where that is allowed, so that nothing of it is copied.
//!    The keeper prepares itself, starts the main process in the same memory, and executes its
//!    program, which the library carries. The main process waits for that: from then on the keeper
//!    lives whatever becomes of its owner (where memory runs out the kernel kills all that share
//!    it), and a keeper that cannot be executed leaves no command that has run.
//! 2. *In a copy of it* ([`fork`]), elsewhere. The keeper runs the same code (`program`) there for
//!    good, and unmaps what it can of the copy.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. The rules of `child_side.rs` hold for
//! all of it: no allocation, no lock, no panic, no return. In the owner's memory nothing touches
//! errno, either.
#![expect(unsafe_code, reason = "processes that are born in their owner's memory, or a copy")]

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::error::Step;
use crate::exec::child_side::{Failure, Orders, born, fail, ok};
use crate::exec::launch::read_word;
use crate::exec::orders::{RUNNING, UNBORN};
use crate::exec::overdue::Late;
use crate::keeper::idle_memory;
use crate::keeper::program::{self, LINE, PROC, SIGNALS};
use crate::proc::parse::decimal;
use crate::sys::clone::{self, AbortOnDrop, AllBlocked, Nest};
use crate::sys::raw::{self, bit, call, dispose, errno, int, prctl};
use crate::sys::{self, Newborn, fork, pass, poll};

/// How long a main process without a handle is waited for.
const GIVES_BACK_WITHIN: Duration = Duration::from_secs(10);

/// The orders for a keeper, with those for the main process; fds by number.
pub(crate) struct Charge<'a> {
    pub(crate) orders: &'a Orders<'a>,
    /// The main process may share a forked keeper's memory until its exec.
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

/// What two that are born in the owner's memory have there for themselves.
struct Nests {
    keeper: Nest,
    main: Nest,
    /// The main process, once there is one.
    pid: AtomicI32,
}

/// The orders for a keeper in the owner's memory.
struct Beside<'a> {
    charge: &'a Charge<'a>,
    nests: &'a Nests,
    program: RawFd,
}

/// The orders for a main process, from its keeper.
struct MainOrders<'a> {
    charge: &'a Charge<'a>,
    keeper: libc::pid_t,
    /// SIGCHLD was ignored before.
    ignored: bool,
    /// What is cleared when the keeper has executed.
    gate: Option<&'a AtomicU32>,
}

/// A keeper that is ready for a main process.
struct Ready {
    signals: c_int,
    ignored: bool,
    me: libc::pid_t,
}

/// A keeper that was born in the owner's memory, and its main process: none if that was not
/// started, or has been killed. The orders have the word on both.
pub(crate) struct Birth {
    pub(crate) keeper: Newborn,
    pub(crate) main: Option<Result<Newborn, Errno>>,
}

/// Starts a keeper and its main process in this process's memory; on return both have executed, or
/// ended, or were given up. `help` is called again and again for one that takes long, and answers
/// whether to wait on.
pub(crate) fn bear(
    charge: &Charge<'_>,
    program: BorrowedFd<'_>,
    help: &mut dyn FnMut(&Late<'_>) -> bool,
) -> Result<Birth, Errno> {
    let nests = Box::new(Nests { keeper: Nest::new(), main: Nest::new(), pid: AtomicI32::new(0) });
    let beside = Beside { charge, nests: &nests, program: program.as_raw_fd() };
    let blocked = AllBlocked::new()?;
    // SAFETY: `live_beside` keeps the rules at the top of this file, and is given what it expects.
    // Nests that may still be in use are leaked below.
    let keeper =
        unsafe { clone::clone_in(&nests.keeper, live_beside, ptr::from_ref(&beside).cast()) }?;
    let unwinding = AbortOnDrop;
    let over = clone::wait(&keeper, &nests.keeper.shares, &blocked, &mut |keeper| {
        help(&Late::ours(keeper))
    });
    // The kernel wakes one, and the main process waits too.
    clone::wake(&nests.keeper.shares);
    let (main, over) = match over {
        true => await_main(charge, &nests, &keeper, &blocked, help),
        false => (None, false),
    };
    std::mem::forget(unwinding);
    if !over {
        Box::leak(nests);
    }
    Ok(Birth { keeper, main })
}

/// Waits for the main process of a keeper that has executed, or ended; says too whether the memory
/// is given back.
fn await_main(
    charge: &Charge<'_>,
    nests: &Nests,
    keeper: &Newborn,
    blocked: &AllBlocked,
    help: &mut dyn FnMut(&Late<'_>) -> bool,
) -> (Option<Result<Newborn, Errno>>, bool) {
    let pid = nests.pid.load(Ordering::Acquire);
    let word = charge.orders.word.load(Ordering::Relaxed);
    if pid == 0 || (![UNBORN, RUNNING].contains(&word) && read_word(word).0 == Step::Keeper) {
        // The keeper has reaped the main process, if there was one.
        return (None, true);
    }
    let pidfd = sys::pidfd_open(pid);
    if poll::ended(keeper.pidfd.as_fd(), Some(Instant::now())).unwrap_or(true) {
        // It was killed, and with it the main process, whose pid may be a stranger's by now.
        return (None, gives_back(&nests.main.shares));
    }
    match pidfd {
        Err(errno) => (Some(Err(errno)), gives_back(&nests.main.shares)),
        Ok(pidfd) => {
            let main = Newborn { pid, pidfd };
            let over = clone::wait(&main, &nests.main.shares, blocked, &mut |main| {
                help(&Late { pid: main.pid, pidfd: main.pidfd.as_fd(), parent: keeper.pid })
            });
            (Some(Ok(main)), over)
        }
    }
}

fn gives_back(shares: &AtomicU32) -> bool {
    let until = Instant::now() + GIVES_BACK_WITHIN;
    while !clone::is_given_back(shares, Duration::from_millis(50)) {
        if Instant::now() >= until {
            return false;
        }
    }
    true
}

extern "C" fn live_beside(beside: *const c_void) -> ! {
    // SAFETY: `bear` passes a Beside that it keeps until this process has executed or ended.
    let beside: &Beside<'_> = unsafe { &*beside.cast() };
    let Err(failure) = ready(beside.charge).and_then(|ready| beside.execute(&ready));
    fail(beside.charge.orders, &failure)
}

impl Beside<'_> {
    /// Starts the main process, then becomes the keeper's program; returns if that fails.
    fn execute(&self, ready: &Ready) -> Result<std::convert::Infallible, Failure> {
        let Self { charge, nests, program } = *self;
        let (keeper, ignored) = (ready.me, ready.ignored);
        let orders = MainOrders { charge, keeper, ignored, gate: Some(&nests.keeper.shares) };
        let arg = ptr::from_ref(&orders).cast();
        // SAFETY: `main_process` keeps the rules; its orders are in a frame that is never left once
        // this process has executed, and otherwise not before it is dead.
        let main =
            unsafe { clone::clone_unheld(&nests.main, main_process, arg) }.map_err(failed)?;
        nests.pid.store(main, Ordering::Release);
        let Err(failure) =
            ready.take_places(charge).and_then(|()| become_keeper(charge.owner, main, program));
        // It waits for this process's exec.
        // SAFETY: this process's own child, which only it can reap.
        unsafe { call(libc::SYS_kill, [int(main), int(libc::SIGKILL), 0, 0, 0]) };
        // SAFETY: no status is wanted.
        unsafe { call(libc::SYS_wait4, [int(main), 0, int(libc::__WALL), 0, 0]) };
        Err(failure)
    }
}

fn become_keeper(
    owner: libc::pid_t,
    main: libc::pid_t,
    program: RawFd,
) -> Result<std::convert::Infallible, Failure> {
    let (mut owners, mut mains) = ([0; 12], [0; 12]);
    let no_number = Failure { step: Step::Keeper, errno: libc::EOVERFLOW };
    let (Some(owner), Some(main)) = (decimal(owner, &mut owners), decimal(main, &mut mains)) else {
        return Err(no_number);
    };
    let argv = [c"tidy-keeper".as_ptr(), owner.as_ptr(), main.as_ptr(), ptr::null()];
    let envp: [*const c_char; 1] = [ptr::null()];
    let (here, flags) = (c"".as_ptr().expose_provenance(), int(libc::AT_EMPTY_PATH));
    let argv = argv.as_ptr().expose_provenance();
    let args = [int(program), here, argv, envp.as_ptr().expose_provenance(), flags];
    // SAFETY: a string that ends in NUL, and two lists that end in null.
    let answer = unsafe { call(libc::SYS_execveat, args) };
    Err(Failure { step: Step::Keeper, errno: errno(answer) })
}

/// Forks a keeper with a pidfd from its birth on.
pub(crate) fn fork_with_pidfd(charge: &Charge<'_>) -> Result<Newborn, Errno> {
    let arg = ptr::from_ref(charge).cast();
    // SAFETY: as below, and a keeper takes no lock.
    let (pid, pidfd) = unsafe { fork::fork_with_pidfd(live, arg) }?;
    // SAFETY: the kernel has just opened this fd for this call, and nothing else has it.
    Ok(Newborn { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Forks a keeper; says its pid.
pub(crate) fn fork(charge: &Charge<'_>) -> Result<i32, Errno> {
    let arg = ptr::from_ref(charge).cast();
    // SAFETY: `live` keeps the rules at the top of this file, and `arg` is the Charge it expects;
    // closures are the caller's own promise (`Command::pre_exec` is unsafe).
    unsafe { fork::fork_alone(live, arg) }
}

extern "C" fn live(charge: *const c_void) -> ! {
    // SAFETY: `fork` passes a Charge, and this process has a copy of it for ever.
    let charge: &Charge<'_> = unsafe { &*charge.cast() };
    let begun = ready(charge).and_then(|ready| Ok((fork_main(charge, &ready)?, ready)));
    match begun {
        Err(failure) => fail(charge.orders, &failure),
        Ok((main, ready)) => {
            // These places are there: the kernel has just given it another fd.
            let _ = ready.take_places(charge);
            program::keep(charge.owner, main, &mut || forget(ready.me));
        }
    }
    program::exit(0)
}

/// Prepares a keeper: every step that can fail comes before the birth of the main process.
fn ready(charge: &Charge<'_>) -> Result<Ready, Failure> {
    // A copy of the owner's end would keep the line from ending.
    // SAFETY: this process has its own table of open files.
    unsafe { call(libc::SYS_close, [int(charge.owners_end), 0, 0, 0, 0]) };
    // SAFETY: no memory is involved.
    ok(Step::Keeper, unsafe { prctl(libc::PR_SET_CHILD_SUBREAPER, 1) })?;
    // SAFETY: no memory is involved.
    ok(Step::Keeper, unsafe { prctl(libc::PR_SET_PDEATHSIG, int(libc::SIGURG)) })?;
    if !is_parent(charge.owner) {
        return Err(Failure { step: Step::Keeper, errno: libc::ESRCH });
    }
    let signals = hear_signals()?;
    // Where the owner ignores it, the kernel would keep no exit status for a keeper.
    let ignored = raw::disposition(libc::SIGCHLD) == Some(libc::SIG_IGN);
    ok(Step::Keeper, dispose(libc::SIGCHLD, libc::SIG_DFL))?;
    // SAFETY: no memory is involved.
    Ok(Ready { signals, ignored, me: unsafe { libc::getpid() } })
}

/// Blocks all signals and opens a signalfd for two, above the places of the keeper's own fds.
fn hear_signals() -> Result<c_int, Failure> {
    let (all, how) = (u64::MAX, int(libc::SIG_SETMASK));
    let all = (&raw const all).expose_provenance();
    // SAFETY: the kernel reads eight bytes.
    ok(Step::Keeper, unsafe { call(libc::SYS_rt_sigprocmask, [how, all, 0, 8, 0]) })?;
    let ours: u64 = bit(libc::SIGCHLD) | bit(libc::SIGURG);
    let ours = (&raw const ours).expose_provenance();
    let flags = int(libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
    // SAFETY: the kernel reads eight bytes.
    let fd = unsafe { call(libc::SYS_signalfd4, [int(-1), ours, 8, flags, 0]) };
    ok(Step::Keeper, fd)?;
    let (least, cloexec) = (int(SIGNALS + 1), int(libc::F_DUPFD_CLOEXEC));
    // SAFETY: plain integers. The other fd goes with the exec, or when its place is taken.
    let fd = unsafe { call(libc::SYS_fcntl, [fd.cast_unsigned(), cloexec, least, 0, 0]) };
    ok(Step::Keeper, fd)?;
    c_int::try_from(fd).map_err(|_| Failure { step: Step::Keeper, errno: libc::EOVERFLOW })
}

impl Ready {
    /// Puts the keeper's fds in their places, which are those of its owner's streams.
    fn take_places(&self, charge: &Charge<'_>) -> Result<(), Failure> {
        let places =
            [(charge.line, LINE), (charge.proc.as_raw_fd(), PROC), (self.signals, SIGNALS)];
        places.into_iter().try_for_each(|(fd, place)| {
            // SAFETY: plain integers; the fds are above the places, in this process's own table.
            ok(Step::Keeper, unsafe { call(libc::SYS_dup3, [int(fd), int(place), 0, 0, 0]) })
        })
    }
}

/// Forks the main process of a forked keeper, in shared memory where that is allowed, which saves a
/// second copy of the owner's. The keeper is suspended until the exec then; the owner watches over
/// the main process meanwhile.
fn fork_main(charge: &Charge<'_>, ready: &Ready) -> Result<libc::pid_t, Failure> {
    let orders = MainOrders { charge, keeper: ready.me, ignored: ready.ignored, gate: None };
    let arg = ptr::from_ref(&orders).cast();
    if charge.sends_pidfd {
        return fork_and_send(charge, arg);
    }
    if charge.share {
        // SAFETY: `main_process` ends by exec or `_exit`, and all signals are blocked.
        match unsafe { clone::clone_suspended(main_process, arg) } {
            Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => {}
            born => return born.map_err(failed),
        }
    }
    // SAFETY: this process has one thread; closures are the caller's own promise.
    unsafe { fork::fork_alone(main_process, arg) }.map_err(failed)
}

/// Forks the main process with a pidfd, and sends that to the owner.
fn fork_and_send(charge: &Charge<'_>, arg: *const c_void) -> Result<libc::pid_t, Failure> {
    // SAFETY: `main_process` takes no lock: the owner gives no closures where pidfds are sent.
    let born = unsafe { fork::fork_with_pidfd(main_process, arg) };
    let (pid, pidfd) = born.map_err(failed)?;
    // SAFETY: the line is open for as long as this process lives.
    let line = unsafe { BorrowedFd::borrow_raw(charge.line) };
    // Without it the owner gives up; there is a main process, so this one has to stay and kill.
    let _ = pass::send_fds(line, 0, [pidfd]);
    // SAFETY: nothing else owns it.
    unsafe { libc::close(pidfd) };
    Ok(pid)
}

fn failed(errno: Errno) -> Failure {
    Failure { step: Step::Fork, errno: errno as i32 }
}

/// Runs as the main process; dies with its keeper if that is killed.
extern "C" fn main_process(orders: *const c_void) -> ! {
    // SAFETY: all callers pass MainOrders that outlive the child's use of it.
    let MainOrders { charge, keeper, ignored, gate } = unsafe { &*orders.cast() };
    if *ignored {
        dispose(libc::SIGCHLD, libc::SIG_IGN);
    }
    // SAFETY: no memory is involved.
    unsafe { prctl(libc::PR_SET_PDEATHSIG, int(libc::SIGKILL)) };
    if let Some(shares) = gate {
        clone::await_given_back(shares);
    }
    if !is_parent(*keeper) {
        // SAFETY: ends this process without running anything of the owner's.
        unsafe { libc::_exit(127) }
    }
    born(ptr::from_ref(charge.orders).cast())
}

fn is_parent(pid: libc::pid_t) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::getppid() == pid }
}

/// Unmaps the owner's memory in a forked keeper: each page that the owner changes from now on would
/// exist twice.
fn forget(me: libc::pid_t) {
    let here = 0u8;
    // SAFETY: no memory is involved.
    let errno = unsafe { libc::__errno_location() };
    let used = [(&raw const here).addr(), errno.addr()];
    // SAFETY: it is open for as long as this process lives.
    let proc = unsafe { BorrowedFd::borrow_raw(PROC) };
    idle_memory::each_idle(proc, me, used, &mut |start, len| {
        let start = ptr::without_provenance_mut(start);
        // SAFETY: anonymous memory that is neither this stack nor this thread's own: all that a
        // keeper uses is there, in its registers, and in the files of program and libraries.
        unsafe { libc::munmap(start, len) };
    });
}
