//! Supervisors that come to a bad end: the test binary plays them when `TIDY_ACTOR` names one.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{Command as StdCommand, Stdio as StdStdio};
use std::time::{Duration, Instant};

use tidy_process::{Child, Command, Containment, Stdio, Supervisor, Tree};

use crate::support::{Stage, read_ready};
use crate::victim;

pub(crate) const ROLE: &str = "TIDY_ACTOR";

/// Set for an actor whose trees have keepers.
pub(crate) const KEPT: &str = "TIDY_ACTOR_KEPT";

/// However a test fails, its actors end by themselves.
const LIFE: Duration = Duration::from_secs(60);

#[ctor::ctor]
fn enter() {
    if let Some(role) = std::env::var_os(ROLE) {
        play(role.to_str().unwrap());
        std::process::exit(0);
    }
}

/// The command that plays a role, below the stage's run root and with its mark.
pub(crate) fn actor(stage: &Stage, role: &str) -> StdCommand {
    let mut command = StdCommand::new(victim::exe());
    stage.mark_std(&mut command);
    command.env(ROLE, role).stdout(StdStdio::piped()).stderr(StdStdio::null());
    command
}

/// The same in a mount namespace of its own, below a tracer if one is given.
pub(crate) fn unshared(stage: &Stage, role: &str, tracer: &[&str]) -> StdCommand {
    let mut command = StdCommand::new("unshare");
    command.args(["-m", "--propagation", "private"]).args(tracer).arg(victim::exe());
    stage.mark_std(&mut command);
    command.env(ROLE, role);
    command
}

fn play(role: &str) {
    match role {
        // As busy as a supervisor gets, for as long as it may.
        "busy" => busy(),
        // Three trees stand, and nothing happens any more.
        "idle" => {
            let held = three_trees(&ground());
            ready();
            std::thread::sleep(LIFE);
            drop(held);
        }
        "light" => {
            let supervisor = ground();
            let mut child = victim(&supervisor, "daemon");
            read_ready(child.stdout.take().unwrap());
            ready();
            std::thread::sleep(LIFE);
            drop(child);
        }
        "abort" => {
            let _held = three_trees(&ground());
            ready();
            std::process::abort();
        }
        "exit" => {
            let held = three_trees(&ground());
            ready();
            std::mem::forget(held);
            std::process::exit(7);
        }
        "panic" => {
            let _held = three_trees(&ground());
            ready();
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        "closed-enroll" => closed(|supervisor| {
            let tree = Tree::within(supervisor, None).unwrap();
            let mut command = StdCommand::new("sh");
            command.args(["-c", "echo x; exec sleep 20"]).env_remove(ROLE);
            tree.enroll(&mut command).unwrap();
            let mut child = command.spawn().unwrap();
            let inside = tree.processes().len() == 1;
            drop(tree);
            child.wait().unwrap();
            inside
        }),
        "closed-spawn" => closed(|supervisor| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo x; exec sleep 20"]).env_remove(ROLE).supervisor(supervisor);
            [false, true].into_iter().all(|join| {
                let child = command.force_join(join).stdin(Stdio::null()).spawn().unwrap();
                child.tree().processes().len() == 1
            })
        }),
        "die-with-parent" => die_with_parent(),
        "closed-crosswise" => crossed(),
        "fork" => fork(),
        "thread" => thread(),
        "many" => many(),
        other => assert!(crate::attacks::play(other), "no role is called {other:?}"),
    }
}

/// Waits for a command that is to end when the parent of this process does.
fn die_with_parent() {
    let held_by = match std::env::var_os(KEPT) {
        None => Containment::Cgroup,
        Some(_) => Containment::Keeper,
    };
    let supervisor = Supervisor::builder().die_with_parent().containment(held_by).build().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "setsid sleep 60 & exec sleep 60"]).env_remove(ROLE);
    let child = command.supervisor(&supervisor).spawn().unwrap();
    ready();
    child.wait().unwrap();
}

/// Keepers, if the environment says so.
fn ground() -> Supervisor {
    match std::env::var_os(KEPT) {
        None => Supervisor::global().unwrap(),
        Some(_) => Supervisor::builder().containment(Containment::Keeper).build().unwrap(),
    }
}

fn ready() {
    nix::unistd::write(std::io::stdout(), b"ready\n").unwrap();
}

fn victim(supervisor: &Supervisor, name: &str) -> Child {
    let mut command = Command::new(victim::exe());
    command.env_remove(ROLE).env("TIDY_VICTIM", name).supervisor(supervisor);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Daemons, a chain and a process without its main thread, all in their state.
fn three_trees(supervisor: &Supervisor) -> Vec<Child> {
    let each = ["daemon", "chain", "dead-leader"].map(|name| {
        let mut child = victim(supervisor, name);
        read_ready(child.stdout.take().unwrap());
        child
    });
    each.into()
}

/// Spawns, waits, tears down and keeps a few, without a pause.
fn busy() {
    let start = Instant::now();
    let supervisor = ground();
    let mut kept = Vec::new();
    ready();
    for round in 0.. {
        let name = ["daemon", "chain", "dead-leader", "plain"][round % 4];
        kept.push(victim(&supervisor, name));
        if kept.len() > 4 {
            let _ = kept.remove(0).finish();
        }
        let mut command = Command::new("true");
        if round % 3 == 0 {
            // Shares this process's table of open files until its exec.
            command.inherit_fds([]);
        }
        let _ = command.supervisor(&supervisor).force_join(round % 2 == 0).run();
        if start.elapsed() > LIFE {
            return;
        }
    }
}

fn close_streams() {
    for fd in 0..3 {
        // SAFETY: nobody in this process uses the streams after this.
        #[expect(unsafe_code, reason = "what a daemon does to its streams")]
        unsafe {
            libc::close(fd)
        };
    }
}

/// Does this with the standard streams closed; the exit status says whether it was right.
fn closed(act: impl Fn(&Supervisor) -> bool) -> ! {
    close_streams();
    let right = act(&ground());
    std::process::exit(if right { 0 } else { 1 })
}

/// As above, by a supervisor whose own fds are above the streams.
fn crossed() -> ! {
    let supervisor = ground();
    close_streams();
    std::process::exit(if crosswise(&supervisor) { 0 } else { 1 })
}

/// A child whose input is this process's fd 1, its output fd 0, and its error output fd 2.
fn crosswise(supervisor: &Supervisor) -> bool {
    let above_two = |(reader, writer): (PipeReader, PipeWriter)| {
        (reader.try_clone().unwrap(), writer.try_clone().unwrap())
    };
    let [input, output, errors] = [(); 3].map(|()| above_two(pipe().unwrap()));
    let lowest = |fd: BorrowedFd<'_>| nix::unistd::dup(fd).unwrap();
    let ((given, mut give), (mut said, says), (mut erred, errs)) = (input, output, errors);
    let fds = [lowest(says.as_fd()), lowest(given.as_fd()), lowest(errs.as_fd())];
    drop((given, says, errs));
    let [zero, one, two] = fds;
    give.write_all(b"given").unwrap();
    drop(give);
    let mut command = Command::new("sh");
    command.args(["-c", "cat; echo erred >&2"]).env_remove(ROLE).supervisor(supervisor);
    let numbers = [zero.as_raw_fd(), one.as_raw_fd(), two.as_raw_fd()];
    command.stdin(one).stdout(zero).stderr(two);
    let ran = command.run().unwrap().status.success();
    drop(command);
    let mut text = [String::new(), String::new()];
    said.read_to_string(&mut text[0]).unwrap();
    erred.read_to_string(&mut text[1]).unwrap();
    ran && numbers == [0, 1, 2] && text == ["given", "erred\n"]
}

/// A fork without exec goes on after its parent, with copies of everything.
fn fork() {
    let held = three_trees(&ground());
    // SAFETY: the copy only sleeps and exits.
    #[expect(unsafe_code, reason = "fork without exec is what is tested")]
    let fork = unsafe { nix::unistd::fork() }.unwrap();
    match fork {
        nix::unistd::ForkResult::Child => {
            // The tester sees by the pipe's end that this copy has gone; it outlives its parent by
            // this long.
            std::thread::sleep(Duration::from_secs(2));
            // SAFETY: ends the copy without dropping anything.
            #[expect(unsafe_code, reason = "fork without exec is what is tested")]
            unsafe {
                libc::_exit(0)
            }
        }
        nix::unistd::ForkResult::Parent { .. } => {
            ready();
            std::thread::sleep(LIFE);
            drop(held);
        }
    }
}

/// The thread that started the guard ends; the process lives on, and so must the guard.
fn thread() {
    let made = std::thread::spawn(|| {
        let supervisor = ground();
        three_trees(&supervisor)
    });
    let held = made.join().unwrap();
    ready();
    std::thread::sleep(LIFE);
    drop(held);
}

/// A thousand trees.
fn many() {
    let supervisor = ground();
    let sleep = || Command::new("sleep").arg("60").supervisor(&supervisor).spawn().unwrap();
    let held: Vec<Child> = (0..1000).map(|_| sleep()).collect();
    ready();
    std::thread::sleep(LIFE);
    drop(held);
}
