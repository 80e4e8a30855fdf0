//! The table of escapes: what a command tries against its supervisor, its guard and its siblings.
//!
//! Each row is tried without confinement first, where it must succeed, or it proves nothing; then
//! in a fence, on each path of a spawn, where it must fail. What counts is the effect as it is seen
//! from outside, not what the attacker says; only what happens in the attacker alone is its own to
//! tell. An actor is the supervisor, as root and as an ordinary user.

mod apart;
mod attacker;
mod inside;
mod rights;
mod scene;

use std::time::Duration;

use nix::unistd::Pid;
use serial_test::serial;
use tidy_process::{Containment, Sandbox};

use crate::actor::actor;
use crate::attacks::permissions::{delegated, ordinary};
use crate::attacks::succeeds_within;
use crate::escapes::attacker::Attempt;
use crate::escapes::scene::{Outcome, Path, Scene, line_of};
use crate::fence;
use crate::support::Alone;

/// For all rows, on an emulated machine.
const LONG: Duration = Duration::from_secs(600);

/// Who can do it, outside of a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Anyone,
    Root,
    User,
}

/// One way out.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    who: Who,
    /// What the attacker does.
    attempt: Attempt,
    /// Whether it has come to pass, as seen from outside.
    effect: fn(&Scene, &Outcome) -> bool,
    /// Where this file says so the kernel has it not, or forbids it.
    unless: Option<fn() -> bool>,
}

const fn row(
    name: &'static str,
    who: Who,
    attempt: Attempt,
    effect: fn(&Scene, &Outcome) -> bool,
) -> Row {
    Row { name, who, attempt, effect, unless: None }
}

/// The attacker has done it, and there is nothing outside to be seen.
fn done(_: &Scene, outcome: &Outcome) -> bool {
    outcome.answer.starts_with("done")
}

fn rows() -> impl Iterator<Item = &'static Row> {
    [inside::ROWS, apart::ROWS, rights::ROWS].into_iter().flatten()
}

fn find(name: &str) -> Option<&'static Row> {
    rows().find(|row| row.name == name)
}

/// Tries every row that this user can do, at both levels.
pub(crate) fn play() {
    // One row renices the group.
    nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)).unwrap();
    let root = nix::unistd::geteuid().is_root();
    let (mut tried, mut wrong) = (0, Vec::new());
    for row in rows() {
        let can = row.who == Who::Anyone || (row.who == Who::Root) == root;
        if !can || row.unless.is_some_and(|unless| unless()) {
            eprintln!("not tried: {}", row.name);
            continue;
        }
        match try_row(row) {
            Some(found) => wrong.extend(found),
            None => {
                eprintln!("not tried in this container: {}", row.name);
                continue;
            }
        }
        tried += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried >= if is_contained() { 35 } else { 50 }, "{tried} rows were tried");
}

/// Whether some right of root's is to be had by no process here: containers are so.
fn is_contained() -> bool {
    let bounding = line_of(std::process::id().cast_signed(), "status", "CapBnd:");
    let bounding = u64::from_str_radix(&bounding, 16).unwrap();
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
    let all = u64::MAX >> (63 - last.trim().parse::<u32>().unwrap());
    bounding & all != all
}

/// What is wrong with a row; none where a container forbids it to all.
fn try_row(row: &Row) -> Option<Vec<String>> {
    let fence = Sandbox::fence();
    let levels = [(None, Path::Born), (Some(&fence), Path::Born), (Some(&fence), Path::Joined)];
    let mut wrong = Vec::new();
    for (sandbox, path) in levels {
        let scene = Scene::set(Containment::Cgroup);
        let outcome = scene.attack(row, sandbox, path);
        let happened = (row.effect)(&scene, &outcome);
        let why = match sandbox {
            None if !happened && is_contained() => {
                scene.close(outcome);
                return None;
            }
            None if !happened => "fails without a fence, and proves nothing",
            Some(_) if happened => "works in a fence",
            Some(_) if !outcome.is_inside() => "is elsewhere",
            _ => "",
        };
        if !why.is_empty() {
            wrong.push(format!("{}, {path:?}: {why}: {}", row.name, outcome.answer));
        }
        scene.close(outcome);
    }
    Some(wrong)
}

/// Tries the same rows in a sandbox with a view of its own, where the attacker's own directory is
/// named. (That they work without one is shown beside the fence.)
pub(crate) fn play_sandbox() {
    let root = nix::unistd::geteuid().is_root();
    let (mut tried, mut wrong) = (0, Vec::new());
    // There the parent is 0, which is no process outside.
    for row in rows().filter(|row| row.name != "kill-the-parent") {
        let can = row.who == Who::Anyone || (row.who == Who::Root) == root;
        if !can || row.unless.is_some_and(|unless| unless()) {
            continue;
        }
        let scene = Scene::set(Containment::Cgroup);
        // Root's commands are another user there.
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&scene.prey.scratch, all).unwrap();
        let sandbox = Sandbox::new().system().read_only(crate::victim::exe());
        let sandbox = sandbox.read_write(&scene.prey.scratch);
        // The attacker enters a template.
        (0..2).for_each(|_| scene.warm(&sandbox));
        let outcome = scene.attack(row, Some(&sandbox), Path::Born);
        if (row.effect)(&scene, &outcome) || !outcome.is_inside() {
            wrong.push(format!("{}: works in a sandbox: {}", row.name, outcome.answer));
        }
        scene.close(outcome);
        tried += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried >= 50, "{tried} rows were tried");
}

#[test]
#[serial]
fn every_escape_fails_in_a_sandbox_too() {
    let Some(stage) = crate::sandbox::stage() else { return };
    succeeds_within(LONG, &mut actor(&stage, "escapes-sandbox"), "as this user");
    if let Some(tree) = delegated(&stage) {
        let mut command = actor(&stage, "escapes-sandbox");
        ordinary(&mut command, &tree);
        succeeds_within(LONG, &mut command, "as an ordinary user");
        drop(command);
        assert_eq!(tree.finish().unwrap().leftovers, []);
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn every_escape_that_works_without_a_fence_fails_in_one() {
    let Some(stage) = fence::stage() else { return };
    succeeds_within(LONG, &mut actor(&stage, "escapes"), "as this user");
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn so_does_every_one_of_an_ordinary_user() {
    let Some(stage) = fence::stage() else { return };
    let Some(tree) = delegated(&stage) else { return };
    let mut command = actor(&stage, "escapes");
    let set_id = scene::set_id_program();
    ordinary(command.env(scene::SET_ID, set_id.path()), &tree);
    succeeds_within(LONG, &mut command, "as an ordinary user");
    drop(command);
    assert_eq!(tree.finish().unwrap().leftovers, []);
    drop(tree);
    stage.close(Alone::Yes);
}
