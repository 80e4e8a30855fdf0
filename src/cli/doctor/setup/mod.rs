//! `doctor --setup USER`: what an administrator types so that an ordinary user may make cgroups.
//!
//! It is one script for sh, which is printed or run: what is done is what was shown.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use clap::Args;
use nix::unistd::{Uid, User, geteuid};
use tidy_process::cli_support::{find_base, is_plain, mounts};

use crate::doctor::host::is_systemd;
use crate::exit::Failure;
use crate::print::text::{line, print};

/// With systemd: it gives cgroups by itself to a user whose manager runs.
const SYSTEMD: &str = include_str!("systemd.sh");

/// Without.
const PLAIN: &str = include_str!("plain.sh");

/// What makes the cgroup, kept for the next boot and each login.
const CGROUP: &str = include_str!("cgroup.sh");

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Print what root types so that USER may make cgroups, below --parent or at the top
    #[arg(long, value_name = "USER", conflicts_with_all = ["json", "require", "no_systemd"])]
    pub(crate) setup: Option<String>,

    /// Do what --setup prints, as root
    #[arg(long, requires = "setup")]
    apply: bool,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("there is no such user")]
    Unknown,
    #[error("look the user up: {} ({:?})", .0.desc(), .0)]
    LookUp(nix::Error),
    #[error("root may make cgroups as it is")]
    Root,
    #[error("{0:?} would have to be quoted in configuration files")]
    Odd(String),
    #[error("--apply is for root: try it with sudo, doas or su")]
    NotRoot,
    #[error("run sh: {0}")]
    Shell(std::io::Error),
    #[error("the script ended with {0}: it is what doctor prints without --apply")]
    Script(ExitStatus),
}

/// Prints the script, or runs it.
pub(crate) fn setup(user: &str, args: &SetupArgs, parent: Option<&Path>) -> Result<(), Failure> {
    let failed =
        |trouble: Trouble| Failure::Setup { user: user.to_owned(), why: trouble.to_string() };
    let known = found(user).map_err(failed)?;
    let script = match parent {
        None if is_systemd() => filled(SYSTEMD, &known, Path::new("/")),
        _ => filled(PLAIN, &known, &base(parent)?),
    };
    let script = script.map_err(failed)?;
    if !args.apply {
        return print(&script);
    }
    if !geteuid().is_root() {
        return Err(failed(Trouble::NotRoot));
    }
    run(&script).map_err(failed)?;
    line(format_args!("{} may make cgroups, from the next login on", known.name));
    Ok(())
}

/// An ordinary user, by name or number.
fn found(user: &str) -> Result<User, Trouble> {
    let found = match user.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(user),
    };
    let user = found.map_err(Trouble::LookUp)?.ok_or(Trouble::Unknown)?;
    match user.uid.is_root() {
        true => Err(Trouble::Root),
        false => Ok(user),
    }
}

/// The cgroup below which the user's is made: the top, where cgroup2 is mounted or would be.
fn base(parent: Option<&Path>) -> Result<PathBuf, Failure> {
    if parent.is_some() {
        return Ok(find_base(parent)?);
    }
    let mounts = mounts()?;
    let mounted = mounts.iter().find(|mount| mount.kind == "cgroup2");
    let is_hybrid = mounts.iter().any(|mount| mount.kind == "cgroup");
    Ok(match mounted {
        Some(mount) => mount.point.clone(),
        None if is_hybrid => "/sys/fs/cgroup/unified".into(),
        None => "/sys/fs/cgroup".into(),
    })
}

/// A script with its names filled in.
fn filled(script: &str, user: &User, base: &Path) -> Result<String, Trouble> {
    let base = plain(&base.to_string_lossy())?;
    let mounts = mounts().unwrap_or_default();
    let above = mounts.iter().filter(|mount| mount.kind == "cgroup2");
    let below = above.filter_map(|mount| Path::new(&base).strip_prefix(&mount.point).ok());
    let here = below.min_by_key(|path| path.as_os_str().len()).unwrap_or(Path::new(""));
    let uid = user.uid.to_string();
    let names = [
        ("@CGROUP@", CGROUP.to_owned()),
        ("@USER@", plain(&user.name)?),
        ("@SCRIPT@", format!("/etc/tidy-process/user-{uid}")),
        ("@UID@", uid),
        ("@HERE@", format!("/{}", here.display()).trim_end_matches('/').to_owned()),
        ("@BASE@", base),
    ];
    Ok(names.iter().fold(script.to_owned(), |text, (name, value)| text.replace(name, value)))
}

/// A word that means itself to sh, cron, sed and PAM.
fn plain(word: &str) -> Result<String, Trouble> {
    match is_plain(word.as_ref()) {
        true => Ok(word.to_owned()),
        false => Err(Trouble::Odd(word.to_owned())),
    }
}

fn run(script: &str) -> Result<(), Trouble> {
    let mut shell = Command::new("sh");
    let status = shell.args(["-c", script]).stdin(Stdio::null()).status();
    let status = status.map_err(Trouble::Shell)?;
    if status.success() { Ok(()) } else { Err(Trouble::Script(status)) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn nobody(name: &str) -> User {
        let mut user = User::from_uid(Uid::from_raw(65534)).unwrap().unwrap();
        name.clone_into(&mut user.name);
        user
    }

    #[test]
    fn every_name_is_filled_in_and_sh_understands_it() {
        for script in [SYSTEMD, PLAIN] {
            let text = filled(script, &nobody("ann"), Path::new("/sys/fs/cgroup")).unwrap();
            let left = text.split('@').skip(1).step_by(2).any(|word| names().contains(&word));
            assert!(!left, "{text}");
            let parsed = Command::new("sh").args(["-n", "-c", &text]).status().unwrap();
            assert!(parsed.success() && text.contains("ann"), "{text}");
        }
    }

    fn names() -> [&'static str; 6] {
        ["CGROUP", "USER", "SCRIPT", "UID", "HERE", "BASE"]
    }

    #[test]
    fn a_name_that_a_shell_would_obey_is_refused() {
        for name in ["a;b", "a b", "$(x)", "-a", "a\nb", "a'b", ""] {
            let refused = filled(PLAIN, &nobody(name), Path::new("/sys/fs/cgroup"));
            assert!(matches!(refused, Err(Trouble::Odd(_))), "{name:?}");
        }
        let refused = filled(PLAIN, &nobody("ann"), Path::new("/sys/fs/a b"));
        assert!(matches!(refused, Err(Trouble::Odd(_))));
    }
}
