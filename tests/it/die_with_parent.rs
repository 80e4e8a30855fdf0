//! `--die-with-parent`: the tool ends when what has started it does.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serial_test::serial;

use crate::conduct::said;
use crate::support::{Alone, SOON, Stage, read_ready, skip, tool, until};

/// Each subcommand with a command that says `ready` and sleeps; what holds the tree.
const ALL: [&[&str]; 6] = [
    &["run", "-k", "0"],
    &["run", "-k", "0", "--containment", "keeper"],
    &["run", "-k", "0", "--force-join"],
    &["with", "-k", "0", "--server", "sleep 60"],
    &["pool", "-k", "0", "-u"],
    &["pool", "-k", "0", "-u", "--containment", "keeper"],
];

const READY: &str = "setsid sleep 60 & echo ready; exec sleep 60";

fn words<'a>(start: &[&'a str], flags: &[&'a str]) -> Vec<&'a str> {
    let mut words = start.to_vec();
    words.splice(1..1, flags.iter().copied());
    match start[0] {
        "pool" => words.extend(["--", "sh", "-c", READY, ":::", "1"]),
        _ => words.extend(["--", "sh", "-c", READY]),
    }
    words
}

/// A shell that starts the tool and waits for it, once the command has said `ready`.
fn middle(stage: &Stage, words: &[&str]) -> Child {
    let mut shell = Command::new("sh");
    stage.mark_std(shell.args(["-c", "\"$@\" & wait", "sh", tool()]).args(words));
    let mut shell = shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    read_ready(shell.stdout.take().unwrap());
    shell
}

fn end(mut process: Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
#[serial]
fn it_ends_when_its_parent_is_killed() {
    for start in ALL {
        let Some(stage) = Stage::set() else { return };
        end(middle(&stage, &words(start, &["--die-with-parent"])));
        assert!(until(SOON, || stage.alive().is_empty()), "{start:?}: {:?}", stage.alive());
        assert!(until(SOON, || stage.cgroups() == 0), "{start:?}");
        stage.close(Alone::Yes);
    }
}

#[test]
#[serial]
fn without_it_the_tool_outlives_its_parent() {
    let Some(stage) = Stage::set() else { return };
    end(middle(&stage, &words(ALL[0], &[])));
    // Time to end wrongly: nothing announces that it does not.
    std::thread::sleep(Duration::from_millis(200));
    let alive = stage.alive();
    assert!(alive.len() >= 3, "{alive:?}");
    for pid in alive {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGTERM,
        );
    }
    assert!(until(SOON, || stage.alive().is_empty() && stage.cgroups() == 0));
    stage.close(Alone::Yes);
}

/// What PR_SET_PDEATHSIG gets wrong, shown beside it.
#[test]
#[serial]
#[expect(unsafe_code, reason = "the control asks for a signal at the thread's end")]
fn the_end_of_a_thread_of_the_parent_is_not_the_parents() {
    let Some(stage) = Stage::set() else { return };
    let mut control = Command::new("sleep");
    stage.mark_std(control.arg("60"));
    // SAFETY: prctl(2) is async-signal-safe.
    unsafe {
        control.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(Into::into)
        })
    };
    let mut ours = stage.tool(&words(ALL[0], &["--die-with-parent"]));
    ours.stdin(Stdio::null()).stdout(Stdio::piped());
    let thread = std::thread::spawn(move || {
        let mut ours = ours.spawn().unwrap();
        let control = control.spawn().unwrap();
        read_ready(ours.stdout.take().unwrap());
        (ours, control)
    });
    let (mut ours, mut control) = thread.join().unwrap();
    assert_eq!(control.wait().unwrap().signal(), Some(9), "the thread's end was not seen");
    // Time to end wrongly: nothing announces that it does not.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(ours.try_wait().unwrap(), None);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(ours.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(ours.wait().unwrap().signal(), Some(15));
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn it_ends_by_the_signal_that_the_end_stands_for() {
    let Some(stage) = Stage::set() else { return };
    let script = "\"$@\" & echo $!; wait";
    let mut shell = Command::new("sh");
    let inner = "trap 'echo asked' TERM; echo ready; sleep 60 & wait; wait";
    let flags = ["run", "--die-with-parent", "-k", "0.3", "--", "sh", "-c", inner];
    stage.mark_std(shell.args(["-c", script, "sh", tool()]).args(flags));
    let (reader, writer) = std::io::pipe().unwrap();
    let said_by_tool = writer.try_clone().unwrap();
    shell.stdin(Stdio::null()).stdout(writer).stderr(said_by_tool);
    let mut shell_child = shell.spawn().unwrap();
    drop(shell);
    let reader = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
    read_ready(reader.try_clone().unwrap());
    let pid = shell_child.id();
    shell_child.kill().unwrap();
    shell_child.wait().unwrap();
    let text = std::io::read_to_string(reader).unwrap();
    assert!(text.contains(&format!("the parent, process {pid}, has ended")), "{text}");
    assert!(text.contains("asked"), "{text}");
    assert!(until(SOON, || stage.alive().is_empty()));
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_parent_that_has_ended_before_is_a_status_of_its_own() {
    let Some(stage) = Stage::set() else { return };
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let flag = format!("--die-with-parent={}", gone.id());
    for start in ["run", "with", "pool"] {
        let server: &[&str] = if start == "with" { &["--server", "sleep 60"] } else { &[] };
        let mut command = stage.tool(&[start, &flag]);
        command.args(server).args(["--", "echo", "started"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(122), "{start}: {}", said(&output));
        let text = said(&output);
        assert!(text.contains(&format!("die with process {}: it has ended", gone.id())), "{text}");
        assert!(!text.contains("started\n"), "{start}: {text}");
    }
    let mine = format!("--die-with-parent={}", std::process::id());
    let output = stage.tool(&["run", &mine, "--", "echo", "started"]).output().unwrap();
    assert_eq!(output.stdout, b"started\n", "{}", said(&output));
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_parent_outside_the_pid_namespace_is_an_error_that_says_so() {
    let Some(stage) = Stage::set() else { return };
    let mut command = Command::new("unshare");
    let words = ["--pid", "--fork", tool(), "run", "--die-with-parent", "--", "echo", "started"];
    stage.mark_std(command.args(words));
    let output = command.stdin(Stdio::null()).output().unwrap();
    if output.status.code() == Some(1) {
        skip("unshare is refused: no process has a parent outside of its pid namespace");
    } else {
        assert_eq!(output.status.code(), Some(125), "{}", said(&output));
        let text = said(&output);
        assert!(
            text.contains("die with the parent: it is outside of this pid namespace"),
            "{text}"
        );
        assert!(text.contains("hint: ") && !text.contains("started\n"), "{text}");
    }
    stage.close(Alone::Yes);
}

/// What sshd is to a command: it starts the leader of a session, which stays between.
fn behind_a_session(stage: &Stage, flag: &str) -> Child {
    let mut far = Command::new("sh");
    // In a group of its own, so that setsid(1) has no reason to fork.
    far.args(["-c", "setsid sh -c '\"$@\"; :' sh \"$@\" & wait", "sh", tool()]);
    stage.mark_std(far.args(words(ALL[0], &[flag])).process_group(0));
    let mut far = far.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    read_ready(far.stdout.take().unwrap());
    far
}

#[test]
#[serial]
fn it_ends_with_what_has_started_its_session() {
    let Some(stage) = Stage::set() else { return };
    end(behind_a_session(&stage, "--die-with-parent=session"));
    // The session's leader waits for the tool, and is told nothing itself.
    assert!(until(SOON, || stage.alive().is_empty()), "{:?}", stage.alive());
    assert!(until(SOON, || stage.cgroups() == 0));
    end(behind_a_session(&stage, "--die-with-parent"));
    // Time to end wrongly: nothing announces that it does not.
    std::thread::sleep(Duration::from_millis(200));
    assert!(stage.alive().len() >= 4, "the leader of the session is the parent, and lives");
    for pid in stage.alive() {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }
    assert!(until(SOON, || stage.alive().is_empty() && stage.cgroups() == 0));
    stage.close(Alone::Yes);
}

/// In a pid namespace: its first process is the parent of every orphan.
#[test]
#[serial]
fn an_orphan_is_told_from_a_child() {
    let Some(stage) = Stage::set() else { return };
    let between = "setsid sh -c '\"$@\"; exit $?' sh";
    let cases = [
        ("setsid", "--die-with-parent", 122),
        ("setsid", "--die-with-parent=session", 122),
        ("setsid", "--die-with-parent=1", 0),
        // The parent is there, and an orphan itself.
        (between, "--die-with-parent=session", 122),
        (between, "--die-with-parent", 0),
        // A script that is the first process of a container.
        ("", "--die-with-parent", 0),
        ("", "--die-with-parent=session", 0),
    ];
    for (before, flag, status) in cases {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "sh", "-c"]);
        command.arg(format!("{before} \"$@\" & wait $!"));
        command.args(["sh", tool(), "run", flag, "--", "echo", "started"]);
        stage.mark_std(&mut command);
        let output = command.stdin(Stdio::null()).output().unwrap();
        if output.status.code() == Some(1) {
            skip("unshare is refused: no pid namespace to be an orphan in");
            break;
        }
        let text = said(&output);
        assert_eq!(output.status.code(), Some(status), "{before} {flag}: {text}");
        let started: &[u8] = if status == 0 { b"started\n" } else { b"" };
        assert_eq!(output.stdout, started, "{before} {flag}");
        assert!(status == 0 || text.contains("hint: nothing was started"), "{text}");
    }
    stage.close(Alone::Yes);
}

/// The outer tool's tree goes on; only what the inner one holds ends.
#[test]
#[serial]
fn nested_it_ends_with_its_own_parent() {
    let Some(stage) = Stage::set() else { return };
    let middle = "\"$0\" run --die-with-parent -- sh -c 'echo inner; exec sleep 60' & wait";
    let script = format!(
        "sh -c '{}' \"$0\" & echo $!; wait; echo on; sleep 60",
        middle.replace('\'', "'\\''")
    );
    let mut outer = stage.tool(&["run", "-q", "--", "sh", "-c", &script, tool()]);
    let mut outer = outer.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(outer.stdout.take().unwrap()));
    let mut first = [lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()];
    first.sort();
    assert_eq!(first[1], "inner");
    let pid = nix::unistd::Pid::from_raw(first[0].parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "on");
    drop(lines);
    // The outer tool, its shell, and the sleep.
    assert!(until(SOON, || stage.alive().len() == 3), "{:?}", stage.alive());
    assert_eq!(outer.try_wait().unwrap(), None);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(outer.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    outer.wait().unwrap();
    assert!(until(SOON, || stage.alive().is_empty() && stage.cgroups() == 0));
    stage.close(Alone::Yes);
}
