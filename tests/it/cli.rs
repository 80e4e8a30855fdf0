//! The command line: exit statuses, signals, files, words.

use std::process::{Command as StdCommand, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::parallel;

use crate::support::{Alone, Stage, read_ready};

fn run(stage: &Stage, args: &[&str]) -> Output {
    stage.tool(&["run"]).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Arguments, and the exit status they lead to.
fn exits(cases: &[(&[&str], i32)]) {
    let Some(stage) = Stage::set() else { return };
    for (args, expected) in cases {
        let output = run(&stage, args);
        assert_eq!(output.status.code(), Some(*expected), "{args:?}: {}", said(&output));
        stage.assert_clean(&format!("{args:?}"));
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_exit_status_is_the_commands() {
    exits(&[
        (&["true"], 0),
        (&["sh", "-c", "exit 42"], 42),
        (&["--", "sh", "-c", "exit 255"], 255),
    ]);
}

#[test]
#[parallel]
fn a_signal_adds_128() {
    exits(&[(&["sh", "-c", "kill -TERM $$"], 143), (&["sh", "-c", "kill -KILL $$"], 137)]);
}

#[test]
#[parallel]
fn what_cannot_be_started_is_126_or_127() {
    exits(&[(&["/etc/passwd"], 126), (&["flsk"], 127), (&["/no/such/program"], 127)]);
}

#[test]
#[parallel]
fn a_reader_of_the_list_may_have_seen_enough() {
    let Some(stage) = Stage::set() else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = stage.tool(&["ps"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let full = std::fs::File::create("/dev/full").unwrap();
    assert_eq!(stage.tool(&["ps"]).stdout(full).status().unwrap().code(), Some(125));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn our_own_failures_are_125() {
    exits(&[
        (&[], 125),
        (&["--bogus", "true"], 125),
        (&["-t", "5x", "true"], 125),
        (&["-s", "NOPE", "true"], 125),
        (&["-E", "=x", "true"], 125),
        (&["--leaks", "maybe", "true"], 125),
        (&["-q", "-v", "true"], 125),
        (&["-C", "/no/such", "true"], 125),
        (&["--stdin", "/no/such", "true"], 125),
        (&["--stdout", "/no/such/file", "true"], 125),
        (&["--json", "/no/such/file", "true"], 125),
        (&["--json", "/dev/full", "true"], 125),
        (&["--parent", "/tmp", "true"], 125),
        (&["--parent", "/no/such", "true"], 125),
        (&["--name", "a/b", "true"], 125),
    ]);
}

#[test]
#[parallel]
fn a_timeout_is_124_whatever_the_command_does() {
    exits(&[
        (&["-t", "50ms", "sleep", "20"], 124),
        (&["-t", "50ms", "-k", "0", "sh", "-c", "trap '' TERM; sleep 20; sleep 20"], 124),
        (&["-t", "50ms", "-k", "50ms", "sh", "-c", "trap '' TERM; sleep 20; sleep 20"], 124),
        (&["-t", "50ms", "sh", "-c", "trap 'exit 0' TERM; sleep 20 & wait"], 124),
        (&["-t", "0", "sh", "-c", "exit 3"], 3),
        (&["-t", "20s", "sh", "-c", "exit 3"], 3),
    ]);
}

#[test]
#[parallel]
fn the_first_word_that_is_no_option_starts_the_command() {
    let Some(stage) = Stage::set() else { return };
    let output = run(&stage, &["-q", "echo", "-q", "--help", "--", "-t", "5"]);
    assert_eq!(output.stdout, b"-q --help -- -t 5\n");
    let output = run(&stage, &["--", "echo", "--", "x"]);
    assert_eq!(output.stdout, b"-- x\n");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn help_and_version_are_no_failures() {
    let Some(stage) = Stage::set() else { return };
    for args in [&["--help"][..], &["run", "--help"], &["--version"], &["help", "run"]] {
        let output = stage.tool(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty());
    }
    let help = stage.tool(&["run", "--help"]).output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    for flag in ["--timeout", "--kill-after", "--signal", "--leaks", "--json", "--name", "--parent"]
    {
        assert!(help.contains(flag), "{flag} is not explained");
    }
    assert!(help.contains("123") && help.contains("125") && help.contains("128+N"));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn leftovers_are_killed_and_named_in_one_line() {
    let Some(stage) = Stage::set() else { return };
    let script =
        "sleep 25 & setsid sleep 26 & until [ $(grep -c sleep /proc/$!/comm) = 1 ]; do :; done";
    let output = run(&stage, &["sh", "-c", script]);
    assert_eq!(output.status.code(), Some(0));
    let said = said(&output);
    assert!(said.starts_with("tidy-process: killed 2 leftover processes: "), "{said}");
    assert!(said.contains("sleep 26") && said.lines().count() == 1, "{said}");
    let output = run(&stage, &["-q", "sh", "-c", script]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn leak_policies_report_wait_and_fail() {
    let Some(stage) = Stage::set() else { return };
    let leak = "sleep 25 & exit 5";
    let output = run(&stage, &["--leaks=fail", "sh", "-c", leak]);
    assert_eq!(output.status.code(), Some(5));
    assert!(said(&output).contains("killed 1 leftover process: "));
    let output = run(&stage, &["--leaks=fail", "sh", "-c", "sleep 25 &"]);
    assert_eq!(output.status.code(), Some(123));
    let output = run(&stage, &["--leaks=fail", "sh", "-c", "exit 5"]);
    assert_eq!(output.status.code(), Some(5));
    let output = run(&stage, &["--leaks=report", "sh", "-c", leak]);
    assert_eq!(output.status.code(), Some(5));
    assert!(said(&output).contains("(parent "), "{}", said(&output));
    let output = run(&stage, &["--leaks=wait", "sh", "-c", "(sleep 0.2; echo late) & exit 5"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), &b"late\n"[..]));
    assert_eq!(said(&output), "");
    let output = run(&stage, &["--leaks=wait", "-t", "200ms", "-k0", "sh", "-c", leak]);
    assert_eq!(output.status.code(), Some(124));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn environment_directory_and_files_are_set() {
    let Some(stage) = Stage::set() else { return };
    let dir = std::env::temp_dir().join(format!("tidy-cli-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    std::fs::write(file("in"), "input").unwrap();
    let (stdin, stdout, stderr) = (file("in"), file("out"), file("err"));
    let args = ["-E", "A=1=2", "-E", "B=", "-C", "/usr", "--stdin", &stdin, "--stdout", &stdout];
    let script = "echo $A-${B-unset}-$PWD-$(cat); echo err >&2";
    let output =
        stage.tool(&["run"]).args(args).args(["--stderr", &stderr, "sh", "-c", script]).output();
    assert_eq!(output.unwrap().status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(stdout).unwrap(), "1=2--/usr-input\n");
    assert_eq!(std::fs::read_to_string(stderr).unwrap(), "err\n");
    std::fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_json_report_is_versioned_and_says_what_happened() {
    let Some(stage) = Stage::set() else { return };
    let report = |args: &[&str]| -> serde_json::Value {
        let output = stage.tool(&["run", "-q", "--json", "-"]).args(args).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let ok = report(&["sh", "-c", "exit 3"]);
    assert_eq!((ok["v"].as_u64(), ok["exit"].as_u64()), (Some(1), Some(3)));
    assert_eq!((ok["cause"].as_str(), ok["status"]["code"].as_u64()), (Some("exited"), Some(3)));
    assert_eq!(ok["command"], serde_json::json!(["sh", "-c", "exit 3"]));
    assert!(ok["wall_seconds"].as_f64().unwrap() > 0.0);
    let late = report(&["-t", "50ms", "-k0", "sleep", "20"]);
    assert_eq!(
        (late["cause"].as_str(), late["status"]["signal"].as_u64()),
        (Some("timed-out"), Some(15))
    );
    let leaky = report(&["sh", "-c", "sleep 25 & exit 0"]);
    assert!(leaky["leftovers"][0]["ppid"].is_u64());
    let missing = report(&["flsk"]);
    assert_eq!(missing["exit"].as_u64(), Some(127));
    assert!(missing["error"].as_str().unwrap().starts_with("exec \"flsk\""));
    assert!(missing["hint"].is_string());
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn verbose_says_how_it_ended() {
    let Some(stage) = Stage::set() else { return };
    let output = run(&stage, &["-v", "sh", "-c", "exit 3"]);
    let said = said(&output);
    assert!(
        said.starts_with("tidy-process: exited with 3 after 0.") && said.contains("0 leftovers")
    );
    stage.close(Alone::No);
}

/// The tool with a command that has said that it is ready.
fn ready(stage: &Stage, args: &[&str], script: &str) -> std::process::Child {
    let mut tool = stage.tool(&["run", "-q"]);
    let mut tool =
        tool.args(args).args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    read_ready(tool.stdout.take().unwrap());
    tool
}

fn send(tool: &std::process::Child, signal: Signal) {
    kill(Pid::from_raw(tool.id().cast_signed()), signal).unwrap();
}

#[test]
#[parallel]
fn the_first_signal_stops_the_command_and_we_end_by_it() {
    use std::os::unix::process::ExitStatusExt;
    let Some(stage) = Stage::set() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let file = std::env::temp_dir().join(format!("tidy-stopped-{}", std::process::id()));
        let script = format!(
            "trap 'echo stopped > {}; exit 0' USR2; echo ready; while :; do sleep 0.01; done",
            file.display()
        );
        let report = file.with_extension("json");
        let json = ["--json", report.to_str().unwrap()];
        let args = [&["-s", "USR2", "-k", "20s"], &json[..]].concat();
        let mut tool = ready(&stage, &args, &script);
        send(&tool, signal);
        let status = tool.wait().unwrap();
        assert_eq!(status.signal(), Some(signal as i32));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "stopped\n");
        let written = std::fs::read_to_string(&report).unwrap();
        assert!(written.contains(&format!("\"exit\":{}", 128 + signal as i32)), "{written}");
        std::fs::remove_file(&file).unwrap();
        std::fs::remove_file(&report).unwrap();
        stage.assert_clean(signal.as_str());
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn who_ignores_the_stop_is_killed_after_the_grace() {
    use std::os::unix::process::ExitStatusExt;
    let Some(stage) = Stage::set() else { return };
    let mut tool = ready(&stage, &["-k", "100ms"], "trap '' TERM; echo ready; sleep 20; sleep 20");
    let start = Instant::now();
    send(&tool, Signal::SIGTERM);
    assert_eq!(tool.wait().unwrap().signal(), Some(15));
    assert!(start.elapsed() >= Duration::from_millis(100));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_second_signal_kills_at_once() {
    use std::os::unix::process::ExitStatusExt;
    let Some(stage) = Stage::set() else { return };
    let script = "trap 'echo ready' INT; echo ready; while :; do sleep 0.01; done";
    let mut tool = stage.tool(&["run", "-q", "-k", "1h", "sh", "-c", script]);
    let mut tool = tool.stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = tool.stdout.take().unwrap();
    read_ready(&mut pipe);
    send(&tool, Signal::SIGINT);
    read_ready(&mut pipe);
    // Until then it is the same request.
    std::thread::sleep(Duration::from_millis(300));
    send(&tool, Signal::SIGTERM);
    assert_eq!(tool.wait().unwrap().signal(), Some(2));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn ignored_signals_stay_ignored() {
    let Some(stage) = Stage::set() else { return };
    let tool = crate::support::tool();
    let script = format!("trap '' HUP; exec {tool} run -q sh -c 'echo ready; read x; exit 8'");
    let mut command = StdCommand::new("sh");
    command.args(["-c", &script]).env("TIDY_PROCESS_PARENT", stage.supervisor.path().unwrap());
    let mut tool = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    read_ready(tool.stdout.take().unwrap());
    send(&tool, Signal::SIGHUP);
    drop(tool.stdin.take());
    assert_eq!(tool.wait().unwrap().code(), Some(8));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn sigtstp_freezes_the_tree_and_sigcont_thaws_it() {
    let Some(stage) = Stage::set() else { return };
    // In a session of its own the tool would be an orphaned process group, which SIGTSTP does not
    // stop.
    let mut tool = ready(&stage, &[], "echo ready; sleep 0.3; exit 4");
    send(&tool, Signal::SIGTSTP);
    let tree = std::fs::read_dir(stage.supervisor.path().unwrap()).unwrap().flatten();
    let root = tree.map(|entry| entry.path()).find(|path| path.is_dir()).unwrap();
    let events = root.join("0/cgroup.events");
    let start = Instant::now();
    while !std::fs::read_to_string(&events).unwrap().contains("frozen 1") {
        assert!(start.elapsed() < crate::support::SOON, "never frozen");
        // No event tells an outsider when the tool has done it.
        std::thread::sleep(Duration::from_millis(1));
    }
    // Longer than the command's own sleep: it would have ended by now.
    std::thread::sleep(Duration::from_millis(500));
    assert!(tool.try_wait().unwrap().is_none());
    send(&tool, Signal::SIGCONT);
    assert_eq!(tool.wait().unwrap().code(), Some(4));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_closed_standard_error_does_not_matter() {
    let Some(stage) = Stage::set() else { return };
    let script = "exec \"$T\" run -v sh -c 'sleep 20 & exit 6' 2>&-";
    let mut command = StdCommand::new("sh");
    command.args(["-c", script]).env("T", crate::support::tool());
    let status =
        command.env("TIDY_PROCESS_PARENT", stage.supervisor.path().unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(6));
    stage.close(Alone::No);
}

/// A word that is close to a subcommand is no command to run.
#[test]
#[parallel]
fn a_misspelt_subcommand_is_met_with_the_right_one() {
    let Some(stage) = Stage::set() else { return };
    for (misspelt, right) in [("swep", "sweep"), ("docter", "doctor"), ("wiht", "with")] {
        let output = stage.tool(&[misspelt, "--json"]).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains(&format!("'{right}'")) && !said.contains("run -- "), "{said}");
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_status_of_the_command_is_said_where_its_report_cannot_be_written() {
    let Some(stage) = Stage::set() else { return };
    for (script, ending) in [("exit 7", "exited with 7"), ("kill -9 $$", "ended by signal 9")] {
        let output = run(&stage, &["-q", "--json", "/dev/full", "sh", "-c", script]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains(&format!("the command itself {ending}")), "{said}");
    }
    stage.close(Alone::No);
}
