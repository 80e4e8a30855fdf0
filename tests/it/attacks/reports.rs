//! A teardown that cannot be completed is an error, and the error has the report: how the command
//! ended is never lost.

use std::io::Write;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command as StdCommand, Stdio as StdStdio};
use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Command, Error, Report, Stdio, Supervisor, Tree, sweep};

use crate::actor::{ROLE, actor, unshared};
use crate::attacks::permissions::{delegated, ordinary};
use crate::attacks::succeeds;
use crate::support::{Alone, Stage, read_ready, skip};

/// A mount that stays, a leftover, and a status.
const SCRIPT: &str = "L=$(echo $R/*-it); mkdir $L/x; mount -t tmpfs t $L/x; sleep 20 & exit 3";

#[test]
#[serial]
fn the_error_of_a_failed_teardown_has_the_report() {
    let Some(stage) = Stage::set() else { return };
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can mount");
    }
    succeeds(&mut unshared(&stage, "report", &[]), "report");
    sweep(Some(stage.supervisor.path().unwrap()), false).unwrap();
    stage.close(Alone::Yes);
}

pub(crate) fn play() {
    for join in [false, true] {
        with_report(join, |command| command.run().map(drop));
        with_report(join, |command| command.linger(true).timeout(SHORT).run().map(drop));
        with_report(join, |command| command.status().map(drop));
        with_report(join, |command| command.output().map(drop));
        with_report(join, |command| command.spawn()?.wait_with_output().map(drop));
        with_report(join, |command| {
            let child = command.spawn()?;
            child.wait()?;
            child.finish().map(drop)
        });
        #[cfg(feature = "tokio")]
        asynchronous(join);
    }
    let supervisor = Supervisor::builder().guard(false).build().unwrap();
    let tree = Tree::within(&supervisor, Some("it")).unwrap();
    let mut command = StdCommand::new("sh");
    command.args(["-c", SCRIPT]).env("R", supervisor.path().unwrap()).env_remove(ROLE);
    tree.enroll(&mut command).unwrap();
    assert_eq!(command.status().unwrap().code(), Some(3));
    let error = tree.finish().unwrap_err();
    assert_eq!(error.tree_report().unwrap().leftovers.len(), 1, "{error}");
}

/// The timeout of what lingers.
const SHORT: Duration = Duration::from_millis(300);

fn with_report(join: bool, run: impl FnOnce(&mut Command) -> Result<(), Error>) {
    let start = Instant::now();
    let supervisor = Supervisor::builder().guard(false).account(true).build().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT]).name("it").env("R", supervisor.path().unwrap()).env_remove(ROLE);
    command.supervisor(&supervisor).force_join(join);
    let error = run(&mut command).unwrap_err();
    assert!(error.to_string().contains("mounted"), "{error}");
    check(error.report().unwrap_or_else(|| panic!("no report: {error}")));
    drop(command);
    drop(supervisor);
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
}

fn check(report: &Report) {
    assert_eq!(report.status.code(), Some(3), "{report:?}");
    assert_eq!(report.leftovers.len(), 1, "{report:?}");
    assert!(report.usage.user.is_some(), "{report:?}");
}

#[cfg(feature = "tokio")]
fn asynchronous(join: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    with_report(join, |command| runtime.block_on(command.run_async()).map(drop));
    with_report(join, |command| runtime.block_on(command.output_async()).map(drop));
    with_report(join, |command| {
        runtime.block_on(async {
            let child = command.spawn_async()?;
            child.wait().await?;
            child.finish().await.map(drop)
        })
    });
}

/// A directory of another user's in the tree: nothing gives us the right to remove what is in it.
#[test]
#[serial]
fn what_cannot_be_given_back_is_an_error_with_its_path_and_the_report() {
    let Some(stage) = Stage::set() else { return };
    let Some(tree) = delegated(&stage) else { return };
    let mut command = actor(&stage, "taken");
    ordinary(&mut command, &tree);
    let command = command.stdin(StdStdio::piped()).stderr(StdStdio::inherit());
    let mut running = command.spawn().unwrap();
    for _ in 0..2 {
        read_ready(running.stdout.as_mut().unwrap());
        let roots =
            std::fs::read_dir(tree.path().unwrap()).unwrap().flatten().map(|entry| entry.path());
        let trees: Vec<PathBuf> = roots.map(|root| root.join("0-it/x")).collect();
        let taken = trees.iter().find(|path| path.exists()).unwrap();
        chown(taken, Some(0), Some(0)).unwrap();
        running.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        read_ready(running.stdout.as_mut().unwrap());
        sweep(Some(tree.path().unwrap()), false).unwrap();
        std::fs::remove_dir(taken.join("y")).unwrap();
        // The guard takes what it can from now on, and may be first.
        for path in taken.ancestors().take(3) {
            let removed = std::fs::remove_dir(path);
            let is_gone = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
            assert!(removed.err().is_none_or(is_gone), "{path:?}");
        }
    }
    assert!(running.wait().unwrap().success());
    assert_eq!(tree.finish().unwrap().leftovers, []);
    stage.close(Alone::No);
}

pub(crate) fn play_taken() {
    let ready = || nix::unistd::write(std::io::stdout(), b"ready\n").unwrap();
    for join in [false, true] {
        let supervisor = Supervisor::builder().guard(false).build().unwrap();
        let mut command = Command::new("sh");
        let script = "L=$(echo $R/*-it); mkdir -p $L/x/y; echo ready; read go; exit 3";
        command
            .args(["-c", script])
            .name("it")
            .env("R", supervisor.path().unwrap())
            .env_remove(ROLE);
        let command = command.supervisor(&supervisor).force_join(join).stdout(Stdio::inherit());
        let child = command.spawn().unwrap();
        let taken = child.tree().path().unwrap().join("x/y");
        child.wait().unwrap();
        let start = Instant::now();
        let error = child.finish().unwrap_err();
        assert!(error.to_string().contains(&format!("{taken:?}")), "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("root")), "{error}");
        assert_eq!(error.report().unwrap().status.code(), Some(3), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
        ready();
    }
}

#[cfg(feature = "cli")]
#[test]
#[serial]
fn the_tool_fails_and_says_how_the_command_ended() {
    let Some(stage) = Stage::set() else { return };
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can mount");
    }
    let script = SCRIPT.replace("$R/*-it", "$TIDY_PROCESS_PARENT/tidy-process-*/*-it");
    for args in [&["run", "--name", "it", "--json", "-"][..], &["run", "--name", "it", "-q"]] {
        let mut command = StdCommand::new("unshare");
        command.args(["-m", "--propagation", "private", crate::support::tool()]).args(args);
        stage.mark_std(command.args(["--no-guard", "sh", "-c", &script]));
        let start = Instant::now();
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(start.elapsed() < Duration::from_secs(5), "took {:?}: {said}", start.elapsed());
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains("something is mounted on it"), "{said}");
        assert!(said.contains("hint: "), "{said}");
        assert!(said.contains("the command itself exited with 3"), "{said}");
        assert_eq!(said.contains("killed 1 leftover"), !args.contains(&"-q"), "{said}");
        if args.contains(&"--json") {
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((&report["v"], &report["exit"]), (&1.into(), &125.into()), "{report}");
            assert_eq!(report["status"], serde_json::json!({ "code": 3 }), "{report}");
            assert_eq!(report["leftovers"].as_array().unwrap().len(), 1, "{report}");
            assert!(report["error"].as_str().unwrap().contains("mounted"), "{report}");
        }
        sweep(Some(stage.supervisor.path().unwrap()), false).unwrap();
    }
    // The server's teardown fails, and CMD's end is known.
    let server = "L=$(echo $TIDY_PROCESS_PARENT/tidy-process-*/0-it); mkdir $L/x; \
         mount -t tmpfs t $L/x; echo up; exec sleep 20";
    let mut command = StdCommand::new("unshare");
    command.args(["-m", "--propagation", "private", crate::support::tool(), "with", "--no-guard"]);
    command.args(["--server", server, "--ready", "log:up", "--name", "it", "sh", "-c", "exit 4"]);
    stage.mark_std(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("something is mounted on it"), "{said}");
    assert!(said.contains("the command itself exited with 4"), "{said}");
    sweep(Some(stage.supervisor.path().unwrap()), false).unwrap();
    stage.close(Alone::Yes);
}
