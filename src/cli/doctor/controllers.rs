//! Probes the controllers: offered, handed down, and a limit tried on an empty tree.
//!
//! Trying a limit hands its controller down, where that is allowed; the change is undone at the
//! end.

use std::fs;
use std::path::{Path, PathBuf};

use tidy_process::cli_support::{CONTROLLERS, Controller, Example, hint, own_path};
use tidy_process::{Error, Limits, Supervisor, Tree};

use crate::doctor::finding::Finding;

pub(crate) fn all(base: Option<&Path>, made: Option<&Supervisor>, tell: &dyn Fn(Finding)) {
    for each in &CONTROLLERS {
        tell(controller(each, base, made));
    }
}

fn controller(
    controller: &'static Controller,
    base: Option<&Path>,
    made: Option<&Supervisor>,
) -> Finding {
    let Controller { name, used_for, .. } = *controller;
    let Some(base) = base else {
        let finding = Finding::blank(name, "not looked for: see base").alike();
        return finding.and(&format!("; for {used_for}"));
    };
    let offered = words(base, "cgroup.controllers").iter().any(|word| word == name);
    let enabled = words(base, "cgroup.subtree_control").iter().any(|word| word == name);
    let known = match (offered, enabled) {
        (true, true) => "offered and handed down",
        (true, false) => "offered, not handed down",
        (false, _) => "not offered",
    };
    let usable = made.map(|supervisor| try_limit(controller, base, supervisor));
    let finding = match &usable {
        Some(Ok(())) => Finding::ok(name, format!("a limit was kept ({known})")),
        Some(Err(error)) if !offered => {
            let finding = Finding::no(name, format!("not offered in {base:?}"));
            hint(error).into_iter().fold(finding, Finding::remedy)
        }
        Some(Err(error)) => {
            let gap = format!("a limit is refused ({known}) in {base:?}");
            Finding::error(name, error).lacking(gap)
        }
        None => Finding::blank(name, format!("{known} in {base:?}; not tried: see create")),
    };
    finding
        .alike()
        .and(&format!("; for {used_for}"))
        .fact("offered", offered)
        .fact("enabled", enabled)
        .fact("usable", usable.is_some_and(|usable| usable.is_ok()))
}

/// The values that a file lists.
fn words(dir: &Path, file: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Makes a tree with a limit of this controller, so high that it limits nothing on any machine.
fn try_limit(controller: &Controller, base: &Path, supervisor: &Supervisor) -> Result<(), Error> {
    let example = Example { cpu: first_cpu(base), device: device() };
    let limits = (controller.harmless)(Limits::new(), &example);
    Tree::limited(supervisor, None, &limits)?.finish().map(drop)
}

/// Finds a CPU that may be used here.
fn first_cpu(base: &Path) -> String {
    let list = words(base, "cpuset.cpus.effective").concat();
    let first: String = list.chars().take_while(char::is_ascii_digit).collect();
    if first.is_empty() { "0".to_owned() } else { first }
}

/// Finds the number of a block device. Where there is none, the first disk's: the kernel's refusal
/// tells.
fn device() -> String {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut devices: Vec<(bool, PathBuf)> = entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let made_up = ["loop", "ram", "zram", "nbd"].iter().any(|kind| name.starts_with(kind));
            (made_up, entry.path())
        })
        .collect();
    devices.sort();
    let numbers = devices.iter().filter_map(|(_, path)| words(path, "dev").pop());
    numbers.into_iter().next().unwrap_or_else(|| "8:0".to_owned())
}

/// What stood in the base's `cgroup.subtree_control`, and which cgroup this process was in.
pub(crate) struct HandedDown {
    base: Option<PathBuf>,
    before: Vec<String>,
    own: Option<PathBuf>,
}

impl HandedDown {
    pub(crate) fn note(base: Option<&Path>) -> Self {
        let before = base.map(|base| words(base, "cgroup.subtree_control")).unwrap_or_default();
        Self { base: base.map(Path::to_owned), before, own: own_path() }
    }

    /// Takes back what the probes have handed down, and moves this process back. If another
    /// supervisor has made a run root meanwhile, which may rely on it, all stays.
    pub(crate) fn restore(self) {
        let Some(base) = self.base else { return };
        let aside = (own_path() != self.own).then(|| own_dir(&base)).flatten();
        if subdirectories(&base).all(|dir| Some(&dir) == aside.as_ref()) {
            for name in words(&base, "cgroup.subtree_control") {
                if !self.before.contains(&name) {
                    // The kernel refuses to take back what is still in use.
                    let _ = fs::write(base.join("cgroup.subtree_control"), format!("-{name}"));
                }
            }
        }
        if let Some(aside) = aside {
            let _ = fs::write(base.join("cgroup.procs"), "0");
            let _ = fs::remove_dir(aside);
        }
    }
}

fn subdirectories(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

/// The directory below the base that this process has moved to, if it has.
fn own_dir(base: &Path) -> Option<PathBuf> {
    let own = own_path()?;
    let dir = base.join(own.file_name()?);
    dir.is_dir().then_some(dir)
}
