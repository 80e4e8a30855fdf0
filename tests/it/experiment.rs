//! The experiment, again and again on one port: whatever way a run ends, the next one finds a clean
//! machine.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serial_test::parallel;

use crate::support::{Alone, SOON, Stage, example, skip};

const RUNS: usize = 20;

/// How a run is told to end, its exit status, and how many of the six requests it sends.
const ENDINGS: [(&[&str], i32, usize); 3] =
    [(&[], 0, 6), (&["--error"], 1, 3), (&["--panic"], 101, 3)];

/// One port and one directory for a row of runs.
struct Place {
    stage: Stage,
    port: u16,
    dir: PathBuf,
}

impl Place {
    fn find() -> Option<Self> {
        let stage = Stage::set()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("tidy-it-{}-{port}", std::process::id()));
        Some(Self { stage, port, dir })
    }

    /// Runs the experiment to its end.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(example("experiment"));
        command.args(["--port", &self.port.to_string(), "--dir"]).arg(&self.dir).args(args);
        self.stage.mark_std(&mut command);
        command.output().unwrap()
    }

    fn assert_free(&self, when: &str) {
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)) {
            panic!("{when}: port {} is not free: {error}", self.port);
        }
        let alive = self.stage.alive();
        assert!(alive.is_empty(), "{when}: still alive: {alive:?}");
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap()
    }

    /// The example ends with its run root still there; its guard removes that. It is no child of
    /// ours, so there is nothing to wait on but the directory itself.
    fn close(self) {
        let deadline = Instant::now() + SOON;
        while self.stage.cgroups() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.stage.close(Alone::No);
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A row of the table for each request that was sent, with the answer that the API owes.
fn assert_results(output: &Output, requests: usize, when: &str) {
    let said = stdout(output);
    let rows: Vec<&str> = said.lines().filter(|line| line.starts_with("GET /")).collect();
    assert_eq!(rows.len(), requests, "{when}: {said}{}", stderr(output));
    assert!(rows[0].ends_with("  ok"), "{when}: {said}");
    assert!(
        rows[2].contains(r#"{"n":7,"#) && rows[2].ends_with(r#""square":49}"#),
        "{when}: {said}"
    );
}

/// 20 runs, one straight after the other: success, error, panic, success, ...
fn again_and_again(server: &[&str]) -> Option<Place> {
    let place = Place::find()?;
    for nth in 0..RUNS {
        let (ending, code, requests) = ENDINGS[nth % ENDINGS.len()];
        let output = place.run(&[server, ending].concat());
        let when = format!("run {nth} {ending:?}");
        place.assert_free(&when);
        assert_eq!(output.status.code(), Some(code), "{when}: {}", stderr(&output));
        assert_results(&output, requests, &when);
        let claim = format!("port {} is free again, no process is left", place.port);
        assert!(stdout(&output).contains(&claim), "{when}: {}", stdout(&output));
    }
    Some(place)
}

#[test]
#[parallel]
fn the_next_run_always_works() {
    let Some(place) = again_and_again(&[]) else { return };
    assert!(place.log("out.log").contains("serving on http://127.0.0.1:"));
    assert!(place.log("err.log").contains("GET /square/7 HTTP/1.0 -> 200 OK"));
    place.close();
}

#[test]
#[parallel]
fn the_next_run_always_works_with_flask() {
    let Some(python) = flask() else { return };
    let server = ["--flask", "--python", python.to_str().unwrap()];
    let Some(place) = again_and_again(&server) else { return };
    assert!(place.log("out.log").contains("Debug mode: on"));
    let log = place.log("err.log");
    assert!(log.contains("Restarting with") && log.contains("GET /square/7 "), "{log}");
    place.close();
}

fn flask() -> Option<OsString> {
    let python = std::env::var_os("TIDY_FLASK_PYTHON");
    if python.is_none() {
        skip(
            "TIDY_FLASK_PYTHON is not set. It names a Python that has Flask; ci/test makes one, \
             and so does: python3 -m venv V && V/bin/pip install flask, which is V/bin/python",
        );
    }
    python
}

/// The positive control: without us the same server does stay behind, and holds the port.
#[test]
#[parallel]
fn with_std_alone_the_server_stays_behind() {
    let Some(place) = Place::find() else { return };
    for ((ending, code, requests), survivors) in ENDINGS.into_iter().zip([1, 2, 2]) {
        let output = place.run(&[&["--plain"], ending].concat());
        let when = format!("--plain {ending:?}");
        place.assert_free(&when);
        assert_eq!(output.status.code(), Some(code), "{when}: {}", stderr(&output));
        assert_results(&output, requests, &when);
        let said = stdout(&output);
        let culprit = format!("serve {}   <- holds the port", place.port);
        for wanted in [&format!("still alive: {survivors}"), &culprit, "cleaned up: killed "] {
            assert!(said.contains(wanted), "{when}: no {wanted:?} in {said}");
        }
    }
    place.close();
}

#[test]
#[parallel]
fn a_server_that_ends_early_is_told_from_a_slow_one() {
    let Some(place) = Place::find() else { return };
    let started = Instant::now();
    let output = place.run(&["--flask", "--python", "cat"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ended before it answered: exit status: 1\nthe end of "), "{said}");
    assert!(said.contains(&format!("cat: {}: No such file", place.port)), "{said}");
    assert!(started.elapsed() < SOON, "it waited for the dead");
    place.assert_free("after it");
    place.close();
}

#[test]
#[parallel]
fn a_strangers_server_is_not_taken_for_ours() {
    let Some(place) = Place::find() else { return };
    let _stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, place.port)).unwrap();
    let output = place.run(&[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let (port, pid) = (place.port, std::process::id());
    assert!(said.contains(&format!("port {port} is in use by process {pid} ")), "{said}");
    assert!(!place.dir.exists(), "it started all the same");
    place.stage.close(Alone::No);
}

#[test]
#[parallel]
fn what_it_does_not_know_is_wrong_usage() {
    for wrong in [&["--flsk"][..], &["--port", "0"], &["--port"], &["--python", "python3"]] {
        let output = Command::new(example("experiment")).args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(stderr(&output).starts_with("error: "), "{wrong:?}");
    }
}
