//! How `with` takes its command line: each row with what comes of it.

use serial_test::parallel;

use crate::support::{Alone, Stage};

/// Words behind `with`, the status, and what standard error has in it.
type Row = (&'static [&'static str], i32, &'static str);

const S: &str = "--server";

/// A server that is there for as long as is needed.
const SLEEP: &str = "exec sleep 20";

/// The port is none that anything listens on.
const READY: &[(&str, &str)] = &[
    ("1", "wait until ready: tcp port 1: not yet"),
    (":1", "wait until ready: tcp port 1: not yet"),
    ("tcp:1", "wait until ready: tcp port 1: not yet"),
    ("localhost:1", "tcp port 1 at \"localhost\": not yet"),
    ("tcp:127.0.0.1:1", "tcp port 1 at \"127.0.0.1\": not yet"),
    ("tcp:[::1]:1", "tcp port 1 at \"[::1]\": not yet"),
    ("tcp", "any tcp port: not yet"),
    ("http:1", "http://localhost:1: not yet"),
    ("http:1/health", "http://localhost:1/health: not yet"),
    ("1/health", "http://localhost:1/health: not yet"),
    ("http://127.0.0.1:1/", "http://127.0.0.1:1/: not yet"),
    ("http_status:404:http:1", "http://localhost:1 with status 404: not yet"),
    ("unix:/none", "unix socket \"/none\": not yet"),
    ("log:x", "its log is empty"),
    ("https://localhost:1/", "https is not spoken: wait for the server's port (tcp:PORT)"),
    ("https:1", "https is not spoken"),
    ("port", "give it as 8080, HOST:PORT"),
    ("0", "a port is a number from 1 to 65535"),
    ("tcp:99999", "a port is a number from 1 to 65535"),
    ("http_status:99:1", "from 200 to 599"),
    ("http://", "give it as http://HOST:PORT/PATH"),
];

const ROWS: &[Row] = &[
    (&["true"], 0, ""),
    (&[S, SLEEP, "true"], 0, "warning: no --ready for server1: CMD is started without waiting"),
    (&["-q", S, SLEEP, "true"], 0, ""),
    (&["--tail", "x", S, SLEEP, "true"], 125, "invalid value 'x' for '--tail <N>'"),
    (&[S, SLEEP, "--stdin", "-", "true"], 125, "CMD has the standard input of tidy-process"),
    (&[S, SLEEP, "--stdin", "/none", "true"], 125, "open \"/none\": No such file"),
    (&["--stdin", "open", S, SLEEP, "true"], 125, "--stdin stands before any --server"),
    (&[S, SLEEP, "-E", "x", "true"], 125, "give it as NAME=VALUE"),
    (&[S, SLEEP, "-C", "/none", "true"], 125, "server server1: chdir \"/none\""),
    (&["-C", "/none", "true"], 125, "chdir \"/none\""),
    (&[S, SLEEP, "--pids", "-1", "true"], 125, "give a whole number, or max"),
    (&[S, SLEEP, "-m", "1M", "-m", "2M", "true"], 125, "server 1: the argument '--memory"),
    (&["-t", "-1", "true"], 125, "a duration is not negative"),
    (&["--leaks=fail", "sh", "-c", "sleep 20 & true"], 123, "killed 1 leftover process"),
    (&["--leaks=none", "true"], 125, "invalid value 'none' for '--leaks"),
    (&["--json", "/none/x", "true"], 125, "open \"/none/x\""),
    (&["--file", "/none", "true"], 125, "open \"/none\": No such file"),
    (&["--file", "/dev/null", "true"], 0, ""),
    (&["-t", "0.1", S, SLEEP, "sleep", "20"], 124, ""),
    (&[S, "none-such", "--ready", "tcp", "true"], 125, "main process: exit status: 127"),
];

#[test]
#[parallel]
fn each_line_is_taken_as_the_table_says() {
    let Some(stage) = Stage::set() else { return };
    let check = |args: &[&str], status: i32, says: &str| {
        let output = stage.tool(&["with"]).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
        assert!(!says.is_empty() || said.is_empty() || status != 0, "{args:?}: {said}");
        stage.assert_clean(&format!("{args:?}"));
    };
    for (ready, says) in READY {
        check(&[S, SLEEP, "--ready", ready, "--ready-timeout", "50ms", "true"], 125, says);
    }
    for (args, status, says) in ROWS {
        check(args, *status, says);
    }
    stage.close(Alone::No);
}
