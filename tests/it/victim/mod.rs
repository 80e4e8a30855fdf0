//! The victims: programs that misbehave in every way a supervised command can.
//!
//! The test binary plays them itself: started with `TIDY_VICTIM=<name>` it never reaches the test
//! harness. When all processes of a victim have reached their state exactly one of them writes the
//! line `ready` to fd 1, and the victim goes on. Whatever the test does, every process ends by
//! itself within 30 s. What cannot be played here (no right to, say) is said on fd 2; the status is
//! then 99.
#![expect(
    unsafe_code,
    reason = "a victim forks, leaves its main thread, is traced: no safe call does this"
)]

mod cgroups;
mod halted;
pub(crate) mod hostile;
mod life;
mod ranks;
mod shared;
mod swarm;

use std::path::PathBuf;

const WISH: &str = "TIDY_VICTIM";

const VICTIMS: &[(&str, fn() -> !)] = &[
    ("plain", ranks::plain),
    ("grandchild", ranks::grandchild),
    ("orphan", ranks::orphan),
    ("setsid", ranks::setsid),
    ("daemon", ranks::daemon),
    ("daemon-exit", ranks::daemon_exit),
    ("setpgid", ranks::setpgid),
    ("chain", swarm::chain),
    ("chain-setsid", swarm::chain_setsid),
    ("chains16", swarm::chains16),
    ("spawner", swarm::spawner),
    ("ignores-term", ranks::ignores_term),
    ("stopped", halted::stopped),
    ("dead-leader", halted::dead_leader),
    ("dead-leader-bomb", swarm::dead_leader_bomb),
    ("ptrace-stopped", halted::ptrace_stopped),
    ("vfork-parent", halted::vfork_parent),
    ("nested-cgroups", cgroups::nested),
    ("threaded-cgroup", cgroups::threaded),
    ("frozen", cgroups::frozen),
    ("nobody", ranks::nobody),
    ("pid-namespace", ranks::pid_namespace),
    ("closes-everything", ranks::closes_everything),
];

/// What attacks those who look rather than those who kill: each has a test of its own.
const HOSTILE: &[(&str, fn() -> !)] = &[
    ("long-command", hostile::long_command),
    ("many-words", hostile::many_words),
    ("many-words-go", hostile::many_words_go),
    ("many-sockets", hostile::many_sockets),
    ("memory-locked", hostile::memory_locked),
    ("evil-words", hostile::evil_words),
    ("evil-server", hostile::evil_server),
    ("secretive", hostile::secretive),
];

const NAMES: [&str; VICTIMS.len()] = {
    let mut names = [""; VICTIMS.len()];
    let mut at = 0;
    while at < VICTIMS.len() {
        names[at] = VICTIMS[at].0;
        at += 1;
    }
    names
};

pub(crate) fn names() -> &'static [&'static str] {
    &NAMES
}

/// This binary: with `TIDY_VICTIM` in its environment it plays that victim.
pub(crate) fn exe() -> PathBuf {
    life::must("find the own executable", std::env::current_exe())
}

/// Before `main`, since the harness would start threads, and a victim's main thread must be the
/// real one.
#[ctor::ctor]
unsafe fn play() {
    let Some(wish) = std::env::var_os(WISH) else { return };
    life::mortal();
    match VICTIMS.iter().chain(HOSTILE).find(|(name, _)| wish == *name) {
        Some((_, victim)) => victim(),
        None => life::fail("play", &format!("no victim {}", wish.display())),
    }
}
