//! Asks systemd's manager, the system's or the user's own, for a scope for this process.
//!
//! `StartTransientUnit` with this pid in `PIDs=` moves this very process: standard streams, exit
//! status, signals, terminal and job control stay what they were, which a `systemd-run` in between
//! could not promise. busctl carries the call: it comes with systemd, and a D-Bus crate would be
//! sixty crates for one call. See org.freedesktop.systemd1(5).

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tidy_process::cli_support;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{AccessFlags, Uid, access, geteuid};

use crate::exit::reason;

/// How long the bus may take to answer, and then the manager to move this process.
const MANAGER_WITHIN: Duration = Duration::from_secs(10);

/// Why this process has no scope of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("no systemd runs for this user ({0:?} does not exist)")]
    NoManager(PathBuf),
    #[error("this user's systemd has no bus ({0:?} does not exist)")]
    NoBus(PathBuf),
    #[error("run busctl: {}", reason(.0))]
    NoBusctl(io::Error),
    #[error("systemd does not answer (waited {MANAGER_WITHIN:?})")]
    Silent,
    #[error("systemd refuses: {0}")]
    Refused(String),
    #[error("systemd has not moved this process to {0} (waited {MANAGER_WITHIN:?})")]
    NotMoved(String),
}

/// Moves this process into a delegated scope of its own; returns the scope's name once it is there.
/// Takes 20 s at the most, 10 s for each of two steps.
pub(crate) fn move_to_scope() -> Result<String, Trouble> {
    let bus = Bus::find(geteuid())?;
    let bits = RandomState::new().hash_one(std::process::id()) & 0xffff_ffff;
    let scope = format!("tidy-process-{}-{bits:08x}.scope", std::process::id());
    // Scopes know OOMPolicy= since systemd 253, and are stopped as a whole without it.
    match bus.start(&scope, &["OOMPolicy", "s", "continue"]) {
        Err(Trouble::Refused(why)) if why.contains("OOMPolicy") => bus.start(&scope, &[])?,
        answer => answer?,
    }
    let deadline = Instant::now() + MANAGER_WITHIN;
    while !is_in(&scope) {
        if Instant::now() >= deadline {
            return Err(Trouble::NotMoved(scope));
        }
        // Nothing tells a process that its cgroup has changed.
        thread::sleep(Duration::from_millis(1));
    }
    Ok(scope)
}

/// Whether this process is in the scope, and may make cgroups there.
fn is_in(scope: &str) -> bool {
    let place = cli_support::place();
    place.is_ok_and(|place| {
        place.unit.as_deref() == Some(scope) && access(&place.path, AccessFlags::W_OK).is_ok()
    })
}

/// The bus on which the manager listens.
enum Bus {
    System,
    /// The user's, as the environment names it.
    Environment,
    /// The user's, in this directory: the environment may be another user's, as after su.
    User(PathBuf),
}

impl Bus {
    fn find(uid: Uid) -> Result<Self, Trouble> {
        if uid.is_root() {
            return Ok(Self::System);
        }
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let named = named.filter(|dir| owner(dir) == Some(uid.as_raw()));
        let mut dirs = named.into_iter().chain([usual.clone()]);
        if let Some(dir) = dirs.find(|dir| dir.join("bus").exists()) {
            return Ok(Self::User(dir));
        }
        match (usual.exists(), std::env::var_os("DBUS_SESSION_BUS_ADDRESS")) {
            (false, _) => Err(Trouble::NoManager(usual)),
            (true, Some(_)) => Ok(Self::Environment),
            (true, None) => Err(Trouble::NoBus(usual.join("bus"))),
        }
    }

    /// Calls `StartTransientUnit`, which answers once the job is queued, before it is done.
    fn start(&self, scope: &str, more: &[&str]) -> Result<(), Trouble> {
        let mut command = self.busctl();
        command.args(["org.freedesktop.systemd1", "/org/freedesktop/systemd1"]);
        command.args(["org.freedesktop.systemd1.Manager", "StartTransientUnit"]);
        command.args(["ssa(sv)a(sa(sv))", scope, "fail"]);
        command.arg((4 + more.len() / 3).to_string());
        command.args(["PIDs", "au", "1"]).arg(std::process::id().to_string());
        command.args(["Delegate", "b", "true", "Description", "s", &description()]);
        command.args(["CollectMode", "s", "inactive-or-failed"]).args(more).arg("0");
        let mut busctl = command.spawn().map_err(Trouble::NoBusctl)?;
        let said = busctl.stderr.take().and_then(|pipe| read_until(pipe, MANAGER_WITHIN));
        match said {
            Some(said) => judge(busctl.wait().is_ok_and(|status| status.success()), &said),
            None => {
                kill_and_reap(&mut busctl);
                Err(Trouble::Silent)
            }
        }
    }

    /// Makes the command for busctl, in a process group of its own: this process answers Ctrl-C.
    fn busctl(&self) -> Command {
        let mut command = Command::new("busctl");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.process_group(0).env("LC_ALL", "C.UTF-8");
        command.arg(if matches!(self, Self::System) { "--system" } else { "--user" });
        if let Self::User(dir) = self {
            let mut address = OsString::from("unix:path=");
            address.push(dir.join("bus"));
            command.env("XDG_RUNTIME_DIR", dir).env("DBUS_SESSION_BUS_ADDRESS", address);
        }
        command.args(["--allow-interactive-authorization=no", "call"]);
        command
    }
}

fn owner(dir: &Path) -> Option<u32> {
    std::fs::metadata(dir).ok().map(|meta| meta.uid())
}

fn description() -> String {
    let words: Vec<_> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(200).collect()
}

fn judge(success: bool, said: &str) -> Result<(), Trouble> {
    if success {
        return Ok(());
    }
    let said = said.trim().trim_start_matches("Call failed: ").replace('\n', "; ");
    Err(Trouble::Refused(said))
}

/// Reads all that the process writes until it ends; None if it does not end in time.
fn read_until(mut pipe: ChildStderr, patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => continue,
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
        let mut buffer = [0; 1024];
        match pipe.read(&mut buffer) {
            Ok(0) | Err(_) => return Some(String::from_utf8_lossy(&said).into_owned()),
            Ok(len) => said.extend_from_slice(buffer.get(..len).unwrap_or_default()),
        }
    }
}

fn kill_and_reap(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_one_line() {
        assert!(judge(true, "a warning\n").is_ok());
        let refused = judge(false, "Call failed: Access denied\n\n").map_err(|e| e.to_string());
        assert_eq!(refused, Err("systemd refuses: Access denied".to_owned()));
    }
}
