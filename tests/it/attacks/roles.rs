//! The attackers: the test binary plays them in a tree, when `TIDY_ATTACK` names one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::{chdir, fork, mkdir};

use crate::support::read_ready;
use crate::victim;

pub(super) const ROLE: &str = "TIDY_ATTACK";

/// However a test fails, its attackers end by themselves.
const LIFE: Duration = Duration::from_secs(30);

#[ctor::ctor]
fn enter() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let role = role.to_str().unwrap().to_owned();
    let (role, rest) = role.split_once(' ').unwrap_or((&role, ""));
    match role {
        "deep" => deep(rest.parse().unwrap()),
        "bare-deep" => bare_deep(rest.parse().unwrap()),
        "wide" => wide(rest.parse().unwrap()),
        "many" => many(),
        "covers" => covers(Path::new(rest)),
        "covers-root" => covers(tree().parent().unwrap()),
        "covers-itself" => covers_itself(),
        "binds" => binds(Path::new(rest)),
        "lists" => lists(rest),
        "poses" => poses(),
        "posed" => posed(),
        "starts-guards" => starts_guards(),
        other => panic!("no attacker is called {other:?}"),
    }
    exit(0);
}

/// The directory of the tree that this process is in.
fn tree() -> PathBuf {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    Path::new(mount.split(' ').nth(4).unwrap()).join(own)
}

fn stay() {
    nix::unistd::write(std::io::stdout(), b"ready\n").unwrap();
    std::thread::sleep(LIFE);
}

/// Becomes a process without its main thread, which `cgroup.kill` passes over.
fn lose_leader() -> ! {
    let mut command = Command::new(victim::exe());
    let error = command.env_remove(ROLE).env("TIDY_VICTIM", "dead-leader").exec();
    panic!("{error}");
}

fn go_down(depth: u32) {
    chdir(&tree()).unwrap();
    for _ in 0..depth {
        mkdir("d", Mode::S_IRWXU).unwrap();
        chdir("d").unwrap();
    }
}

/// A process without its main thread stands this deep.
fn deep(depth: u32) {
    go_down(depth);
    fs::write("cgroup.procs", "0").unwrap();
    lose_leader();
}

/// Directories this deep, and nobody in them.
fn bare_deep(depth: u32) {
    go_down(depth);
    stay();
}

fn wide(count: u32) {
    let tree = tree();
    (0..count).for_each(|number| fs::create_dir(tree.join(number.to_string())).unwrap());
    stay();
}

/// As many processes as the user may have, another for each that ends, and no permission left that
/// could be taken away.
fn many() {
    let tree = tree();
    fork_all();
    for dir in [&*tree, tree.parent().unwrap()] {
        for file in ["cgroup.kill", "cgroup.events", "cgroup.procs", "cgroup.freeze", ""] {
            fs::set_permissions(dir.join(file), PermissionsExt::from_mode(0o0)).unwrap();
        }
    }
    nix::unistd::write(std::io::stdout(), b"ready\n").unwrap();
    let start = Instant::now();
    while start.elapsed() < LIFE {
        fork_all();
    }
}

fn fork_all() {
    // SAFETY: the copy only sleeps.
    #[expect(unsafe_code, reason = "a process for each fork")]
    while let Ok(forked) = unsafe { fork() } {
        if forked.is_child() {
            std::thread::sleep(LIFE);
            exit(0);
        }
    }
}

/// A supervisor that does nothing but start guards.
fn starts_guards() {
    nix::unistd::write(std::io::stdout(), b"ready\n").unwrap();
    let start = Instant::now();
    while start.elapsed() < LIFE {
        drop(tidy_process::Supervisor::builder().build().unwrap());
    }
}

fn mount(args: &[&str], over: &Path) {
    assert!(
        Command::new("mount").env_remove(ROLE).args(args).arg(over).status().unwrap().success()
    );
}

/// A tmpfs hides a directory of cgroupfs.
fn covers(over: &Path) {
    mount(&["-t", "tmpfs", "none"], over);
    stay();
}

/// A process without its main thread, in a cgroup that a tmpfs hides.
fn covers_itself() {
    let inside = tree().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("cgroup.procs"), "0").unwrap();
    mount(&["-t", "tmpfs", "none"], &inside);
    lose_leader();
}

/// A directory of the user's, mounted in a cgroup.
fn binds(user: &Path) {
    let inside = tree().join("inside");
    fs::create_dir(&inside).unwrap();
    mount(&["--bind", user.to_str().unwrap()], &inside);
    let moved = tree().join("moved");
    fs::create_dir(&moved).unwrap();
    fs::write(moved.join("cgroup.procs"), "0").unwrap();
    lose_leader();
}

/// A made-up `cgroup.procs` that names a stranger.
fn lists(stranger: &str) {
    let inside = tree().join("inside");
    fs::create_dir(&inside).unwrap();
    mount(&["-t", "tmpfs", "none"], &inside);
    for file in ["cgroup.procs", "cgroup.kill", "cgroup.freeze"] {
        fs::write(inside.join(file), format!("{stranger}\n")).unwrap();
    }
    lose_leader();
}

/// Leaves a process that passes for a guard, as far as a name and a command line go.
fn poses() {
    let mut command = Command::new(victim::exe());
    command.arg0("tidy-guard").arg("1-00000000").env(ROLE, "posed").stdout(Stdio::piped());
    #[expect(clippy::zombie_processes, reason = "it is to be left")]
    let mut posed = command.spawn().unwrap();
    read_ready(posed.stdout.take().unwrap());
}

fn posed() {
    fs::write("/proc/self/comm", "tidy-guard").unwrap();
    stay();
}
