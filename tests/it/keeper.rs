//! Trees that a keeper holds, without any cgroup.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Child as StdChild;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serial_test::serial;
use tidy_process::{
    Cause, Containment, Error, IoLimit, Limits, Mechanism, Placement, Supervisor, Tree,
};

use crate::actor::{KEPT, actor};
use crate::guard::killed_at_any_moment;
use crate::support::{Alone, SOON, Stage, paced, read_ready, rounds, until};
use crate::teardown::{bombs, chains, young_trees};
use crate::victims::{End, by_library, can_be_here};

/// These make cgroups, which is what there is none of here.
const NEED_CGROUPS: [&str; 3] = ["nested-cgroups", "threaded-cgroup", "frozen"];

#[test]
#[serial]
fn every_victim_dies() {
    let Some(stage) = Stage::of_keepers() else { return };
    let cannot_be = |name: &str| NEED_CGROUPS.contains(&name) || !can_be_here(name);
    for name in crate::victim::names().iter().filter(|name| !cannot_be(name)) {
        // Shown if it fails, by whichever of the checks below.
        println!("victim {name}");
        for end in [End::Finish, End::Drop, End::Panic] {
            by_library(&stage, &mut stage.victim(name), name, end, Placement::Kept);
        }
        #[cfg(feature = "cli")]
        {
            let options = ["--containment", "keeper"];
            crate::victims::by_command_line(&stage, name, &options);
            stage.assert_clean(&format!("{name}, command line"));
        }
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_fork_chain_never_survives() {
    chains(Stage::of_keepers(), rounds(60, 2000));
}

#[test]
#[serial]
fn a_bomb_without_main_threads_never_survives() {
    bombs(Stage::of_keepers());
}

#[test]
#[serial]
fn a_tree_killed_at_any_moment_of_its_youth_is_gone() {
    young_trees(Stage::of_keepers());
}

fn pid(child: &StdChild) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// The promise.
const SECOND: Duration = Duration::from_secs(1);

fn gone(stage: &Stage, what: &str) -> Duration {
    let start = Instant::now();
    while !stage.alive().is_empty() {
        assert!(start.elapsed() < paced(SECOND), "{what}: {:?}", stage.alive());
        // Nothing announces that somebody else's keeper is done.
        std::thread::sleep(Duration::from_micros(200));
    }
    start.elapsed()
}

/// A standing supervisor ends in this way.
fn ends(role: &str, end: impl Fn(&StdChild)) {
    let Some(stage) = Stage::of_keepers() else { return };
    let mut actor = actor(&stage, role);
    actor.process_group(0).env(KEPT, "1");
    for round in 0..rounds(5, 100) {
        let mut child = actor.spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        read_ready(&mut pipe);
        let stays = ["idle", "fork", "thread"].contains(&role);
        assert!(!stays || stage.alive().len() > 3, "{role}: {:?}", stage.alive());
        end(&child);
        child.wait().unwrap();
        if role == "fork" {
            // The fork of the actor is in no tree, and ends by itself after two seconds: not before
            // the trees have gone.
            let start = Instant::now();
            while stage.alive().len() > 1 {
                assert!(start.elapsed() < paced(SECOND), "{:?}", stage.alive());
                // As in `gone`.
                std::thread::sleep(Duration::from_micros(200));
            }
            pipe.read_to_end(&mut Vec::new()).unwrap();
        }
        gone(&stage, &format!("{role}, round {round}"));
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn nothing_survives_a_supervisor_that_ends_badly() {
    ends("idle", |child| kill(pid(child), Signal::SIGKILL).unwrap());
    ends("idle", |child| kill(pid(child), Signal::SIGSEGV).unwrap());
    ends("idle", |child| killpg(pid(child), Signal::SIGKILL).unwrap());
    ends("idle", |child| killpg(pid(child), Signal::SIGHUP).unwrap());
    for role in ["abort", "exit", "panic"] {
        ends(role, |_| ());
    }
}

#[test]
#[serial]
fn a_fork_that_lives_on_does_not_keep_the_keepers_waiting() {
    ends("fork", |child| kill(pid(child), Signal::SIGKILL).unwrap());
}

#[test]
#[serial]
fn keepers_outlive_the_thread_that_started_them() {
    ends("thread", |child| {
        // A keeper that took the thread for its owner would have done its work by then.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(keepers_of(child.id()).len(), 3);
        kill(pid(child), Signal::SIGKILL).unwrap();
    });
}

/// SIGKILL at a random moment: before, during and after spawns, waits and teardowns.
#[test]
#[serial]
fn a_supervisor_killed_at_any_moment_leaves_nothing() {
    let Some(stage) = Stage::of_keepers() else { return };
    let mut actor = actor(&stage, "busy");
    actor.env(KEPT, "1");
    killed_at_any_moment(&mut actor, |what| gone(&stage, what));
    stage.close(Alone::Yes);
}

/// The children of a process that are keepers.
pub(crate) fn keepers_of(owner: u32) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{owner}/task")).unwrap().flatten();
    // A thread may have ended meanwhile.
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let lists: Vec<String> = lists.collect();
    let pids = lists.iter().flat_map(|list| list.split_whitespace());
    let comm = |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let keepers = pids.filter(|pid| comm(pid) == "tidy-keeper\n");
    keepers.map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

pub(crate) fn keeper() -> Pid {
    let all = keepers_of(std::process::id());
    assert_eq!(all.len(), 1);
    all[0]
}

#[test]
#[serial]
fn a_keeper_holds_nothing_of_its_owner_and_hears_no_terminal() {
    let Some(stage) = Stage::of_keepers() else { return };
    let held = fs::File::open("/etc/passwd").unwrap();
    nix::fcntl::fcntl(&held, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut ballast = vec![0u8; 64 << 20];
    ballast.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    let child = stage.command("sleep").arg("20").spawn().unwrap();
    let keeper = keeper();
    let start = Instant::now();
    while anonymous(keeper) > 8 << 10 {
        assert!(start.elapsed() < SOON, "it holds {} KiB", anonymous(keeper));
        // It gives memory back after the spawn, and nothing announces that.
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(anonymous(Pid::this()) > 64 << 10);
    drop(ballast);
    let proc = |name: &str| format!("/proc/{keeper}/{name}");
    // Not a copy of this process.
    let exe = fs::read_link(proc("exe")).unwrap();
    assert_eq!(exe.to_str(), Some("/memfd:tidy-keeper (deleted)"));
    assert_eq!(fs::read_link(proc("cwd")).unwrap().to_str(), Some("/"));
    assert_eq!(nix::unistd::getsid(Some(keeper)).unwrap(), keeper);
    let held_by_it = || {
        let links = fs::read_dir(proc("fd")).unwrap().flatten().map(|fd| fs::read_link(fd.path()));
        let names = links.flatten().map(|target| target.display().to_string());
        let mut kinds: Vec<String> =
            names.map(|name| name.split(['[', ' ']).next().unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    };
    // It may be reading its own maps just now.
    let few = || held_by_it() == ["/proc", "anon_inode:", "socket:"];
    assert!(until(SOON, few), "{:?}", held_by_it());
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY of the test: no signal but those two may do anything to it.
            nix::errno::Errno::result(raw_kill(keeper, signal)).unwrap();
        }
    }
    assert_eq!(child.wait_timeout(Duration::from_millis(20)).unwrap(), None);
    assert_eq!(child.finish().unwrap().cause, Cause::Stopped);
    drop(child);
    drop(held);
    stage.close(Alone::Yes);
}

/// KiB of memory that is backed by no file.
fn anonymous(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// nix knows no real-time signals.
fn raw_kill(pid: Pid, signal: i32) -> i32 {
    // SAFETY: no memory is involved.
    #[expect(unsafe_code, reason = "nix knows no real-time signals")]
    unsafe {
        libc::kill(pid.as_raw(), signal)
    }
}

#[test]
#[serial]
fn a_stopped_keeper_kills_all_the_same() {
    let Some(stage) = Stage::of_keepers() else { return };
    let mut child = stage.victim("daemon").spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    kill(keeper(), Signal::SIGSTOP).unwrap();
    child.finish().unwrap();
    drop(child);
    stage.close(Alone::Yes);
}

/// Who kills the keeper kills the main process with it, and everybody hears of it.
#[test]
#[serial]
fn a_keeper_that_is_killed_is_an_error_and_no_hang() {
    let Some(stage) = Stage::of_keepers() else { return };
    let lost = |error: Error| {
        assert!(error.is_keeper_lost(), "{error}");
        assert!(error.hint().is_some());
    };
    // At once: before or after the spawn has returned.
    for _ in 0..rounds(50, 1000) {
        lost(stage.sh("kill -9 $PPID; exec sleep 20").run().unwrap_err());
    }
    gone(&stage, "at once");
    let start = Instant::now();
    for script in ["sleep 0.1; kill -9 $PPID; exec sleep 20", "sleep 0.1; kill -9 $PPID"] {
        let child = stage.sh(script).spawn().unwrap();
        lost(child.wait().unwrap_err());
        lost(child.tree().wait_empty(Instant::now() + SOON).unwrap_err());
        lost(child.kill().unwrap_err());
        lost(child.finish().unwrap_err());
        gone(&stage, script);
        lost(stage.sh(script).run().unwrap_err());
        lost(stage.sh(script).output().unwrap_err());
        lost(stage.sh(script).timeout(SOON).run().unwrap_err());
        drop(stage.sh(script).spawn().unwrap());
        gone(&stage, script);
    }
    assert!(start.elapsed() < Duration::from_secs(18), "{:?}", start.elapsed());
    assert_eq!(keepers_of(std::process::id()), [], "keepers are left, dead or alive");
    stage.close(Alone::Yes);
}

/// Each of these tries to get out of the keeper's sight, in Python; so many processes stay.
const ATTEMPTS: [(&str, usize, &str); 6] = [
    (
        "a sub-reaper of its own",
        3,
        "prctl(36, 1, 0, 0, 0); fork() or fork() and _exit(0) or setsid(); fork()",
    ),
    ("a brother", 2, "syscall(CLONE, 0x8000 | 17, 0, 0, 0, 0)"),
    ("a daemon of a daemon", 1, "[fork() and _exit(0) or setsid() for _ in range(20)]"),
    ("a parent that ignores its children", 64, "signal(17, 1); [fork() for _ in range(6)]"),
    ("a name like fields", 2, "prctl(15, b') S 1 (', 0, 0, 0); fork(); fork() and _exit(0)"),
    (
        "children of threads",
        4,
        "[Thread(target=lambda: (fork(), time.sleep(20))).start() for _ in range(3)]",
    ),
];

#[test]
#[serial]
fn nobody_gets_out_of_sight() {
    let Some(stage) = Stage::of_keepers() else { return };
    for (what, least, attempt) in ATTEMPTS {
        let script = format!(
            "import ctypes, time, os
from os import fork, setsid, _exit
from threading import Thread
libc = ctypes.CDLL(None)
prctl, syscall, signal = libc.prctl, libc.syscall, libc.signal
CLONE = {}
{attempt}
time.sleep(20)",
            libc::SYS_clone
        );
        let child = stage.command("python3").args(["-c", &script]).spawn().unwrap();
        let start = Instant::now();
        let seen = || {
            let mut seen: Vec<u32> = child.tree().processes().iter().map(|p| p.pid).collect();
            seen.sort_unstable();
            seen
        };
        let alive = || {
            let mut alive: Vec<u32> = stage.alive().iter().map(|pid| pid.cast_unsigned()).collect();
            alive.sort_unstable();
            alive
        };
        while alive().len() < least || seen() != alive() {
            assert!(start.elapsed() < SOON, "{what}: {:?} of {:?} seen", seen(), alive());
            // What is waited for is that nothing happens any more.
            std::thread::sleep(Duration::from_millis(5));
        }
        child.finish().unwrap();
        stage.assert_clean(what);
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn what_only_a_cgroup_can_do_is_an_error_that_says_so() {
    let Some(stage) = Stage::of_keepers() else { return };
    let child = stage.command("sleep").arg("20").spawn().unwrap();
    let tree = child.tree();
    let io = IoLimit::new().read_bytes(1);
    let limits = |limits: Limits| stage.command("true").limits(limits).run().unwrap_err();
    let all = Supervisor::builder().containment(Containment::Keeper);
    let table = [
        ("limit memory: memory.max 4096", limits(Limits::new().memory_max(4096))),
        ("limit memory: memory.high 4096", limits(Limits::new().memory_high(4096))),
        ("limit memory: memory.swap.max 4096", limits(Limits::new().swap_max(4096))),
        ("limit pids: pids.max 9", limits(Limits::new().pids_max(9))),
        ("limit cpu: cpu.max 50000 100000", limits(Limits::new().cpus(0.5))),
        ("limit cpu: cpu.weight 50", limits(Limits::new().cpu_weight(50))),
        ("limit cpuset: cpuset.cpus 0", limits(Limits::new().cpuset("0"))),
        ("limit io: io.max 8:0 rbps=1", limits(Limits::new().io("8:0", io))),
        ("limit cpu time: 2s", limits(Limits::new().cpu_time(Duration::from_secs(2)))),
        ("limit pids: pids.max 9", all.limits(Limits::new().pids_max(9)).build().unwrap_err()),
        ("set limits", tree.set_limits(&Limits::new().pids_max(9)).unwrap_err()),
        ("freeze", tree.freeze().unwrap_err()),
        ("thaw", tree.thaw().unwrap_err()),
        ("enroll a command", tree.enroll(&mut std::process::Command::new("true")).unwrap_err()),
        ("add a process", tree.add(1).unwrap_err()),
        ("make a tree without a command", Tree::within(&stage.supervisor, None).unwrap_err()),
    ];
    for (what, error) in table {
        let said = error.to_string();
        assert_eq!(said, format!("{what}: this needs a cgroup, and a keeper holds the tree"));
        assert!(error.is_unsupported() && error.hint().is_some(), "{said}");
        assert_eq!(error.is_limit(), what.starts_with("limit"), "{said}");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::Unsupported);
    }
    let usage = tree.usage();
    assert_eq!((usage.user, usage.memory_peak, usage.missing.len()), (None, None, 11));
    let report = child.finish().unwrap();
    drop(child);
    assert_eq!((report.mechanism, report.usage.user), (Mechanism::Keeper, None));
    stage.close(Alone::Yes);
}
