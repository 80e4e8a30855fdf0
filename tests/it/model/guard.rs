//! Guard against owner: lease, line, pidfd, hand-over, kill, removal; with a fork of the owner that
//! holds what it has inherited, a child that has not joined yet, and a sweep.

mod owner;

use super::{Model, Perhaps, Surely, Will, assert_needed, assert_sound};

/// In the order of `RunRoot::make`, a spawn, `RunRoot::end` and `Guard::drop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
    Starts,
    HasGuard,
    HasRoot,
    HasLease,
    HasHandedOver,
    HasSpawned,
    HasKilled,
    HasRemoved,
    /// Without a run root; its guard is still there.
    Failed,
    /// It may do whatever it likes, but not with this run root.
    Done,
    /// It has executed another program: what it held is closed, its pid lives.
    Executed,
    /// Killed: the kernel closes its fds one after the other, then tells of its end.
    Dying(u8),
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Guard {
    None,
    Waits,
    Opens,
    Kills,
    Looks,
    Removes,
    /// It has done its work.
    Gone,
    /// By its owner, which needs it no more.
    Dismissed,
    /// By a stranger.
    Killed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sweep {
    Idle,
    Locked,
    Killed,
    Looked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Protocol {
    started_before_root: bool,
    polls_pidfd: bool,
    kills_again: bool,
    stays: bool,
    lets_go_for_all: bool,
}

const AS_IT_IS: Protocol = Protocol {
    started_before_root: true,
    polls_pidfd: true,
    kills_again: true,
    stays: true,
    lets_go_for_all: true,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    protocol: Protocol,
    owner: Owner,
    /// Its end of the line, and its share of the lease.
    owner_line: bool,
    owner_lease: bool,
    /// A fork without exec, with a share of both from when it was born.
    fork: Option<(bool, bool)>,
    forked: bool,
    guard: Guard,
    guard_holds: bool,
    handed: bool,
    dir: bool,
    made: bool,
    processes: bool,
    /// Forked, and not in its cgroup yet: it joins, or ends where that is gone.
    joining: bool,
    sweep: Sweep,
    sweeps: u8,
}

type Next = Vec<(&'static str, Will, World)>;

impl World {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            owner: Owner::Starts,
            owner_line: false,
            owner_lease: false,
            fork: None,
            forked: false,
            guard: Guard::None,
            guard_holds: false,
            handed: false,
            dir: false,
            made: false,
            processes: false,
            joining: false,
            sweep: Sweep::Idle,
            sweeps: 0,
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut then = self.clone();
        change(&mut then);
        then
    }

    fn lease_is_held(&self) -> bool {
        self.owner_lease || self.fork.is_some_and(|(_, lease)| lease) || self.sweep != Sweep::Idle
    }

    fn line_is_open(&self) -> bool {
        self.owner_line || self.fork.is_some_and(|(line, _)| line)
    }

    fn owner_acts(&self) -> bool {
        use Owner::{Dead, Done, Dying, Executed};
        !matches!(self.owner, Dead | Done | Dying(_) | Executed)
    }

    fn start_guard(&mut self) {
        self.guard = Guard::Waits;
        self.owner_line = true;
    }

    fn make_root(&mut self) {
        self.dir = true;
        self.made = true;
    }

    fn guard_steps(&self, next: &mut Next) {
        use Guard::*;
        let go = |then| self.with(|w| w.guard = then);
        let mut step = |name, then| next.push((name, Surely, then));
        match self.guard {
            None | Gone | Dismissed | Killed => {}
            Waits if self.handed && !self.guard_holds => {
                step("takes the fds", self.with(|w| w.guard_holds = true));
            }
            Waits => {
                let hears = self.protocol.polls_pidfd && self.owner == Owner::Dead;
                if !self.line_is_open() || hears {
                    step("owner is gone", go(Opens));
                }
            }
            Opens if !self.guard_holds && !self.dir => step("never made", go(Gone)),
            Opens => step("opens", go(Kills)),
            Kills => step(
                "guard kills",
                self.with(|w| {
                    w.processes = false;
                    w.guard = Looks;
                }),
            ),
            Looks if self.processes => step("still populated", go(Kills)),
            Looks => step("empty", go(Removes)),
            Removes if self.processes && self.protocol.kills_again => step("busy", go(Kills)),
            Removes if self.processes => step("busy", go(Gone)),
            Removes => step(
                "guard removes",
                self.with(|w| {
                    w.dir = false;
                    w.guard = Gone;
                }),
            ),
        }
    }

    /// By its free lease, or because the owner is known to be dead.
    fn may_be_swept(&self) -> bool {
        let free = !self.lease_is_held() || self.owner == Owner::Dead;
        self.dir && self.sweep == Sweep::Idle && free
    }

    fn sweep_steps(&self, next: &mut Next) {
        let go = |then| self.with(|w| w.sweep = then);
        match self.sweep {
            Sweep::Idle if self.may_be_swept() && self.sweeps > 0 => {
                let locked = self.with(|w| {
                    w.sweep = Sweep::Locked;
                    w.sweeps -= 1;
                });
                next.push(("sweep", Perhaps, locked));
            }
            Sweep::Idle => {}
            Sweep::Locked => next.push((
                "sweep kills",
                Surely,
                self.with(|w| {
                    w.processes = false;
                    w.sweep = Sweep::Killed;
                }),
            )),
            Sweep::Killed if self.processes => next.push(("again", Surely, go(Sweep::Locked))),
            Sweep::Killed => next.push(("sweep sees", Surely, go(Sweep::Looked))),
            Sweep::Looked if self.processes => next.push(("busy", Surely, go(Sweep::Locked))),
            Sweep::Looked => next.push((
                "sweep removes",
                Surely,
                self.with(|w| {
                    w.dir = false;
                    w.sweep = Sweep::Idle;
                }),
            )),
        }
        if self.sweep != Sweep::Idle {
            next.push(("sweep is killed", Perhaps, go(Sweep::Idle)));
        }
    }

    fn others_step(&self, next: &mut Next) {
        if self.joining {
            let joined = self.with(|w| {
                w.joining = false;
                w.processes |= w.dir;
            });
            next.push(("joins, or ends", Surely, joined));
        }
        if self.owner_acts() {
            next.push(("owner is killed", Perhaps, self.with(|w| w.owner = Owner::Dying(0))));
            next.push((
                "owner executes",
                Perhaps,
                self.with(|w| {
                    (w.owner_line, w.owner_lease) = (false, false);
                    w.owner = Owner::Executed;
                }),
            ));
            if !self.forked {
                next.push((
                    "owner forks",
                    Perhaps,
                    self.with(|w| {
                        w.fork = Some((w.owner_line, w.owner_lease));
                        w.forked = true;
                    }),
                ));
            }
        }
        if self.fork.is_some() {
            next.push(("fork ends", Perhaps, self.with(|w| w.fork = None)));
        }
        if !matches!(self.guard, Guard::None | Guard::Gone | Guard::Dismissed | Guard::Killed) {
            next.push(("guard is killed", Perhaps, self.with(|w| w.guard = Guard::Killed)));
        }
    }
}

impl Model for World {
    fn next(&self) -> Next {
        let mut next = Vec::new();
        self.owner_begins(&mut next);
        self.guard_steps(&mut next);
        self.sweep_steps(&mut next);
        self.others_step(&mut next);
        next
    }

    fn fault(&self) -> Option<&'static str> {
        let left = self.processes || self.dir;
        // An owner that has executed something else lives: while a fork of it holds the line,
        // nothing says that it is none any more.
        let forked_away = self.owner == Owner::Executed && self.fork.is_some();
        if !left || forked_away {
            return None;
        }
        match self.guard {
            Guard::None => Some(NO_GUARD),
            Guard::Dismissed => Some(DISMISSED),
            Guard::Killed => (!self.may_be_swept()).then_some(UNSWEPT),
            _ => Some(LEFT),
        }
    }
}

const NO_GUARD: &str = "left, and there was no guard yet";
const DISMISSED: &str = "left, and the guard was sent away";
const UNSWEPT: &str = "left, and no sweep finds it";
const LEFT: &str = "left, though nobody has killed the guard";

#[test]
fn nothing_is_left_that_neither_guard_nor_sweep_ends() {
    let mut world = World::new(AS_IT_IS);
    world.sweeps = 2;
    assert_sound(world);
}

/// Each part of the protocol is needed.
#[test]
fn without_any_part_of_the_protocol_something_is_left() {
    type Change = fn(&mut Protocol);
    let parts: [(&str, Change, &str); 5] = [
        ("a guard that starts first", |p| p.started_before_root = false, NO_GUARD),
        ("the pidfd", |p| p.polls_pidfd = false, LEFT),
        ("another kill where rmdir is refused", |p| p.kills_again = false, LEFT),
        ("a guard that stays", |p| p.stays = false, DISMISSED),
        ("letting go for a fork too", |p| p.lets_go_for_all = false, UNSWEPT),
    ];
    for (part, take_away, fault) in parts {
        let mut protocol = AS_IT_IS;
        take_away(&mut protocol);
        assert_needed(part, World::new(protocol), fault);
    }
}
