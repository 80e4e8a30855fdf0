//! Victims that leave their parent, their group, their session, their user, their namespace.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{self, Gid, Pid, Uid};

use super::life::{Gate, child, exit, fail, hold, must, ready, reap};

const NOBODY: u32 = 65534;

/// A child that changes itself by `change` and stays; its parent says so and stays too.
fn with_child(change: impl FnOnce()) -> ! {
    let gate = Gate::new();
    child(|| {
        change();
        gate.arrived();
        hold()
    });
    gate.wait(1);
    ready();
    hold()
}

pub(super) fn plain() -> ! {
    ready();
    hold()
}

pub(super) fn grandchild() -> ! {
    with_child(|| ())
}

pub(super) fn orphan() -> ! {
    let gate = Gate::new();
    child(|| {
        ready();
        gate.arrived();
        hold()
    });
    gate.wait(1);
    exit(0)
}

pub(super) fn setsid() -> ! {
    with_child(|| {
        must("setsid", unistd::setsid());
    })
}

pub(super) fn setpgid() -> ! {
    let own = Pid::from_raw(0);
    with_child(|| must("setpgid", unistd::setpgid(own, own)))
}

pub(super) fn daemon() -> ! {
    daemonize();
    ready();
    hold()
}

pub(super) fn daemon_exit() -> ! {
    daemonize();
    ready();
    exit(0)
}

/// The classic: the daemon is no session leader, and nobody's child.
fn daemonize() {
    let gate = Gate::new();
    let between = child(|| {
        must("setsid", unistd::setsid());
        child(|| {
            gate.arrived();
            hold()
        });
        exit(0)
    });
    reap(between);
    gate.wait(1);
}

pub(super) fn ignores_term() -> ! {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        ignore(signal as i32);
    }
    with_child(|| ())
}

fn ignore(number: i32) {
    // SAFETY: an ignored signal runs no code of ours.
    unsafe { libc::signal(number, libc::SIG_IGN) };
}

pub(super) fn nobody() -> ! {
    with_child(|| {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        must("setgroups", unistd::setgroups(&[]));
        must("setgid", unistd::setgid(group));
        must("setuid", unistd::setuid(user));
    })
}

pub(super) fn pid_namespace() -> ! {
    let new = CloneFlags::CLONE_NEWPID;
    let made = match unshare(new) {
        Err(Errno::EPERM) => unshare(CloneFlags::CLONE_NEWUSER | new),
        other => other,
    };
    must("unshare", made);
    let gate = Gate::new();
    child(|| init(&gate));
    gate.wait(1);
    ready();
    hold()
}

/// A namespace's init gets no signal of default action from its own timers, so it ends by the
/// clock.
fn init(gate: &Gate) -> ! {
    let end = Instant::now() + Duration::from_secs(25);
    if unistd::getpid().as_raw() != 1 {
        fail("be an init", &"the pid is not 1");
    }
    (1..=libc::SIGRTMAX()).for_each(ignore);
    let inner = Gate::new();
    child(|| {
        inner.arrived();
        hold()
    });
    inner.wait(1);
    gate.arrived();
    sleep(end.saturating_duration_since(Instant::now()));
    exit(0)
}

pub(super) fn closes_everything() -> ! {
    let gate = Gate::new();
    child(|| {
        must("setsid", unistd::setsid());
        must("chdir", unistd::chdir("/"));
        // SAFETY: closes the fds under their owners, none of which is used or dropped afterwards.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
        must("close everything", Errno::result(closed));
        hold()
    });
    gate.wait_closed();
    ready();
    hold()
}
