//! The promises under attack, each test bounded; one topic, one module.
//!
//! What needs a namespace, another user or a signal disposition of its own is played by an actor,
//! which says on its standard error what was wrong and fails.

#[cfg(feature = "cli")]
mod blocked;
mod duties;
mod frozen;
#[cfg(feature = "cli")]
mod escapes;
#[cfg(feature = "cli")]
mod files;
#[cfg(feature = "cli")]
mod guard;
#[cfg(feature = "cli")]
mod impatient;
pub(crate) mod leases;
mod looking;
#[cfg(feature = "cli")]
mod lost;
#[cfg(feature = "cli")]
mod measure;
pub(crate) mod mounts;
mod nesting;
pub(crate) mod permissions;
pub(crate) mod reports;
#[cfg(feature = "cli")]
mod readiness;
mod recordings;
#[cfg(feature = "cli")]
mod roles;
#[cfg(feature = "cli")]
mod spoofed;
mod stopped;
pub(crate) mod strangers;
#[cfg(feature = "cli")]
mod unreadable;

use std::process::{Command as StdCommand, Stdio as StdStdio};
use std::time::Duration;

#[cfg(feature = "cli")]
pub(crate) use measure::{Measured, measured};

use crate::support::until;

/// Plays an attacked supervisor, if one of this name is there.
pub(crate) fn play(role: &str) -> bool {
    match role {
        "mounts" => mounts::play(),
        "mounts-stale" => mounts::play_stale(),
        "mounts-owner" => mounts::play_owner(),
        "permissions" => permissions::play(),
        "add" => strangers::play_add(),
        "recycled" => strangers::play_recycled(),
        "moved" => strangers::play_moved(),
        "report" => reports::play(),
        "taken" => reports::play_taken(),
        "birth" => strangers::play_birth(),
        #[cfg(feature = "sandbox")]
        "escapes" => crate::escapes::play(),
        #[cfg(feature = "sandbox")]
        "escapes-sandbox" => crate::escapes::play_sandbox(),
        #[cfg(feature = "cli")]
        "fence-mounts" => crate::fence::play_mounts(),
        #[cfg(feature = "sandbox")]
        "levels-fence" | "levels-sandbox" => crate::levels::play(role),
        "ignored-sigchld" => strangers::play_ignored(),
        #[cfg(feature = "sandbox")]
        "sandbox" => crate::sandbox::escapes::play(),
        #[cfg(feature = "sandbox")]
        "sandbox-overlay" => crate::sandbox::escapes::play_overlay(),
        #[cfg(feature = "sandbox")]
        "explain" => crate::sandbox::explain::play(),
        #[cfg(feature = "sandbox")]
        "explain-held" => crate::sandbox::explain::hold(),
        #[cfg(feature = "cli")]
        "learn" => crate::sandbox::explain_tool::play(),
        #[cfg(feature = "sandbox")]
        "template-fork" => crate::sandbox::lent::play_fork(),
        #[cfg(feature = "sandbox")]
        "overlay" => crate::sandbox::overlay::play(),
        #[cfg(feature = "sandbox")]
        "overlay-fds" => crate::sandbox::layers::play_fds(),
        #[cfg(feature = "sandbox")]
        "overlay-held" => crate::sandbox::layers::hold(),
        #[cfg(feature = "sandbox")]
        "sandbox-life" => crate::sandbox::life::play(),
        _ => return false,
    }
    true
}

/// Runs an actor to its end. One that hangs is killed, and has failed.
pub(crate) fn succeeds(command: &mut StdCommand, what: &str) {
    succeeds_within(Duration::from_secs(100), command, what);
}

/// The same for an actor that does a great deal, on an emulated machine too.
pub(crate) fn succeeds_within(time: Duration, command: &mut StdCommand, what: &str) {
    let mut actor = command.stdout(StdStdio::null()).stderr(StdStdio::inherit()).spawn().unwrap();
    let ended = until(time, || actor.try_wait().unwrap().is_some());
    if !ended {
        actor.kill().unwrap();
    }
    let status = actor.wait().unwrap();
    assert!(ended && status.success(), "{what}: {status}, ended by itself: {ended}");
}
