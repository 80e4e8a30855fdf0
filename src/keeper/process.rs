//! The keeper process: holds one tree where there is no cgroup.
//!
//! It is a fork of the supervisor that stays, and forks the main process. As a sub-reaper it
//! becomes the parent of every descendant that has lost its own; so it has children for as long as
//! the tree has processes, and it ends with the last one.
//!
//! 1. It runs in a copy of its owner's memory taken while other threads held locks, and for long:
//!    the rules of `child_side.rs` hold for all of it. No allocation, no lock, no panic, no return.
//! 2. All signals are blocked. It learns by a signalfd that a child has ended (SIGCHLD) or that the
//!    thread that forked it has (SIGURG); then its parent's pid says whether the owner lives.
//! 3. A pair of sockets is the line to its owner: `KILL` and end of file both mean that the tree is
//!    to die. A fork of the owner may hold the line for longer than the owner lives: hence SIGURG.
//! 4. It does not reap before it hears `KNOWN`, so the owner can open a pidfd for the main process
//!    while the number is surely that one's.
//! 5. To kill is to go round until `waitpid` knows of no child. Each process gets SIGKILL *before*
//!    its children are listed: from then on it can fork no more, so the list is complete. What was
//!    born before and has lost its parent since is a child of the keeper, and met in the next
//!    round. A bomb refills the places of its dead, and its many processes leave the keeper little
//!    of the CPU: so it kills at the highest priority that it may have, and from the second round
//!    on stops all (SIGSTOP) before it kills: what is stopped keeps its place and runs no more.
//! 6. A pid of a descendant that is not its own child may go to a stranger at any moment. So
//!    `/proc/PID` is opened, the parent's pid read in it, and the signal sent through that fd,
//!    which is as good as a pidfd (pidfd_send_signal(2)).
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. A keeper relies on a `Charge` whose
//! pointers are all valid when it is forked: it has a copy of all that they point to.
#![expect(unsafe_code, reason = "a process that lives on in a copy of its owner's memory")]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::error::Step;
use crate::exec::child_side::{self, Failure, ok};
use crate::keeper::birth::{Charge, MainOrders, is_parent};
use crate::keeper::idle_memory;
use crate::keeper::spare::Spare;
use crate::proc::walk::{Queue, each_child, each_fd, open, parent_of, read};
use crate::sys::clone;
use crate::sys::raw::{bit, call, int, prctl};
use crate::sys::{self, Newborn};

/// Messages of the owner: it has a pidfd of the main process; kill the tree.
pub(crate) const KNOWN: u8 = b'n';
pub(crate) const KILL: u8 = b'k';

/// Messages of the keeper: records of eight bytes, one of these in the upper half and the main
/// process's pid, its wait status or nothing in the lower one.
pub(crate) const BORN: u32 = 1;
pub(crate) const ENDED: u32 = 2;
pub(crate) const DONE: u32 = 3;

/// Reaps this many processes at the most before it reads the line, however fast a chain forks.
const REAP_BATCH: u32 = 64;

/// The nice value of the highest priority.
const HIGHEST: c_int = -20;

/// Rounds without a death that follow after a millisecond or the next death, whichever is first;
/// after these, pauses grow to 100 ms. At once would take the CPU from those that are dying: a
/// keeper has the highest priority.
const EAGER_ROUNDS: u32 = 300;

/// Forks a keeper with a pidfd from its birth on.
pub(crate) fn fork_with_pidfd(charge: &Charge<'_>) -> Result<Newborn, Errno> {
    let arg = ptr::from_ref(charge).cast();
    // SAFETY: as below, and a keeper takes no lock.
    let (pid, pidfd) = unsafe { clone::fork_with_pidfd(live, arg) }?;
    // SAFETY: the kernel has just opened this fd for this call, and nothing else has it.
    Ok(Newborn { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Forks a keeper; says its pid.
pub(crate) fn fork(charge: &Charge<'_>) -> Result<i32, Errno> {
    let arg = ptr::from_ref(charge).cast();
    // SAFETY: `live` keeps the rules at the top of this file, and `arg` is the Charge it expects;
    // closures are the caller's own promise (`Command::pre_exec` is unsafe).
    unsafe { clone::fork_alone(live, arg) }
}

extern "C" fn live(charge: *const c_void) -> ! {
    // SAFETY: `fork` passes a Charge, and this process has a copy of it for ever.
    let charge: &Charge<'_> = unsafe { &*charge.cast() };
    match Keeper::begin(charge) {
        Err(failure) => child_side::fail(charge.orders, &failure),
        Ok(mut keeper) => keeper.keep(),
    }
    // SAFETY: ends this process without running anything of the owner's.
    unsafe { libc::_exit(0) }
}

struct Keeper<'a> {
    owner: libc::pid_t,
    proc: BorrowedFd<'a>,
    me: libc::pid_t,
    main: libc::pid_t,
    signals: c_int,
    line: c_int,
    /// The line is at its end.
    cut: bool,
    known: bool,
    killing: bool,
    /// A round of killing is done: most trees are dead after one.
    killed_once: bool,
    spare: Spare,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reaped {
    Nobody,
    Some,
    /// As many as one round reaps: there may be more.
    Many,
    /// No child is left.
    All,
}

impl<'a> Keeper<'a> {
    /// Prepares the keeper and forks the main process. Every step that can fail comes before that
    /// fork.
    fn begin(charge: &'a Charge<'a>) -> Result<Self, Failure> {
        // A copy of the owner's end would keep the line from ending.
        close(charge.owners_end);
        // SAFETY: no memory is involved.
        ok(Step::Keeper, unsafe { prctl(libc::PR_SET_CHILD_SUBREAPER, 1) })?;
        // SAFETY: no memory is involved.
        ok(Step::Keeper, unsafe { prctl(libc::PR_SET_PDEATHSIG, int(libc::SIGURG)) })?;
        if !is_parent(charge.owner) {
            return Err(Failure { step: Step::Keeper, errno: libc::ESRCH });
        }
        let signals = hear_signals()?;
        // Where the owner ignores it, the kernel would keep no exit status for us.
        // SAFETY: SIG_DFL is a valid disposition.
        let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        // SAFETY: no memory is involved.
        let me = unsafe { libc::getpid() };
        let ignored = before == libc::SIG_IGN;
        let orders = MainOrders { charge, keeper: me, ignored };
        let main = orders.fork_main()?;
        let Charge { owner, proc, line, .. } = *charge;
        let (cut, known, killing) = (false, false, false);
        let (killed_once, spare) = (false, Spare::default());
        let keeper =
            Self { owner, proc, me, main, signals, line, cut, known, killing, killed_once, spare };
        keeper.stand_aside();
        keeper.tell(&[record(BORN, main)]);
        Ok(keeper)
    }

    /// Takes a session of its own and a name, closes all other fds, leaves the directory. Ignores
    /// errors.
    fn stand_aside(&self) {
        // SAFETY: no memory is involved.
        unsafe { libc::setsid() };
        self.close_all();
        // SAFETY: a string that ends in NUL.
        unsafe { libc::chdir(c"/".as_ptr()) };
        // SAFETY: as above.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"tidy-keeper".as_ptr()) };
    }

    /// Closes the owner's fds: an inherited pipe would never reach end of file. Closing 0 to 2
    /// first frees an fd for the listing, where there is no close_range.
    fn close_all(&self) {
        let kept = [self.proc.as_raw_fd(), self.line, self.signals];
        // SAFETY: nothing in this process uses what was the owner's.
        if unsafe { sys::close_all_but(kept) } {
            return;
        }
        (0..3).filter(|fd| !kept.contains(fd)).for_each(close);
        let Some(own) = open(self.proc, self.me) else { return };
        each_fd(&own, &mut |fd| {
            if fd != own.as_raw_fd() && !kept.contains(&fd) {
                close(fd);
            }
        });
    }

    /// Runs until no child is left.
    fn keep(&mut self) {
        let mut idle: u32 = 0;
        let mut reaped = Reaped::Nobody;
        while reaped != Reaped::All {
            self.listen(match reaped {
                Reaped::Many => 0,
                _ if self.killing => pause(idle),
                _ => -1,
            });
            // Those that have died meanwhile need no round.
            let before = if self.killed_once { self.reap() } else { Reaped::Nobody };
            if before == Reaped::All {
                return;
            }
            let first = self.killing && !self.killed_once;
            if self.killing {
                self.kill_round();
            }
            if self.known || self.killing {
                reaped = before.max(self.reap());
            }
            if first && reaped != Reaped::All {
                reaped = self.drain();
            }
            idle = if reaped == Reaped::Nobody { idle.saturating_add(1) } else { 0 };
        }
    }

    /// Reaps those that the first round has killed for as long as one dies within a millisecond: a
    /// round for each death would cost more than all that they need to die. Not for longer, since a
    /// bomb refills the places of its dead.
    fn drain(&mut self) -> Reaped {
        for _ in 0..REAP_BATCH {
            self.listen(1);
            let reaped = self.reap();
            if matches!(reaped, Reaped::All | Reaped::Nobody) {
                return reaped;
            }
        }
        Reaped::Some
    }

    fn listen(&mut self, timeout: c_int) {
        let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [poll(if self.cut { -1 } else { self.line }), poll(self.signals)];
        // SAFETY: two entries that live across the call.
        unsafe { libc::poll(fds.as_mut_ptr(), 2, timeout) };
        let [line, signals] = fds;
        let mut buffer = [0; 1024];
        if signals.revents != 0 {
            while read(fd(self.signals), &mut buffer).is_some() {}
        }
        if line.revents != 0 {
            self.hear();
        }
        if !is_parent(self.owner) {
            self.killing = true;
        }
    }

    fn hear(&mut self) {
        let mut byte = [0];
        match read(fd(self.line), &mut byte) {
            Some(&[KNOWN]) => {
                self.known = true;
                self.forget();
            }
            Some(_) => self.killing = true,
            None => {
                self.killing = true;
                self.cut = true;
            }
        }
    }

    /// Unmaps the owner's memory: each page that the owner changes from now on would exist twice.
    fn forget(&self) {
        let here = 0u8;
        // SAFETY: no memory is involved.
        let errno = unsafe { libc::__errno_location() };
        let used = [(&raw const here).addr(), errno.addr()];
        idle_memory::each_idle(self.proc, self.me, used, &mut |start, len| {
            let start = ptr::without_provenance_mut(start);
            // SAFETY: anonymous memory that is neither this stack nor this thread's own: all that a
            // keeper uses is there, in its registers, and in the files of program and libraries.
            unsafe { libc::munmap(start, len) };
        });
    }

    /// Reaps children. Writes one message if main process and tree end together: the owner need not
    /// look for leftovers.
    fn reap(&self) -> Reaped {
        let mut ended = None;
        let mut reaped = Reaped::Nobody;
        for number in 1..=REAP_BATCH {
            let mut status: c_int = 0;
            // SAFETY: `status` is writable.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
            if pid > 0 {
                reaped = if number == REAP_BATCH { Reaped::Many } else { Reaped::Some };
                if pid == self.main {
                    ended = Some(record(ENDED, status));
                }
            } else if pid == 0 {
                break;
            } else if Errno::last_raw() == libc::ECHILD {
                reaped = Reaped::All;
                break;
            }
        }
        match (ended, reaped) {
            (Some(ended), Reaped::All) => self.tell(&[ended, record(DONE, 0)]),
            (None, Reaped::All) => self.tell(&[record(DONE, 0)]),
            (Some(ended), _) => self.tell(&[ended]),
            (None, _) => {}
        }
        reaped
    }

    fn kill_round(&mut self) {
        if self.killed_once {
            self.signal_all(libc::SIGSTOP);
        } else {
            // SAFETY: no memory is involved. Without CAP_SYS_NICE it is refused: nothing changes.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, HIGHEST) };
        }
        self.signal_all(libc::SIGKILL);
        self.killed_once = true;
    }

    /// Signals all descendants that it finds, parents before children, but for guards at first.
    fn signal_all(&self, signal: c_int) {
        let mut todo = Queue::new();
        if let Some(own) = open(self.proc, self.me) {
            each_child(&own, &mut |pid| {
                if pid != self.main && self.spare.holds_child(self.proc, pid) {
                    return;
                }
                // SAFETY: our own child, which only this process can reap: the number is still its.
                unsafe { libc::kill(pid, signal) };
                if !is_dead(pid) {
                    todo.push(pid, self.me);
                }
            });
        }
        while let Some((pid, parent)) = todo.pop() {
            if let Some(process) = self.find(pid, parent) {
                each_child(&process, &mut |child| {
                    if let Some(found) = self.find(child, pid) {
                        let _ = sys::pidfd_send_signal(found.as_fd(), signal);
                        todo.push(child, pid);
                    }
                });
            }
        }
    }

    /// Opens the process if it is still a child of `parent`, or ours by now, and is not spared.
    fn find(&self, pid: libc::pid_t, parent: libc::pid_t) -> Option<OwnedFd> {
        let process = open(self.proc, pid)?;
        let now = parent_of(&process)?;
        ((now == parent || now == self.me) && !self.spare.holds(&process)).then_some(process)
    }

    fn tell(&self, records: &[u64]) {
        // SAFETY: the kernel reads the records, eight bytes each; SIGPIPE is blocked.
        unsafe { libc::write(self.line, records.as_ptr().cast(), size_of_val(records)) };
    }
}

/// Whether a child has ended with all its threads, and so has no children any more.
fn is_dead(pid: libc::pid_t) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let found = waitid(Id::Pid(Pid::from_raw(pid)), look | WaitPidFlag::__WALL);
    !matches!(found, Ok(WaitStatus::StillAlive))
}

fn pause(idle: u32) -> c_int {
    let late = idle.saturating_sub(EAGER_ROUNDS).clamp(idle.min(1), 100);
    c_int::try_from(late).unwrap_or(100)
}

fn record(kind: u32, value: c_int) -> u64 {
    (u64::from(kind) << 32) | u64::from(value.cast_unsigned())
}

/// Blocks all signals and opens a signalfd for two; raw calls, since libc keeps two signals
/// unblocked.
fn hear_signals() -> Result<c_int, Failure> {
    let (all, how) = (u64::MAX, int(libc::SIG_SETMASK));
    let all = (&raw const all).expose_provenance();
    // SAFETY: the kernel reads eight bytes.
    ok(Step::Keeper, unsafe { call(libc::SYS_rt_sigprocmask, [how, all, 0, 8, 0]) })?;
    let ours: u64 = bit(libc::SIGCHLD) | bit(libc::SIGURG);
    let ours = (&raw const ours).expose_provenance();
    let flags = int(libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
    // SAFETY: the kernel reads eight bytes.
    let answer = unsafe { call(libc::SYS_signalfd4, [int(-1), ours, 8, flags, 0]) };
    ok(Step::Keeper, answer)?;
    c_int::try_from(answer).map_err(|_| Failure { step: Step::Keeper, errno: libc::EOVERFLOW })
}

fn close(fd: c_int) {
    // SAFETY: a fd of this process, which is not used after this.
    unsafe { libc::close(fd) };
}

/// Borrows one of the keeper's own fds.
fn fd(number: c_int) -> BorrowedFd<'static> {
    // SAFETY: those are open for as long as this process lives.
    unsafe { BorrowedFd::borrow_raw(number) }
}

#[cfg(test)]
mod tests;
