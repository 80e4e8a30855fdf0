//! Victims that make cgroups below their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use nix::unistd::gettid;

use super::life::{Gate, child, fail, hold, must, ready, until};

pub(super) fn nested() -> ! {
    let own = own();
    let gate = Gate::new();
    let paths = ["a", "a/b", "a/c"].map(|name| make(&own, name));
    for path in &paths {
        child(|| {
            put(path, "cgroup.procs", "0");
            gate.arrived();
            hold()
        });
    }
    gate.wait(3);
    ready();
    hold()
}

pub(super) fn threaded() -> ! {
    let path = make(&own(), "t");
    put(&path, "cgroup.type", "threaded");
    let body = move || {
        put(&path, "cgroup.threads", &gettid().to_string());
        ready();
        hold()
    };
    must("start a thread", thread::Builder::new().spawn(body).map(drop));
    hold()
}

pub(super) fn frozen() -> ! {
    let path = make(&own(), "f");
    let gate = Gate::new();
    child(|| {
        put(&path, "cgroup.procs", "0");
        gate.arrived();
        hold()
    });
    gate.wait(1);
    put(&path, "cgroup.freeze", "1");
    let events = path.join("cgroup.events");
    until("the cgroup is frozen", || read(&events).lines().any(|line| line == "frozen 1"));
    ready();
    hold()
}

fn make(parent: &Path, name: &str) -> PathBuf {
    let path = parent.join(name);
    must(&format!("make {}", path.display()), fs::create_dir(&path));
    path
}

fn put(cgroup: &Path, file: &str, value: &str) {
    let path = cgroup.join(file);
    must(&format!("write {value} to {}", path.display()), fs::write(&path, value));
}

fn read(path: &Path) -> String {
    must(&format!("read {}", path.display()), fs::read_to_string(path))
}

/// The directory of the cgroup that this process is in, seen through any cgroup2 mount that shows
/// it.
fn own() -> PathBuf {
    let cgroups = read(Path::new("/proc/self/cgroup"));
    let Some(path) = cgroups.lines().find_map(|line| line.strip_prefix("0::")) else {
        fail("find the own cgroup", &"no cgroup v2 here");
    };
    let mounts = read(Path::new("/proc/self/mountinfo"));
    match mounts.lines().find_map(|mount| below(mount, Path::new(path))) {
        Some(found) => found,
        None => fail("find the own cgroup", &format!("no cgroup2 mount shows {path}")),
    }
}

/// Octal escapes are not undone: a victim's mount points have no spaces.
fn below(mount: &str, path: &Path) -> Option<PathBuf> {
    let (before, after) = mount.split_once(" - ")?;
    if !after.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = before.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let rest = path.strip_prefix(root).ok()?;
    Some(Path::new(point).join(rest)).filter(|found| found.is_dir())
}
