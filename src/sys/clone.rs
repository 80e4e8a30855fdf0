//! Starts a process in this process's memory, by clone3; `fork.rs` starts one in a copy of it.
//!
//! 1. A child that shares the caller's memory (`CLONE_VM`) keeps the cost of a spawn independent of
//!    its size: a copy of the page tables of 1 GiB costs 77 ms.
//! 2. It has a stack of its own, and this thread is not suspended by the kernel (`CLONE_VFORK`): a
//!    child may be frozen at its birth, or stopped before its exec, and a parent in vfork can then
//!    do nothing about it, not even die of a signal other than SIGKILL. Instead the kernel clears a
//!    word and wakes the parent (`CLONE_CHILD_CLEARTID`) when the child gives the memory back, by
//!    exec or by its end. A wait for that has a timeout.
//! 3. Parent and child have one thread-local storage, and with that one errno: the child makes its
//!    calls by `raw.rs`, which does not touch it.
//! 4. A child that is given up gets SIGKILL, and from then on runs no instruction any more. If it
//!    hangs in the kernel all the same, the kernel may read the shared memory on its behalf, and
//!    clear the word, which is never freed then. The stack is not used any more.
//! 5. All signals are blocked meanwhile, libc's own two as well, by which a thread that changes the
//!    user of this process tells all others to: no child with the old user's rights may be in its
//!    memory then.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. `exec/child_side.rs` and
//! `keeper/birth.rs` say what a child may do.
#![expect(unsafe_code, reason = "clone3 and raw calls")]

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::abort;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::sys::clone_args::CloneArgs;
use crate::sys::raw::{bit, call, int};
use crate::sys::{self, Newborn, poll};

/// A function that a child starts in and never returns from.
pub(crate) type Entry = extern "C" fn(*const c_void) -> !;

/// libc's constants of these names are too narrow for their values.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// When the parent first checks what keeps the child, and the longest time between two checks. An
/// exec takes less.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_millis(100);

/// A child's stack until its exec, many times what it needs: it calls a few functions without
/// buffers.
#[repr(C, align(16))]
pub(crate) struct Stack([u8; 16 * 1024]);

/// Where a child in shared memory is born.
pub(crate) struct Home<'a> {
    /// None: in the caller's own.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Whether it shares the table of open files.
    pub(crate) shares_files: bool,
}

/// How a birth in shared memory came out.
pub(crate) enum Birth {
    /// The child has executed, or ended.
    Over(Newborn),
    /// The child was given up and has got SIGKILL, but hangs in the kernel.
    Stuck(Newborn),
}

/// Starts a child, in a cgroup or in the caller's own, that shares this process's memory until it
/// execs or exits; other threads run on. `help` is called again and again for a child that takes
/// long, and answers whether to wait on.
///
/// `CLONE_CLEAR_SIGHAND` makes sure that no signal handler of this process runs in the child.
/// Minimum Linux version: 5.7 (`CLONE_INTO_CGROUP`); see [clone3(2)].
///
/// # Safety
/// `entry` must be fit to run in shared memory, beside all threads of this process, this one as
/// well: async-signal-safe, no allocation, no locks, no unwinding, no errno, and it must end by
/// exec or `_exit`. `arg` must be what it expects.
///
/// [clone3(2)]: https://man7.org/linux/man-pages/man2/clone.2.html
pub(crate) unsafe fn clone_into(
    home: Home<'_>,
    entry: Entry,
    arg: *const c_void,
    help: &mut dyn FnMut(&Newborn) -> bool,
) -> Result<Birth, Errno> {
    let mut pidfd: RawFd = -1;
    let mut stack = MaybeUninit::uninit();
    let shares = Box::new(AtomicU32::new(1));
    let mut args = sharing(&mut stack, &shares);
    args.flags |= u64::from(libc::CLONE_PIDFD.cast_unsigned());
    if home.shares_files {
        args.flags |= u64::from(libc::CLONE_FILES.cast_unsigned());
    }
    if let Some(cgroup) = home.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    let blocked = AllBlocked::new()?;
    // SAFETY: the caller's obligation; the child alone uses the stack until `wait` returns.
    let pid = check(unsafe { clone3(&args, entry, arg) })?;
    let unwinding = AbortOnDrop;
    // SAFETY: the kernel has just opened this pidfd for this call, and nothing else has it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let newborn = Newborn { pid, pidfd };
    let over = wait(&newborn, &shares, &blocked, help);
    std::mem::forget(unwinding);
    if over {
        return Ok(Birth::Over(newborn));
    }
    Box::leak(shares);
    Ok(Birth::Stuck(newborn))
}

/// Waits until the child does not share this process's memory any more; false if it was given up
/// and killed, and does not end.
pub(crate) fn wait(
    newborn: &Newborn,
    shares: &AtomicU32,
    blocked: &AllBlocked,
    help: &mut dyn FnMut(&Newborn) -> bool,
) -> bool {
    let mut pause = FIRST_LOOK;
    let pidfd = newborn.pidfd.as_fd();
    let ended = |patience| poll::ended(pidfd, Some(Instant::now() + patience)).unwrap_or(false);
    while !is_given_back(shares, pause) {
        blocked.let_most_in();
        // A child that dumps core clears no word (before Linux 5.16).
        if ended(Duration::ZERO) {
            break;
        }
        // A child that cannot be killed is waited for: it uses this memory.
        if !help(newborn) && sys::pidfd_send_signal(pidfd, libc::SIGKILL).is_ok() {
            return ended(Duration::from_secs(1));
        }
        pause = (pause * 2).min(LAST_LOOK);
    }
    true
}

/// Memory of a child that shares it with others than its parent alone.
pub(crate) struct Nest {
    /// 1 until the child has given the memory back: the kernel clears it then.
    pub(crate) shares: AtomicU32,
    stack: UnsafeCell<MaybeUninit<Stack>>,
}

impl Nest {
    pub(crate) fn new() -> Self {
        Self { shares: AtomicU32::new(1), stack: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    fn args(&self) -> CloneArgs {
        let mut args = flags(libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID);
        args.stack = self.stack.get().expose_provenance() as u64;
        args.stack_size = size_of::<Stack>() as u64;
        args.child_tid = self.shares.as_ptr().expose_provenance() as u64;
        args
    }
}

/// Starts a child there, in the caller's own cgroup, and does not wait for it ([`wait`]).
///
/// # Safety
/// As for [`clone_into`], and all signals must be blocked; the nest is this child's alone, and must
/// be there, as all that the child is given, until it has given the memory back.
pub(crate) unsafe fn clone_in(
    nest: &Nest,
    entry: Entry,
    arg: *const c_void,
) -> Result<Newborn, Errno> {
    let mut pidfd: RawFd = -1;
    let mut args = nest.args();
    args.flags |= u64::from(libc::CLONE_PIDFD.cast_unsigned());
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    // SAFETY: the caller's obligation.
    let pid = check(unsafe { clone3(&args, entry, arg) })?;
    // SAFETY: the kernel has just opened this pidfd for this call, and nothing else has it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Newborn { pid, pidfd })
}

/// As [`clone_in`], without a handle, for a caller that may not touch errno.
///
/// # Safety
/// As for [`clone_in`].
pub(crate) unsafe fn clone_unheld(
    nest: &Nest,
    entry: Entry,
    arg: *const c_void,
) -> Result<i32, Errno> {
    // SAFETY: the caller's obligation.
    check(unsafe { clone3(&nest.args(), entry, arg) })
}

/// Starts such a child for a caller that may not allocate, without a handle, in the caller's own
/// cgroup; on return the child has executed or ended. This thread is suspended until then, as by
/// vfork(2): in a fork of a larger process, where each page that is written is copied first, two
/// that run at the same time in one memory cost some tenths of a millisecond more. So another
/// process must see to it that the child goes on, or kill it.
///
/// # Safety
/// As for [`clone_into`], and all signals must be blocked.
pub(crate) unsafe fn clone_suspended(entry: Entry, arg: *const c_void) -> Result<i32, Errno> {
    let args = flags(libc::CLONE_VM | libc::CLONE_VFORK);
    // SAFETY: the child stands on this stack, below the frame of this call, where it alone writes
    // until it has executed or ended (CLONE_VFORK); what `entry` may do is the caller's obligation.
    check(unsafe { clone3(&args, entry, arg) })
}

/// Starts a child that lives in this process's memory, on a stack of its own, for as long as it is
/// not killed. `ENOSYS` on other machines, and where clone3 is refused.
///
/// # Safety
/// As for [`clone_into`], but that it need not end: the stack and `arg` must be there until the
/// child has ended.
#[cfg(feature = "cli")]
pub(crate) unsafe fn clone_beside(
    stack: &mut MaybeUninit<Stack>,
    entry: Entry,
    arg: *const c_void,
) -> Result<Newborn, Errno> {
    let mut pidfd: RawFd = -1;
    let mut args = flags(libc::CLONE_VM | libc::CLONE_PIDFD);
    args.stack = stack.as_mut_ptr().expose_provenance() as u64;
    args.stack_size = size_of::<Stack>() as u64;
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    let _blocked = AllBlocked::new()?;
    // SAFETY: the caller's obligation.
    let pid = check(unsafe { clone3(&args, entry, arg) })?;
    // SAFETY: the kernel has just opened this pidfd for this call, and nothing else has it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Newborn { pid, pidfd })
}

fn flags(flags: c_int) -> CloneArgs {
    CloneArgs {
        flags: u64::from(flags.cast_unsigned()) | CLONE_CLEAR_SIGHAND,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    }
}

fn sharing(stack: &mut MaybeUninit<Stack>, shares: &AtomicU32) -> CloneArgs {
    let mut args = flags(libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID);
    args.stack = stack.as_mut_ptr().expose_provenance() as u64;
    args.stack_size = size_of::<Stack>() as u64;
    args.child_tid = shares.as_ptr().expose_provenance() as u64;
    args
}

/// Whether the child has given the memory back; waits for that this long.
pub(crate) fn is_given_back(shares: &AtomicU32, patience: Duration) -> bool {
    // The kernel's longs, whatever `time_t` is.
    let time: [c_long; 2] = [0, patience.subsec_nanos().cast_signed().into()];
    let word = shares.as_ptr().expose_provenance();
    let time = (&raw const time).expose_provenance();
    if shares.load(Ordering::Acquire) != 0 {
        // Not a private futex: the kernel's wake-up is a shared one.
        // SAFETY: the word and the time live across the call.
        unsafe { call(libc::SYS_futex, [word, libc::FUTEX_WAIT as usize, 1, time, 0]) };
    }
    shares.load(Ordering::Acquire) == 0
}

/// Waits until the child has given the memory back, for as long as it takes, and wakes others that
/// wait for that: the kernel wakes one.
pub(crate) fn await_given_back(shares: &AtomicU32) {
    let word = shares.as_ptr().expose_provenance();
    while shares.load(Ordering::Acquire) != 0 {
        // SAFETY: the word lives across the call.
        unsafe { call(libc::SYS_futex, [word, libc::FUTEX_WAIT as usize, 1, 0, 0]) };
    }
    wake(shares);
}

/// Wakes all that wait for the child.
pub(crate) fn wake(shares: &AtomicU32) {
    let word = shares.as_ptr().expose_provenance();
    // SAFETY: no memory is read or written.
    unsafe { call(libc::SYS_futex, [word, libc::FUTEX_WAKE as usize, int(c_int::MAX), 0, 0]) };
}

/// Aborts on a panic, which would free the child's stack.
pub(crate) struct AbortOnDrop;

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        abort();
    }
}

/// Blocks all signals, libc's own too, for this thread until dropped. Not for code that starts a
/// thread: that would inherit the mask, and libc could not reach it.
pub(crate) struct AllBlocked(u64);

impl AllBlocked {
    pub(crate) fn new() -> Result<Self, Errno> {
        set_mask(u64::MAX).map(Self)
    }

    /// Lets the caller's signals in again; libc's own stay out.
    fn let_most_in(&self) {
        let own = (32..libc::SIGRTMIN()).fold(0, |own, signal| own | bit(signal));
        let _ = set_mask(self.0 | own);
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        let _ = set_mask(self.0);
    }
}

/// Sets the mask by the raw call: libc's leaves two signals out.
fn set_mask(mask: u64) -> Result<u64, Errno> {
    let mut before: u64 = 0;
    let (how, new, old) = (libc::SIG_SETMASK, &raw const mask, &raw mut before);
    // SAFETY: the kernel reads eight bytes and writes eight.
    let answer = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, old, 8) };
    Errno::result(answer).map(|_| before)
}

/// Calls clone3: the parent gets the pid or a negative errno; the child calls `entry`, on its own
/// stack or below the frame that its suspended parent still needs, and never returns.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &CloneArgs, entry: Entry, arg: *const c_void) -> c_long {
    let answer: c_long;
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
            in("rdi") std::ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r8") arg,
            in("r9") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &CloneArgs, entry: Entry, arg: *const c_void) -> c_long {
    let answer: c_long;
    // SAFETY: as above. The kernel keeps all but x0 and what SVE adds to the vector registers: the
    // clobbers of a function cover that.
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
            inlateout("x0") std::ptr::from_ref(args).expose_provenance() as c_long => answer,
            in("x1") size_of::<CloneArgs>(),
            in("x9") arg,
            in("x10") entry,
            clobber_abi("C"),
        );
    }
    answer
}

/// Refuses: on other machines the caller falls back to a fork.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_: &CloneArgs, _: Entry, _: *const c_void) -> c_long {
    -c_long::from(Errno::ENOSYS as i32)
}

pub(crate) fn check(answer: c_long) -> Result<i32, Errno> {
    i32::try_from(answer)
        .map_or(Err(Errno::EOVERFLOW), |n| if n < 0 { Err(Errno::from_raw(-n)) } else { Ok(n) })
}
