//! Decides whether to stay in the cgroup that this process was started in, or to ask systemd for a
//! scope.
//!
//! A delegated cgroup is used as it is. An ordinary user without the right to make cgroups goes to
//! a scope of the user's own systemd; so does a run with limits in a cgroup that other processes
//! share, since a cgroup that hands down controllers holds no processes. Root's directories must
//! not stand in a session's scope, which is systemd's. A service is left only if nothing else is
//! possible, and a delegated one never: an administrator has set its limits and its stop. A tree of
//! another supervisor is not left either; nor is the cgroup that Slurm has put a job into, where it
//! looks for the job's processes. A keeper needs no cgroup and so no scope; with best
//! effort it comes last.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{User, geteuid};
use tidy_process::cli_support;
use tidy_process::cli_support::Place;
use tidy_process::{Containment, Error, Supervisor, SupervisorBuilder};

use crate::exit::Failure;
use crate::print::text;
use crate::systemd::{Trouble, move_to_scope};

/// What of the arguments bears on the place.
pub(crate) struct Wish<'a> {
    pub(crate) parent: Option<&'a Path>,
    pub(crate) no_systemd: bool,
    pub(crate) containment: Containment,
    /// The command has limits, or delegates.
    pub(crate) controllers: bool,
    pub(crate) verbose: bool,
    /// Sweeps the scopes beside the new one.
    pub(crate) sweep: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Stay,
    /// If no cgroup can be made here.
    MoveIfRefused,
    Move,
}

fn plan(place: &Place, root: bool, controllers: bool) -> Plan {
    let Some(unit) = place.unit.as_deref() else { return Plan::Stay };
    let (scope, shared) = (unit.ends_with(".scope"), controllers && !place.alone);
    if place.delegated && !(scope && shared) {
        return Plan::Stay;
    }
    match root {
        // Root owns all cgroups: only the mark says that controllers may be handed down in this
        // one.
        true if scope || controllers => Plan::Move,
        true => Plan::Stay,
        false if shared => Plan::Move,
        false => Plan::MoveIfRefused,
    }
}

/// Makes the supervisor; returns the name of the scope too, if this process has moved to one for
/// it.
pub(crate) fn supervisor(
    builder: SupervisorBuilder,
    wish: &Wish<'_>,
) -> Result<(Supervisor, Option<String>), Failure> {
    let builder = builder.containment(wish.containment);
    let builder = match wish.parent {
        Some(parent) => return Ok((builder.base(parent).build()?, None)),
        None => builder,
    };
    let stays = wish.no_systemd || wish.containment == Containment::Keeper;
    let forbidden = stays || cli_support::in_slurm_job();
    let Some(place) = under_systemd(forbidden) else {
        return Ok((builder.build()?, None));
    };
    let refused = match plan(&place, geteuid().is_root(), wish.controllers) {
        Plan::Move => None,
        Plan::Stay => return Ok((builder.build()?, None)),
        Plan::MoveIfRefused => match in_cgroup(&builder) {
            Err(error) if is_refusal(&error) => Some(error),
            Err(error) => return Ok((or_keeper(builder, wish, error)?, None)),
            Ok(supervisor) => return Ok((supervisor, None)),
        },
    };
    moved(builder, place, refused, wish)
}

fn in_cgroup(builder: &SupervisorBuilder) -> tidy_process::Result<Supervisor> {
    builder.clone().containment(Containment::Cgroup).build()
}

/// Makes a supervisor with a keeper, if best effort was asked for; else the error.
fn or_keeper(
    builder: SupervisorBuilder,
    wish: &Wish<'_>,
    error: Error,
) -> tidy_process::Result<Supervisor> {
    match wish.containment {
        Containment::BestEffort => builder.build(),
        _ => Err(error),
    }
}

/// Moves to a scope and makes the supervisor there; without a scope, where cgroups can be made.
fn moved(
    builder: SupervisorBuilder,
    place: Place,
    refused: Option<Error>,
    wish: &Wish<'_>,
) -> Result<(Supervisor, Option<String>), Failure> {
    let trouble = match move_to_scope() {
        Ok(scope) => {
            if wish.sweep {
                sweep_scopes();
            }
            if wish.verbose {
                text::line(format_args!("moved to {scope}"));
            }
            return Ok((builder.build()?, Some(scope)));
        }
        Err(trouble) => trouble,
    };
    if wish.verbose {
        text::line(format_args!("no scope of our own: {trouble}"));
    }
    let built = refused.map_or_else(|| in_cgroup(&builder), Err);
    match built.or_else(|error| or_keeper(builder, wish, error)) {
        Ok(supervisor) => Ok((supervisor, None)),
        Err(error) if is_refusal(&error) => Err(nowhere(&error, &trouble, place.unit.as_deref())),
        Err(error) => Err(error.into()),
    }
}

/// Whether a scope would help: with a lack of permission, not with a read-only file system.
fn is_refusal(error: &Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    error.is_no_cgroup() && matches!(errno, Some(Errno::EACCES | Errno::EPERM))
}

/// The place of this process, if systemd may be asked for another one.
fn under_systemd(forbidden: bool) -> Option<Place> {
    if forbidden
        || cli_support::named_base().is_some()
        || !Path::new("/run/systemd/system").exists()
    {
        return None;
    }
    cli_support::place().ok()
}

/// Sweeps the scopes of earlier runs. What is left of a run that died together with its guard stays
/// in its scope, where no other supervisor makes a run root.
fn sweep_scopes() {
    let Ok(place) = cli_support::place() else { return };
    let beside = place.path.parent().map(Path::to_owned).unwrap_or_default();
    for entry in std::fs::read_dir(beside).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("tidy-process-") && name.ends_with(".scope") {
            cli_support::sweep_briefly(&entry.path());
        }
    }
}

/// The directory that `ps`, `sweep` and `kill` search: under systemd, where each `run` may be in a
/// scope of its own, the whole hierarchy, unless this process is in a supervisor's tree.
pub(crate) fn everywhere(parent: Option<&Path>) -> Option<PathBuf> {
    match (parent, under_systemd(false)) {
        (Some(parent), _) => Some(parent.to_owned()),
        (None, Some(place)) if place.unit.is_some() => cli_support::top().ok(),
        (None, _) => None,
    }
}

/// Makes the failure: no cgroup here, and no scope.
fn nowhere(error: &Error, trouble: &Trouble, unit: Option<&str>) -> Failure {
    let uid = geteuid();
    let user = User::from_uid(uid).ok().flatten().map_or(uid.to_string(), |user| user.name);
    let what = format!("{error}; and no scope of our own: {trouble}");
    Failure::Nowhere { what, hint: hint(trouble, &user, unit).into() }
}

fn hint(trouble: &Trouble, user: &str, unit: Option<&str>) -> String {
    let first = match trouble {
        Trouble::NoManager(_) => format!(
            "start {user}'s systemd, once, as root: loginctl enable-linger {user}; or log in as \
             {user} (ssh, or machinectl shell {user}@) instead of su"
        ),
        Trouble::NoBus(_) => {
            "install dbus-user-session, then: systemctl --user start dbus.socket".to_owned()
        }
        Trouble::NoBusctl(_) => "install busctl (it is part of systemd) or put it on PATH; or \
             type: systemd-run --user --scope -p Delegate=yes -- tidy-process run -- CMD"
            .to_owned(),
        Trouble::Silent => "see whether it answers: busctl --user status; without it: \
             --parent with a cgroup that was delegated to you"
            .to_owned(),
        Trouble::Refused(_) => "see whether it does so here: systemd-run --user --scope -p \
             Delegate=yes -- true; without it: --parent with a cgroup that was delegated to you"
            .to_owned(),
        Trouble::NotMoved(scope) => format!(
            "see why: journalctl --user -u {scope}; without it: --parent with a cgroup that was \
             delegated to you"
        ),
    };
    let typed = match unit.filter(|unit| unit.ends_with(".service")) {
        Some(unit) => format!(
            "give the service its cgroup: Delegate=yes in its [Service] (systemctl edit {unit}); \
             or {first}"
        ),
        None => first,
    };
    format!("{typed}; or do without limits and accounting: --containment best-effort")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unit: Option<&str>, delegated: bool) -> Place {
        let (path, unit) = ("/cg/x".into(), unit.map(str::to_owned));
        Place { path, unit, delegated, alone: false }
    }

    #[test]
    fn a_delegated_service_and_what_is_no_unit_are_never_left() {
        for root in [false, true] {
            for controllers in [false, true] {
                for place in [at(None, false), at(None, true), at(Some("a.service"), true)] {
                    assert_eq!(plan(&place, root, controllers), Plan::Stay, "{place:?}");
                }
            }
        }
    }

    #[test]
    fn who_moves_from_where() {
        let (scope, service) = (at(Some("session-1.scope"), false), at(Some("a.service"), false));
        let delegated = at(Some("a.scope"), true);
        let alone = Place { alone: true, ..at(Some("a.scope"), false) };
        let delegated_alone = Place { alone: true, ..at(Some("a.scope"), true) };
        let rows = [
            (&delegated, true, false, Plan::Stay),
            (&delegated, false, true, Plan::Move),
            (&delegated_alone, true, true, Plan::Stay),
            (&alone, true, true, Plan::Move),
            (&alone, false, true, Plan::MoveIfRefused),
            (&scope, true, false, Plan::Move),
            (&scope, false, false, Plan::MoveIfRefused),
            (&scope, false, true, Plan::Move),
            (&service, true, false, Plan::Stay),
            (&service, true, true, Plan::Move),
            (&service, false, false, Plan::MoveIfRefused),
            (&service, false, true, Plan::Move),
        ];
        for (place, root, controllers, expected) in rows {
            assert_eq!(plan(place, root, controllers), expected, "{place:?} {root} {controllers}");
        }
    }

    #[test]
    fn each_trouble_says_which_and_what_to_type() {
        let path = PathBuf::from("/run/user/1000");
        let rows = [
            (Trouble::NoManager(path.clone()), "no systemd runs", "loginctl enable-linger ann"),
            (Trouble::NoBus(path.join("bus")), "has no bus", "dbus-user-session"),
            (Trouble::NoBusctl(Errno::ENOENT.into()), "run busctl: No such file", "systemd-run"),
            (Trouble::Silent, "does not answer", "busctl --user status"),
            (Trouble::Refused("Access denied".to_owned()), "refuses: Access denied", "--parent"),
            (Trouble::NotMoved("a.scope".to_owned()), "not moved", "journalctl --user -u a.scope"),
        ];
        for (trouble, text, told) in rows {
            let said = trouble.to_string();
            assert!(said.contains(text), "{said}");
            let hint = hint(&trouble, "ann", Some("session-1.scope"));
            assert!(hint.contains(told) && !hint.contains("[Service]"), "{said}: {hint}");
            let hint = super::hint(&trouble, "ann", Some("job.service"));
            let service = hint.contains("Delegate=yes") && hint.contains("systemctl edit job");
            assert!(service && hint.contains(told), "{said}: {hint}");
        }
    }
}
