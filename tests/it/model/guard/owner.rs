//! What an owner does, from the start of its guard to the end of its run root.

use super::{Guard, Next, Owner, Surely, World};

impl World {
    pub(super) fn owner_begins(&self, next: &mut Next) {
        use Owner::*;
        let first = self.protocol.started_before_root;
        let mut step = |name, then| next.push((name, Surely, then));
        match self.owner {
            Starts if first => step(
                "guard",
                self.with(|w| {
                    w.start_guard();
                    w.owner = HasGuard;
                }),
            ),
            Starts => step(
                "mkdir",
                self.with(|w| {
                    w.make_root();
                    w.owner = HasGuard;
                }),
            ),
            HasGuard if first => step(
                "mkdir",
                self.with(|w| {
                    w.make_root();
                    w.owner = HasRoot;
                }),
            ),
            HasGuard => step(
                "guard",
                self.with(|w| {
                    w.start_guard();
                    w.owner = HasRoot;
                }),
            ),
            // A sweep has it, or has removed it: another name is tried.
            HasRoot if self.lease_is_held() || !self.dir => {
                step("no lease", self.with(|w| w.owner = Failed));
            }
            HasRoot => step(
                "lease",
                self.with(|w| {
                    w.owner_lease = true;
                    w.owner = HasLease;
                }),
            ),
            HasLease => step(
                "hand over",
                self.with(|w| {
                    w.handed = w.guard == Guard::Waits;
                    w.owner = HasHandedOver;
                }),
            ),
            _ => self.owner_works(next),
        }
    }

    fn owner_works(&self, next: &mut Next) {
        use Owner::*;
        let mut step = |name, then| next.push((name, Surely, then));
        match self.owner {
            HasHandedOver => {
                step(
                    "spawn",
                    self.with(|w| {
                        w.processes = w.dir;
                        w.owner = HasSpawned;
                    }),
                );
                step(
                    "fork to join",
                    self.with(|w| {
                        w.joining = true;
                        w.owner = HasSpawned;
                    }),
                );
            }
            HasSpawned => {
                step(
                    "kill",
                    self.with(|w| {
                        w.processes = false;
                        w.owner = HasKilled;
                    }),
                );
                // Stuck for ten seconds: the teardown gives up, and the guard stays.
                step("give up", self.with(|w| w.leave()));
            }
            HasKilled if self.processes => step("kill again", self.with(|w| w.owner = HasSpawned)),
            HasKilled => step(
                "rmdir",
                self.with(|w| {
                    w.dir = false;
                    w.owner = HasRemoved;
                }),
            ),
            _ => self.owner_ends(next),
        }
    }

    fn owner_ends(&self, next: &mut Next) {
        use Owner::*;
        let mut step = |name, then| next.push((name, Surely, then));
        match self.owner {
            HasRemoved | Failed => step(
                "end the guard",
                self.with(|w| {
                    // What it failed to get a lease for it removes: nobody is in it.
                    w.dir = false;
                    w.dismiss();
                    (w.owner_line, w.owner_lease) = (false, false);
                    w.owner = Done;
                }),
            ),
            Dying(0) => step(
                "its line closes",
                self.with(|w| {
                    w.owner_line = false;
                    w.owner = Dying(1);
                }),
            ),
            Dying(1) => step(
                "its lease goes",
                self.with(|w| {
                    w.owner_lease = false;
                    w.owner = Dying(2);
                }),
            ),
            Dying(_) => step("it has ended", self.with(|w| w.owner = Dead)),
            _ => {}
        }
    }

    fn dismiss(&mut self) {
        if self.guard != Guard::Killed {
            self.guard = Guard::Dismissed;
        }
    }

    fn leave(&mut self) {
        if !self.protocol.stays {
            self.dismiss();
        }
        // It shuts the line down and gives the lease back, so a fork holds neither.
        if self.protocol.lets_go_for_all {
            self.fork = self.fork.map(|_| (false, false));
        }
        (self.owner_line, self.owner_lease) = (false, false);
        self.owner = Owner::Done;
    }
}
