//! Keeper against owner: the records BORN, ENDED and DONE one way, KNOWN, KILL and the line's end
//! the other way, the stop and the death of either.

use super::{Model, Perhaps, Surely, Will, assert_needed, assert_sound};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    WaitsForBirth,
    HasPid,
    HasHandle,
    /// KNOWN is sent.
    Watches,
    AskedToKill,
    /// DONE was heard.
    Satisfied,
    /// The keeper was killed: it says so, and that the tree may be alive.
    Lost,
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Keeper {
    Forked,
    Listens,
    Gone,
    Killed,
}

/// The main process, and all that descends from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Main {
    Unborn,
    Lives,
    Zombie,
    Reaped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Protocol {
    /// The keeper does not reap before KNOWN, unless it kills.
    waits_for_known: bool,
    /// SIGURG and the parent's pid, besides the line's end.
    sees_parent: bool,
    /// The main process dies with its keeper.
    is_tied: bool,
    /// The owner sends SIGCONT with KILL.
    continues: bool,
    /// Before KNOWN the owner looks whether the keeper, which does not reap yet, is still there.
    looks_again: bool,
}

const AS_IT_IS: Protocol = Protocol {
    waits_for_known: true,
    sees_parent: true,
    is_tied: true,
    continues: true,
    looks_again: true,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    protocol: Protocol,
    owner: Owner,
    keeper: Keeper,
    stopped: bool,
    main: Main,
    /// A descendant, born of the main process.
    daemon: bool,
    /// Records on their way to the owner, as bits: BORN, ENDED, DONE.
    told: [bool; 3],
    known: bool,
    kill: bool,
    killing: bool,
    /// The owner's end of the line is closed; a fork holds a copy.
    closed: bool,
    fork: bool,
    forked: bool,
    /// Its number was given away before the owner had a handle.
    pid_is_a_strangers: bool,
}

type Next = Vec<(&'static str, Will, World)>;

impl World {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            owner: Owner::WaitsForBirth,
            keeper: Keeper::Forked,
            stopped: false,
            main: Main::Unborn,
            daemon: false,
            told: [false; 3],
            known: false,
            kill: false,
            killing: false,
            closed: false,
            fork: false,
            forked: false,
            pid_is_a_strangers: false,
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut then = self.clone();
        change(&mut then);
        then
    }

    fn keeper_lives(&self) -> bool {
        matches!(self.keeper, Keeper::Forked | Keeper::Listens)
    }

    fn owner_steps(&self, next: &mut Next) {
        let [born, _, done] = self.told;
        let mut step = |name, then| next.push((name, Surely, then));
        match self.owner {
            Owner::WaitsForBirth if born => step(
                "hears BORN",
                self.with(|w| {
                    w.owner = Owner::HasPid;
                }),
            ),
            Owner::HasPid => step(
                "opens a pidfd",
                self.with(|w| {
                    w.pid_is_a_strangers = w.main == Main::Reaped;
                    w.owner = Owner::HasHandle;
                }),
            ),
            // Then somebody else may have reaped the main process.
            Owner::HasHandle if self.protocol.looks_again && !self.keeper_lives() => {
                step("the keeper has gone", self.with(|w| w.owner = Owner::Lost));
            }
            Owner::HasHandle => step(
                "says KNOWN",
                self.with(|w| {
                    w.known = true;
                    w.owner = Owner::Watches;
                }),
            ),
            Owner::Watches => {
                // It may wait for ever; or finish, which is to kill and wait for DONE.
                next.push((
                    "says KILL",
                    Perhaps,
                    self.with(|w| {
                        w.kill = true;
                        w.stopped &= !w.protocol.continues;
                        w.owner = Owner::AskedToKill;
                    }),
                ));
                if done {
                    next.push(("hears DONE", Surely, self.with(|w| w.owner = Owner::Satisfied)));
                }
            }
            Owner::AskedToKill if done => {
                step("hears DONE", self.with(|w| w.owner = Owner::Satisfied));
            }
            _ => {}
        }
        let waits = matches!(self.owner, Owner::WaitsForBirth | Owner::AskedToKill);
        if !self.keeper_lives() && !done && waits && (self.owner != Owner::WaitsForBirth || !born) {
            next.push(("hears silence", Surely, self.with(|w| w.owner = Owner::Lost)));
        }
    }

    fn keeper_steps(&self, next: &mut Next) {
        if self.stopped || !self.keeper_lives() {
            return;
        }
        let mut step = |name, then| next.push((name, Surely, then));
        if self.keeper == Keeper::Forked {
            // Before anything it looks at its parent: a death signal may have come too early.
            let orphan = self.owner == Owner::Dead && self.protocol.sees_parent;
            step(
                "gives birth",
                self.with(|w| {
                    if orphan {
                        w.keeper = Keeper::Gone;
                    } else {
                        w.main = Main::Lives;
                        w.told[0] = true;
                        w.keeper = Keeper::Listens;
                    }
                }),
            );
            return;
        }
        let line_ended = self.closed && !self.fork;
        let orphaned = self.owner == Owner::Dead && self.protocol.sees_parent;
        if !self.killing && (self.kill || line_ended || orphaned) {
            step("is to kill", self.with(|w| w.killing = true));
        }
        if self.killing && (self.main == Main::Lives || self.daemon) {
            step(
                "kill round",
                self.with(|w| {
                    if w.main == Main::Lives {
                        w.main = Main::Zombie;
                    }
                    w.daemon = false;
                }),
            );
        }
        let reaps = self.known || self.killing || !self.protocol.waits_for_known;
        if reaps && self.main == Main::Zombie {
            step(
                "reaps, says ENDED",
                self.with(|w| {
                    w.main = Main::Reaped;
                    w.told[1] = true;
                }),
            );
        }
        if reaps && self.main == Main::Reaped && !self.daemon {
            step(
                "says DONE",
                self.with(|w| {
                    w.told[2] = true;
                    w.keeper = Keeper::Gone;
                }),
            );
        }
    }

    fn others_step(&self, next: &mut Next) {
        let mut may = |name, then| next.push((name, Perhaps, then));
        if self.main == Main::Lives {
            may("main ends", self.with(|w| w.main = Main::Zombie));
            if !self.daemon {
                may("a daemon is born", self.with(|w| w.daemon = true));
            }
        }
        if self.owner != Owner::Dead {
            may(
                "owner dies",
                self.with(|w| {
                    w.owner = Owner::Dead;
                    w.closed = true;
                }),
            );
            if !self.forked {
                may("owner forks", self.with(|w| (w.fork, w.forked) = (true, true)));
            }
        }
        if self.fork {
            may("fork ends", self.with(|w| w.fork = false));
        }
        if self.keeper == Keeper::Listens && !self.stopped && self.owner == Owner::Watches {
            may("keeper is stopped", self.with(|w| w.stopped = true));
        }
        if self.keeper == Keeper::Listens {
            may(
                "keeper is killed",
                self.with(|w| {
                    w.keeper = Keeper::Killed;
                    // Its death signal; others of the tree have lost who would have adopted them.
                    if w.protocol.is_tied && w.main == Main::Lives {
                        w.main = Main::Reaped;
                    }
                }),
            );
        }
    }
}

impl Model for World {
    fn next(&self) -> Next {
        let mut next = Vec::new();
        self.owner_steps(&mut next);
        self.keeper_steps(&mut next);
        self.others_step(&mut next);
        next
    }

    fn fault(&self) -> Option<&'static str> {
        if self.pid_is_a_strangers && self.owner == Owner::Watches {
            return Some(STRANGER);
        }
        if self.main == Main::Lives && self.keeper == Keeper::Killed {
            return Some(OUTLIVES);
        }
        let lives = self.main == Main::Lives || self.daemon;
        match self.owner {
            // A stranger's stop, and then no owner that would send SIGCONT.
            Owner::Dead if lives && self.keeper_lives() && !self.stopped => Some(LEFT),
            Owner::Satisfied if lives => Some("DONE was said of a tree that lives"),
            Owner::AskedToKill => Some(WAITS),
            Owner::WaitsForBirth if self.keeper != Keeper::Forked => Some("no news of the birth"),
            _ => None,
        }
    }
}

const STRANGER: &str = "the owner has a handle on a stranger";
const OUTLIVES: &str = "the main process outlives its keeper";
const LEFT: &str = "left, and the keeper does nothing";
const WAITS: &str = "the owner waits for ever";

#[test]
fn a_keeper_leaves_nobody_behind_and_no_owner_waiting() {
    assert_sound(World::new(AS_IT_IS));
}

#[test]
fn without_any_part_of_the_protocol_an_owner_or_a_tree_is_left() {
    type Change = fn(&mut Protocol);
    let parts: [(&str, Change, &str); 5] = [
        ("KNOWN before the first reaping", |p| p.waits_for_known = false, STRANGER),
        ("a look at the parent", |p| p.sees_parent = false, LEFT),
        ("a main process that dies with its keeper", |p| p.is_tied = false, OUTLIVES),
        ("SIGCONT with KILL", |p| p.continues = false, WAITS),
        ("another look at the keeper", |p| p.looks_again = false, STRANGER),
    ];
    for (part, take_away, fault) in parts {
        let mut protocol = AS_IT_IS;
        take_away(&mut protocol);
        assert_needed(part, World::new(protocol), fault);
    }
}
