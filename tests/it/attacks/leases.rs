//! Who owns a run root: forks of the owner, owners elsewhere, and copies that think they are it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child as StdChild, Command as StdCommand, Stdio as StdStdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, geteuid};
use serial_test::serial;
use tidy_process::{Child, Command, Containment, Supervisor, Tree, list, sweep};

use crate::support::{Alone, SOON, Stage, read_ready, skip, until};
use crate::victim;

const ROLE: &str = "TIDY_LEASE";

#[ctor::ctor]
fn enter() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "fork" => forked_owner(),
        "bare fork" => drop(owner_with_fork()),
        "late" => late(),
        "copy" => copies(CloneFlags::empty(), Containment::Cgroup),
        "copy kept" => copies(CloneFlags::empty(), Containment::Keeper),
        "same pid" => copies(CloneFlags::CLONE_NEWPID, Containment::Cgroup),
        "same pid kept" => copies(CloneFlags::CLONE_NEWPID, Containment::Keeper),
        "daemon" => daemon(),
        _ => unreachable!("{role}"),
    }
    std::process::exit(0);
}

pub(super) fn say(what: &str) {
    let mut rest = format!("{what}\n");
    while !rest.is_empty() {
        let written = nix::unistd::write(std::io::stdout(), rest.as_bytes()).unwrap();
        rest.drain(..written);
    }
}

fn sleeper(supervisor: &Supervisor) -> Child {
    let mut command = Command::new("sleep");
    command.arg("60").env_remove(ROLE).supervisor(supervisor).spawn().unwrap()
}

/// Forks without exec, as `os.fork` does: the copy's pid, and none in the copy.
pub(crate) fn fork() -> Option<Pid> {
    // SAFETY: what the copy does needs no lock that another thread may hold: there is one thread
    // here, or the others are asleep.
    #[expect(unsafe_code, reason = "fork without exec is what is tested")]
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    }
}

/// Ends a copy without running anything.
pub(crate) fn end_copy() -> ! {
    // SAFETY: nothing follows.
    #[expect(unsafe_code, reason = "as above")]
    unsafe {
        libc::_exit(0)
    }
}

/// Its fork lives until the tester says so, and holds what the owner held.
fn owner_with_fork() -> (Supervisor, Child) {
    let supervisor = Supervisor::builder().build().unwrap();
    let child = sleeper(&supervisor);
    if fork().is_none() {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end_copy();
    }
    say("ready");
    std::thread::sleep(SOON);
    (supervisor, child)
}

/// From a thread, beside a second fork: as a threaded Python program does.
fn forked_owner() {
    let made = std::thread::spawn(owner_with_fork);
    let _ = made.join();
}

/// The main thread has ended before the supervisor is made.
fn late() {
    let leader = std::process::id();
    std::thread::spawn(move || {
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{leader}/stat")).unwrap();
            stat.rsplit(") ").next().unwrap().chars().next()
        };
        assert!(until(SOON, || state() == Some('Z')), "the main thread lives");
        let made = Supervisor::builder().build();
        let said = made.map(|made| {
            let ran = Command::new("true").env_remove(ROLE).supervisor(&made).run();
            let roots = list(made.path().unwrap().parent()).unwrap();
            let lives =
                roots.iter().any(|root| Some(&*root.path) == made.path() && root.owner_lives);
            format!("{} {lives}", ran.unwrap().status.success())
        });
        say(&said.unwrap_or_else(|error| error.to_string()));
        std::process::exit(0);
    });
    // SAFETY: ends this thread alone; nothing of it is used by the other.
    #[expect(unsafe_code, reason = "a process without its main thread is what is tested")]
    unsafe {
        libc::syscall(libc::SYS_exit, 0)
    };
}

/// What a copy can do with its parent's handles; the parent's tree must not notice.
fn copies(flags: CloneFlags, containment: Containment) {
    let build = || Supervisor::builder().containment(containment).build().unwrap();
    let supervisor = build();
    let child = sleeper(&supervisor);
    let detached = sleeper(&supervisor);
    let detached_pid = Pid::from_raw(detached.id().cast_signed());
    detached.detach();
    let idle = (containment == Containment::Cgroup).then(|| Tree::within(&supervisor, None));
    let idle = idle.map(Result::unwrap);
    let global = Supervisor::global().map(|global| global.path().unwrap().to_owned());
    unshare(flags).unwrap();
    let me = std::process::id();
    let Some(copy) = fork() else {
        assert_eq!(std::process::id() == me, flags == CloneFlags::CLONE_NEWPID);
        let mut said = Vec::new();
        let mut note = |what: &str, error: Option<tidy_process::Error>| {
            let text = error.map_or("no error".to_owned(), |error| format!("{error:?}"));
            said.push(format!("{what}: {}", text.replace('\n', "; ")));
        };
        let mut command = Command::new("sleep");
        command.arg("60").env_remove(ROLE).supervisor(&supervisor);
        note("spawn", command.spawn().err());
        note("tree", Tree::within(&supervisor, None).err());
        note("finish", child.finish().err());
        note("close", supervisor.close().err());
        drop((command, idle, child, supervisor));
        // Of its own it may have all.
        let own = Supervisor::global().map(|own| own.path() != Some(&*global.unwrap()));
        said.push(format!("global: {own:?}"));
        Supervisor::global().unwrap().close().unwrap();
        say(&said.join("\n"));
        end_copy();
    };
    nix::sys::wait::waitpid(copy, None).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{detached_pid}/stat")).unwrap();
    let lives = child.try_wait().unwrap().is_none() && !stat.contains(") Z ");
    say(&format!("tree lives: {lives}"));
    drop(child);
    Supervisor::global().unwrap().close().unwrap();
}

/// Forks and ends, as libraries do that make a daemon; what goes on is the copy.
fn daemon() {
    let supervisor = Supervisor::builder().build().unwrap();
    let child = sleeper(&supervisor);
    let path = supervisor.path().unwrap().to_owned();
    if fork().is_none() {
        let gone = until(SOON, || !path.exists());
        let mut command = Command::new("true");
        command.env_remove(ROLE);
        let own = command.run().map(|report| report.status.success());
        let error = command.supervisor(&supervisor).run().unwrap_err();
        say(&format!("gone: {gone}\nown: {own:?}\nhandle: {error}"));
        drop((child, command, supervisor));
    }
    end_copy();
}

/// A role below the stage's run root; its standard input is what holds its forks.
fn actor(stage: &Stage, role: &str) -> StdCommand {
    actor_of(stage, ROLE, role)
}

pub(super) fn actor_of(stage: &Stage, variable: &str, role: &str) -> StdCommand {
    let mut command = StdCommand::new(victim::exe());
    stage.mark_std(&mut command);
    command.env(variable, role).stdin(StdStdio::piped()).stdout(StdStdio::piped());
    command
}

/// The child of any thread of the owner that leads a session.
fn guard_of(owner: &StdChild) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", owner.id())).unwrap().flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap());
    let children = children.collect::<String>();
    let mut pids = children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()));
    pids.find(|pid| nix::unistd::getsid(Some(*pid)) == Ok(*pid)).unwrap()
}

/// The owner is killed together with its guard.
fn kill_with_guard(owner: &mut StdChild) {
    kill(guard_of(owner), Signal::SIGKILL).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
}

#[test]
#[serial]
fn a_fork_of_a_dead_owner_keeps_nobody_from_sweeping() {
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap();
    for role in ["fork", "bare fork"] {
        let mut owner = actor(&stage, role).spawn().unwrap();
        read_ready(owner.stdout.take().unwrap());
        let stdin = owner.stdin.take();
        let lives = || list(Some(base)).unwrap().iter().all(|root| root.owner_lives);
        assert!(lives() && sweep(Some(base), false).unwrap().is_empty(), "the owner lives");
        kill_with_guard(&mut owner);
        assert!(!stage.alive().is_empty(), "the fork lives");
        assert!(!lives(), "{role}: the dead owner is shown as alive");
        assert_eq!(sweep(Some(base), true).unwrap().len(), 1, "{role}");
        let swept = sweep(Some(base), false).unwrap();
        assert!(swept.len() == 1 && matches!(swept[0].removed, Ok(true)), "{role}: {swept:?}");
        assert_eq!(stage.cgroups(), 0);
        drop(stdin);
        assert!(until(SOON, || stage.alive().is_empty()), "{:?}", stage.alive());
    }
    stage.close(Alone::Yes);
}

/// So does one that nobody has waited for yet.
#[test]
#[serial]
fn an_owner_that_is_a_zombie_is_dead() {
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap();
    let mut owner = actor(&stage, "fork").spawn().unwrap();
    read_ready(owner.stdout.take().unwrap());
    let stdin = owner.stdin.take();
    kill(guard_of(&owner), Signal::SIGKILL).unwrap();
    owner.kill().unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", owner.id())).unwrap();
    assert!(until(SOON, || stat().contains(") Z ")));
    assert!(until(SOON, || sweep(Some(base), false).unwrap().len() == 1));
    owner.wait().unwrap();
    drop(stdin);
    assert!(until(SOON, || stage.alive().is_empty()), "{:?}", stage.alive());
    stage.close(Alone::Yes);
}

/// A new supervisor beside it tidies as well.
#[test]
#[serial]
fn the_next_supervisor_removes_what_a_fork_holds() {
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap();
    let mut owner = actor(&stage, "fork").spawn().unwrap();
    read_ready(owner.stdout.take().unwrap());
    let stdin = owner.stdin.take();
    kill_with_guard(&mut owner);
    assert_eq!(stage.cgroups(), 1);
    drop(Supervisor::builder().base(base).build().unwrap());
    assert_eq!(stage.cgroups(), 0);
    drop(stdin);
    assert!(until(SOON, || stage.alive().is_empty()), "{:?}", stage.alive());
    stage.close(Alone::Yes);
}

/// Its pid says nothing here: here that number is another's.
#[test]
#[serial]
fn an_owner_in_another_pid_namespace_is_never_taken_for_dead() {
    if !geteuid().is_root() {
        return skip("only root can make a pid namespace");
    }
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap();
    for mounts in [&["--mount-proc"][..], &[]] {
        let mut command = StdCommand::new("unshare");
        stage.mark_std(command.env(ROLE, "fork").args(["-p", "-f", "--kill-child"]));
        command.args(mounts).arg(victim::exe());
        command.stdin(StdStdio::piped()).stdout(StdStdio::piped());
        let mut owner = command.spawn().unwrap();
        read_ready(owner.stdout.take().unwrap());
        assert!(list(Some(base)).unwrap().iter().all(|root| root.owner_lives), "{mounts:?}");
        assert_eq!(sweep(Some(base), false).unwrap().len(), 0, "{mounts:?}");
        drop(Supervisor::builder().base(base).build().unwrap());
        assert_eq!(stage.cgroups(), 1, "{mounts:?}");
        owner.kill().unwrap();
        owner.wait().unwrap();
        // Its guard was in the namespace, and has gone with it.
        let gone = || sweep(Some(base), false).is_ok() && stage.cgroups() == 0;
        assert!(until(SOON, gone), "{mounts:?}");
        assert!(until(SOON, || stage.alive().is_empty()), "{:?}", stage.alive());
    }
    stage.close(Alone::Yes);
}

/// A record that anybody has written is no reason to kill a living owner's trees, nor to trust a
/// dead one.
#[test]
#[serial]
fn a_record_that_says_nonsense_is_passed_over() {
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap();
    let supervisor = Supervisor::builder().base(base).build().unwrap();
    let child = sleeper(&supervisor);
    for record in ["", "x", "0 0 0 0", "-1 1 1 1", "99999999999999999999 1", "1 2 3", "\u{0}\u{1}"]
    {
        let mut set = StdCommand::new("python3");
        let script = "import os, sys; os.setxattr(sys.argv[1], 'user.tidy-process', \
            bytes.fromhex(sys.argv[2]))";
        let hex: String = record.bytes().map(|byte| format!("{byte:02x}")).collect();
        let status =
            set.args(["-c", script]).arg(supervisor.path().unwrap()).arg(hex).status().unwrap();
        assert!(status.success());
        assert_eq!(sweep(Some(base), false).unwrap().len(), 0, "{record:?}");
        assert_eq!(child.try_wait().unwrap(), None, "{record:?}");
    }
    drop((child, supervisor));
    stage.close(Alone::Yes);
}

pub(super) fn lines(mut child: StdChild) -> Vec<String> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let said = stdout.lines().map(Result::unwrap).collect();
    drop(child.stdin.take());
    child.wait().unwrap();
    said
}

fn assert_copy(said: &[String]) {
    let told = |what: &str| said.iter().find(|line| line.starts_with(what)).unwrap();
    for what in ["spawn: ", "tree: ", "finish: ", "close: "] {
        let line = told(what);
        let kept = what == "tree: " && line.contains("needs a cgroup");
        assert!(kept || line.contains("is a fork of the one that"), "{said:#?}");
    }
    assert!(told("spawn: ").contains("hint: make a supervisor"), "{said:#?}");
    assert_eq!(told("global: "), "global: Ok(true)", "{said:#?}");
    assert_eq!(told("tree lives: "), "tree lives: true", "{said:#?}");
}

#[test]
#[serial]
fn a_forked_copy_gets_clear_errors_and_ends_nothing() {
    let Some(stage) = Stage::set() else { return };
    assert_copy(&lines(actor(&stage, "copy").spawn().unwrap()));
    stage.assert_clean("a copy");
    let said = lines(actor(&stage, "copy kept").spawn().unwrap());
    assert_copy(&said);
    stage.close(Alone::Yes);
}

/// It has the parent's pid, in a pid namespace of its own.
#[test]
#[serial]
fn a_forked_copy_with_the_same_pid_ends_nothing() {
    if !geteuid().is_root() {
        return skip("only root can make a pid namespace");
    }
    let Some(stage) = Stage::set() else { return };
    for role in ["same pid", "same pid kept"] {
        let mut command = StdCommand::new("unshare");
        stage.mark_std(command.env(ROLE, role).args(["-p", "-f", "--mount-proc"]));
        command.arg(victim::exe()).stdin(StdStdio::piped()).stdout(StdStdio::piped());
        let said = lines(command.spawn().unwrap());
        let told = |what: &str| said.iter().any(|line| line.starts_with(what));
        assert!(told("spawn: ") && said.last().unwrap() == "tree lives: true", "{role}: {said:#?}");
        if role == "same pid" {
            assert_copy(&said);
        }
        stage.assert_clean(role);
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn what_a_daemon_inherits_is_gone_and_says_so() {
    let Some(stage) = Stage::set() else { return };
    let said = lines(actor(&stage, "daemon").spawn().unwrap());
    assert_eq!(said[..2], ["gone: true", "own: Ok(true)"], "{said:#?}");
    assert!(said[2].contains("is a fork of the one that"), "{said:#?}");
    assert!(until(SOON, || stage.alive().is_empty() && stage.cgroups() == 0));
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_supervisor_can_be_made_after_the_main_thread_has_ended() {
    let Some(stage) = Stage::set() else { return };
    assert_eq!(lines(actor(&stage, "late").spawn().unwrap()), ["true true"]);
    // And with no variable, from where it stands.
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    let mut command = actor(&stage, "late");
    tree.enroll(command.env_remove("TIDY_PROCESS_PARENT")).unwrap();
    assert_eq!(lines(command.process_group(0).spawn().unwrap()), ["true true"]);
    drop(command);
    assert_eq!(tree.finish().unwrap().leftovers.len(), 0);
    drop(tree);
    stage.close(Alone::Yes);
}
