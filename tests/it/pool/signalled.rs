//! Once: no more are started, what runs goes on. Twice: all die.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::{parallel, serial};

use super::Scratch;
use crate::support::{Alone, SOON, Stage, tool, until};
use crate::terminal::{CTRL_C, Terminal};

fn send(tool: &Child, signal: Signal) {
    kill(Pid::from_raw(tool.id().cast_signed()), signal).unwrap();
}

/// Three at a time of nine, each of which waits for a file.
const SCRIPT: &str = ": >$D/run-{}; until [ -e $D/go ]; do sleep 0.02; done; echo {}";

/// Whether so many have begun.
fn have_begun(dir: &Scratch, number: usize) -> bool {
    let begun = || {
        let entries = std::fs::read_dir(dir).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("run-")).count()
    };
    until(SOON, || begun() >= number)
}

fn start(stage: &Stage, dir: &Scratch) -> Child {
    let variable = format!("D={}", dir.path("."));
    let mut command = stage.tool(&["pool", "-j3", "-E", &variable, "--", "sh", "-c", SCRIPT]);
    command.args([":::", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let tool = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(have_begun(dir, 3), "{:?}", stage.alive());
    tool
}

fn rest(mut tool: Child) -> (Option<i32>, String) {
    let mut text = String::new();
    tool.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    (tool.wait().unwrap().signal(), text)
}

#[test]
#[parallel]
fn one_signal_starts_no_more_and_what_runs_goes_on() {
    let Some(stage) = Stage::set() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let dir = Scratch::new();
        let tool = start(&stage, &dir);
        send(&tool, signal);
        // Longer than one request takes that comes as two.
        sleep(Duration::from_millis(50));
        std::fs::write(dir.path("go"), "").unwrap();
        let (by, text) = rest(tool);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!((by, lines), (Some(signal as i32), vec!["1", "2", "3"]));
        stage.assert_clean(signal.as_str());
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn two_signals_kill_all() {
    let Some(stage) = Stage::set() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let dir = Scratch::new();
        let tool = start(&stage, &dir);
        send(&tool, signal);
        // Until then it is the same request.
        sleep(Duration::from_millis(300));
        assert!(!stage.alive().is_empty());
        send(&tool, signal);
        assert_eq!(rest(tool), (Some(signal as i32), String::new()));
        stage.assert_clean(signal.as_str());
    }
    stage.close(Alone::No);
}

/// The keys of a terminal reach its foreground group, in which no command stands.
#[test]
#[serial]
fn ctrl_c_once_and_twice_in_a_terminal() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let variable = format!("D={}", dir.path("."));
    let line = [tool(), "pool", "-j2", "-E", &variable, "--progress", "never", "--"];
    let line = [&line[..], &["sh", "-c", SCRIPT, ":::", "11", "22", "33"]].concat();
    for insists in [false, true] {
        let mut terminal = Terminal::open(&stage, &line);
        assert!(have_begun(&dir, 2), "{:?}", stage.alive());
        terminal.types(CTRL_C);
        terminal.shows("no more commands are started; ");
        if insists {
            // Until then it is the same request.
            sleep(Duration::from_millis(300));
            terminal.types(CTRL_C);
        } else {
            std::fs::write(dir.path("go"), "").unwrap();
            terminal.shows("2 succeeded");
        }
        let (status, _) = terminal.ends();
        assert_eq!(status.signal(), Some(2), "{status}");
        stage.assert_clean("after Ctrl-C");
        for file in ["go", "run-11", "run-22", "run-33"] {
            let _ = std::fs::remove_file(dir.path(file));
        }
    }
    stage.close(Alone::No);
}

/// With nothing to run yet, one ends it.
#[test]
#[parallel]
fn a_signal_ends_a_pool_that_waits_for_its_input() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.tool(&["pool", "--", "echo"]);
    let mut tool = command.stdin(Stdio::piped()).spawn().unwrap();
    sleep(Duration::from_millis(100));
    send(&tool, Signal::SIGTERM);
    assert_eq!(tool.wait().unwrap().signal(), Some(15));
    stage.close(Alone::No);
}

/// A reader that does not read holds up no timeout, and no second signal.
#[test]
#[parallel]
fn a_reader_that_does_not_read_holds_up_no_kill() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let variable = format!("D={}", dir.path("."));
    let mut command = stage.tool(&["pool", "-q", "-j2", "-t", "0.5", "-E", &variable, "--"]);
    let script =
        "case {} in 1) seq 100000;; 2) trap ': >$D/over; exit' TERM; sleep 60 & wait;; esac";
    command.args(["sh", "-c", script, ":::", "1", "2"]);
    let mut tool = command.stdout(Stdio::piped()).spawn().unwrap();
    assert!(until(SOON, || dir.as_ref().join("over").exists()), "no timeout");
    send(&tool, Signal::SIGTERM);
    sleep(Duration::from_millis(300));
    send(&tool, Signal::SIGTERM);
    assert_eq!(tool.wait().unwrap().signal(), Some(15));
    assert!(until(SOON, || stage.cgroups() == 0));
    stage.close(Alone::No);
}

/// A reader of the events that does not read makes no second signal of the first one.
#[test]
#[parallel]
fn one_signal_is_one_though_the_events_are_not_read() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let variable = format!("D={}", dir.path("."));
    let (events, done) = (dir.path("events"), dir.path("done"));
    let fifo = std::ffi::CString::new(events.clone()).unwrap();
    nix::unistd::mkfifo(fifo.as_c_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&events).unwrap();
    // One of them waits; the events of the others fill the pipe.
    let script =
        "case $1 in 1) : >$D/run-1; until [ -e $D/go ]; do sleep 0.02; done; : >$D/done;; esac";
    let args = ["pool", "-q", "-j2", "-E", &variable, "--json", &events, "--"];
    let mut command = stage.tool(&[&args[..], &["sh", "-c", script, "sh", "{}"]].concat());
    command.arg(":::").args((1..3000).map(|number| number.to_string()));
    let mut pool = command.spawn().unwrap();
    assert!(have_begun(&dir, 1));
    let is_full = || {
        let mut fds = [nix::poll::PollFd::new(reader.as_fd(), nix::poll::PollFlags::POLLOUT)];
        nix::poll::poll(&mut fds, 0_u8).unwrap() == 0
    };
    assert!(until(SOON, is_full));
    send(&pool, Signal::SIGTERM);
    // Long enough for what would end it, were it ended.
    sleep(Duration::from_millis(300));
    assert!(pool.try_wait().unwrap().is_none() && !stage.alive().is_empty());
    std::fs::write(dir.path("go"), "").unwrap();
    assert!(until(SOON, || std::path::Path::new(&done).exists()));
    let mut reader = reader;
    let drained = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&text).contains("\"event\":\"over\"") {
            let count = reader.read(&mut piece).unwrap();
            text.extend_from_slice(&piece[..count]);
        }
    });
    assert_eq!(pool.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
    drained.join().unwrap();
    stage.close(Alone::No);
}
