//! The experiment, again and again on one port: whatever way a run ends, the next one finds a clean
//! machine.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serial_test::parallel;

use crate::support::{Alone, SOON, Stage, example, skip, until};

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
        fs::create_dir(&dir).unwrap();
        // Like /tmp: for other users too.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        Some(Self { stage, port, dir })
    }

    /// The experiment, behind the words of another command if there are any.
    fn command(&self, before: &[&str]) -> Command {
        let words = before.iter().map(OsString::from).chain([example("experiment").into()]);
        let words: Vec<OsString> = words.collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["--port", &self.port.to_string()]);
        command.env("TMPDIR", &self.dir);
        self.stage.mark_std(&mut command);
        command
    }

    /// Runs the experiment to its end.
    fn run(&self, args: &[&str]) -> Output {
        self.command(&[]).arg("--dir").arg(&self.dir).args(args).output().unwrap()
    }

    fn assert_free(&self, when: &str) {
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)) {
            panic!("{when}: port {} is not free: {error}", self.port);
        }
        let alive = self.stage.alive();
        assert!(alive.is_empty(), "{when}: still alive: {alive:?}");
    }

    /// The directories that it has made for its logs.
    fn made(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).unwrap().flatten();
        entries.map(|entry| entry.path()).filter(|path| !path.is_symlink()).collect()
    }

    /// The log of its first run: all have their own.
    fn log(&self) -> String {
        fs::read_to_string(self.made()[0].join("server.log")).unwrap()
    }

    /// A run root may go only once its guard, which is no child of ours, has removed it: there is
    /// nothing to wait on but the directory itself.
    fn close(self) {
        assert!(until(SOON, || self.stage.cgroups() == 0), "a run root stays");
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
    assert_eq!(place.made().len(), RUNS);
    assert!(place.log().contains("serving on http://127.0.0.1:"), "{}", place.log());
    assert!(place.log().contains("GET /square/7 HTTP/1.0 -> 200 OK"), "{}", place.log());
    place.close();
}

#[test]
#[parallel]
fn the_next_run_always_works_with_flask() {
    let Some(python) = flask() else { return };
    let server = ["--flask", "--python", python.to_str().unwrap()];
    let Some(place) = again_and_again(&server) else { return };
    let log = place.log();
    for wanted in ["Debug mode: on", "Restarting with", "GET /square/7 "] {
        assert!(log.contains(wanted), "no {wanted:?} in {log}");
    }
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
    assert!(said.contains("main process: exit status: 1; its last lines:"), "{said}");
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
    assert!(said.contains(&format!("port {port} is in use by process {pid} (")), "{said}");
    assert!(said.contains("--port"), "{said}");
    assert!(place.made().is_empty(), "it started all the same");
    assert!(!stdout(&output).contains("free again"), "{}", stdout(&output));
    place.close();
}

/// It has claimed the port before its server listens there.
#[test]
#[parallel]
fn a_second_experiment_on_the_same_port_is_told_so() {
    let Some(place) = Place::find() else { return };
    let sleeper = place.dir.join("sleeper");
    fs::write(&sleeper, "#!/bin/sh\nexec sleep 20\n").unwrap();
    fs::set_permissions(&sleeper, fs::Permissions::from_mode(0o700)).unwrap();
    let mut first = place.command(&[]);
    let first = first.arg("--flask").arg("--python").arg(&sleeper).stdout(Stdio::piped());
    let mut first = first.spawn().unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(first.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("server "), "{line}");
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    let wanted = format!("error: another experiment is using port {}: wait ", place.port);
    assert!(stderr(&output).starts_with(&wanted), "{}", stderr(&output));
    assert_eq!(stdout(&output), "", "it has started all the same");
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(until(SOON, || place.stage.alive().is_empty()), "{:?}", place.stage.alive());
    place.close();
}

/// `head -1` has seen enough after the first line.
#[test]
#[parallel]
fn a_reader_that_goes_does_not_end_the_experiment_in_the_middle() {
    let Some(place) = Place::find() else { return };
    let mut first = place.command(&[]);
    let first = first.arg("--dir").arg(&place.dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut first = first.spawn().unwrap();
    drop(first.stdout.take());
    let output = first.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*stderr(&output)), (Some(0), ""));
    place.close();
}

/// What a hostile neighbour in /tmp would prepare: the names that it expects, as links to a file of
/// the victim's.
#[test]
#[parallel]
fn its_log_is_in_a_fresh_directory_of_its_own() {
    let Some(place) = Place::find() else { return };
    let precious = place.dir.join("precious");
    fs::create_dir_all(&precious).unwrap();
    for name in ["out.log", "err.log", "server.log"] {
        fs::write(precious.join(name), "mine").unwrap();
        symlink(precious.join(name), place.dir.join(name)).unwrap();
    }
    for name in [format!("tidy-experiment-{}", place.port), "tidy-experiment".into()] {
        symlink(&precious, place.dir.join(name)).unwrap();
    }
    let run = |args: &[&str]| place.command(&[]).args(args).output();
    let output = run(&[]).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(place.made(), std::slice::from_ref(&precious), "a log is left after success");
    let output = run(&["--error"]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(place.run(&[]).status.code(), Some(0));
    let fresh: Vec<_> = place.made().into_iter().filter(|path| *path != precious).collect();
    assert_eq!(fresh.len(), 2, "{fresh:?}");
    for dir in fresh {
        assert_eq!(fs::symlink_metadata(&dir).unwrap().mode() & 0o7777, 0o700, "{dir:?}");
        assert!(dir.join("server.log").exists());
    }
    for file in fs::read_dir(&precious).unwrap().flatten() {
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "mine", "{:?}", file.path());
    }
    place.close();
}

/// A default container's cgroupfs is read-only; an ordinary user may not write to it.
#[test]
#[parallel]
fn where_no_cgroup_can_be_made_it_says_so_and_does_its_best() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can mount, and be another user");
    }
    let read_only = "awk '$0 ~ / - cgroup2 / { print $5 }' /proc/self/mountinfo | while read m; do \
         mount -o remount,bind,ro \"$m\" || exit 99; done; exec \"$@\"";
    let unshare = ["unshare", "-C", "-m", "--propagation", "private", "sh", "-c", read_only, "sh"];
    let ordinary = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    for (before, errno) in [(&unshare[..], "EROFS"), (&ordinary, "EACCES")] {
        let Some(place) = Place::find() else { return };
        for (ending, code, requests) in ENDINGS {
            let output = place.command(before).args(ending).output().unwrap();
            let when = format!("{errno} {ending:?}");
            place.assert_free(&when);
            assert_eq!(output.status.code(), Some(code), "{when}: {}", stderr(&output));
            assert_results(&output, requests, &when);
            let said = stdout(&output);
            let effort: Vec<&str> =
                said.lines().filter(|l| l.starts_with("best effort: ")).collect();
            assert_eq!(effort.len(), 1, "{when}: {said}");
            assert!(effort[0].contains("a keeper process holds"), "{when}: {said}");
            assert!(effort[0].contains(errno), "{when}: {said}");
            assert!(said.contains(" is free again, no process is left"), "{when}: {said}");
        }
        place.close();
    }
}

#[test]
#[parallel]
fn an_error_has_its_hint_and_no_claim_is_made_of_what_never_ran() {
    let Some(place) = Place::find() else { return };
    let output = place.run(&["--flask", "--python", "no-such-python"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: exec \"no-such-python\": No such file"), "{said}");
    assert!(said.contains("\nhint: is it installed"), "{said}");
    assert!(!stdout(&output).contains("free again"), "{}", stdout(&output));
    let file = place.dir.join("file");
    fs::write(&file, "").unwrap();
    let said = stderr(&place.command(&[]).arg("--dir").arg(&file).output().unwrap());
    assert!(said.contains(&format!("cannot make directory {}", file.display())), "{said}");
    place.close();
}

/// A process may make a reader of its command line wait for as long as it likes. This one is a
/// stranger, and so is the holder of the port.
#[test]
#[parallel]
fn it_reads_no_strangers_command_line() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing");
    }
    let Some(place) = Place::find() else { return };
    let myself = std::process::id();
    let strace = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=open,openat,readlink"];
    for (args, reads_fds) in [(&[][..], false), (&["--plain"], true)] {
        let output = place.command(&strace).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let trace = stderr(&output);
        assert!(trace.contains("/proc/"), "{trace}");
        assert_eq!(trace.contains(&format!("/proc/{myself}/fd")), reads_fds, "the control");
        for file in ["cmdline", "environ", "maps", "mem"] {
            assert!(!trace.contains(&format!("/proc/{myself}/{file}\"")), "{args:?}: {file}");
        }
    }
    let _stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, place.port)).unwrap();
    let trace = stderr(&place.command(&strace).output().unwrap());
    assert!(trace.contains(&format!("/proc/{myself}/comm")), "{trace}");
    assert!(!trace.contains(&format!("/proc/{myself}/cmdline")), "{trace}");
    place.close();
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
