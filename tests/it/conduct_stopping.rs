//! More rows of the table in `conduct.rs`: how a command is stopped, and what becomes of what it
//! leaves.

use std::process::{Command as StdCommand, Stdio};

use serial_test::parallel;

use crate::conduct::{Row, Scene, check, row, said};
use crate::support::{Alone, Stage, read_ready};

/// What is stopped, and what is left. timeout(1) signals its process group, so that a worker behind
/// a shell cleans up as well: its reader waits for the end of the output.
const STOPPING: &[Row] = &[
    row(
        &["-t", "1", "-k", "20"],
        &["sh", "mini"],
        &["timeout", "-k", "20", "1", "sh", "mini"],
        124,
    )
    .out("up\ncleaned\n")
    .says("timed out after 1 s; still running: "),
    row(
        &["-t", "1", "-k", "20"],
        &["sh", "-c", "sh mini; true"],
        &["timeout", "-k", "20", "1", "sh", "-c", "sh mini; true"],
        124,
    )
    .out("up\ncleaned\n"),
    row(
        &["-t", "1", "-k", "20", "--containment", "keeper"],
        &["bash", "-c", "sh mini; true"],
        &["timeout", "-k", "20", "1", "bash", "-c", "sh mini; true"],
        124,
    )
    .out("up\ncleaned\n"),
    row(
        &["-t", "1", "-k", "20", "--force-join", "--leaks=wait"],
        &["sh", "-c", "echo mini | xargs sh; true"],
        &["timeout", "-k", "20", "1", "sh", "-c", "echo mini | xargs sh; true"],
        124,
    )
    .out("up\ncleaned\n"),
    row(
        &["-t", "1", "-k", "20"],
        &["sh", "halted"],
        &["timeout", "-k", "20", "1", "sh", "halted"],
        124,
    )
    .out("up\ncleaned\n"),
    row(&["-t", "0.3", "-k", "0"], &["sleep", "20"], &["timeout", "0.3", "sleep", "20"], 124)
        .says("timed out after 0.3 s; still running: "),
    row(&["-t", "0.3", "--leaks=wait"], &["sh", "-c", "sleep 21 &"], &[], 124).says(" sleep 21\n"),
    row(&["--leaks=stop", "-k", "20"], &["sh", "-c", "sh mini & sleep 1; exit 4"], &[], 4)
        .out("up\ncleaned\n")
        .says("stopped 2 leftover processes: "),
    row(&["--leaks=fail"], &["sh", "-c", "sleep 21 & exit 7"], &[], 7).says("killed 1 leftover "),
    row(&["--leaks=fail"], &["sh", "-c", "sleep 21 &"], &[], 123).says("killed 1 leftover "),
    row(&["--leaks=fail"], &["sh", "-c", "sleep 21 & kill -9 $$"], &[], 137)
        .says("killed by signal 9 (SIGKILL)\n"),
    row(&["--leaks=fail"], FILTER, FILTER, 0).out("[build] important\n"),
    row(&["--leaks=fail", "--containment", "keeper"], FILTER, FILTER, 0).out("[build] important\n"),
    row(&["--output", "-"], &["bash", "-c", TEE], &["bash", "-c", TEE], 3).out("a\n").f("a\n"),
    row(&["--settle", "60"], WORKS_ON, WORKS_ON, 0).out("done\n"),
    row(&["--settle", "-1"], &["true"], &[], 125).says("a duration is not negative"),
];

const FILTER: &[&str] = &["bash", "-c", "exec > >(sed 's/^/[build] /'); echo important"];

const TEE: &str = "exec > >(tee f); echo a; exit 3";

const WORKS_ON: &[&str] =
    &["bash", "-c", "{ i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo done; } &"];

#[test]
#[parallel]
fn the_table_of_stopping_holds_and_the_references_agree() {
    let Some(stage) = Stage::set() else { return };
    STOPPING.iter().for_each(|row| check(&stage, row));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn quiet_is_silent_about_timeouts_and_kills() {
    let Some(stage) = Stage::set() else { return };
    for line in [&["-t", "0.2", "sleep", "20"][..], &["sh", "-c", "kill -9 $$"]] {
        let output = stage.tool(&["run", "-q"]).args(line).output().unwrap();
        assert_eq!(said(&output), "", "{line:?}");
    }
    // As a shell is.
    for line in ["kill -INT $$", "kill -PIPE $$"] {
        let output = stage.tool(&["run", "sh", "-c", line]).output().unwrap();
        assert_eq!(said(&output), "", "{line:?}");
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_kill_by_name_is_said() {
    let Some(stage) = Stage::set() else { return };
    let mut runs = stage.tool(&["run", "--name", "victim", "sh", "-c", "echo ready; sleep 20"]);
    let mut runs = runs.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    read_ready(runs.stdout.take().unwrap());
    assert!(stage.tool(&["kill", "victim"]).status().unwrap().success());
    let output = runs.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(137));
    assert_eq!(said(&output), "tidy-process: killed by signal 9 (by tidy-process kill)\n");
    stage.close(Alone::No);
}

/// A daemon's main process has ended; it is stopped as any server is, and has its grace.
#[test]
#[parallel]
fn servers_have_their_grace_as_daemons_too() {
    let Some(stage) = Stage::set() else { return };
    let scene = Scene::set("grace");
    for server in ["sh mini", "sh mini; true", "sh mini & sleep 0", "setsid sh mini &"] {
        let mut with = stage.tool(&["with", "-k", "20", "--server", server]);
        let server_is_up = ["--ready", "log:up", "--log", "log", "--", "true"];
        let output = with.args(server_is_up).current_dir(&scene.0).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{server}: {}", said(&output));
        let log = std::fs::read_to_string(scene.0.join("log")).unwrap();
        // Some shells say what their child died of.
        assert!(log.starts_with("up\n") && log.ends_with("cleaned\n"), "{server}: {log}");
    }
    stage.close(Alone::No);
}

/// The rest of the grace is no time in which signals go unanswered.
#[test]
#[parallel]
fn a_second_signal_ends_a_grace_that_has_lost_its_main_process() {
    let Some(stage) = Stage::set() else { return };
    let deaf = "sh -c \"trap '' TERM; echo ready; while :; do sleep 0.05; done\"; true";
    for how in [&[][..], &["--containment", "keeper"], &["--leaks=wait"], &["--leaks=stop"]] {
        let mut runs = stage.tool(&["run", "-q", "-k", "inf"]);
        runs.args(how).args(["sh", "-c", deaf]).stdout(Stdio::piped());
        let mut runs = runs.spawn().unwrap();
        read_ready(runs.stdout.take().unwrap());
        let send = || {
            let pid = runs.id().to_string();
            assert!(StdCommand::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        };
        send();
        // Longer than two signals take to be one request.
        std::thread::sleep(std::time::Duration::from_millis(500));
        send();
        let status = runs.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15), "{how:?}");
    }
    stage.close(Alone::No);
}
