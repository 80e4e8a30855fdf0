//! In a real terminal: Ctrl-C, Ctrl-Z, job control of a shell, reading what is typed.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command as StdCommand, ExitStatus};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::unistd::Pid;
use serial_test::serial;

use crate::support::{Alone, SOON, Stage, tool, until};
use crate::victim;

pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_Z: &str = "\x1a";

/// A terminal, and the program in it that leads its session.
pub(crate) struct Terminal {
    master: File,
    seen: String,
    /// What was shown before what was waited for last.
    passed: String,
    child: Child,
}

impl Terminal {
    /// `setsid -c` makes the terminal the program's controlling one.
    pub(crate) fn open(stage: &Stage, program: &[&str]) -> Self {
        let pty = openpty(None, None).unwrap();
        // Nobody but us may hold the master, or the terminal would never hang up.
        fcntl(&pty.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        fcntl(&pty.slave, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        let slave = || File::from(pty.slave.try_clone().unwrap());
        let mut command = StdCommand::new("setsid");
        stage.mark_std(command.arg("-c").args(program));
        command.stdin(slave()).stdout(slave()).stderr(slave());
        let child = command.env("T", tool()).env("PS1", "prompt> ").spawn().unwrap();
        Self { master: pty.master.into(), seen: String::new(), passed: String::new(), child }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until this has been shown, and forgets what came before it.
    pub(crate) fn shows(&mut self, wanted: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(at) = self.seen.find(wanted) {
                self.passed = self.seen.drain(..at + wanted.len()).collect();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let news = poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
            assert_ne!(news, 0, "{wanted:?} was never shown: {:?}", self.seen);
            let mut bytes = [0; 1024];
            let len = self.master.read(&mut bytes).unwrap_or(0);
            assert_ne!(len, 0, "it ended without {wanted:?}: {:?}", self.seen);
            self.seen += &String::from_utf8_lossy(&bytes[..len]);
        }
    }

    /// What was shown up to what was waited for last.
    pub(crate) fn passed(&self) -> &str {
        &self.passed
    }

    /// Closes its window. What leads the session ends of that.
    pub(crate) fn closes(self) {
        let Self { master, mut child, .. } = self;
        drop(master);
        child.wait().unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// How it ended, and what it has shown since.
    pub(crate) fn ends(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let _ = self.master.read_to_string(&mut self.seen);
                return (status, self.seen);
            }
            assert!(Instant::now() < deadline, "it does not end; it showed {:?}", self.seen);
            // A child of std's has no event to wait for, and the bound is what matters.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits until the tool has no signal before it, and waits for the next.
pub(crate) fn has_answered(pid: Pid) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let answered = || {
        let status = read("status");
        let none = |set| status.contains(&format!("{set}:\t0000000000000000\n"));
        // poll(2) is a call of its own where it is older than ppoll(2).
        let polls = [
            libc::SYS_ppoll,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll,
        ];
        let call = read("syscall");
        let polls = polls.iter().any(|poll| call.starts_with(&format!("{poll} ")));
        none("ShdPnd") && none("SigPnd") && polls
    };
    assert!(until(SOON, answered), "it does not wait: {:?}", read("syscall"));
}

/// A program that says `ready` and stays. Not a shell: that one, with a child just forked and not
/// yet executed, may miss a Ctrl-C, with or without us.
fn plain(stage: &Stage, args: &[&str]) -> Terminal {
    let exe = victim::exe();
    let program = ["env", "TIDY_SERVER=say ready\nstay", exe.to_str().unwrap()];
    Terminal::open(stage, &[args, &program].concat())
}

/// The tool itself leads the session, in the foreground.
pub(crate) fn run(stage: &Stage, args: &[&str]) -> Terminal {
    Terminal::open(stage, &[&[tool(), "run"], args].concat())
}

#[test]
#[serial]
fn a_command_reads_what_is_typed() {
    let Some(stage) = Stage::set() else { return };
    let script = "echo ready; read x; echo got $x; stty size >/dev/null && exit 5";
    let mut terminal = run(&stage, &["sh", "-c", script]);
    terminal.shows("ready\r\n");
    terminal.types("hello\n");
    terminal.shows("got hello");
    assert_eq!(terminal.ends().0.code(), Some(5));
    stage.close(Alone::No);
}

#[test]
#[serial]
fn ctrl_c_reaches_the_command_once_and_we_end_as_it_does() {
    let Some(stage) = Stage::set() else { return };
    let script = "trap 'n=x$n; echo cleaning $n; sleep 0.2; echo clean; exit 6' INT TERM
        echo ready; while :; do sleep 0.01; done";
    let mut terminal = run(&stage, &["-k", "20s", "sh", "-c", script]);
    terminal.shows("ready\r\n");
    // Until the tool knows of its command, that gets a signal to both twice.
    has_answered(Pid::from_raw(terminal.child.id().cast_signed()));
    terminal.types(CTRL_C);
    terminal.shows("cleaning x\r\nclean\r\n");
    assert_eq!(terminal.ends().0.code(), Some(6));
    stage.close(Alone::No);
}

#[test]
#[serial]
fn ctrl_c_ends_servers_and_command_without_a_word() {
    let Some(stage) = Stage::set() else { return };
    let args = ["with", "--server", "exec sleep 20", "--server", "exec sleep 21", "--"];
    let mut terminal = plain(&stage, &[&[tool()], &args[..]].concat());
    terminal.shows("ready\r\n");
    terminal.types(CTRL_C);
    terminal.shows("^C");
    let (status, rest) = terminal.ends();
    assert_eq!((status.signal(), &*rest), (Some(2), ""));
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_killed_program_leaves_the_terminal_as_it_was() {
    let Some(stage) = Stage::set() else { return };
    let raw = "$T run -t 0.2 sh -c 'stty raw -echo; exec sleep 20'; echo $?; stty -a; read x";
    let mut terminal = Terminal::open(&stage, &["sh", "-c", raw]);
    for wanted in ["124\r\n", " icanon ", " echo "] {
        terminal.shows(wanted);
    }
    terminal.types("\n");
    terminal.ends();
    // One that ends by itself may have been run for just that.
    let kept = "$T run stty -echo; echo $?; stty -a; read x";
    let mut terminal = Terminal::open(&stage, &["sh", "-c", kept]);
    for wanted in ["0\r\n", " -echo "] {
        terminal.shows(wanted);
    }
    terminal.types("\n");
    terminal.ends();
    stage.close(Alone::No);
}

/// A program that asks on the terminal itself does so wherever its streams go.
#[test]
#[serial]
fn the_terminal_is_put_back_though_no_stream_is_one() {
    let Some(stage) = Stage::set() else { return };
    let run = ["run", "with --server 'exec sleep 20' --"];
    for run in run {
        let raw = format!(
            "($T {run} -t 0.2 sh -c 'stty raw -echo </dev/tty; exec sleep 20') \
             </dev/null >/dev/null 2>&1; echo $?; stty -a; read x"
        );
        let raw = raw.replace("-- -t 0.2", "-t 0.2 --");
        let mut terminal = Terminal::open(&stage, &["sh", "-c", &raw]);
        for wanted in ["124\r\n", " icanon ", " echo "] {
            terminal.shows(wanted);
        }
        terminal.types("\n");
        terminal.ends();
    }
    stage.close(Alone::No);
}

/// What a shell's job control does: stop, background, foreground, and the terminal is the job's
/// again.
#[test]
#[serial]
fn a_shell_stops_the_job_and_takes_it_up_again() {
    let Some(stage) = Stage::set() else { return };
    let mut terminal = Terminal::open(&stage, &["bash", "--norc", "--noprofile", "-i"]);
    terminal.shows("prompt> ");
    // The quotes keep the echo of what is typed from being taken for what is printed.
    terminal.types("$T run sh -c 'echo re\"\"ady; read x; echo g\"\"ot $x; setsid true; exit 9'\n");
    terminal.shows("ready\r\n");
    terminal.types(CTRL_Z);
    terminal.shows("Stopped");
    terminal.shows("prompt> ");
    let frozen = fs::read_dir(stage.supervisor.path().unwrap()).unwrap().flatten();
    let mut frozen = frozen.map(|entry| entry.path().join("0/cgroup.events"));
    let events = frozen.find(|path| path.exists()).unwrap();
    assert!(fs::read_to_string(events).unwrap().contains("frozen 1"));
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

#[test]
#[serial]
fn a_shell_sees_that_ctrl_c_ended_the_job() {
    let Some(stage) = Stage::set() else { return };
    let mut terminal = Terminal::open(&stage, &["bash", "--norc", "--noprofile", "-i"]);
    terminal.shows("prompt> ");
    let exe = victim::exe();
    let script = "TIDY_SERVER=$'say re'$'ady\\nstay' $T run ";
    terminal.types(&format!("{script} {}\n", exe.display()));
    terminal.shows("ready\r\n");
    terminal.types(CTRL_C);
    terminal.shows("prompt> ");
    terminal.types("echo status $?; exit\n");
    terminal.shows("status 130");
    terminal.ends();
    stage.close(Alone::No);
}

/// A command may put itself into the foreground, and have all others stopped that write: the tool
/// would not keep its timeout, and no shell would continue it.
#[test]
#[serial]
fn a_command_that_takes_the_terminal_does_not_stop_the_tool() {
    let Some(stage) = Stage::set() else { return };
    let takes = "import os, signal, termios, time
signal.signal(signal.SIGTTOU, signal.SIG_IGN); os.setpgid(0, 0); os.tcsetpgrp(0, os.getpid())
modes = termios.tcgetattr(0); modes[3] |= termios.TOSTOP; termios.tcsetattr(0, 0, modes)
print('taken', flush=True); time.sleep(30)";
    let shell = ["env", "TAKES", "bash", "--norc", "--noprofile", "-i"];
    let takes = format!("TAKES={takes}");
    for level in ["", "--fence "] {
        if !level.is_empty() && !crate::fence::may_be_made() {
            continue;
        }
        let mut terminal =
            Terminal::open(&stage, &shell.map(|w| if w == "TAKES" { &takes } else { w }));
        terminal.shows("prompt> ");
        terminal.types(&format!("$T run {level}-t 1 -v python3 -c \"$TAKES\"\n"));
        terminal.shows("taken\r\n");
        terminal.shows("prompt> ");
        terminal.types("echo status $?; exit\n");
        terminal.shows("status 124");
        terminal.ends();
    }
    stage.close(Alone::No);
}

/// However soon it ends: here before the tool has so much as looked at it.
#[test]
#[serial]
fn a_command_handles_ctrl_c_and_ends_before_the_tool_has_looked() {
    let Some(stage) = Stage::set() else { return };
    let script = "trap 'exit 8' INT; echo ready; while :; do sleep 0.01; done";
    for (containment, call) in [("cgroup", "clone3"), ("keeper", "pidfd_open")] {
        let inject = format!("inject={call}:delay_exit=500ms");
        let trace = format!("trace={call}");
        let traced = ["strace", "-o", "/dev/null", "-e", &trace, "-e", &inject, tool(), "run"];
        let args = ["--containment", containment, "sh", "-c", script];
        let mut terminal = Terminal::open(&stage, &[&traced[..], &args].concat());
        terminal.shows("ready\r\n");
        terminal.types(CTRL_C);
        let (status, rest) = terminal.ends();
        assert_eq!(status.code(), Some(8), "{containment}: {status}: {rest:?}");
    }
    stage.close(Alone::No);
}
