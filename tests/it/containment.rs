//! Without a cgroup, on request: the command line, terminals, and what a keeper's tree shares with
//! a cgroup's.

use std::process::{Command as StdCommand, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::serial;
use tidy_process::{Cause, Containment, Mechanism, Ready, Stdio, Supervisor};

use crate::server::{server, soon};
use crate::support::{Alone, SOON, Stage, lacks, read_ready, rounds, tool, until};
use crate::terminal::{CTRL_C, CTRL_Z, Terminal};

const KEEPER: [&str; 3] = ["run", "--containment", "keeper"];

fn run(stage: &Stage, args: &[&str]) -> Output {
    stage.tool(&KEEPER).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[serial]
fn exit_statuses_are_the_same() {
    let Some(stage) = Stage::of_keepers() else { return };
    let daemon = "(setsid sleep 20 &); exit 4";
    let cases: [(&[&str], i32, &str); 15] = [
        (&["true"], 0, ""),
        (&["sh", "-c", "exit 42"], 42, ""),
        (&["sh", "-c", "kill -TERM $$"], 143, ""),
        (&["sh", "-c", "kill -KILL $$"], 137, ""),
        (&["/etc/passwd"], 126, "exec \"/etc/passwd\": Permission denied"),
        (&["flsk"], 127, "exec \"flsk\": No such file or directory"),
        (&["-C", "/no/such", "true"], 125, "chdir \"/no/such\""),
        (&["--name", "a/b", "true"], 125, "a name has no slash"),
        (&["-t", "0.1", "sleep", "20"], 124, ""),
        (&["-t", "0.1", "-k", "20", "sh", "-c", "(setsid sleep 20 &); sleep 20"], 124, ""),
        (&["--leaks=fail", "sh", "-c", daemon], 4, "killed 1 leftover process: "),
        (&["--leaks=fail", "sh", "-c", "setsid -f sleep 20"], 123, "killed 1 leftover process: "),
        (&["--leaks=report", "sh", "-c", daemon], 4, " (parent "),
        (&["--leaks=wait", "sh", "-c", "(setsid sleep 0.1 &); exit 4"], 4, ""),
        (&["-m", "1G", "true"], 125, "limit memory: memory.max 1073741824: this needs a cgroup"),
    ];
    let start = Instant::now();
    for (args, code, words) in cases {
        let output = run(&stage, args);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        stage.assert_clean(&format!("{args:?}"));
    }
    assert!(start.elapsed() < Duration::from_secs(15), "something ended by itself");
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn the_report_names_the_mechanism() {
    let Some(stage) = Stage::of_keepers() else { return };
    let output = run(&stage, &["-v", "--json", "-", "sh", "-c", "exit 7"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["mechanism"], &report["placement"]), (&"keeper".into(), &"kept".into()));
    assert_eq!((&report["usage"], &report["exit"]), (&serde_json::json!({}), &7.into()));
    assert_eq!(report["missing"].as_array().unwrap().len(), 11);
    assert!(said(&output).contains("0 leftovers, held by a keeper"), "{}", said(&output));
    stage.close(Alone::Yes);
}

/// As default containers have it: the cgroup file system is there, and read-only.
fn read_only(stage: &Stage, options: &str) -> Output {
    let script = "cat /proc/self/mountinfo | sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\([^ ]*\\) .* - \
         cgroup2 .*/\\1/p' | while read m; do mount -o remount,bind,ro \"$m\" || exit 99; done
         exec \"$T\" run $O -- sh -c '(setsid sleep 20 &); exit 3'";
    let mut command = StdCommand::new("unshare");
    command.args(["-C", "-m", "--propagation", "private", "sh", "-c", script]);
    stage.mark_std(command.env("O", options).env("T", tool()));
    command.output().unwrap()
}

#[test]
#[serial]
fn a_read_only_cgroupfs_is_no_hindrance_if_one_says_so() {
    let Some(stage) = Stage::of_keepers() else { return };
    if !nix::unistd::geteuid().is_root() {
        return lacks("users", "only root can mount");
    }
    let output = read_only(&stage, "");
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert!(said(&output).contains("(EROFS)"), "{}", said(&output));
    assert!(said(&output).contains("--containment best-effort"), "{}", said(&output));
    let output = read_only(&stage, "--containment best-effort");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let first = "tidy-process: held by a keeper, without limits and accounting, for want of a \
         cgroup: make cgroup";
    assert!(said(&output).starts_with(first), "{}", said(&output));
    assert!(said(&output).contains("killed 1 leftover process"), "{}", said(&output));
    let output = read_only(&stage, "--containment best-effort -q");
    assert_eq!((output.status.code(), &*said(&output)), (Some(3), ""));
    let output = read_only(&stage, "--containment best-effort --pids 9");
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert!(said(&output).contains("limit pids: pids.max 9: this needs a cgroup"));
    stage.close(Alone::Yes);
}

/// Where a cgroup can be made it is; else a keeper does.
#[test]
#[serial]
fn best_effort_is_a_cgroup_where_one_can_be_made_with_its_guard() {
    let Some(stage) = Stage::set() else { return };
    let best = || Supervisor::builder().containment(Containment::BestEffort);
    let supervisor = best().base(stage.supervisor.path().unwrap()).build().unwrap();
    assert_eq!(supervisor.mechanism(), Mechanism::Cgroup);
    assert!(supervisor.why_no_cgroup().is_none());
    drop(supervisor);
    let supervisor = best().base("/no/such").build().unwrap();
    assert_eq!(supervisor.mechanism(), Mechanism::Keeper);
    assert!(supervisor.why_no_cgroup().unwrap().is_no_cgroup());
    assert!(supervisor.is_guarded());
    drop(supervisor);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn with_has_servers_without_a_cgroup() {
    let Some(stage) = Stage::of_keepers() else { return };
    let script = "import socket, time
s = socket.create_server((\"127.0.0.1\", 0))
time.sleep(20)";
    let server = format!("python3 -c '{script}' & wait");
    let mut with = stage.tool(&["with", "--containment", "keeper", "--server", &server]);
    with.args(["--ready", "tcp", "--name", "api", "--", "sh", "-c", "test $TIDY_API_PORT -gt 0"]);
    let output = with.output().unwrap();
    assert_eq!((output.status.code(), &*said(&output)), (Some(0), ""));
    drop(with);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_keepers_tree_is_waited_for_signalled_and_listed_like_any() {
    let Some(stage) = Stage::of_keepers() else { return };
    let child = server(&stage, "tcp 127.0.0.1:0\nstay").spawn().unwrap();
    child.wait_ready(Ready::any_tcp(), soon()).unwrap();
    assert_eq!(child.tree().listening_ports().unwrap().len(), 1);
    child.finish().unwrap();
    drop(child);
    let script = "trap 'exit 5' TERM; (setsid sleep 20 &); sleep 20 & echo ready; wait";
    let mut command = stage.sh(script);
    let mut child = command.grace(SOON).stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    assert_eq!(child.tree().processes().len(), 3);
    assert!(!child.tree().wait_empty(Instant::now() + Duration::from_millis(5)).unwrap());
    let report = child.finish().unwrap();
    assert_eq!((report.status.code(), report.cause), (Some(5), Cause::Stopped));
    drop((child, command));
    let output = stage.sh("sleep 20 & echo hi").output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.report.leftovers.len()), (&b"hi\n"[..], 1));
    let report = stage.sh("(sleep 0.2; exit 9) & exit 1").linger(true).run().unwrap();
    assert_eq!((report.status.code(), report.leftovers.len()), (Some(1), 0));
    let report = stage.sh("sleep 20").timeout(Duration::from_millis(50)).run().unwrap();
    assert_eq!(report.cause, Cause::TimedOut);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_keepers_command_becomes_another_user() {
    let Some(stage) = Stage::of_keepers() else { return };
    if !nix::unistd::geteuid().is_root() {
        return lacks("users", "only root can change users");
    }
    let report = stage.sh("exit $(id -u)").uid(65534).gid(65534).run().unwrap();
    assert_eq!(report.status.code(), Some(65534 % 256));
    stage.close(Alone::Yes);
}

/// One of them takes the news from the line; the daemon keeps the keeper, and with that the line.
#[test]
#[serial]
fn all_who_wait_hear_of_the_end() {
    let Some(stage) = Stage::of_keepers() else { return };
    for _ in 0..rounds(20, 500) {
        let child = stage.sh("(setsid sleep 20 &); sleep 0.01; exit 3").spawn().unwrap();
        std::thread::scope(|scope| {
            let wait = || child.wait_timeout(SOON).unwrap().unwrap().code();
            let waiting: Vec<_> = (0..8).map(|_| scope.spawn(wait)).collect();
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), Some(3));
            }
        });
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_detached_tree_lives_as_long_as_its_supervisor() {
    let Some(stage) = Stage::of_keepers() else { return };
    let supervisor = Supervisor::builder().containment(Containment::Keeper).build().unwrap();
    for script in ["exit 1", "exec sleep 20", "exec sleep 21"] {
        stage.sh(script).supervisor(&supervisor).spawn().unwrap().detach();
    }
    // Who ends by itself is waited for by nobody here.
    assert!(until(SOON, || stage.alive().len() == 2), "two of three run on: {:?}", stage.alive());
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(stage.alive().len(), 2, "they run on");
    drop(supervisor);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn running_out_of_fds_is_an_error_at_every_step_and_leaves_nothing() {
    crate::errors::runs_out_of_fds(Stage::of_keepers(), 20, 6..18);
}

#[test]
#[serial]
fn a_signal_to_the_tool_stops_the_tree_and_ends_it() {
    use std::os::unix::process::ExitStatusExt;
    let Some(stage) = Stage::of_keepers() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut tool = stage.tool(&KEEPER);
        tool.args(["-q", "sh", "-c", "(setsid sleep 20 &); echo ready; sleep 20"]);
        let mut tool = tool.stdout(std::process::Stdio::piped()).spawn().unwrap();
        read_ready(tool.stdout.take().unwrap());
        kill(Pid::from_raw(tool.id().cast_signed()), signal).unwrap();
        assert_eq!(tool.wait().unwrap().signal(), Some(signal as i32));
        stage.assert_clean(signal.as_str());
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_terminal_works_as_without_us() {
    let Some(stage) = Stage::of_keepers() else { return };
    let script = "trap 'echo cleaning; exit 8' INT; echo ready; read x; echo got $x; \
         (setsid sleep 20 &); while :; do sleep 0.01; done";
    let mut terminal =
        Terminal::open(&stage, &[&[tool()], &KEEPER[..], &["sh", "-c", script]].concat());
    terminal.shows("ready");
    terminal.types("hello\n");
    terminal.shows("got hello");
    terminal.types(CTRL_C);
    terminal.shows("cleaning");
    let (status, rest) = terminal.ends();
    assert_eq!(status.code(), Some(8), "{status}: {rest:?}");
    stage.assert_clean("after Ctrl-C");
    let mut terminal = Terminal::open(&stage, &["bash", "--norc", "--noprofile", "-i"]);
    terminal.shows("prompt> ");
    let run = "$T run --containment keeper";
    terminal.types(&format!("{run} sh -c 'echo re\"\"ady; read x; echo g\"\"ot $x; exit 9'\n"));
    terminal.shows("ready");
    terminal.types(CTRL_Z);
    terminal.shows("Stopped");
    terminal.shows("prompt> ");
    terminal.types("fg\n");
    terminal.shows("$T run");
    terminal.types("hello\n");
    terminal.shows("got hello");
    terminal.shows("prompt> ");
    terminal.types("echo status $?; exit\n");
    terminal.shows("status 9");
    terminal.ends();
    stage.close(Alone::No);
}
