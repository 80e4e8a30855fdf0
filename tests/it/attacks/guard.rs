//! The guard under attack: the supervisor is killed, and what is left of its tree makes it hard.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, geteuid};
use serial_test::serial;
use tidy_process::{Tree, sweep};

use super::roles::ROLE;
use crate::guard::guard_of;
use crate::kept::refuse;
use crate::support::{Alone, SOON, Stage, read_ready, rounds, skip, tool, until};
use crate::victim;

/// The promise.
const SECOND: Duration = Duration::from_secs(1);

/// An attacker finds its tree by where it is.
const PLAIN: [&str; 3] = ["env", "-u", "TIDY_PROCESS_PARENT"];

/// A workload under the tool, which is to be killed.
fn attack(stage: &Stage, role: &str) -> Command {
    let mut command = stage.tool(&["run", "-q", "-k0", "--"]);
    command.args(PLAIN).arg(victim::exe()).env(ROLE, role).stdout(Stdio::piped());
    command
}

/// The same in a mount namespace of its own.
fn attack_apart(stage: &Stage, role: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", tool(), "run", "-q", "-k0", "--"]);
    command.args(PLAIN);
    stage.mark_std(command.arg(victim::exe()).env(ROLE, role).stdout(Stdio::piped()));
    command
}

fn begin(command: &mut Command) -> Child {
    let mut supervisor = command.spawn().unwrap();
    read_ready(supervisor.stdout.take().unwrap());
    supervisor
}

fn end(mut supervisor: Child) -> Instant {
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    Instant::now()
}

/// Everybody is dead and no directory left in this time.
fn gone(stage: &Stage, supervisor: Child, time: Duration, what: &str) {
    let start = end(supervisor);
    assert!(until(time, || stage.cgroups() == 0), "{what}: a directory is left");
    println!("{what}: {:?}", start.elapsed());
    assert!(until(SECOND, || stage.alive().is_empty()), "{what}: {:?}", stage.alive());
}

fn dies(role: &str, time: Duration) {
    let Some(stage) = Stage::set() else { return };
    gone(&stage, begin(&mut attack(&stage, role)), time, role);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_process_without_its_main_thread_dies_however_deep_it_stands() {
    dies("deep 1100", SOON);
}

/// As with a seccomp filter of an old container, which the guard inherits.
#[test]
#[serial]
fn it_dies_where_openat2_is_refused_too() {
    let Some(stage) = Stage::set() else { return };
    let mut command = attack(&stage, "deep 2");
    let filtered = std::thread::spawn(move || {
        refuse(libc::SYS_openat2, Errno::EPERM);
        begin(&mut command)
    });
    gone(&stage, filtered.join().unwrap(), SOON, "without openat2");
    stage.close(Alone::Yes);
}

/// Deeper than the guard remembers its places.
#[test]
#[serial]
fn a_tree_is_removed_however_deep_it_is() {
    for depth in [500, 1700] {
        dies(&format!("bare-deep {depth}"), SOON);
    }
}

#[test]
#[serial]
fn a_tree_is_removed_however_wide_it_is() {
    dies("wide 20000", SOON);
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        skip("only root delegates a cgroup to another user, and mounts");
    }
    root
}

/// Nobody else is this user: its processes are counted.
const USER: u32 = 61_847;

#[test]
#[serial]
fn a_user_who_may_have_no_further_process_is_tidied_all_the_same() {
    if !is_root() {
        return;
    }
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        std::os::unix::fs::chown(tree.path().unwrap().join(file), Some(USER), Some(USER)).unwrap();
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(stage.supervisor.path().unwrap(), open).unwrap();
    let mut command = attack(&stage, "many");
    command.uid(USER).gid(USER).env_remove("TIDY_PROCESS_PARENT");
    // SAFETY: one system call.
    #[expect(unsafe_code, reason = "a limit of the child's")]
    unsafe {
        command.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_NPROC, 64, 64)?));
    }
    tree.enroll(&mut command).unwrap();
    let supervisor = begin(&mut command);
    drop(command);
    assert!(stage.alive().len() >= 60, "{} processes", stage.alive().len());
    end(supervisor);
    assert!(until(SECOND, || stage.alive().is_empty()), "{:?} live", stage.alive());
    let left = || fs::read_dir(tree.path().unwrap()).unwrap().flatten();
    let is_left = || left().any(|entry| entry.path().is_dir());
    assert!(until(SECOND, || !is_left()), "a directory is left");
    assert_eq!(tree.finish().unwrap().leftovers, []);
    drop(tree);
    stage.close(Alone::Yes);
}

/// The run root goes as well where nothing is mounted over itself; else with the mount, and the
/// next sweep.
#[test]
#[serial]
fn a_mount_over_the_hierarchy_hides_nothing() {
    if !is_root() {
        return;
    }
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap().to_owned();
    let above = base.parent().unwrap().to_owned();
    let covers = format!("covers {}", above.display());
    gone(&stage, begin(&mut attack_apart(&stage, &covers)), SECOND, &covers);
    for role in ["covers-root", "covers-itself"] {
        end(begin(&mut attack_apart(&stage, role)));
        assert!(until(SECOND, || stage.alive().is_empty()), "{role}: {:?}", stage.alive());
        swept(&stage, role);
    }
    stage.close(Alone::Yes);
}

fn swept(stage: &Stage, what: &str) {
    let start = Instant::now();
    while stage.cgroups() > 0 {
        sweep(Some(stage.supervisor.path().unwrap()), false).unwrap();
        assert!(start.elapsed() < SOON, "{what}: not to be swept");
    }
}

#[test]
#[serial]
fn the_guard_does_not_leave_the_hierarchy() {
    if !is_root() {
        return;
    }
    let Some(stage) = Stage::set() else { return };
    let user = PathBuf::from(format!("/tmp/tidy-binds-{}", std::process::id()));
    fs::create_dir_all(user.join("empty/empty")).unwrap();
    let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
    for role in [format!("binds {}", user.display()), format!("lists {}", stranger.id())] {
        end(begin(&mut attack_apart(&stage, &role)));
        assert!(until(SECOND, || stage.alive().is_empty()), "{role}: {:?}", stage.alive());
        // It goes on for a while, since the mount is in its way.
        assert!(!until(Duration::from_millis(300), || stage.cgroups() == 0), "{role}: gone");
        swept(&stage, &role);
    }
    assert!(user.join("empty/empty").is_dir(), "the user's directories are removed");
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    fs::remove_dir_all(&user).unwrap();
    stage.close(Alone::Yes);
}

/// Ctrl-Z reaches the group, and the guard is born in that group: it must not stop there, since its
/// parent waits for its exec.
#[test]
#[serial]
fn a_stop_signal_at_its_birth_does_not_stop_the_guard() {
    let Some(stage) = Stage::set() else { return };
    let mut command = Command::new(victim::exe());
    stage.mark_std(command.env(ROLE, "starts-guards").stdout(Stdio::piped()).process_group(0));
    let mut supervisor = begin(&mut command);
    let pid = Pid::from_raw(supervisor.id().cast_signed());
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    for round in 0..rounds(300, 10_000) {
        // At any moment of the making of a supervisor: a stride that meets all of them.
        std::thread::sleep(Duration::from_micros(u64::from(round) * 7919 % 3000));
        killpg(pid, Signal::SIGTSTP).unwrap();
        assert!(until(SOON, || state() == 'T'), "round {round}: state {}", state());
        // To the supervisor alone: a guard that stopped would go on with the group.
        kill(pid, Signal::SIGCONT).unwrap();
    }
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    assert!(until(SECOND, || stage.cgroups() == 0 && stage.alive().is_empty()));
    stage.close(Alone::Yes);
}

/// Where no program can be executed from memory, a fork of the supervisor does the same.
#[test]
#[serial]
fn where_no_program_is_executed_from_memory_a_fork_is_the_guard() {
    let Some(stage) = Stage::set() else { return };
    let refused = [
        (libc::SYS_memfd_create, Errno::EACCES),
        (libc::SYS_execveat, Errno::ENOSYS),
        (libc::SYS_execveat, Errno::EPERM),
    ];
    for (call, errno) in refused {
        for role in ["deep 20", "wide 50"] {
            let mut command = attack(&stage, role);
            // SAFETY: two system calls.
            #[expect(unsafe_code, reason = "a filter of the child's")]
            unsafe {
                command.pre_exec(move || {
                    refuse(call, errno);
                    Ok(())
                });
            }
            let supervisor = begin(&mut command);
            let guard = guard_by_name(supervisor.id()).expect("no guard");
            let exe = fs::read_link(format!("/proc/{guard}/exe")).unwrap();
            assert_eq!(exe, fs::read_link(format!("/proc/{}/exe", supervisor.id())).unwrap());
            assert_eq!(fds_of(guard), 6, "the owner's fds are open in the fork");
            gone(&stage, supervisor, SECOND, role);
        }
    }
    stage.close(Alone::Yes);
}

fn fds_of(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The child of this name.
fn guard_by_name(owner: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{owner}/task/{owner}/children")).unwrap();
    let mut pids = children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()));
    pids.find(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name == "tidy-guard\n"
    })
}

/// It is not met by `pkill tidy-process`, with or without `-f`, and takes a few KiB.
#[test]
#[serial]
fn a_guard_is_small_and_goes_by_its_own_name() {
    let Some(stage) = Stage::set() else { return };
    let supervisor = begin(&mut attack(&stage, "wide 1"));
    let guard = guard_of(&supervisor);
    assert_eq!(guard_by_name(supervisor.id()), Some(guard));
    let line = fs::read_to_string(format!("/proc/{guard}/cmdline")).unwrap();
    assert!(!line.contains("tidy-process"), "{line:?}");
    let rollup = fs::read_to_string(format!("/proc/{guard}/status")).unwrap();
    let resident = |what: &str| {
        let line = rollup.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    println!("resident: {} KiB", resident("VmRSS:"));
    assert!(resident("VmRSS:") <= 64, "{rollup}");
    gone(&stage, supervisor, SECOND, "wide 1");
    stage.close(Alone::Yes);
}

/// A process that calls itself a guard is a leftover like any other.
#[test]
#[serial]
fn a_process_that_poses_as_a_guard_is_named() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.tool(&["run", "--leaks=fail", "--"]);
    let output = command.arg(victim::exe()).env(ROLE, "poses").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(123), "{said}");
    assert!(said.contains("tidy-guard"), "{said}");
    stage.close(Alone::Yes);
}
