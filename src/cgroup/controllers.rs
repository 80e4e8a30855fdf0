//! Enables controllers, writes limits, and reads each value back.
//!
//! Controllers are enabled on our own run root, and only those that are asked for. The parent of
//! the run root must hand them down. The parent is ours only if it is a delegated cgroup that holds
//! no process but this one, which may then step aside into a leaf: a cgroup that hands down
//! controllers may hold no process itself.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{geteuid, write};

use crate::cgroup::beneath::{self, open_cgroup};
use crate::cgroup::delegation::is_delegated;
use crate::cgroup::hierarchy::is_containers_own;
use crate::cgroup::names::{ASIDE, owner};
use crate::cgroup::names::{is_guard, is_stand_in};
use crate::cgroup::walk::pids_at;
use crate::cgroup::{Cgroup, read_all};
use crate::error::advice::{Advice, advice};
use crate::error::{Error, Result};
use crate::limits::{CONTROLLERS, Limits, Setting};
use crate::proc::info::ProcessInfo;
use crate::proc::survey;

/// Writes the limits of one cgroup. `above` hands controllers down to it, the topmost directory
/// first.
pub(crate) fn apply(limits: &Limits, cgroup: &Cgroup, above: &[&Path]) -> Result<()> {
    for setting in settings(limits, cgroup)? {
        put_handed_down(&setting, cgroup, above)?;
    }
    Ok(())
}

/// Writes the limits of a run root. An OOM kill takes one tree as a whole, never the run root.
pub(crate) fn budget(limits: &Limits, root: &Cgroup, base: &Path) -> Result<()> {
    for setting in settings(limits, root)?.iter().filter(|s| s.file != GROUP_KILL) {
        put_handed_down(setting, root, &[base])?;
    }
    if limits.has_memory() {
        let setting = group_kill();
        hand_down(root.path(), root, &setting)?;
    }
    Ok(())
}

/// Makes the kernel's OOM killer kill the whole tree.
pub(crate) fn kill_as_one(leaf: &Cgroup) -> Result<()> {
    put(leaf, &group_kill())
}

const GROUP_KILL: &str = "memory.oom.group";

fn group_kill() -> Setting {
    Setting { controller: "memory", file: GROUP_KILL, value: "1".to_owned() }
}

fn settings(limits: &Limits, cgroup: &Cgroup) -> Result<Vec<Setting>> {
    limits.settings().map_err(|(setting, why)| {
        Error::limit(cgroup.path(), &setting, why.to_owned(), Advice::same("give another value"))
    })
}

fn put_handed_down(setting: &Setting, cgroup: &Cgroup, above: &[&Path]) -> Result<()> {
    if !has(cgroup.path(), "cgroup.controllers", setting.controller) {
        above.iter().try_for_each(|dir| hand_down(dir, cgroup, setting))?;
    }
    put(cgroup, setting)
}

/// Enables the counting controllers that are offered; the report says which values are missing.
pub(crate) fn count(root: &Cgroup) {
    for controller in CONTROLLERS.iter().filter(|controller| controller.counts) {
        let _ = enable(root.path(), controller.name);
    }
}

/// Hands all offered controllers down to the cgroups that a command makes in its tree. Failures are
/// ignored: the command sees what its cgroup offers. `above` as for [`apply`].
pub(crate) fn offer(leaf: &Cgroup, above: &[&Path]) {
    for controller in CONTROLLERS.iter().map(|controller| controller.name) {
        let passes = |dir: &Path| match enable(dir, controller) {
            Err(Errno::EBUSY) => step_aside(dir).and_then(|()| enable(dir, controller)).is_ok(),
            answer => answer.is_ok(),
        };
        if above.iter().all(|dir| passes(dir)) {
            // A tree is ours, and holds no process yet.
            let _ = write_in(leaf.path(), "cgroup.subtree_control", &format!("+{controller}"));
        }
    }
}

/// `+controller` in the parent's `cgroup.subtree_control`.
fn hand_down(parent: &Path, cgroup: &Cgroup, setting: &Setting) -> Result<()> {
    let failed = |why: String, remedy| Err(Error::limit(cgroup.path(), setting, why, remedy));
    let controller = setting.controller;
    if !has(parent, "cgroup.controllers", controller) {
        let remedy = if on_v1(controller) { ON_V1 } else { not_offered() };
        return failed(format!("controller {controller} is not offered in {parent:?}"), remedy);
    }
    match enable(parent, controller) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => {
            step_aside(parent).and_then(|()| enable(parent, controller)).or_else(|_| {
                let held = held(parent);
                let why = format!("{parent:?} holds {held}, so it cannot hand down {controller}");
                failed(why, holds_other_processes(parent))
            })
        }
        Err(errno) => {
            failed(format!("enable {controller} in {parent:?}: {}", errno.desc()), enable_refused())
        }
    }
}

const ON_V1: Advice = Advice::same(
    "this host has the controller on cgroup v1: boot it with \
     systemd.unified_cgroup_hierarchy=1, or cgroup_no_v1=all",
);

fn not_offered() -> Advice {
    Advice::here(
        Advice::same(
            "let the cgroups above hand it down: write +CONTROLLER to their \
             cgroup.subtree_control, or systemd-run --user --scope -p Delegate=yes -- CMD",
        ),
        Advice::same(
            "let the cgroups above hand it down: as root, write +CONTROLLER to their \
             cgroup.subtree_control, from the top",
        ),
    )
}

fn holds_other_processes(dir: &Path) -> Advice {
    if is_containers_own(dir) {
        return IN_A_CONTAINER;
    }
    Advice::here(
        advice!(
            "start it in a delegated cgroup of its own: systemd-run --user --scope -p Delegate=yes \
             -- CMD, or in a service with DelegateSubgroup= in its unit or as its ExecStart=; or \
             name a cgroup that holds no process with ",
            "SupervisorBuilder::base",
            "--parent"
        ),
        advice!(
            "start it in a cgroup of its own (mkdir one, write the shell's pid to its \
             cgroup.procs), or name a cgroup that holds no process with ",
            "SupervisorBuilder::base",
            "--parent"
        ),
    )
}

/// The leaf is the one that a supervisor steps aside into: run roots are made beside it.
const IN_A_CONTAINER: Advice = advice!(
    "make it the first process of the container (without --init), or let the container's processes \
     step aside, once: cd /sys/fs/cgroup && mkdir -p tidy-process-supervisor && for pid in $(cat \
     cgroup.procs); do echo $pid >tidy-process-supervisor/cgroup.procs; done 2>/dev/null; or name \
     a cgroup that holds no process with ",
    "SupervisorBuilder::base",
    "--parent"
);

fn enable_refused() -> Advice {
    Advice::here(
        Advice::same(
            "this cgroup is not delegated to you: systemd-run --user --scope -p Delegate=yes -- \
             CMD (without --user as root); in a service: Delegate=yes in its unit",
        ),
        Advice::same(
            "this cgroup is not delegated to you: let root give it to you (chown of the directory, \
             its cgroup.procs and cgroup.subtree_control)",
        ),
    )
}

/// Enables a controller in a run root or a delegated cgroup of this user; in any other it would
/// change the machine for others.
fn enable(dir: &Path, controller: &str) -> Result<(), Errno> {
    if has(dir, "cgroup.subtree_control", controller) {
        return Ok(());
    }
    if !may_change(dir) {
        return Err(Errno::EPERM);
    }
    // Controllers of threads (cpu, cpuset, pids) could be enabled beside processes, but that makes
    // everything below part of this directory's threads, where no cgroup can have any controller.
    if holds_processes(dir) {
        return Err(Errno::EBUSY);
    }
    write_in(dir, "cgroup.subtree_control", &format!("+{controller}"))
}

/// Names up to three of its own processes, for an error.
fn held(dir: &Path) -> String {
    let pids = pids_at(dir);
    let known = survey::of(pids.get(..3).unwrap_or(&pids)).named;
    let names: Vec<String> = known.iter().map(|process| format!("{process:.60}")).collect();
    let more = pids.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("processes ({}{more})", names.join(", "))
}

/// Whether processes in it keep it from handing down controllers. The root of the hierarchy (no
/// `cgroup.type`) may hold some.
fn holds_processes(dir: &Path) -> bool {
    !pids_at(dir).is_empty() && open_in(dir, "cgroup.type", OFlag::O_RDONLY).is_ok()
}

/// A run root of this user, a container's own cgroup, or a cgroup that was delegated to the user.
fn may_change(dir: &Path) -> bool {
    let uid = fs::metadata(dir).map(|meta| meta.uid()).ok();
    let ours = uid == Some(geteuid().as_raw());
    let run_root = dir.file_name().is_some_and(|name| owner(name).is_some());
    ours && (run_root || !geteuid().is_root() || is_delegated(dir) || is_containers_own(dir))
}

/// Moves this process out of the cgroup into a leaf of it, if it is alone there but for its guard.
/// The next sweep after this process has ended removes the leaf.
fn step_aside(dir: &Path) -> Result<(), Errno> {
    let all = pids_at(dir);
    if !may_change(dir) || !all.iter().all(|&pid| is_us(pid)) {
        return Err(Errno::EBUSY);
    }
    match mkdirat(open_cgroup(dir)?, ASIDE, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let leaf = dir.join(ASIDE);
    all.iter().try_for_each(|pid| write_in(&leaf, "cgroup.procs", &pid.to_string()))
}

/// This process, or a guard or stand-in that is its child.
fn is_us(pid: i32) -> bool {
    let mine = std::process::id();
    let is_helper = |process: &ProcessInfo| is_guard(process) || is_stand_in(process);
    let is_ours = |process: &ProcessInfo| process.ppid == mine && is_helper(process);
    pid.cast_unsigned() == mine || survey::of(&[pid]).named.iter().any(is_ours)
}

fn has(dir: &Path, file: &str, controller: &str) -> bool {
    let text = open_in(dir, file, OFlag::O_RDONLY).and_then(|file| read_all(&file));
    let text = text.unwrap_or_default();
    String::from_utf8_lossy(&text).split_whitespace().any(|each| each == controller)
}

/// Whether a v1 hierarchy holds the controller: its number in `/proc/cgroups` is not 0 then.
fn on_v1(controller: &str) -> bool {
    let known = CONTROLLERS.iter().find(|known| known.name == controller);
    let v1 = known.map_or(controller, |known| known.v1_name);
    is_numbered(&fs::read_to_string("/proc/cgroups").unwrap_or_default(), v1)
}

pub(crate) fn is_numbered(cgroups: &str, controller: &str) -> bool {
    let mut lines = cgroups.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.any(|fields| {
        matches!(fields.as_slice(), [name, number, ..] if *name == controller && *number != "0")
    })
}

fn open_in(dir: &Path, file: &str, access: OFlag) -> Result<OwnedFd, Errno> {
    beneath::open(open_cgroup(dir)?.as_fd(), Path::new(file), access)
}

fn write_in(dir: &Path, file: &str, value: &str) -> Result<(), Errno> {
    write(&open_in(dir, file, OFlag::O_WRONLY)?, value.as_bytes()).map(drop)
}

/// Writes one value, and reads it back: the kernel rounds some.
fn put(cgroup: &Cgroup, setting: &Setting) -> Result<()> {
    let failed = |why: String, remedy| Err(Error::limit(cgroup.path(), setting, why, remedy));
    let file = cgroup.file(setting.file, OFlag::O_WRONLY);
    match file.and_then(|file| write(&file, setting.value.as_bytes())) {
        Ok(_) => {}
        // A machine without swap has no such file, and 0 of it is what we want.
        Err(Errno::ENOENT) if setting.file == "memory.swap.max" && setting.value == "0" => {
            return Ok(());
        }
        Err(errno) => {
            return failed(
                format!("{} ({errno:?})", errno.desc()),
                Advice::same("give a value that the kernel takes"),
            );
        }
    }
    let back = cgroup.read(setting.file).unwrap_or_default();
    if same(setting, back.trim()) {
        return Ok(());
    }
    failed(
        format!("the kernel made it {:?}", back.trim()),
        Advice::same("give that value, or one it keeps"),
    )
}

/// Whether what was read back means what was written.
fn same(setting: &Setting, back: &str) -> bool {
    match setting.file {
        "io.max" => io_same(&setting.value, back),
        "cpuset.cpus" => cpus(&setting.value).is_some() && cpus(&setting.value) == cpus(back),
        _ => setting.value == back,
    }
}

/// The device's line has our keys among others: `8:0 rbps=1 wbps=max riops=max wiops=2`.
pub(crate) fn io_same(value: &str, back: &str) -> bool {
    let mut wanted = value.split(' ');
    let device = wanted.next();
    let mut lines = back.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|line| line.first().copied() == device);
    line.is_some_and(|line| wanted.all(|pair| line.contains(&pair)))
}

/// The ranges of a list, merged: `0-1,2,4` is 0 to 2 and 4 to 4.
pub(crate) fn cpus(list: &str) -> Option<Vec<(u32, u32)>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (range.0 <= range.1).then_some(range)
    };
    let mut all = list.split(',').map(range).collect::<Option<Vec<(u32, u32)>>>()?;
    all.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, last) in all {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_compared_as_sets() {
        assert_eq!(cpus("0-2,4"), cpus("0,1,2,4"));
        assert_ne!(cpus("0-1"), cpus("0"));
        assert_eq!(cpus("x"), None);
        assert_eq!(cpus("0-4294967295,7"), cpus("2147483648-4294967295,0-2147483647"));
    }

    #[test]
    fn the_line_of_a_device_may_have_more_than_was_asked() {
        let back =
            "8:16 rbps=9 wbps=max riops=max wiops=max\n8:0 rbps=1 wbps=max riops=max wiops=2";
        assert!(io_same("8:0 rbps=1 wiops=2", back));
        assert!(!io_same("8:0 rbps=2", back) && !io_same("8:1 rbps=1", back));
    }
}
