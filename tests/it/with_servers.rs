//! `tidy-process with`: what is said of several servers, and what each may be given.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::Instant;

use serde_json::Value;
use serial_test::{parallel, serial};

use crate::server::free_port;
use crate::support::{Alone, SOON, Stage, tool};
use crate::terminal::Terminal;
use crate::victim;

fn serving(script: &str) -> String {
    format!("TIDY_SERVER='{script}' exec {}", victim::exe().display())
}

fn with(stage: &Stage, args: &[&str]) -> Output {
    stage.tool(&["with"]).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory of this test's own.
fn dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("tidy-with-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
#[parallel]
fn the_end_of_an_earlier_server_is_seen_while_a_later_one_is_awaited() {
    let Some(stage) = Stage::set() else { return };
    let dir = dir("earlier");
    let go = dir.join("go");
    // It ends once the next one runs.
    let first = format!(
        "echo up; until [ -e {go} ]; do sleep 0.01; done; echo no disk >&2; exit 3",
        go = go.display()
    );
    let second = format!("touch {}; exec sleep 60", go.display());
    for more in [&[][..], &["--parallel"]] {
        let _ = fs::remove_file(&go);
        let start = Instant::now();
        let args = ["--server", &first, "--name", "db", "--ready", "log:up"];
        let args = [&args[..], &["--server", &second, "--name", "api", "--ready", "tcp"]].concat();
        let args = [more, &args, &["--ready-timeout", "60s", "--", "true"]].concat();
        let output = with(&stage, &args);
        let wanted = "tidy-process: server db ended while api (any port) was awaited: exit \
            status: 3; its last lines:\n  up\n  no disk\n";
        let said = said(&output);
        assert_eq!(output.status.code(), Some(125), "{more:?}: {said}");
        // Those that start at the same time may end before they were found ready.
        let early = said.starts_with("tidy-process: server db: wait until ready");
        assert!(said == wanted || (early && !more.is_empty()), "{more:?}: {said}");
        assert!(said.ends_with("its last lines:\n  up\n  no disk\n"), "{more:?}: {said}");
        assert!(start.elapsed() < SOON, "it waited for the other: {:?}", start.elapsed());
    }
    // The one that needs it ends too, and is not blamed.
    let second = "exit 4";
    let args = ["--server", "echo up; sleep 0.2; exit 3", "--name", "db", "--ready", "log:up"];
    let args = [&args[..], &["--server", second, "--ready", "tcp", "true"]].concat();
    let said = said(&with(&stage, &args));
    assert!(said.contains("server server2: wait until ready"), "{said}");
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_port_that_another_server_has_names_that_server() {
    let Some(stage) = Stage::set() else { return };
    let port = free_port();
    let first = serving(&format!("tcp 127.0.0.1:{port}\nstay"));
    let ready = format!("tcp:{port}");
    let args = ["--server", &first, "--name", "api", "--ready", "tcp"];
    let args = [&args[..], &["--server", "sleep 20", "--name", "web", "--ready", &ready]].concat();
    let output = with(&stage, &[&args[..], &["true"]].concat());
    let said = said(&output);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        said.starts_with("tidy-process: server web (its port is held by server api): "),
        "{said}"
    );
    assert!(said.contains("hint: server api and server web: both listen on one port"), "{said}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_last_lines_of_each_server_follow_where_the_command_fails() {
    let Some(stage) = Stage::set() else { return };
    let servers = ["--server", "seq 12; exec sleep 20", "--name", "a", "--ready", "log:12"];
    let servers = [&servers[..], &["--server", "exec sleep 20", "--name", "b"]].concat();
    let follows = |options: &[&str], command: &[&str]| {
        let output = with(&stage, &[options, &servers, &["--"], command].concat());
        let said = said(&output);
        let lines = said.lines().filter(|line| !line.contains("warning"));
        lines.map(|line| format!("{line}|")).collect::<String>()
    };
    let fail = &["sh", "-c", "exit 4"][..];
    let ten: String = (3..=12).map(|line| format!("  {line}|")).collect();
    let heading = "tidy-process: last lines of server a:|";
    assert_eq!(follows(&[], fail), format!("{heading}{ten}"));
    assert_eq!(follows(&["--tail", "2"], fail), format!("{heading}  11|  12|"));
    assert_eq!(follows(&["--tail", "0"], fail), "");
    assert_eq!(follows(&["-q"], fail), "");
    assert_eq!(follows(&["-q", "--tail=1"], fail), format!("{heading}  12|"));
    assert_eq!(follows(&[], &["true"]), "");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn an_input_that_stays_open_keeps_a_server_that_would_end_with_it() {
    let Some(stage) = Stage::set() else { return };
    let server = "echo up; cat; echo input over; exit 0";
    let ready = ["--ready", "log:up"];
    let closed = [&["--server", server][..], &ready, &["sleep", "20"]].concat();
    let output = with(&stage, &closed);
    assert_eq!(output.status.code(), Some(125));
    assert!(said(&output).contains("hint: its standard input was /dev/null"), "{}", said(&output));
    let open = ["--stdin", "open", "--", "sh", "-c", "sleep 0.3; exit 6"];
    let output = with(&stage, &[&["-v", "--server", server][..], &ready, &open].concat());
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    let dir = dir("input");
    fs::write(dir.join("in"), "from a file\n").unwrap();
    let input = dir.join("in");
    let file = ["--stdin", input.to_str().unwrap(), "--", "true"];
    let server = "cat; exec sleep 20";
    let output =
        with(&stage, &[&["--server", server, "--ready", "log:from a file"][..], &file].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn each_server_has_its_own_variables_directory_and_limits() {
    let Some(stage) = Stage::set() else { return };
    let show = "echo \"$A $B $PWD\"; echo up; exec sleep 20";
    let (dir, sub) = (dir("own"), "/usr");
    let log = |name: &str| dir.join(name).display().to_string();
    let (one, two) = (log("one"), log("two"));
    let args = ["-E", "A=all", "-C", "/", "--server", show, "--log", &one, "--ready", "log:up"];
    let args = [&args[..], &["-E", "A=own", "-EB=b", "-C", sub]].concat();
    let args = [&args[..], &["--server", show, "--log", &two, "--ready", "log:up"]].concat();
    let output = with(&stage, &[&args[..], &["--", "sh", "-c", "echo \"$A $B $PWD\""]].concat());
    assert_eq!((output.status.code(), &*out(&output)), (Some(0), "all  /\n"), "{}", said(&output));
    assert_eq!(fs::read_to_string(one).unwrap(), "own b /usr\nup\n");
    assert_eq!(fs::read_to_string(two).unwrap(), "all  /\nup\n");
    // CPU time is a limit that works everywhere; the other server and CMD have none.
    let burn = "echo up; while :; do :; done";
    let args = ["--server", burn, "--cpu-time", "100ms", "--name", "hot", "--ready", "log:up"];
    let output = with(&stage, &[&args[..], &["--server", "sleep 60", "sleep", "60"]].concat());
    assert_eq!(output.status.code(), Some(125));
    let wanted = "server hot ended while CMD was running: used up its CPU time (signal: ";
    assert!(said(&output).contains(wanted), "{}", said(&output));
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_leaks_of_the_command_are_treated_as_by_run() {
    let Some(stage) = Stage::set() else { return };
    let server = ["--server", "sleep 60", "--"];
    let leak = ["sh", "-c", "sleep 60 & exit 0"];
    let output = with(&stage, &[&["--leaks=fail"][..], &server, &leak].concat());
    assert_eq!(output.status.code(), Some(123), "{}", said(&output));
    let wait = ["sh", "-c", "(sleep 0.3; echo late) & echo early"];
    let output = with(&stage, &[&["--leaks=wait"][..], &server, &wait].concat());
    assert_eq!((output.status.code(), &*out(&output)), (Some(0), "early\nlate\n"));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_report_has_the_command_and_each_server() {
    let Some(stage) = Stage::set() else { return };
    let port = free_port();
    let (ready, server) = (format!("{port}"), serving(&format!("tcp 127.0.0.1:{port}\nstay")));
    let args = ["--json", "-", "-q", "--server", &server, "--name", "web", "--ready", &ready];
    let report = |command: &[&str]| -> (Option<i32>, Value) {
        let output = with(&stage, &[&args[..], &["--"], command].concat());
        let report = serde_json::from_slice(&output.stdout);
        (output.status.code(), report.unwrap_or_else(|error| panic!("{error}: {output:?}")))
    };
    let (status, value) = report(&["sh", "-c", "exit 7"]);
    assert_eq!((status, &value["exit"], &value["status"]["code"]), (Some(7), &7.into(), &7.into()));
    let web = &value["servers"][0];
    assert_eq!((&web["name"], &web["port"]), (&"web".into(), &port.into()));
    assert_eq!((web["line"].as_str().unwrap(), &web["cause"]), (&*server, &"stopped".into()));
    assert!(web["ready_seconds"].as_f64() > Some(0.0), "{web}");
    assert!(web["usage"]["user_seconds"].is_number(), "{web}");
    let (status, value) = report(&["flsk"]);
    assert_eq!((status, &value["exit"]), (Some(127), &127.into()));
    assert!(value["error"].is_string() && value["servers"][0]["status"].is_object(), "{value}");
    let (status, value) = report(&["sh", "-c", "kill -TERM $PPID; sleep 60"]);
    assert_eq!((status, &value["exit"]), (None, &143.into()), "{value}");
    stage.close(Alone::No);
}

/// Each is ready only once the other has started.
#[test]
#[parallel]
fn servers_may_start_at_the_same_time() {
    let Some(stage) = Stage::set() else { return };
    let dir = dir("parallel");
    let server = |own: &str, other: &str| {
        let (own, other) = (dir.join(own), dir.join(other));
        let (own, other) = (own.display(), other.display());
        format!("touch {own}; until [ -e {other} ]; do sleep 0.01; done; echo up; exec sleep 60")
    };
    let (one, two) = (server("one", "two"), server("two", "one"));
    let args = ["--server", &one, "--name", "one", "--ready", "log:up"];
    let args = [&args[..], &["--server", &two, "--name", "two", "--ready", "log:up"]].concat();
    let command = ["--", "sh", "-c", "echo $TIDY_SERVERS"];
    let output = with(&stage, &[&["--parallel"][..], &args, &command].concat());
    assert_eq!((output.status.code(), &*out(&output)), (Some(0), "one,two\n"), "{}", said(&output));
    for name in ["one", "two"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let output = with(&stage, &[&["--ready-timeout", "300ms"][..], &args, &command].concat());
    assert!(said(&output).contains("server one: wait until ready"), "{}", said(&output));
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}

const FILE: &str = r#"
# The database comes last here, and first in time.
[server.web]
command = "echo web knows $TIDY_SERVERS $A; exec sleep 60"
ready = "log:knows"
depends = ["db"]
env = { A = "a", B = 2 }
log = "web.log"

[server.cache]
command = ["sh", "-c", "echo cache knows $TIDY_SERVERS; exec sleep 60"]
ready = "log:knows"
log = "cache.log"

[server.db]
command = "echo db knows $TIDY_SERVERS; exec sleep 60"
ready = "log:knows"
log = "db.log"
"#;

#[test]
#[parallel]
fn a_file_has_a_table_for_each_server() {
    let Some(stage) = Stage::set() else { return };
    let dir = dir("file");
    fs::write(dir.join("tidy.toml"), FILE).unwrap();
    let run = |args: &[&str], knows: [&str; 3]| {
        let mut command = stage.tool(&["with", "--file", "tidy.toml"]);
        command.args(args).args(["--", "sh", "-c", "echo $TIDY_SERVERS"]).current_dir(&dir);
        let output = command.output().unwrap();
        let all = "cache,db,web\n";
        assert_eq!((output.status.code(), &*out(&output)), (Some(0), all), "{}", said(&output));
        for (name, known) in ["web", "cache", "db"].into_iter().zip(knows) {
            let log = fs::read_to_string(dir.join(format!("{name}.log"))).unwrap();
            assert_eq!(log.trim_end(), format!("{name} knows {known}").trim_end());
        }
    };
    run(&[], ["cache,db a", "", "cache"]);
    run(&["--parallel"], ["db a", "", ""]);
    let refuse = |text: &str, why: &str| {
        fs::write(dir.join("tidy.toml"), text).unwrap();
        let mut command = stage.tool(&["with", "--file", "tidy.toml", "true"]);
        let output = command.current_dir(&dir).output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert_eq!(said(&output).lines().next().unwrap(), format!("tidy-process: {why}"));
    };
    refuse(
        "[server.web]\ncommand = \"x\"\nready = \"https://x/\"",
        "tidy.toml:3: server.web.ready: invalid value 'https://x/' for '--ready <WHAT>': https is \
         not spoken: wait for the server's port (tcp:PORT), or for a line that it writes \
         (log:TEXT)",
    );
    refuse(
        "[server.a]\ncommand = \"x\"\ndepends = [\"b\"]\n[server.b]\ncommand = \"x\"\ndepends = \
         [\"a\"]",
        "tidy.toml:3: server.a.depends: these wait for each other: a, b",
    );
    refuse(
        "[server.a]\ncommand = \"x\nready = 1",
        "tidy.toml:2: command = \"x: invalid basic string, expected `\"`",
    );
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_server_that_is_not_awaited_is_warned_of() {
    let Some(stage) = Stage::set() else { return };
    let servers = ["--server", "sleep 60", "--name", "a", "--server", "sleep 60", "--", "true"];
    let warning = "tidy-process: warning: no --ready for a, server2: CMD is started without \
        waiting\n";
    assert_eq!(said(&with(&stage, &servers)), warning);
    assert_eq!(said(&with(&stage, &[&["-q"][..], &servers].concat())), "");
    stage.close(Alone::No);
}

/// The debugger listens first, the application when it is told to.
#[test]
#[parallel]
fn the_port_of_a_server_is_not_its_debuggers() {
    let Some(stage) = Stage::set() else { return };
    let (debugger, app) = (free_port(), free_port());
    // What its command line says is what tells.
    let server = format!("--inspect=127.0.0.1:{debugger}");
    let script = format!("tcp 127.0.0.1:{debugger}\nsleep 300\ntcp 127.0.0.1:{app}\nstay");
    let server = format!("TIDY_SERVER='{script}' exec {} {server}", victim::exe().display());
    let args = ["--server", &server, "--ready", "tcp", "--name", "web", "--", "sh", "-c"];
    let output = with(&stage, &[&args[..], &["echo $TIDY_WEB_PORT"]].concat());
    assert_eq!(out(&output), format!("{app}\n"), "{}", said(&output));
    let said = said(&output);
    let wanted = format!("server web is ready on port {app}; it listens on {debugger} too");
    assert!(said.contains(&wanted), "{said}");
    stage.close(Alone::No);
}

/// On a terminal alone, and gone in the end.
#[test]
#[serial]
fn what_is_awaited_is_shown_on_a_terminal() {
    let Some(stage) = Stage::set() else { return };
    let script = format!(
        "export TERM=xterm; {} with --server 'sleep 2; echo up; exec sleep 60' --name db \
         --ready log:up -- echo done",
        tool()
    );
    let mut terminal = Terminal::open(&stage, &["sh", "-c", &script]);
    terminal.shows("waiting for db (log line \"up\"), ");
    terminal.shows("\r\x1b[2Kdone\r\n");
    let (status, rest) = terminal.ends();
    assert!(status.success() && rest.is_empty(), "{rest:?}");
    stage.close(Alone::No);
}

/// The ways down to the first layer double with each: the time must not.
#[test]
#[parallel]
fn layers_of_servers_are_known_to_those_above_them_in_time() {
    const LAYERS: usize = 32;
    let Some(stage) = Stage::set() else { return };
    let dir = dir("layers");
    let mut file = String::new();
    for layer in 0..LAYERS {
        let below = layer.checked_sub(1).map(|below| format!("\"a{below}\", \"b{below}\""));
        let depends = format!("depends = [{}]", below.unwrap_or_default());
        for side in ["a", "b"] {
            file += &format!("[server.{side}{layer}]\ncommand = \"sleep 60\"\n{depends}\n");
        }
    }
    fs::write(dir.join("tidy.toml"), file).unwrap();
    let mut command = stage.command(tool());
    command.args(["with", "-q", "--parallel", "--file", "tidy.toml", "sh", "-c"]);
    command.arg("echo $TIDY_SERVERS | tr , '\\n' | wc -l").current_dir(&dir);
    let output = command.timeout(SOON * 3).output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"64\n"[..]), "{output:?}");
    drop(command);
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}
