//! `tidy-process with`: servers up and ready, the command, servers down.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Output, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::parallel;

use crate::server::free_port;
use crate::support::{Alone, SOON, Stage, read_ready};
use crate::victim;

/// The shell command of a server that will do this.
fn serving(script: &str) -> String {
    format!("TIDY_SERVER='{script}' exec {}", victim::exe().display())
}

fn with(stage: &Stage, args: &[&str]) -> Output {
    stage.tool(&["with"]).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[parallel]
fn the_command_runs_when_the_servers_are_ready_and_they_end_with_it() {
    let Some(stage) = Stage::set() else { return };
    let port = free_port();
    let first = serving("sleep 50\ntcp 127.0.0.1:0\nstay");
    let second = serving(&format!("sleep 50\ntcp 127.0.0.1:{port}\nhttp 503 200\nstay"));
    let url = format!("http://localhost:{port}/health");
    let script = "echo $TIDY_SERVERS $TIDY_MY_DB_PORT $TIDY_SERVER2_PORT; kill -0 $TIDY_MY_DB_PID
        exec 3<>/dev/tcp/127.0.0.1/$TIDY_MY_DB_PORT && exit 7";
    let args = ["--server", &first, "--ready", "tcp", "--name", "my-db", "--server", &second];
    let args = [&args[..], &["--ready", &url, "--", "bash", "-c", script]].concat();
    let output = with(&stage, &args);
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    let words = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = words.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("my-db,server2", &*port.to_string()));
    assert_eq!(said(&output), "");
    TcpListener::bind(format!("127.0.0.1:{}", words[1])).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_exit_status_is_the_commands_or_says_why_not() {
    let Some(stage) = Stage::set() else { return };
    for (args, code) in [
        (&["--server", "sleep 20", "true"][..], 0),
        (&["true"], 0),
        (&["--server", "sleep 20", "sh", "-c", "kill $$"], 143),
        (&["--server", "sleep 20", "-t", "50ms", "sleep", "20"], 124),
        (&["--server", "sleep 20", "flsk"], 127),
        (&["--server", "sleep 20", "/etc/passwd"], 126),
        (&["--server", "exit 3", "--ready", "tcp", "true"], 125),
        (&["--server", "sleep 20", "--ready", "tcp", "--ready-timeout", "50ms", "true"], 125),
        (&["--ready", "tcp", "--server", "sleep 20", "true"], 125),
        (&["--server", "sleep 20", "--ready", "tcp", "--ready", "tcp", "true"], 125),
        (&["--server", "sleep 20", "--ready", "port", "true"], 125),
        (&["--server", "sleep 20", "--name", "1", "true"], 125),
        (&["--server", "a", "--name", "a-b", "--server", "b", "--name", "A.b", "true"], 125),
        (&["--server", "sleep 20", "--log", "/no/such/log", "true"], 125),
        (&["--server", "sleep 20"], 125),
    ] {
        let output = with(&stage, args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
        stage.assert_clean(&format!("{args:?}"));
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_server_that_ends_early_fails_the_run_with_its_last_lines() {
    let Some(stage) = Stage::set() else { return };
    let start = Instant::now();
    let early = "echo starting; echo no database >&2; sleep 0.1; exit 3";
    let output = with(&stage, &["--server", early, "--name", "web", "sleep", "25"]);
    let wanted = "server web ended while CMD was running: exit status: 3; its last lines:\n  \
        starting\n  no database\n";
    assert_eq!(output.status.code(), Some(125));
    assert!(said(&output).ends_with(wanted), "{}", said(&output));
    let output = with(&stage, &["--server", early, "--name", "web", "--ready", "tcp", "true"]);
    assert_eq!(output.status.code(), Some(125));
    let said = said(&output);
    assert!(said.starts_with("tidy-process: server web: wait until ready: any tcp port"), "{said}");
    assert!(said.contains("exit status: 3") && said.ends_with("  no database\n"), "{said}");
    assert!(start.elapsed() < SOON, "it waited for the dead");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_server_that_becomes_a_daemon_has_not_ended() {
    let Some(stage) = Stage::set() else { return };
    let port = free_port();
    let server = serving(&format!("daemon sleep 20;tcp 127.0.0.1:{port};stay\nexit 0"));
    let ready = format!("tcp:{port}");
    let args = ["--server", &server, "--ready", &ready, "sh", "-c", "sleep 0.3; exit 6"];
    let output = with(&stage, &args);
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    TcpListener::bind(("127.0.0.1", port)).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_strangers_port_is_refused_with_a_hint() {
    let Some(stage) = Stage::set() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ready = format!("tcp:{}", listener.local_addr().unwrap().port());
    let output = with(&stage, &["--server", "sleep 20", "--ready", &ready, "true"]);
    assert_eq!(output.status.code(), Some(125));
    let said = said(&output);
    let holder = format!("process {} ", std::process::id());
    assert!(said.contains(&holder) && said.contains("tidy-process: hint: "), "{said}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn what_the_servers_say_goes_to_their_log_and_with_verbose_to_us() {
    let Some(stage) = Stage::set() else { return };
    let log = std::env::temp_dir().join(format!("tidy-with-{}", std::process::id()));
    let path = log.to_str().unwrap();
    let server = "echo hello; echo oops >&2; sleep 20";
    let args = ["--server", server, "--ready", "log:oops", "--log", path, "true"];
    let output = with(&stage, &args);
    assert_eq!((output.status.code(), said(&output)), (Some(0), String::new()));
    assert_eq!(fs::read_to_string(&log).unwrap(), "hello\noops\n");
    let output = with(&stage, &[&["-v"], &args[..]].concat());
    let said = said(&output);
    assert!(said.starts_with("[server1] hello\n[server1] oops\n"), "{said}");
    assert!(said.contains("tidy-process: exited with 0"), "{said}");
    assert_eq!(fs::read_to_string(&log).unwrap(), "hello\noops\n");
    fs::remove_file(log).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn leftovers_of_the_command_are_named() {
    let Some(stage) = Stage::set() else { return };
    let output = with(&stage, &["--server", "sleep 20", "sh", "-c", "sleep 25 & exit 4"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(said(&output).contains("\ntidy-process: killed 1 leftover process: "));
    stage.close(Alone::No);
}

fn send(tool: &Child, signal: Signal) {
    kill(Pid::from_raw(tool.id().cast_signed()), signal).unwrap();
}

#[test]
#[parallel]
fn a_signal_ends_command_and_servers_and_us() {
    use std::os::unix::process::ExitStatusExt;
    let Some(stage) = Stage::set() else { return };
    // While the command runs.
    let mut tool =
        stage.tool(&["with", "--server", "sleep 20", "sh", "-c", "echo ready; sleep 20"]);
    let mut tool = tool.stdout(Stdio::piped()).spawn().unwrap();
    read_ready(tool.stdout.take().unwrap());
    send(&tool, Signal::SIGTERM);
    assert_eq!(tool.wait().unwrap().signal(), Some(15));
    stage.assert_clean("after the command");
    // While a server is waited for; its log is ours to read.
    let mut tool = stage.tool(&["with", "-v", "--server", "echo; echo ready; sleep 20"]);
    tool.args(["--ready", "tcp", "true"]).stderr(Stdio::piped());
    let mut tool = tool.spawn().unwrap();
    let mut stderr = tool.stderr.take().unwrap();
    read_line(&mut stderr, "[server1] ready");
    send(&tool, Signal::SIGINT);
    assert_eq!(tool.wait().unwrap().signal(), Some(2));
    stage.close(Alone::No);
}

fn read_line(from: impl std::io::Read, wanted: &str) {
    use std::io::BufRead;
    let mut lines = std::io::BufReader::new(from).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == wanted), "{wanted} was never said");
}

#[test]
#[parallel]
fn the_report_policy_names_ports_and_directory() {
    let Some(stage) = Stage::set() else { return };
    let server = serving("chdir /usr\ntcp 127.0.0.1:0\nudp 127.0.0.1:0\nsay ready\nstay");
    let script = format!("read x < <({server}); exit 3");
    let run = |policy: &str| stage.tool(&["run", policy, "bash", "-c", &script]).output().unwrap();
    let said = said(&run("--leaks=report"));
    assert!(said.contains(", in \"/usr\", listening on tcp 127.0.0.1:"), "{said}");
    assert!(said.contains(" and udp 127.0.0.1:"), "{said}");
    let mut tool = stage.tool(&["run", "-q", "--json", "-", "bash", "-c", &script]);
    let report: serde_json::Value = serde_json::from_slice(&tool.output().unwrap().stdout).unwrap();
    let left = &report["leftovers"][0];
    assert_eq!(
        (left["cwd"].as_str(), left["ports"][0]["protocol"].as_str()),
        (Some("/usr"), Some("tcp"))
    );
    assert!(left["ports"][1]["port"].as_u64() > Some(0));
    stage.close(Alone::No);
}
