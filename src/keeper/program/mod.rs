//! The keeper's code, the same in the program that the library carries and, where that cannot be
//! executed, in a fork of the owner. It holds one tree where there is no cgroup.
//!
//! As a sub-reaper it becomes the parent of every descendant that has lost its own; so it has
//! children for as long as the tree has processes, and it ends with the last one.
//!
//! 1. It may run in a copy of its owner's memory taken while other threads held locks, and for
//!    long: no allocation, no lock, no panic.
//! 2. All signals are blocked. It learns by a signalfd that a child has ended (SIGCHLD) or that the
//!    thread that started it has (SIGURG); then its parent's pid says whether the owner lives.
//! 3. A pair of sockets is the line to its owner: [`KILL`] and end of file both mean that the tree
//!    is to die. A fork of the owner may hold the line for longer than the owner lives: hence
//!    SIGURG.
//! 4. It does not reap before it hears [`KNOWN`], so the owner can open a pidfd for the main
//!    process while the number is surely that one's.
//! 5. To kill is to go round until there is no child. First its own children get SIGKILL: where
//!    they are all, that was it. In every other round each process gets SIGKILL *before* its
//!    children are listed: from then on it can fork no more, so the list is complete. What was
//!    born before and has lost its parent since is a child of the keeper, and met in the next
//!    round. A bomb refills the places of its dead, and its many processes leave the keeper little
//!    of the CPU: so it kills at the highest priority that it may have, and from the second round
//!    on stops all (SIGSTOP) before it kills: what is stopped keeps its place and runs no more.
//! 6. A pid of a descendant that is not its own child may go to a stranger at any moment. So
//!    `/proc/PID` is opened, the parent's pid read in it, and the signal sent through that fd,
//!    which is as good as a pidfd (pidfd_send_signal(2)).

mod calls;
mod spare;
mod tree;

pub(crate) use calls::exit;

use super::parse;
use calls::{Fd, SIGKILL, SIGSTOP, Waited};
use spare::Spare;
use tree::Queue;

/// Messages of the owner: it has a pidfd of the main process; kill the tree.
pub(crate) const KNOWN: u8 = b'n';
pub(crate) const KILL: u8 = b'k';

/// Messages of the keeper: records of eight bytes, one of these in the upper half and the main
/// process's pid, its wait status or nothing in the lower one.
pub(crate) const BORN: u32 = 1;
pub(crate) const ENDED: u32 = 2;
pub(crate) const DONE: u32 = 3;

/// The keeper's fds: the line to its owner, the directory `/proc`, and a signalfd for SIGCHLD and
/// SIGURG that does not block.
pub(crate) const LINE: i32 = 0;
pub(crate) const PROC: i32 = 1;
pub(crate) const SIGNALS: i32 = 2;

/// Reaps this many processes at the most before it reads the line, however fast a chain forks.
const REAP_BATCH: u32 = 64;

/// Rounds without a death that follow after a millisecond or the next death, whichever is first;
/// after these, pauses grow to 100 ms. At once would take the CPU from those that are dying: a
/// keeper has the highest priority.
const EAGER_ROUNDS: u32 = 300;

/// The first rounds kill the keeper's own children alone.
const SHALLOW_ROUNDS: u32 = 2;

/// Runs until no child is left. `known` is called once the owner has a pidfd of the main process.
pub(crate) fn keep(owner: i32, main: i32, known: &mut dyn FnMut()) {
    let mut keeper = Keeper::of(PROC, owner, main);
    keeper.stand_aside();
    calls::write(LINE, &[record(BORN, main)]);
    keeper.run(known);
}

struct Keeper {
    proc: i32,
    owner: i32,
    me: i32,
    main: i32,
    /// The line is at its end.
    cut: bool,
    known: bool,
    killing: bool,
    /// Rounds of killing so far.
    rounds: u32,
    /// Children reaped so far.
    buried: u32,
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

impl Keeper {
    fn of(proc: i32, owner: i32, main: i32) -> Self {
        let (me, spare) = (calls::own_pid(), Spare::default());
        let (cut, known, killing, rounds, buried) = (false, false, false, 0, 0);
        Self { proc, owner, me, main, cut, known, killing, rounds, buried, spare }
    }

    /// Takes a session of its own and a name, closes all other fds, leaves the directory. Ignores
    /// errors.
    fn stand_aside(&mut self) {
        calls::settle(c"tidy-keeper");
        // Before that call its end may have gone unheard.
        self.killing = calls::parent() != self.owner;
        if calls::close_from(SIGNALS + 1) {
            return;
        }
        let Some(own) = tree::open(self.proc, self.me) else { return };
        tree::each_fd(&own, &mut |fd| {
            if fd > SIGNALS && fd != own.number() {
                calls::close(fd);
            }
        });
    }

    fn run(&mut self, known: &mut dyn FnMut()) {
        let mut idle: u32 = 0;
        let mut reaped = Reaped::Nobody;
        while reaped != Reaped::All {
            let timeout = match reaped {
                Reaped::Many => 0,
                _ if self.killing => pause(idle),
                _ => -1,
            };
            self.listen(timeout, known);
            // Those that have died meanwhile need no round.
            let before = if self.rounds > 0 { self.reap() } else { Reaped::Nobody };
            if before == Reaped::All {
                return;
            }
            let deaths = if self.killing { self.kill_round() } else { 0 };
            if self.known || self.killing {
                reaped = before.max(self.reap());
            }
            if deaths > 0 && reaped != Reaped::All {
                reaped = self.drain(deaths, known);
            }
            idle = if reaped == Reaped::Nobody { idle.saturating_add(1) } else { 0 };
        }
    }

    /// Reaps those that a round has killed, this many at the least, for as long as one dies within
    /// a millisecond: a round for each death would cost more than all that they need to die. Not
    /// for longer, since a bomb refills the places of its dead.
    fn drain(&mut self, deaths: u32, known: &mut dyn FnMut()) -> Reaped {
        let goal = self.buried.saturating_add(deaths);
        for _ in 0..REAP_BATCH {
            self.listen(1, known);
            let reaped = self.reap();
            if matches!(reaped, Reaped::All | Reaped::Nobody) || self.buried >= goal {
                return reaped;
            }
        }
        Reaped::Some
    }

    fn listen(&mut self, timeout: i32, known: &mut dyn FnMut()) {
        let [line, signals] = calls::poll([if self.cut { -1 } else { LINE }, SIGNALS], timeout);
        if signals {
            // Each of the two is pending once at the most: one read has both.
            let _ = calls::read(SIGNALS, &mut [0; 512]);
        }
        if line {
            self.hear(known);
        }
        if calls::parent() != self.owner {
            self.killing = true;
        }
    }

    fn hear(&mut self, known: &mut dyn FnMut()) {
        match calls::read(LINE, &mut [0]) {
            Some(&[KNOWN]) => {
                self.known = true;
                known();
            }
            Some(_) => self.killing = true,
            None => {
                self.killing = true;
                self.cut = true;
            }
        }
    }

    /// Reaps children. Writes one message if main process and tree end together: the owner need not
    /// look for leftovers.
    fn reap(&mut self) -> Reaped {
        let mut ended = None;
        let mut reaped = Reaped::Nobody;
        for number in 1..=REAP_BATCH {
            match calls::reap() {
                Waited::Reaped(pid, status) => {
                    self.buried = self.buried.saturating_add(1);
                    reaped = if number == REAP_BATCH { Reaped::Many } else { Reaped::Some };
                    if pid == self.main {
                        ended = Some(record(ENDED, status));
                    }
                }
                Waited::Nobody => break,
                Waited::NoChild => {
                    reaped = Reaped::All;
                    break;
                }
            }
        }
        match (ended, reaped) {
            (Some(ended), Reaped::All) => calls::write(LINE, &[ended, record(DONE, 0)]),
            (None, Reaped::All) => calls::write(LINE, &[record(DONE, 0)]),
            (Some(ended), _) => calls::write(LINE, &[ended]),
            (None, _) => {}
        }
        reaped
    }

    /// Kills what it finds; returns how many deaths are worth waiting for.
    fn kill_round(&mut self) -> u32 {
        let round = self.rounds;
        self.rounds = round.saturating_add(1);
        if round == 0 {
            calls::hurry();
        }
        if round < SHALLOW_ROUNDS {
            return self.kill_children();
        }
        if round > SHALLOW_ROUNDS {
            self.signal_all(SIGSTOP);
        }
        self.signal_all(SIGKILL);
        if round > SHALLOW_ROUNDS { 0 } else { u32::MAX }
    }

    /// Kills its own children, but for guards at first; returns how many.
    fn kill_children(&self) -> u32 {
        let mut killed: u32 = 0;
        self.each_own_child(&mut |pid| {
            calls::kill(pid, SIGKILL);
            killed = killed.saturating_add(1);
        });
        killed
    }

    /// Sees its children that are not spared. Only this process can reap them: the numbers are
    /// theirs until it does.
    fn each_own_child(&self, see: &mut dyn FnMut(i32)) {
        tree::each_own_child(self.proc, &mut |pid| {
            if pid == self.main || !self.spare.holds_child(self.proc, pid) {
                see(pid);
            }
        });
    }

    /// Signals all descendants that it finds, parents before children, but for guards at first.
    fn signal_all(&self, signal: i32) {
        let mut todo = Queue::new();
        self.each_own_child(&mut |pid| {
            calls::kill(pid, signal);
            if !calls::is_dead(pid) {
                todo.push(pid, self.me);
            }
        });
        while let Some((pid, parent)) = todo.pop() {
            if let Some(process) = self.find(pid, parent) {
                tree::each_child(&process, &mut |child| {
                    if let Some(found) = self.find(child, pid) {
                        calls::signal(&found, signal);
                        todo.push(child, pid);
                    }
                });
            }
        }
    }

    /// Opens the process if it is still a child of `parent`, or ours by now, and is not spared.
    fn find(&self, pid: i32, parent: i32) -> Option<Fd> {
        let process = tree::open(self.proc, pid)?;
        let now = tree::parent_of(&process)?;
        ((now == parent || now == self.me) && !self.spare.holds(&process)).then_some(process)
    }
}

fn pause(idle: u32) -> i32 {
    let late = idle.saturating_sub(EAGER_ROUNDS).clamp(idle.min(1), 100);
    i32::try_from(late).unwrap_or(100)
}

fn record(kind: u32, value: i32) -> u64 {
    (u64::from(kind) << 32) | u64::from(value.cast_unsigned())
}

#[cfg(test)]
mod tests;
