//! No signal reaches a process that is not of the tree, and nothing ends its own supervisor.

use std::process::{Command as StdCommand, Stdio as StdStdio};

use serial_test::serial;
use tidy_process::{Command, Containment, Supervisor, Tree};

use crate::actor::{ROLE, actor};
use crate::attacks::succeeds;
use crate::support::{Alone, Stage, skip};

#[test]
#[serial]
fn a_tree_takes_neither_its_supervisor_nor_what_that_stands_on() {
    let Some(stage) = Stage::set() else { return };
    succeeds(&mut actor(&stage, "add"), "add");
    stage.close(Alone::Yes);
}

/// The number of another thread moves the whole process.
pub(crate) fn play_add() {
    let supervisor = Supervisor::global().unwrap();
    let tree = Tree::within(&supervisor, None).unwrap();
    let refused = |pid: u32, what: &str| {
        let error = tree.add(pid).unwrap_err();
        assert!(error.is_invalid_input(), "{what}: {error}");
        assert_eq!(tree.processes(), [], "{what}: {error}");
    };
    let (told, tid) = std::sync::mpsc::channel();
    let (stay, over) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        told.send(nix::unistd::gettid().as_raw().cast_unsigned()).unwrap();
        let _ = over.recv();
    });
    refused(tid.recv().unwrap(), "another thread");
    refused(std::process::id(), "this process");
    refused(0, "the caller");
    refused(1, "the first process");
    refused(std::os::unix::process::parent_id(), "the parent");
    for child in children() {
        refused(child, "the guard");
    }
    let error = tree.add(u32::MAX).unwrap_err();
    assert!(error.to_string().contains("process 4294967295"), "{error}");
    drop(stay);
    thread.join().unwrap();
    let mut sleep = StdCommand::new("sleep").arg("20").env_remove(ROLE).spawn().unwrap();
    tree.add(sleep.id()).unwrap();
    assert_eq!(tree.processes().len(), 1);
    tree.finish().unwrap();
    sleep.wait().unwrap();
    // What has ended, and is still a number: the kernel moves no zombie, and says nothing.
    let tree = Tree::within(&supervisor, None).unwrap();
    let mut ended = StdCommand::new("true").env_remove(ROLE).spawn().unwrap();
    let file = format!("/proc/{}/stat", ended.id());
    while !std::fs::read_to_string(&file).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    assert!(tree.add(ended.id()).unwrap_err().to_string().contains("add to cgroup"));
    ended.wait().unwrap();
    tree.finish().unwrap();
}

/// Between the look at a process and the write it may end, and its number go to a stranger. The
/// write is held up, and the number is given away in a pid namespace of our own.
#[test]
#[serial]
fn a_number_that_is_given_away_while_it_is_added_takes_no_stranger() {
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing");
    }
    let Some(stage) = Stage::set() else { return };
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can choose the next pid");
    }
    let mut command = StdCommand::new("unshare");
    // The first write of each thread.
    let late = "inject=write:delay_enter=2000000:when=1";
    command.args(["-p", "-f", "--mount-proc", "strace", "-f", "-o", "/dev/null", "-e", late]);
    stage.mark_std(command.args(["-e", "trace=write"]).arg(crate::victim::exe()));
    succeeds(command.env(ROLE, "recycled"), "recycled");
    stage.close(Alone::Yes);
}

pub(crate) fn play_recycled() {
    let supervisor = Supervisor::builder().guard(false).build().unwrap();
    let tree = Tree::within(&supervisor, None).unwrap();
    // This thread's own first write.
    std::fs::write("/proc/sys/kernel/ns_last_pid", "1000").unwrap();
    let mut chosen = StdCommand::new("sleep").arg("20").env_remove(ROLE).spawn().unwrap();
    let number = chosen.id();
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| tree.add(number));
        // Long enough for it to come to its write, where it is held for 2 s.
        std::thread::sleep(std::time::Duration::from_millis(700));
        chosen.kill().unwrap();
        chosen.wait().unwrap();
        std::fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).unwrap();
        let mut stranger = StdCommand::new("sleep").arg("20").env_remove(ROLE).spawn().unwrap();
        assert_eq!(stranger.id(), number, "the number was not given away");
        let error = adding.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{error}");
        assert_eq!(tree.processes(), [], "the stranger is in the tree");
        tree.kill().unwrap();
        assert_eq!(stranger.try_wait().unwrap(), None, "the stranger was killed");
        let place = std::fs::read_to_string(format!("/proc/{number}/cgroup")).unwrap();
        assert_eq!(place, std::fs::read_to_string("/proc/self/cgroup").unwrap());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    });
    tree.finish().unwrap();
}

/// Those of this thread's: at this moment the guard alone.
fn children() -> Vec<u32> {
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    let all: Vec<u32> = text.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all
}

/// A supervisor that was moved into its own tree would freeze with it, for ever.
#[test]
#[serial]
fn a_supervisor_leaves_the_tree_that_a_workload_moved_it_into() {
    let Some(stage) = Stage::set() else { return };
    succeeds(&mut actor(&stage, "moved"), "moved");
    stage.close(Alone::Yes);
}

pub(crate) fn play_moved() {
    let supervisor = Supervisor::global().unwrap();
    for join in [false, true] {
        let mut command = Command::new("sh");
        let script = "echo $PPID >$(echo $R/*-it)/cgroup.procs; sleep 20 & exit 3";
        command
            .args(["-c", script])
            .name("it")
            .env("R", supervisor.path().unwrap())
            .env_remove(ROLE);
        let report = command.supervisor(&supervisor).force_join(join).run().unwrap();
        assert_eq!((report.status.code(), report.leftovers.len()), (Some(3), 1), "{report:?}");
        let pids = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let place = pids.lines().last().unwrap();
        let root = supervisor.path().unwrap().file_name().unwrap().to_str().unwrap();
        assert!(!place.contains(root), "still in it: {place}");
    }
}

/// The pid of a birth whose status is not to be had is not known to be ours: no signal goes there.
#[test]
#[serial]
fn a_birth_without_a_handle_costs_no_stranger_its_life() {
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing");
    }
    let Some(stage) = Stage::set() else { return };
    for fault in ["waitid:error=ECHILD:when=1", "pidfd_open:error=EMFILE:when=1"] {
        let log = std::env::temp_dir().join(format!("tidy-birth-{}", std::process::id()));
        let mut strace = StdCommand::new("strace");
        strace.arg("-o").arg(&log).args(["-e", &format!("inject={fault}")]);
        strace.args(["-e", "trace=kill,tkill,tgkill,waitid,pidfd_open"]).arg(crate::victim::exe());
        stage.mark_std(strace.env(ROLE, "birth"));
        succeeds(&mut strace, fault);
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(log).unwrap();
        assert!(text.contains("(INJECTED)"), "{fault}: {text}");
        assert!(!text.contains("kill("), "{fault}: a number was signalled: {text}");
        stage.assert_clean(fault);
    }
    stage.close(Alone::Yes);
}

/// By fork, the one path on which a pid comes first. What was started is not left.
pub(crate) fn play_birth() {
    let supervisor = Supervisor::builder().guard(false).build().unwrap();
    let mut command = Command::new("sleep");
    command.arg("20").supervisor(&supervisor).env_remove(ROLE).force_join(true);
    let error = command.spawn().unwrap_err();
    assert!(error.to_string().starts_with("fork \"sleep\""), "{error}");
    assert!(error.hint().is_some(), "{error}");
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    assert_eq!(children, "", "a child is left, dead or alive");
    drop(command);
    let mut again = Command::new("true");
    again.supervisor(&supervisor).env_remove(ROLE).force_join(true);
    assert!(again.status().unwrap().success());
}

/// Where SIGCHLD is ignored, and where another thread waits for every child, a status may be lost:
/// that is an error, and neither a hang nor anybody's death.
#[test]
#[serial]
fn a_stolen_status_is_an_error_and_nothing_is_left() {
    let Some(stage) = Stage::set() else { return };
    succeeds(&mut actor(&stage, "ignored-sigchld"), "ignored-sigchld");
    stage.close(Alone::Yes);
}

pub(crate) fn play_ignored() {
    let ignore = |ignored: bool| {
        let disposition = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: both are valid dispositions.
        #[expect(unsafe_code, reason = "there is no safe call for it")]
        unsafe {
            libc::signal(libc::SIGCHLD, disposition)
        };
    };
    let supervisor = Supervisor::global().unwrap();
    let mut bystander = StdCommand::new("sleep");
    #[expect(clippy::zombie_processes, reason = "a thread here waits for every child")]
    let bystander = bystander.arg("60").env_remove(ROLE).stdin(StdStdio::null()).spawn().unwrap();
    let keepers = Supervisor::builder().containment(Containment::Keeper).build().unwrap();
    ignore(true);
    births(&supervisor);
    births(&keepers);
    ignore(false);
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&done);
    let thief = std::thread::spawn(move || {
        while !flag.load(std::sync::atomic::Ordering::Relaxed) {
            let all = nix::sys::wait::WaitPidFlag::WNOHANG;
            let _ = nix::sys::wait::waitpid(None, Some(all));
        }
    });
    births(&supervisor);
    births(&keepers);
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    thief.join().unwrap();
    let pid = nix::unistd::Pid::from_raw(bystander.id().cast_signed());
    nix::sys::signal::kill(pid, None).expect("the bystander was killed");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(pid, None).unwrap();
}

/// On each path: one that lives, one that ends at once, one that never executes.
fn births(supervisor: &Supervisor) {
    for join in [false, true] {
        for program in ["true", "/etc/passwd", "false"] {
            for _ in 0..20 {
                let mut command = Command::new(program);
                match command.supervisor(supervisor).env_remove(ROLE).force_join(join).run() {
                    Ok(report) => assert_eq!(report.status.success(), program == "true"),
                    Err(error) if program == "/etc/passwd" => {
                        let stolen = error.raw_os_error() == Some(libc::ECHILD);
                        assert!(stolen || error.is_not_executable(), "{error}");
                    }
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::ECHILD), "{error}");
                        assert!(error.hint().is_some_and(|hint| hint.contains("SIGCHLD")));
                    }
                }
            }
        }
    }
}
