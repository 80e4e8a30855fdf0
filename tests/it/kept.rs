//! What the owner of a keeper sees when something goes wrong between the two.

use std::fs;
use std::os::fd::AsFd;
use std::process::Command as StdCommand;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, Uid, geteuid};
use serial_test::serial;
use tidy_process::{Cause, Child, Containment, Mechanism, Stdio, Supervisor};

use crate::keeper::{keeper, keepers_of};
use crate::support::{Alone, SOON, Stage, lacks, skip, until};

/// Fails instead of hanging; what hangs is left.
pub(crate) fn in_time<T: Send + 'static>(
    what: &str,
    act: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (said, heard) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(said.send(act())));
    let answer = heard.recv_timeout(SOON).unwrap_or_else(|error| panic!("{what}: {error}"));
    thread.join().unwrap();
    answer
}

pub(crate) fn stop(pid: Pid) {
    kill(pid, Signal::SIGSTOP).unwrap();
    let start = Instant::now();
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    while !state().contains(") T ") {
        assert!(start.elapsed() < SOON, "{}", state());
        // Nothing announces that somebody else's child has stopped.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Who could say how the main process ended is stopped: deadlines and timeouts hold all the same.
#[test]
#[serial]
fn a_stopped_keeper_keeps_no_wait_from_its_deadline() {
    let Some(stage) = Stage::of_keepers() else { return };
    for timeout in [None, Some(Duration::from_millis(300))] {
        let mut command = stage.command("cat");
        timeout.map(|timeout| command.timeout(timeout));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        stop(keeper());
        drop(child.stdin.take());
        let report = in_time("wait and finish", move || {
            assert_eq!(child.wait_timeout(Duration::from_millis(20)).unwrap(), None);
            assert_eq!(child.try_wait().unwrap(), None);
            if timeout.is_some() {
                assert_eq!(child.wait().unwrap().code(), Some(0));
            }
            child.finish().unwrap()
        });
        assert_eq!(report.status.code(), Some(0));
        stage.assert_clean(&format!("{timeout:?}"));
    }
    stage.close(Alone::Yes);
}

/// Whether its main process ends soon.
fn ends(child: &Child) -> bool {
    let mut end = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
    poll(&mut end, 5000u16) == Ok(1)
}

/// The main process has ended, whether or not its keeper has said so.
#[test]
#[serial]
fn leftovers_are_named_though_the_keeper_is_late() {
    let Some(stage) = Stage::of_keepers() else { return };
    let mut command = stage.sh("setsid sleep 20 & read x; exit 4");
    command.grace(SOON).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    stop(keeper());
    drop(child.stdin.take());
    drop(command);
    assert!(ends(&child));
    let report = in_time("finish", move || child.finish().unwrap());
    assert_eq!((report.status.code(), report.cause), (Some(4), Cause::Exited));
    assert_eq!(report.leftovers.len(), 1);
    stage.close(Alone::Yes);
}

/// A change of user unties a process from its parent (`PR_SET_PDEATHSIG`).
#[test]
#[serial]
fn a_main_process_of_another_user_dies_with_its_keeper_too() {
    let Some(stage) = Stage::of_keepers() else { return };
    if !geteuid().is_root() {
        return lacks("users", "only root can change users");
    }
    let become_nobody = || nix::unistd::setuid(Uid::from_raw(65534)).map_err(Into::into);
    for by in ["user", "group", "groups", "closure"] {
        let mut command = stage.command("sleep");
        if by == "closure" {
            // SAFETY: one system call; this process has a single thread then.
            #[expect(unsafe_code, reason = "pre_exec")]
            unsafe {
                command.pre_exec(become_nobody)
            };
        }
        match by {
            "user" => drop(command.uid(65534)),
            "group" => drop(command.gid(65534)),
            "groups" => drop(command.groups(&[65534])),
            _ => {}
        }
        let child = command.arg("20").spawn().unwrap();
        kill(keeper(), Signal::SIGKILL).unwrap();
        assert!(ends(&child), "it lives on, by {by}");
        assert!(child.finish().unwrap_err().is_keeper_lost());
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_lost_keeper_of_a_detached_tree_is_buried_with_its_supervisor() {
    let Some(stage) = Stage::of_keepers() else { return };
    let supervisor = Supervisor::builder().containment(Containment::Keeper).build().unwrap();
    stage.command("sleep").arg("20").supervisor(&supervisor).spawn().unwrap().detach();
    kill(keeper(), Signal::SIGKILL).unwrap();
    drop(supervisor);
    assert_eq!(keepers_of(std::process::id()), [], "keepers are left, dead or alive");
    // The kernel kills the main process, and nobody waits for that.
    assert!(until(SOON, || stage.alive().is_empty()));
    stage.close(Alone::Yes);
}

/// A caller that reaps every child takes the keeper's number from it, and somebody else gets that.
#[test]
#[serial]
fn a_stranger_with_the_keepers_pid_is_not_taken_for_it() {
    let Some(stage) = Stage::of_keepers() else { return };
    if !geteuid().is_root() {
        return lacks("users", "only root says which pid is next");
    }
    let child = stage.command("sleep").arg("20").spawn().unwrap();
    let keeper = keeper();
    kill(keeper, Signal::SIGKILL).unwrap();
    waitpid(keeper, None).unwrap();
    for _ in 0..100 {
        let before = (keeper.as_raw() - 1).to_string();
        if let Err(error) = fs::write("/proc/sys/kernel/ns_last_pid", before) {
            // A container's view of /proc/sys.
            drop(child);
            return skip(&format!("nothing here says which pid is next: ns_last_pid: {error}"));
        }
        let mut stranger = StdCommand::new("sh");
        stranger.args(["-c", "sleep 20 & echo ready; read x; kill $!"]);
        stranger.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut stranger = stranger.spawn().unwrap();
        crate::support::read_ready(stranger.stdout.take().unwrap());
        let same = stranger.id() == keeper.as_raw().cast_unsigned();
        let seen = (child.tree().processes().len(), child.tree().signal(0).unwrap());
        drop(stranger.stdin.take());
        stranger.wait().unwrap();
        if same {
            assert_eq!(seen, (0, 0), "the stranger's child is seen, or signalled");
            assert!(child.finish().unwrap_err().is_keeper_lost());
            drop(child);
            return stage.close(Alone::Yes);
        }
    }
    panic!("nobody got pid {keeper}");
}

/// Makes a system call fail for this thread and what it starts, as a seccomp filter in a container
/// or an old kernel does.
#[expect(unsafe_code, reason = "a seccomp filter")]
#[expect(clippy::cast_possible_truncation, reason = "the codes of BPF fit")]
pub(crate) fn refuse(call: libc::c_long, errno: Errno) {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut steps = [
        step(load, 0, 0),
        step(jump, 1, u32::try_from(call).unwrap()),
        step(answer, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(answer, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).unwrap();
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: a program of four steps that lives across the call.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) }).unwrap();
}

/// Containers without cgroups have these filters too.
#[test]
#[serial]
fn what_a_seccomp_filter_refuses_is_done_in_another_way() {
    let Some(stage) = Stage::of_keepers() else { return };
    use libc::{SYS_clone3, SYS_close_range, SYS_execveat};
    let refused = [
        (SYS_execveat, Errno::EACCES),
        (SYS_execveat, Errno::ENOSYS),
        (SYS_clone3, Errno::ENOSYS),
        (SYS_clone3, Errno::EPERM),
        (SYS_clone3, Errno::EINVAL),
        (SYS_close_range, Errno::ENOSYS),
        (SYS_close_range, Errno::EPERM),
    ];
    for (call, errno) in refused {
        // A supervisor tries what was refused no more.
        let supervisor = Supervisor::builder().containment(Containment::Keeper).build().unwrap();
        let mut command = stage.command("cat");
        command.supervisor(&supervisor);
        let status = in_time(&format!("call {call}: {errno}"), move || {
            refuse(call, errno);
            let start = Instant::now();
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            // One close for each number that there could be takes longer.
            assert!(start.elapsed() < Duration::from_millis(150), "{:?}", start.elapsed());
            let fds = || fs::read_dir(format!("/proc/{}/fd", keeper())).unwrap().count();
            // It may be reading a file just now.
            assert!(until(SOON, || fds() == 3), "{} fds", fds());
            drop(child.stdin.take());
            assert!(child.wait_timeout(SOON).unwrap().is_some(), "its input does not end");
            child.finish().unwrap().status
        });
        assert_eq!(status.code(), Some(0));
        stage.assert_clean(&format!("call {call}: {errno}"));
    }
    stage.close(Alone::Yes);
}

/// The main process waits for its keeper's exec: where that fails it has not run.
#[test]
#[serial]
fn a_command_whose_keeper_cannot_be_executed_runs_once() {
    let Some(stage) = Stage::of_keepers() else { return };
    let supervisor = Supervisor::builder().containment(Containment::Keeper).build().unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    let mut command = stage.sh("echo ran");
    command.supervisor(&supervisor).stdout(std::os::fd::OwnedFd::from(write));
    in_time("two runs", move || {
        refuse(libc::SYS_execveat, Errno::EPERM);
        for _ in 0..2 {
            assert_eq!(command.run().unwrap().status.code(), Some(0));
        }
    });
    let mut said = String::new();
    std::io::Read::read_to_string(&mut read, &mut said).unwrap();
    assert_eq!(said, "ran\nran\n");
    drop((supervisor, read));
    stage.close(Alone::Yes);
}

/// What refuses a guard its place refuses it for good.
#[test]
#[serial]
fn best_effort_is_a_keeper_where_a_seccomp_filter_refuses_the_guard() {
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap().to_owned();
    let mechanism = in_time("build", move || {
        refuse(libc::SYS_close_range, Errno::EPERM);
        let best = Supervisor::builder().containment(Containment::BestEffort);
        best.base(base).build().unwrap().mechanism()
    });
    assert_eq!(mechanism, Mechanism::Keeper);
    // What may pass by itself is an error.
    let base = stage.supervisor.path().unwrap().to_owned();
    let build = in_time("build", move || {
        refuse(libc::SYS_close_range, Errno::EAGAIN);
        Supervisor::builder().containment(Containment::BestEffort).base(base).build().map(drop)
    });
    assert!(build.unwrap_err().to_string().contains("EAGAIN"));
    stage.close(Alone::Yes);
}

/// What a seccomp filter of an old container refuses, by the kernel's own entry.
#[cfg(feature = "cli")]
fn without(stage: &Stage, calls: &str, args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new("strace");
    let inject = format!("inject={calls}:error=EPERM");
    command.args(["-f", "-o", "/dev/null", "-e", &inject, crate::support::tool(), "run"]);
    stage.mark_std(command.args(["--containment", "keeper"]).args(args));
    command
}

#[cfg(feature = "cli")]
#[test]
#[serial]
fn a_keeper_works_where_pidfd_open_is_refused() {
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing: install the package strace");
    }
    let Some(stage) = Stage::of_keepers() else { return };
    let leaves = "setsid sleep 60 & sh -c 'sleep 60 & sleep 60' & exit 3";
    let cleans = "trap 'echo cleaned; exit 9' TERM; sleep 60 & wait";
    for calls in ["pidfd_open", "pidfd_open,clone3", "pidfd_open,pidfd_send_signal"] {
        let output = without(&stage, calls, &["sh", "-c", leaves]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{calls}: {said}");
        assert!(said.contains("leftover process"), "{calls}: {said}");
        stage.assert_clean(calls);
        let args = ["-t", "0.3", "-k", "0.5", "sh", "-c", cleans];
        let output = without(&stage, calls, &args).output().unwrap();
        assert_eq!(output.status.code(), Some(124), "{calls}: {output:?}");
        let is_told = !calls.contains("send");
        assert_eq!(output.stdout == b"cleaned\n", is_told, "{calls}: {output:?}");
        stage.assert_clean(calls);
    }
    let output = without(&stage, "pidfd_open", &["flsk"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    stage.close(Alone::No);
}

/// The keeper learns of its owner's end all the same.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn a_keeper_without_pidfd_open_outlives_its_owner_to_kill() {
    use std::os::unix::process::CommandExt;
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing: install the package strace");
    }
    let Some(stage) = Stage::of_keepers() else { return };
    let script = "echo $PPID; echo ready; setsid sleep 60 & exec sleep 60";
    let mut command = without(&stage, "pidfd_open", &["sh", "-c", script]);
    let mut strace = command.stdout(std::process::Stdio::piped()).process_group(0).spawn().unwrap();
    crate::support::read_ready(strace.stdout.take().unwrap());
    let group = Pid::from_raw(strace.id().cast_signed());
    nix::sys::signal::killpg(group, Signal::SIGKILL).unwrap();
    strace.wait().unwrap();
    let gone = until(SOON, || stage.alive().is_empty());
    assert!(gone, "{:?} are left", stage.alive());
    stage.close(Alone::No);
}

/// The leader of the command's process group stays: an orphaned group with a stopped member gets
/// SIGHUP.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn a_command_that_stops_at_once_is_not_hung_up() {
    let Some(stage) = Stage::of_keepers() else { return };
    let script = "(sleep .3; kill -CONT $$; sleep .1; kill -CONT $$) & kill -STOP $$; exit 5";
    for _ in 0..crate::support::rounds(20, 200) {
        let mut tool = StdCommand::new("setsid");
        let args = ["run", "-q", "--containment", "keeper", "sh", "-c", script];
        stage.mark_std(tool.args(["--wait", crate::support::tool()]).args(args));
        let status = tool.stdin(std::process::Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(5));
    }
    stage.close(Alone::No);
}

/// As where the limit of fds is reached just then. Its main process has started others by that
/// time, which would be left if the keeper ended.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn a_keeper_that_cannot_send_a_pidfd_kills_what_it_has_started() {
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing: install the package strace");
    }
    let Some(stage) = Stage::of_keepers() else { return };
    let mut command = StdCommand::new("strace");
    let fails = "inject=sendmsg:error=EMFILE:delay_enter=400000";
    command.args(["-f", "-o", "/dev/null", "-e", "inject=pidfd_open:error=EPERM", "-e", fails]);
    command.args([crate::support::tool(), "run", "--containment", "keeper", "sh", "-c"]);
    stage.mark_std(command.arg("setsid sleep 60 & exec sleep 60"));
    let start = Instant::now();
    let output = command.output().unwrap();
    // strace waits for what is left.
    assert!(start.elapsed() < SOON, "something ended by itself");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("Too many open files"), "{said}");
    stage.assert_clean("after the error");
    stage.close(Alone::No);
}
