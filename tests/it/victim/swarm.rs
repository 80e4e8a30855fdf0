//! Victims that go on forking.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::{self, ForkResult, Pid, getpid};

use super::halted::lose_leader;
use super::life::{child, deadline, exit, fail, hold, must, ready, split, try_child};
use super::shared::{Counter, Seat, Seats};

const MOMENT: Duration = Duration::from_millis(1);

/// A chain is a chain when it has grown by so many links.
const LINKS: usize = 5;

/// Links that a chain may leave unreaped. Init reaps slower than a chain forks: without a bound
/// eighteen chains at once made fork fail with EAGAIN for everybody (`pid_max` 32768).
const BACKLOG: usize = 4000;

/// How long a chain stands still for a link that is not reaped: an init may not reap at all.
const PATIENCE: Duration = Duration::from_millis(50);

pub(super) fn chain() -> ! {
    link(false, BACKLOG, ready)
}

pub(super) fn chain_setsid() -> ! {
    link(true, BACKLOG, ready)
}

pub(super) fn chains16() -> ! {
    let grown = Counter::new();
    for number in 0..16 {
        child(|| {
            link(number % 2 == 1, BACKLOG / 10, || {
                if grown.count() == 16 {
                    ready();
                }
            })
        });
    }
    exit(0)
}

/// Each process forks and exits at once. A loop: calls would fill the stack that each link
/// inherits.
fn link(new_session: bool, backlog: usize, grown: impl Fn()) -> ! {
    let end = deadline();
    let mut links = 0;
    let mut trail = vec![None; backlog];
    while Instant::now() < end {
        match split() {
            Some(ForkResult::Parent { .. }) => exit(0),
            Some(ForkResult::Child) => links += 1,
            None => {
                sleep(MOMENT);
                continue;
            }
        }
        if new_session {
            must("setsid", unistd::setsid());
        }
        if links == LINKS {
            grown();
        }
        if let Some(old) = trail[links % backlog].replace(getpid()) {
            wait_reaped(old);
        }
    }
    exit(0)
}

fn wait_reaped(pid: Pid) {
    let end = Instant::now() + PATIENCE;
    while kill(pid, None).is_ok() && Instant::now() < end {
        sleep(MOMENT);
    }
}

pub(super) fn spawner() -> ! {
    let mut next = Instant::now();
    for number in 0..400 {
        try_child(|| hold());
        if number == 20 {
            ready();
        }
        next += MOMENT;
        sleep(next.saturating_duration_since(Instant::now()));
    }
    hold()
}

const BOMB_SEATS: u32 = 30;
const BOMB_TOTAL: u32 = 300;

struct Bomb {
    seats: Seats,
    born: Counter,
    started: Counter,
    end: Instant,
}

/// Thirty processes without main thread, each of which replaces its neighbours when they die.
pub(super) fn dead_leader_bomb() -> ! {
    let (born, started) = (Counter::new(), Counter::new());
    let bomb = Bomb { seats: Seats::new(), born, started, end: deadline() };
    born.count();
    match bomb.seats.take(0) {
        Some(seat) => member(Box::leak(Box::new(bomb)), seat),
        None => fail("take a seat", &"all are taken"),
    }
}

fn member(bomb: &'static Bomb, own: Seat) -> ! {
    lose_leader(move || {
        if bomb.started.count() == BOMB_SEATS {
            ready();
        }
        let number = own.number;
        let mut own = Some(own);
        while Instant::now() < bomb.end {
            for seat in (1..=3).filter_map(|next| bomb.seats.take((number + next) % BOMB_SEATS)) {
                fill(bomb, seat, &mut own);
            }
            sleep(MOMENT);
        }
    })
}

fn fill(bomb: &'static Bomb, seat: Seat, own: &mut Option<Seat>) {
    if bomb.born.count() <= BOMB_TOTAL {
        try_child(|| {
            // An inherited hold would keep the parent's seat taken when the parent is dead.
            own.take();
            member(bomb, seat)
        });
    }
}
