//! Signals in a real terminal: Ctrl-C is the command's business, a group's signal reaches it once.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serial_test::serial;

use crate::ears::EARS;
use crate::support::{Alone, SOON, Stage, rounds, tool, until};
use crate::terminal::{CTRL_C, CTRL_Z, Terminal, has_answered, run};
use crate::victim;

const TOOL: &str = tool();

/// A shell with job control.
fn shell(stage: &Stage) -> Terminal {
    let bash = ["env", "TERM=dumb", "bash", "--norc", "--noprofile", "-i"];
    let mut terminal = Terminal::open(stage, &bash);
    terminal.shows("prompt> ");
    terminal.types(&format!("E={}; export {EARS}=250\n", victim::exe().display()));
    terminal.shows("prompt> ");
    terminal
}

/// A file of this test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidy-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn read(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Longer than the grace: what a Ctrl-C had begun to stop would be killed by then.
fn longer_than(grace: Duration) {
    sleep(grace * 5);
}

const GRACE: Duration = Duration::from_millis(100);

#[test]
#[serial]
fn a_prompt_outlives_ctrl_c() {
    let Some(stage) = Stage::set() else { return };
    let ways: [&[&str]; 4] = [
        &["run", "-k", "0.1"],
        &["run", "-k", "0.1", "--containment", "keeper"],
        &["with", "-k", "0.1", "--server", "exec sleep 25", "--"],
        &["run", "-k", "0.1", TOOL, "run", "-k", "0.1"],
    ];
    for way in ways {
        let line = [&[TOOL], way, &["python3", "-q"]].concat();
        let mut terminal = Terminal::open(&stage, &line);
        terminal.shows(">>> ");
        for _ in 0..2 {
            // Python shows its prompt a moment before it is ready for a Ctrl-C there; one that
            // comes in between is lost.
            sleep(5 * GRACE);
            terminal.types(CTRL_C);
            terminal.shows("KeyboardInterrupt");
            terminal.shows(">>> ");
            longer_than(GRACE);
            terminal.types("print(6 * 7)\n");
            terminal.shows("42\r\n");
        }
        terminal.types("exit(7)\n");
        assert_eq!(terminal.ends().0.code(), Some(7), "{way:?}");
        stage.assert_clean("after the prompt");
    }
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_pager_that_follows_goes_on_after_ctrl_c() {
    let Some(stage) = Stage::set() else { return };
    let file = Scratch::new("follow");
    fs::write(&file.0, "first\n").unwrap();
    let mut terminal = run(&stage, &["-k", "0.1", "env", "TERM=xterm", "less", "+F", file.path()]);
    terminal.shows("Waiting for data");
    terminal.types(CTRL_C);
    longer_than(GRACE);
    terminal.types("q");
    assert_eq!(terminal.ends().0.code(), Some(0));
    stage.close(Alone::No);
}

#[test]
#[serial]
fn the_third_ctrl_c_within_two_seconds_kills() {
    let Some(stage) = Stage::set() else { return };
    let script = "trap 'echo n\"\"ot yet' INT; echo ready; while :; do sleep 0.01; done";
    for with in [false, true] {
        let before: &[&str] = if with { &["with", "--server", "exec sleep 25"] } else { &["run"] };
        let args = [&[TOOL], before, &["-k", "1h", "--", "sh", "-c", script]].concat();
        let mut terminal = Terminal::open(&stage, &args);
        terminal.shows("ready\r\n");
        for _ in 0..2 {
            terminal.types(CTRL_C);
            terminal.shows("not yet");
        }
        assert!(!terminal.has_ended(), "the second one has killed it");
        // On a machine that is slow the third comes too late, and is the first one again.
        let ended = until(SOON, || {
            sleep(GRACE);
            terminal.types(CTRL_C);
            terminal.has_ended()
        });
        assert!(ended, "it is not killed");
        assert_eq!(terminal.ends().0.signal(), Some(2), "{with}");
        stage.assert_clean("after the third");
    }
    stage.close(Alone::No);
}

/// Its main process is gone, and a worker still cleans up.
#[test]
#[serial]
fn after_ctrl_c_what_handles_it_has_its_grace_and_what_ignores_it_none() {
    let Some(stage) = Stage::set() else { return };
    let worker = "trap 'sleep .3; echo cleaned; exit' INT; echo ready; while :; do sleep .01; done";
    let script = "import signal, subprocess, sys; signal.signal(2, signal.SIG_DFL); \
        subprocess.Popen(['sh', '-c', sys.argv[1]]); signal.pause()";
    let mut terminal = run(&stage, &["-q", "-k", "20", "python3", "-c", script, worker]);
    terminal.shows("ready\r\n");
    terminal.types(CTRL_C);
    terminal.shows("cleaned");
    assert_eq!(terminal.ends().0.signal(), Some(2));
    let start = Instant::now();
    let script = "trap 'exit 6' INT; sleep 25 & echo ready; while :; do sleep 0.01; done";
    let mut terminal = run(&stage, &["-q", "-k", "20", "sh", "-c", script]);
    terminal.shows("ready\r\n");
    terminal.types(CTRL_C);
    assert_eq!(terminal.ends().0.code(), Some(6));
    assert!(start.elapsed() < Duration::from_secs(15), "it waited for what ignores it");
    stage.close(Alone::No);
}

/// They are stopped when the command has ended, so that its own teardown reaches them.
#[test]
#[serial]
fn servers_do_not_see_ctrl_c() {
    let Some(stage) = Stage::set() else { return };
    let log = Scratch::new("server-log");
    let server = format!("{EARS}=10 exec {}", victim::exe().display());
    let script = "trap 'sleep .3; kill -0 $TIDY_SERVER1_PID && exit 4' INT; echo ready
        while :; do sleep 0.01; done";
    let args = [TOOL, "with", "--server", &server, "--ready", "log:ready", "--log", log.path()];
    let mut terminal = Terminal::open(&stage, &[&args[..], &["--", "sh", "-c", script]].concat());
    terminal.shows("ready\r\n");
    terminal.types(CTRL_C);
    assert_eq!(terminal.ends().0.code(), Some(4));
    assert_eq!(log.read(), "ready\n15\nend\n");
    stage.close(Alone::No);
}

/// A command's own teardown may end a server; one that ends long after a Ctrl-C ends the command.
#[test]
#[serial]
fn a_command_may_end_its_server_after_ctrl_c() {
    let Some(stage) = Stage::set() else { return };
    for (end, wanted) in [("; sleep .5; exit 5", Some(5)), ("; sleep 25", Some(125))] {
        let script = format!(
            "trap 'kill $TIDY_SERVER1_PID; sleep .1{end}' INT; echo ready; sleep 25 & wait"
        );
        let args =
            [TOOL, "with", "-k", "2", "--server", "exec sleep 25", "--", "sh", "-c", &script];
        let mut terminal = Terminal::open(&stage, &args);
        terminal.shows("ready\r\n");
        terminal.types(CTRL_C);
        let (status, said) = terminal.ends();
        assert_eq!(status.code(), wanted, "{said}");
        assert_eq!(said.contains("server1 ended while CMD was running"), end.ends_with("25"));
    }
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_ctrl_c_while_servers_are_stopped_kills_them_at_once() {
    let Some(stage) = Stage::set() else { return };
    let log = Scratch::new("stubborn-log");
    let server = "trap 'echo no' TERM; echo ready; while :; do sleep .01; done";
    let script = "trap 'exit 0' INT; echo ready; while :; do sleep 0.01; done";
    let args = [TOOL, "with", "-k", "1h", "--server", server, "--ready", "log:ready", "--log"];
    let main = ["--server", server, "--ready", "log:ready", "--", "sh", "-c", script];
    let line = [&args[..], &[log.path()], &main].concat();
    let mut terminal = Terminal::open(&stage, &line);
    terminal.shows("ready\r\n");
    terminal.types(CTRL_C);
    // The last server is stopped first; that one has no log to read, but its stop takes for ever.
    longer_than(GRACE);
    terminal.types(CTRL_C);
    assert_eq!(terminal.ends().0.signal(), Some(2));
    stage.close(Alone::No);
}

/// `kill %1` is for the job's whole group, `kill PID` for the tool alone.
#[test]
#[serial]
fn a_jobs_signal_reaches_the_command_once() {
    let Some(stage) = Stage::set() else { return };
    let mut terminal = shell(&stage);
    for (kill, heard) in [
        ("kill -INT %1", "2\r\nend"),
        ("kill -INT $!", "2\r\nend"),
        ("kill %1", "15\r\nend"),
        ("kill -HUP $!", "1\r\nend"),
        ("kill -USR1 %1; sleep .3; kill -USR1 %1; sleep .3; kill %1", "10\r\n10\r\n15\r\nend"),
        ("kill -USR1 $!; sleep .3; kill -USR1 %1; sleep .3; kill $!", "10\r\n10\r\n15\r\nend"),
    ] {
        terminal.types("$T run -q -k 20 \"$E\" &\n");
        terminal.shows("ready\r\n");
        // The tool may just be learning that its command is there; until then a signal to the group
        // counts as older than the command, which then gets it twice.
        sleep(Duration::from_millis(100));
        terminal.types(&format!("{kill} # go\n"));
        terminal.shows("# go\r\n");
        terminal.shows("end");
        let shown = terminal.passed().replace("prompt> ", "");
        assert_eq!(shown, heard, "{kill}");
        terminal.types("wait; echo do\"\"ne\n");
        terminal.shows("done\r\n");
    }
    // It signals its child, and then its group.
    for _ in 0..rounds(4, 100) {
        terminal.types("timeout .8 $T run -q -k 20 \"$E\" # go\n");
        terminal.shows("# go\r\n");
        terminal.shows("end");
        // The shell may show the line once more.
        let passed = terminal.passed();
        let shown = passed.rsplit("# go\r\n").next().unwrap();
        assert_eq!(shown, "ready\r\n15\r\nend");
        terminal.shows("prompt> ");
    }
    terminal.types("exit\n");
    terminal.ends();
    stage.close(Alone::No);
}

/// The window of a terminal is closed: the shell tells its jobs, and so does the kernel.
#[test]
#[serial]
fn a_closed_window_lets_the_command_clean_up() {
    let Some(stage) = Stage::set() else { return };
    let (file, script) = (Scratch::new("closed"), Scratch::new("closed-script"));
    let mini = "trap 'sleep .3; echo cleaned >>\"$1\"; exit' HUP; echo ready; \
        while :; do sleep .05; done";
    fs::write(&script.0, mini).unwrap();
    for round in 0..rounds(4, 100) {
        let of_shell = round % 2 == 0;
        let _ = fs::remove_file(&file.0);
        let mut terminal = if of_shell {
            let mut terminal = shell(&stage);
            let line = format!("$T run -k 20 sh {} {}\n", script.path(), file.path());
            terminal.types(&line);
            terminal
        } else {
            run(&stage, &["-k", "20", "sh", script.path(), file.path()])
        };
        terminal.shows("ready\r\n");
        terminal.closes();
        let is_clean = || file.read() == "cleaned\n" && stage.alive().is_empty();
        assert!(until(SOON, is_clean), "{of_shell}: {:?}", file.read());
        stage.assert_clean("after the window");
    }
    stage.close(Alone::No);
}

/// As sudo and ssh ask for passwords, wherever the streams go.
#[test]
#[serial]
fn a_command_reads_from_the_terminal_though_no_stream_is_one() {
    let Some(stage) = Stage::set() else { return };
    let ask = "($T run sh -c 'exec >/dev/tty; echo a\"\"sk; read x </dev/tty; echo g\"\"ot $x') \
        </dev/null >/dev/null 2>&1; echo st\"\"atus $?\n";
    let mut terminal = shell(&stage);
    terminal.types(ask);
    terminal.shows("ask\r\n");
    terminal.types("secret\n");
    terminal.shows("got secret");
    terminal.shows("status 0");
    // From the background it waits for its turn, as it would without us.
    terminal.types("$T run sh -c 'read x; echo g\"\"ot $x; exit 5' &\n");
    terminal.shows("prompt> ");
    terminal.types("sleep .5; jobs\n");
    terminal.shows("Stopped");
    terminal.types("fg\n");
    terminal.shows("$T run");
    terminal.types("word\n");
    terminal.shows("got word");
    terminal.types("echo st\"\"atus $?; exit\n");
    terminal.shows("status 5");
    terminal.ends();
    stage.close(Alone::No);
}

/// An editor puts the terminal back before it stops.
#[test]
#[serial]
fn a_command_that_handles_ctrl_z_does_so_before_it_stands_still() {
    let Some(stage) = Stage::set() else { return };
    let script = Scratch::new("editor");
    // It sleeps by turns: a signal just before a pause() would be lost until the next one.
    let editor = "import os, signal, time\ndef stop(*_):\n  time.sleep(.05)
  print('put back', flush=True)\n  os.kill(os.getpid(), signal.SIGSTOP)
  print('going on', flush=True)\nsignal.signal(signal.SIGTSTP, stop)
print('ready', flush=True)\nwhile True: time.sleep(.01)";
    fs::write(&script.0, editor).unwrap();
    let mut terminal = shell(&stage);
    for way in ["", "--containment keeper"] {
        terminal.types(&format!("$T run -q {way} python3 {}\n", script.path()));
        terminal.shows("ready\r\n");
        terminal.types(CTRL_Z);
        terminal.shows("put back\r\n");
        terminal.shows("Stopped");
        terminal.shows("prompt> ");
        terminal.types("fg\n");
        terminal.shows("going on\r\n");
        terminal.types(CTRL_C);
        terminal.shows("prompt> ");
        terminal.types("echo st\"\"atus $?\n");
        terminal.shows("status 130");
        terminal.shows("prompt> ");
    }
    terminal.types("exit\n");
    terminal.ends();
    stage.close(Alone::No);
}

/// What the group has got tells nothing of a later signal to the tool alone, nor of another one.
#[test]
#[serial]
fn each_signal_is_told_apart_for_itself() {
    use nix::sys::signal::{Signal, kill, killpg};
    use nix::unistd::{Pid, getpgid};
    let Some(stage) = Stage::set() else { return };
    let script = "trap 'echo int' INT; trap 'echo usr1' USR1; trap 'echo usr2' USR2; \
        echo $PPID; echo ready; while :; do sleep .01; done";
    let mut terminal = run(&stage, &["-q", "-k", "20", "sh", "-c", script]);
    terminal.shows("ready\r\n");
    let pid = Pid::from_raw(terminal.passed().lines().next().unwrap().parse().unwrap());
    // As in `a_jobs_signal_reaches_the_command_once`.
    sleep(Duration::from_millis(100));
    let group = getpgid(Some(pid)).unwrap();
    killpg(group, Signal::SIGUSR1).unwrap();
    killpg(group, Signal::SIGUSR2).unwrap();
    // By then a second one of either would have been sent on.
    sleep(Duration::from_millis(200));
    terminal.types(CTRL_C);
    terminal.shows("int\r\n");
    // Two that are pending at once are one.
    has_answered(pid);
    for heard in ["usr1", "usr2"] {
        assert_eq!(terminal.passed().matches(heard).count(), 1, "{}", terminal.passed());
    }
    kill(pid, Signal::SIGINT).unwrap();
    terminal.shows("int\r\n");
    has_answered(pid);
    // Later it is a second request.
    sleep(Duration::from_millis(300));
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(terminal.ends().0.signal(), Some(2));
    stage.close(Alone::No);
}

/// The process by which a nested tool tells signals apart is none of its command's.
#[test]
#[serial]
fn a_nested_tool_counts_once() {
    let Some(stage) = Stage::set() else { return };
    let json = Scratch::new("nested");
    let args = ["-t", "1", "-k", "0", "--json", json.path(), TOOL, "run", "-q", "sleep", "20"];
    let mut terminal = run(&stage, &args);
    terminal.shows("still running: ");
    assert_eq!(terminal.ends().0.code(), Some(124));
    let report: serde_json::Value = serde_json::from_str(&json.read()).unwrap();
    assert_eq!(report["interrupted_count"], 2, "{report}");
    stage.close(Alone::No);
}
