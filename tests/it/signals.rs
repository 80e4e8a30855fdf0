//! Signals at times: whom they reach, how often, and what comes of it. What a command hears is also
//! tried under `env` (which becomes the command) or `timeout`, where those are right.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command as StdCommand, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::parallel;

use crate::ears::{EARS, ENDS};
use crate::support::{Alone, Stage, read_ready, rounds, tool};
use crate::victim;

/// To whom a signal is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    /// The tool, or what stands in its place.
    One,
    /// Its whole process group.
    Group,
}
use To::{Group, One};

/// Milliseconds after the ones before, a signal, and to whom.
pub(crate) type Sent = (u64, i32, To);

/// How the tool ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    By(i32),
    With(i32),
}
use End::{By, With};

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        status.signal().map_or_else(|| With(status.code().unwrap()), By)
    }
}

struct Row {
    options: &'static [&'static str],
    sent: &'static [Sent],
    /// What the command hears, with `.` for its end.
    hears: &'static str,
    ends: End,
    /// What to run in the tool's place. The command hears the same.
    like: &'static [&'static str],
}

const fn row(sent: &'static [Sent], hears: &'static str, ends: End) -> Row {
    Row { options: &[], sent, hears, ends, like: &[] }
}

impl Row {
    const fn with(self, options: &'static [&'static str]) -> Self {
        Self { options, ..self }
    }

    const fn like(self, like: &'static [&'static str]) -> Self {
        Self { like, ..self }
    }
}

const ENV: &[&str] = &["env"];
const KEEPER: &[&str] = &["--containment", "keeper"];
const USR1: i32 = libc::SIGUSR1;
const TERM: i32 = libc::SIGTERM;

/// Without a terminal.
const ROWS: &[Row] = &[
    // What was sent, once.
    row(&[(0, 2, One)], "2 .", By(2)).like(ENV),
    row(&[(0, 2, Group)], "2 .", By(2)).like(ENV),
    row(&[(0, 15, One)], "15 .", By(15)).like(ENV),
    row(&[(0, 15, Group)], "15 .", By(15)).like(ENV),
    row(&[(0, 1, One)], "1 .", By(1)).like(ENV),
    row(&[(0, 1, Group)], "1 .", By(1)).like(ENV),
    row(&[(0, 3, One)], "3 .", By(3)).like(ENV),
    row(&[(0, 3, Group)], "3 .", By(3)).like(ENV),
    row(&[(0, 2, One)], "2 .", By(2)).with(KEEPER),
    row(&[(0, 2, Group)], "2 .", By(2)).with(KEEPER),
    row(&[(0, 2, Group)], "2 .", By(2)).with(&["--force-join"]),
    row(&[(0, 15, One)], "15 .", By(15)).with(&["--forward", "main"]),
    row(&[(0, 15, Group)], "15 .", By(15)).with(&["--forward", "main"]),
    row(&[(0, 15, One)], "15 .", By(15)).with(&["--forward", "main", "--containment", "keeper"]),
    row(&[(0, 15, One)], "12 .", By(15)).with(&["-s", "USR2", "-E", "TIDY_EARS_END=12"]),
    row(&[(0, 15, Group)], "12 .", By(15)).with(&["-s", "USR2", "-E", "TIDY_EARS_END=12"]),
    row(&[(0, 2, One)], "15 .", By(2)).with(&["-s", "TERM"]),
    // A timeout is no signal that was received.
    row(&[], "15 .", With(124)).with(&["-t", "0.4"]).like(&["timeout", "--foreground", "0.4"]),
    row(&[], "2 .", With(124)).with(&["-t", "0.4", "-s", "INT"]).like(&[
        "timeout",
        "--foreground",
        "-s",
        "INT",
        "0.4",
    ]),
    // One request.
    row(&[(0, 15, One), (0, 15, Group)], "15 .", By(15)),
    row(&[(0, 15, One), (20, 15, Group)], "15 .", By(15)),
    row(&[(0, 15, One), (20, 15, One)], "15 .", By(15)),
    row(&[(0, 15, Group), (0, 1, Group)], "15 .", By(15)),
    row(&[(0, 1, Group), (1, 1, Group)], "1 .", By(1)),
    row(&[(0, 2, Group), (20, 15, One)], "2 .", By(2)),
    row(&[(0, 15, One), (1, 15, One), (1, 1, One)], "15 .", By(15)).with(KEEPER),
    // A second one.
    row(&[(0, 15, One), (300, 15, One)], "15", By(15)).with(&["-E", "TIDY_EARS=20000"]),
    row(&[(0, 2, Group), (300, 15, Group)], "2", By(2)).with(&["-E", "TIDY_EARS=20000"]),
    row(&[(0, 2, One), (0, 2, One), (300, 2, One)], "2", By(2)).with(&["-E", "TIDY_EARS=20000"]),
    row(&[(0, 15, One)], "15", By(15)).with(&["-k", "0.3", "-E", "TIDY_EARS=20000"]),
    // What asks for nothing.
    row(&[(0, USR1, One), (100, TERM, One)], "10 15 .", By(15)).like(ENV),
    row(&[(0, USR1, Group), (100, TERM, One)], "10 15 .", By(15)).like(ENV),
    row(&[(0, USR1, One), (100, USR1, One), (100, TERM, One)], "10 10 15 .", By(15)).like(ENV),
    row(&[(0, 12, One), (100, TERM, One)], "12 15 .", By(15)).like(ENV),
    row(&[(0, 28, One), (100, TERM, One)], "28 15 .", By(15)).like(ENV),
    row(&[(0, 14, One), (100, TERM, One)], "14 15 .", By(15)).like(ENV),
    row(&[(0, 14, Group), (100, TERM, Group)], "14 15 .", By(15)).like(ENV),
    row(&[(0, 26, One), (100, TERM, One)], "26 15 .", By(15)).like(ENV),
    row(&[(0, 27, One), (100, TERM, One)], "27 15 .", By(15)).like(ENV),
    row(&[(0, 23, One), (100, TERM, One)], "23 15 .", By(15)).like(ENV),
    row(&[(0, 29, One), (100, TERM, One)], "29 15 .", By(15)).like(ENV),
    row(&[(0, 30, One), (100, TERM, One)], "30 15 .", By(15)).like(ENV),
    row(&[(0, 34, One), (100, TERM, One)], "34 15 .", By(15)).like(ENV),
    row(&[(0, 64, Group), (100, TERM, One)], "64 15 .", By(15)).like(ENV),
    row(&[(0, 40, One), (0, 40, One), (100, TERM, One)], "40 40 15 .", By(15)).like(ENV),
    row(&[(0, USR1, One), (100, TERM, One)], "10 15 .", By(15)).with(KEEPER),
    row(&[(0, 15, One), (100, USR1, One)], "15 10 .", By(15)).like(ENV),
];

/// The command, which hears, behind these words, in a session without a terminal.
fn hearing(stage: &Stage, before: &[&str]) -> Child {
    let mut command = StdCommand::new("setsid");
    stage.mark_std(command.args(before).arg(victim::exe()));
    command.env(EARS, "250").env_remove(ENDS).stdin(Stdio::null());
    command.stdout(Stdio::piped()).spawn().unwrap()
}

fn send(child: &Child, sent: &[Sent]) {
    let pid = Pid::from_raw(child.id().cast_signed());
    for &(after, number, to) in sent {
        // The time between two signals is what is tested.
        thread::sleep(Duration::from_millis(after));
        let target = match to {
            One => pid,
            Group => Pid::from_raw(-pid.as_raw()),
        };
        // nix has no real-time signals.
        #[expect(unsafe_code, reason = "a number, and a pid that is not reaped")]
        // SAFETY: no memory is involved.
        let answer = unsafe { libc::kill(target.as_raw(), number) };
        assert_eq!(answer, 0, "kill {target} {number}");
    }
}

/// What it heard, with a point for its end; and its end.
pub(crate) fn heard(mut child: Child, sent: &[Sent]) -> (String, End) {
    use std::io::Read;
    let mut pipe = child.stdout.take().unwrap();
    read_ready(&mut pipe);
    send(&child, sent);
    let mut said = String::new();
    pipe.read_to_string(&mut said).unwrap();
    let words: Vec<_> = said.lines().map(|line| if line == "end" { "." } else { line }).collect();
    (words.join(" "), child.wait().unwrap().into())
}

fn check(stage: &Stage, row: &Row) {
    let Row { options, sent, hears, ends, like } = row;
    let line = format!("{options:?} {sent:?}");
    let grace: &[&str] = if options.contains(&"-k") { &[] } else { &["-k", "20"] };
    let before = [&[tool(), "run"], grace, *options, &["--"]].concat();
    let start = Instant::now();
    assert_eq!(heard(hearing(stage, &before), sent), ((*hears).to_owned(), *ends), "{line}");
    assert!(start.elapsed() < Duration::from_secs(15), "{line}: it waited for the grace");
    stage.assert_clean(&line);
    if !like.is_empty() {
        let (said, _) = heard(hearing(stage, like), sent);
        assert_eq!(said, *hears, "the reference {like:?} of {line} differs");
    }
}

#[test]
#[parallel]
fn the_table_of_signals_holds_and_the_references_agree() {
    // Each row has its waits: several at a time.
    abreast(ROWS.len(), |stage, number| check(stage, &ROWS[number]));
}

/// So many rounds of a test, four at a time, each of these on a stage of its own.
pub(crate) fn abreast(count: usize, test: impl Fn(&Stage, usize) + Sync) {
    thread::scope(|scope| {
        for lane in 0..4 {
            let test = &test;
            scope.spawn(move || {
                let Some(stage) = Stage::set() else { return };
                (lane..count).step_by(4).for_each(|number| test(&stage, number));
                stage.close(Alone::No);
            });
        }
    });
}

fn many(short: u32, long: u32) -> usize {
    usize::try_from(rounds(short, long)).unwrap()
}

/// Cleans up when it is asked to end, and takes its time.
const MINI: &str = "trap 'sleep .3; echo cleaned; exit' TERM HUP INT
    echo ready; while :; do sleep .05; done";

/// timeout(1) signals its child, and then its whole group.
#[test]
#[parallel]
fn under_timeout_a_command_cleans_up() {
    abreast(many(20, 200), |stage, round| {
        let mut command = StdCommand::new("setsid");
        let line = ["timeout", "0.8", tool(), "run", "-k", "5", "--", "sh", "-c", MINI];
        stage.mark_std(command.args(line).stdin(Stdio::null()));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        // A machine that needs 0.8 s for its start shows nothing.
        if !said.is_empty() {
            assert_eq!((&*said, output.status.code()), ("ready\ncleaned\n", Some(124)), "{round}");
        }
        stage.assert_clean("after timeout");
    });
}

/// As a closed window (the shell's SIGHUP and the kernel's), a cancelled job and systemd do it.
#[test]
#[parallel]
fn two_signals_of_one_request_are_one() {
    const PAIRS: &[&[Sent]] = &[
        &[(0, 1, Group), (0, 1, Group)],
        &[(0, 1, One), (1, 1, Group)],
        &[(0, 15, One), (0, 1, One)],
        &[(0, 1, One), (0, 15, One)],
        &[(0, 15, Group), (1, 1, Group)],
        &[(0, 15, One), (1, 15, Group), (1, 15, One)],
        &[(0, 2, Group), (20, 15, Group)],
    ];
    abreast(many(21, 210), |stage, round| {
        let pair = PAIRS[round % PAIRS.len()];
        let keeper: &[&str] = if round % 4 == 3 { KEEPER } else { &[] };
        let mut command = StdCommand::new("setsid");
        command.args([tool(), "run", "-k", "20"]).args(keeper).args(["sh", "-c", MINI]);
        stage.mark_std(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let (said, end) = heard(command.spawn().unwrap(), pair);
        assert_eq!(said, "cleaned", "{pair:?}: {end:?}");
        assert!(matches!(end, By(1 | 2 | 15)), "{pair:?}: {end:?}");
        stage.assert_clean("after a request");
    });
}

/// SIGHUP may only mean that something is to be read again.
#[test]
#[parallel]
fn of_two_requests_at_once_the_hangup_is_the_one_that_is_not_sent_on() {
    let Some(stage) = Stage::set() else { return };
    let mut child = hearing(&stage, &[tool(), "run", "-k", "20"]);
    let mut pipe = child.stdout.take().unwrap();
    read_ready(&mut pipe);
    let pid = Pid::from_raw(child.id().cast_signed());
    // While it is stopped both wait for it.
    kill(pid, Signal::SIGSTOP).unwrap();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
        kill(pid, signal).unwrap();
    }
    child.stdout = None;
    let said = std::io::read_to_string(pipe).unwrap();
    assert_eq!((&*said, End::from(child.wait().unwrap())), ("15\nend\n", By(15)));
    stage.close(Alone::No);
}

/// A tool within another's tree: the outer one tells all in it.
#[test]
#[parallel]
fn nested_tools_send_a_signal_on_once() {
    let ways: [&[&str]; 3] = [&[], &["--containment", "keeper"], &["--forward", "main"]];
    let signals: [(&[Sent], &str, End); 4] = [
        (&[(0, 2, One)], "2 .", By(2)),
        (&[(0, 15, Group)], "15 .", By(15)),
        (&[(0, 15, One), (0, 15, Group)], "15 .", By(15)),
        (&[(0, USR1, One), (100, TERM, One)], "10 15 .", By(15)),
    ];
    abreast(ways.len() * ways.len(), |stage, number| {
        let (outer, inner) = (ways[number / 3], ways[number % 3]);
        let run = [tool(), "run", "-q", "-k", "20"];
        let both = [&run[..], outer, &run, inner, &["--"]].concat();
        for (sent, hears, ends) in signals {
            let wanted = (hears.to_owned(), ends);
            assert_eq!(heard(hearing(stage, &both), sent), wanted, "{outer:?} {inner:?} {sent:?}");
        }
    });
}

/// The stop signal is for all, or for the main process alone, which has a worker.
#[test]
#[parallel]
fn a_request_is_sent_on_to_all_or_to_the_main_process_alone() {
    let Some(stage) = Stage::set() else { return };
    let script = "trap 'wait; exit 4' TERM
        \"$0\" & trap 'echo main; sleep .3; exit 4' TERM; wait; wait";
    for (options, said) in [(&["--forward=all"][..], "15 end main"), (&["--forward=main"], "main")]
    {
        let line = [&[tool(), "run", "-q", "-k", "20"], options, &["sh", "-c", script]].concat();
        let (words, end) = heard(hearing(&stage, &line), &[(100, TERM, One)]);
        let mut words: Vec<_> = words.split(' ').map(|word| word.replace('.', "end")).collect();
        words.sort();
        assert_eq!((&*words.join(" "), end), (said, By(15)), "{options:?}");
        stage.assert_clean("after it");
    }
    stage.close(Alone::No);
}

/// A signal that nothing handles ends the command and not the tool, which reports it.
#[test]
#[parallel]
fn what_kills_the_command_is_its_status() {
    let Some(stage) = Stage::set() else { return };
    for (number, says) in [(libc::SIGUSR1, 138), (libc::SIGALRM, 142), (40, 168)] {
        for to in [One, Group] {
            let run = [tool(), "run", "-q", "sh", "-c", "echo ready; sleep 25"];
            let mut command = StdCommand::new("setsid");
            stage.mark_std(command.args(run).stdin(Stdio::null()).stdout(Stdio::piped()));
            let (_, end) = heard(command.spawn().unwrap(), &[(0, number, to)]);
            assert_eq!(end, With(says));
            stage.assert_clean("after the signal");
        }
    }
    stage.close(Alone::No);
}

/// `alarm` is the poor man's timeout: it goes over an exec, and comes from the kernel.
#[test]
#[parallel]
fn an_alarm_that_was_set_before_is_the_commands() {
    let Some(stage) = Stage::set() else { return };
    let script = "import os, signal, sys; signal.alarm(1); os.execv(sys.argv[1], sys.argv[1:])";
    let line = ["python3", "-c", script, tool(), "run", "-k", "20"];
    let mut command = StdCommand::new("setsid");
    stage.mark_std(command.args(line).arg(victim::exe()).env(EARS, "1").env(ENDS, "14"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(heard(child, &[]), ("14 .".to_owned(), With(3)));
    stage.close(Alone::No);
}

/// A value that is queued with a real-time signal arrives.
#[test]
#[parallel]
fn a_queued_value_goes_through() {
    let Some(stage) = Stage::set() else { return };
    let script = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {40}); \
        print('ready', flush=True); info = signal.sigwaitinfo({40}); print(info.si_code)";
    let line = [tool(), "run", "-q", "python3", "-c", script];
    for (value, says) in [(None, "0"), (Some("77"), "-1")] {
        let mut command = StdCommand::new("setsid");
        stage.mark_std(command.args(line).stdin(Stdio::null()).stdout(Stdio::piped()));
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        read_ready(&mut pipe);
        let mut sender = StdCommand::new("kill");
        value.map(|value| sender.args(["-q", value]));
        assert!(sender.args(["-40", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(std::io::read_to_string(pipe).unwrap().trim(), says);
        assert!(child.wait().unwrap().success());
    }
    stage.close(Alone::No);
}

/// It does not lead its group: setsid(2) fails for a leader, and setsid(1) would fork and end.
#[test]
#[parallel]
fn a_command_may_make_a_session() {
    let Some(stage) = Stage::set() else { return };
    let ways = [&["env"][..], &[tool(), "run"], &[tool(), "run", "--containment", "keeper"]];
    for before in ways {
        let mut command = StdCommand::new("setsid");
        // The shell leads the session, and forks for what is not its last command.
        command.args(["sh", "-c", "\"$@\"; exit $?", "sh"]).args(before);
        stage.mark_std(command.args(["setsid", "sh", "-c", "exit 7"]).stdin(Stdio::null()));
        assert_eq!(command.status().unwrap().code(), Some(7), "{before:?}");
    }
    stage.close(Alone::No);
}
