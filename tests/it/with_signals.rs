//! Signals to `tidy-process with`, while servers start, run and are stopped.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command as StdCommand, Stdio};
use std::time::Instant;

use serial_test::parallel;

use crate::ears::EARS;
use crate::signals::{End, Sent, To, abreast, heard};
use crate::support::{SOON, Stage, tool, until};
use crate::victim;

use End::{By, With};
use To::{Group, One};

/// Servers of one test, and the log of one of them.
struct Servers<'a> {
    stage: &'a Stage,
    log: PathBuf,
}

impl<'a> Servers<'a> {
    fn new(stage: &'a Stage, number: usize) -> Self {
        let name = format!("tidy-with-signals-{}-{number}", std::process::id());
        let log = std::env::temp_dir().join(name);
        let _ = fs::remove_file(&log);
        Self { stage, log }
    }

    /// A server of this shell command, whose log is kept.
    fn with(&self, options: &[&str], server: &str, ready: &str, command: &[&str]) -> Child {
        let mut with = StdCommand::new("setsid");
        with.args([tool(), "with", "-q"]).args(options).args(["--server", server]);
        with.args(["--ready", ready, "--log"]).arg(&self.log).arg("--").args(command);
        self.stage.mark_std(with.env(EARS, "250").stdin(Stdio::null()).stdout(Stdio::piped()));
        with.spawn().unwrap()
    }

    /// Its log, without what a shell says of the `sleep` that it loses.
    fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.replace("Terminated\n", "").replace("Hangup\n", "")
    }
}

impl Drop for Servers<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.log);
    }
}

/// Hears signals, and says so.
fn ears() -> String {
    format!("exec {}", victim::exe().display())
}

/// Cleans up when it is asked to end.
const MINI: &str = "trap 'echo asked; sleep .4; echo cleaned; exit' TERM INT HUP
    echo ready; while :; do sleep .02; done";

/// Never ends by itself.
const STUBBORN: &str = "trap 'echo asked' TERM INT HUP; echo ready; while :; do sleep .02; done";

#[test]
#[parallel]
fn the_command_gets_what_was_sent_and_then_the_servers_their_stop_signal() {
    const ROWS: &[(&[&str], &[Sent], &str, End)] = &[
        (&[], &[(0, 2, One)], "2 .", By(2)),
        (&[], &[(0, 2, Group)], "2 .", By(2)),
        (&[], &[(0, 15, Group), (0, 1, Group)], "15 .", By(15)),
        (&[], &[(0, 10, Group), (100, 1, One)], "10 1 .", By(1)),
        (&["--containment", "keeper"], &[(0, 2, Group)], "2 .", By(2)),
        (&["--forward", "main"], &[(0, 3, One)], "3 .", By(3)),
    ];
    abreast(ROWS.len(), |stage, number| {
        let (options, sent, hears, ends) = ROWS[number];
        let servers = Servers::new(stage, number);
        let options = [&["-k", "20"], options].concat();
        let exe = victim::exe();
        let child = servers.with(&options, &ears(), "log:ready", &[exe.to_str().unwrap()]);
        assert_eq!(heard(child, sent), (hears.to_owned(), ends), "{options:?} {sent:?}");
        assert_eq!(servers.said(), "ready\n15\nend\n", "{options:?} {sent:?}");
        stage.assert_clean("after with");
    });
}

#[test]
#[parallel]
fn a_signal_while_servers_are_stopped_kills_them_at_once() {
    const ROWS: &[(&[&str], Sent)] = &[
        (&[], (0, 15, One)),
        (&[], (0, 2, Group)),
        (&["--containment", "keeper"], (0, 1, One)),
        (&["-s", "INT"], (0, 15, One)),
    ];
    abreast(ROWS.len(), |stage, number| {
        let (options, sent) = ROWS[number];
        let servers = Servers::new(stage, 10 + number);
        let options = [&["-k", "1h", "--server", STUBBORN], options].concat();
        let child = servers.with(&options, STUBBORN, "log:ready", &["echo", "ready"]);
        assert!(until(SOON, || servers.said().contains("asked")), "{options:?}");
        assert_eq!(heard(child, &[sent]).1, By(sent.1), "{options:?} {sent:?}");
        stage.assert_clean("after the kill");
    });
}

/// The first request ends the command in no time: what comes with it is no second one.
#[test]
#[parallel]
fn the_second_signal_of_a_request_does_not_kill_the_servers() {
    const PAIRS: &[&[Sent]] = &[
        &[(0, 15, One), (1, 1, One)],
        &[(0, 1, Group), (0, 1, Group)],
        &[(0, 15, One), (20, 15, Group)],
        &[(0, 2, Group), (20, 15, One)],
    ];
    abreast(PAIRS.len() * 2, |stage, number| {
        let servers = Servers::new(stage, 20 + number);
        let script = ["sh", "-c", "echo ready; exec sleep 25"];
        let child = servers.with(&["-k", "20"], MINI, "log:ready", &script);
        let sent = PAIRS[number % PAIRS.len()];
        let (_, end) = heard(child, sent);
        assert!(matches!(end, By(1 | 2 | 15)), "{sent:?}: {end:?}");
        assert_eq!(servers.said(), "ready\nasked\ncleaned\n", "{sent:?}");
    });
}

/// A second request kills all, whatever is being stopped.
#[test]
#[parallel]
fn a_second_request_kills_command_and_servers() {
    abreast(2, |stage, number| {
        let servers = Servers::new(stage, 30 + number);
        let command: &[&str] = match number {
            0 => &["sh", "-c", "echo ready; exec sleep 25"],
            _ => &["sh", "-c", STUBBORN],
        };
        let child = servers.with(&["-k", "1h"], STUBBORN, "log:ready", command);
        let start = Instant::now();
        assert_eq!(heard(child, &[(0, 15, One), (400, 2, One)]).1, By(15));
        assert!(start.elapsed() < SOON);
    });
}

/// One that is still being started gets its stop signal too, and its grace.
#[test]
#[parallel]
fn a_server_that_is_not_ready_yet_is_stopped() {
    abreast(2, |stage, number| {
        let servers = Servers::new(stage, 40 + number);
        let child = servers.with(&["-k", "20"], MINI, "log:never", &["true"]);
        assert!(until(SOON, || servers.said().contains("ready")));
        let sent = if number == 0 { (0, 2, One) } else { (0, 15, Group) };
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let signal = nix::sys::signal::Signal::try_from(sent.1).unwrap();
        match sent.2 {
            One => nix::sys::signal::kill(pid, signal).unwrap(),
            Group => nix::sys::signal::killpg(pid, signal).unwrap(),
        }
        let end = End::from(child.wait_with_output().unwrap().status);
        assert_eq!(end, By(sent.1));
        assert_eq!(servers.said(), "ready\nasked\ncleaned\n");
    });
}

/// A daemon is a server too: it is asked to end before it is killed.
#[test]
#[parallel]
fn what_a_server_has_become_is_stopped() {
    abreast(1, |stage, number| {
        let servers = Servers::new(stage, 50 + number);
        let daemon = format!("(setsid sh -c \"{MINI}\" &)");
        let child = servers.with(&["-k", "20"], &daemon, "log:ready", &["true"]);
        let end = End::from(child.wait_with_output().unwrap().status);
        assert_eq!((end, &*servers.said()), (With(0), "ready\nasked\ncleaned\n"));
    });
}

/// A request that comes while one is awaited is sent to it once, also if it goes on.
#[test]
#[parallel]
fn a_server_that_is_not_ready_yet_is_asked_once() {
    abreast(1, |stage, number| {
        let servers = Servers::new(stage, 60 + number);
        let server = "trap 'echo asked' TERM; echo ready; while :; do sleep .01; done";
        let child = servers.with(&["-k", "1"], server, "log:never", &["true"]);
        assert!(until(SOON, || servers.said().contains("ready")));
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let end = End::from(child.wait_with_output().unwrap().status);
        assert_eq!((end, &*servers.said()), (By(15), "ready\nasked\n"));
    });
}
