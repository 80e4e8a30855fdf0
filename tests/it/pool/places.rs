//! Where a pool runs: as an ordinary user, in another tree, behind a proxy (see also
//! `sandbox::network`), under limits.

use std::process::{Command as StdCommand, Output};

use serde_json::Value;
use serial_test::{parallel, serial};

use super::Scratch;
use super::run::{exits, lines, out, pool, said};
use crate::attacks::permissions::{delegated, ordinary};
use crate::load::WISH;
use crate::support::{Alone, Stage, tool};
use crate::victim;

/// Says who it is, and leaves a daemon.
const LEAVES: &str = "setsid -f sleep 61; echo $(id -u) {}";

/// The events of this kind, by `--json -`.
fn events(output: &Output, kind: &str) -> Vec<Value> {
    let text = out(output);
    let all = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    all.filter(|event: &Value| event["event"] == kind).collect()
}

/// What each command has left.
fn left(output: &Output) -> Vec<u64> {
    let ended = events(output, "ended");
    ended.iter().map(|event| event["leftover_count"].as_u64().unwrap()).collect()
}

fn as_ordinary(stage: &Stage, how: &[&str]) -> StdCommand {
    let mut command = stage.tool(&["pool", "-q", "-j2"]);
    command.args(how).args(["--", "sh", "-c", LEAVES, ":::", "a", "b", "c"]);
    command
}

/// In a cgroup that was given to that user.
#[test]
#[serial]
fn an_ordinary_users_pool_ends_what_each_command_leaves() {
    let Some(stage) = Stage::set() else { return };
    for how in [&["--json", "-", "-u"][..], &["-k", "0", "--keep-order", "--tag"]] {
        let Some(tree) = delegated(&stage) else { return };
        let mut command = as_ordinary(&stage, how);
        ordinary(&mut command, &tree);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        drop(command);
        match how.contains(&"--json") {
            true => {
                assert_eq!(left(&output), [1, 1, 1], "{}", out(&output));
                assert_eq!(out(&output).matches("\n65534 ").count(), 3, "{}", out(&output));
            }
            false => assert_eq!(out(&output), "a\t65534 a\nb\t65534 b\nc\t65534 c\n"),
        }
        assert!(stage.alive().is_empty());
        assert_eq!(tree.finish().unwrap().leftovers, []);
    }
    stage.close(Alone::Yes);
}

/// Where no cgroup can be made keepers hold the commands, or none is run.
#[test]
#[serial]
fn where_no_cgroup_can_be_made_keepers_hold_the_commands() {
    let Some(stage) = Stage::set() else { return };
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skip("only root can be another user");
    }
    let run = |how: &[&str]| {
        use std::os::unix::process::CommandExt;
        let mut command = as_ordinary(&stage, how);
        command.env("TIDY_PROCESS_CONTAINMENT", "cgroup").uid(65534).gid(65534).output().unwrap()
    };
    let refused = run(&[]);
    assert_eq!((refused.status.code(), out(&refused)), (Some(125), String::new()));
    assert!(said(&refused).contains("EACCES"), "{}", said(&refused));
    for how in [["--containment", "best-effort"], ["--containment", "keeper"]] {
        let output = run(&how);
        assert_eq!(output.status.code(), Some(0), "{how:?}: {}", said(&output));
        assert_eq!(lines(&output), ["65534 a", "65534 b", "65534 c"]);
        stage.assert_clean(how[1]);
    }
    stage.close(Alone::Yes);
}

/// The inner one makes its cgroups in the tree of the outer one.
fn nested(words: &[&str]) -> Vec<String> {
    let words = [&["env", "-u", "TIDY_PROCESS_PARENT", tool()], words].concat();
    words.into_iter().map(str::to_owned).collect()
}

#[test]
#[parallel]
fn a_pool_in_a_tree_ends_with_it_and_leaves_it_nothing() {
    let Some(stage) = Stage::set() else { return };
    let outer = |options: &[&str], inner: &[&str], status: i32| {
        let inner = nested(inner);
        let mut command = stage.tool(&["run", "-q", "--json", "-"]);
        let output = command.args(options).arg("--").args(inner).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        stage.assert_clean("nested");
        output
    };
    let where_it_is = "grep -o '/tidy-process-.*' /proc/self/cgroup; setsid -f sleep 62; : {}";
    let inner = ["pool", "-q", "-j3", "--", "sh", "-c", where_it_is, ":::", "1", "2", "3", "4"];
    let output = outer(&[], &inner, 0);
    let text = out(&output);
    let places: Vec<&str> = text.lines().filter(|line| line.starts_with("/tidy")).collect();
    let deep = |place: &&str| place.matches("/tidy-process-").count() >= 2;
    assert!(places.len() == 4 && places.iter().all(deep), "{text}");
    let report: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(report["leftover_count"], 0, "{report}");
    // The outer one ends in the midst of it, by its timeout and at once.
    let inner = ["pool", "-q", "-j3", "--", "sh", "-c", "setsid -f sleep 63; sleep 63; : {}"];
    let inner = [&inner[..], &[":::", "1", "2", "3", "4"]].concat();
    for options in [["-t", "0.4", "-k", "0.2"], ["-t", "0.4", "-k", "0"]] {
        outer(&options, &inner, 124);
    }
    stage.close(Alone::No);
}

/// Three of three.
#[test]
#[parallel]
fn pools_run_pools() {
    let Some(stage) = Stage::set() else { return };
    let script = format!(
        "seq 3 | env -u TIDY_PROCESS_PARENT {} pool -q -j2 -- \
         sh -c 'setsid -f sleep 64; echo {{}} of $0' {{}}",
        tool()
    );
    let args = ["-q", "-j2", "-I", "@", "--json", "-", "--", "sh", "-c", &script, ":::"];
    let output = pool(&stage, &[&args[..], &["a", "b", "c"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(left(&output), [0, 0, 0]);
    let text = out(&output);
    let ran = text.lines().filter(|line| ["1 of 1", "2 of 2", "3 of 3"].contains(line)).count();
    assert_eq!(ran, 9, "{text}");
    stage.close(Alone::No);
}

/// Each command has all of its limits to itself; one that exceeds them ends alone.
#[test]
#[serial]
fn each_command_has_limits_of_its_own() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let log = dir.path("log");
    let play = format!("{WISH}={{}}");
    let exe = victim::exe();
    let exe = exe.to_str().unwrap();
    let args = ["-q", "-j2", "-m", "64M", "--pids", "8", "--joblog", &log, "--json", "-", "--"];
    let args = [&args[..], &["env", &play, exe, ":::"]].concat();
    let loads = ["memory 40", "memory 41", "memory 200", "forks 20", "memory 42"];
    let output = pool(&stage, &[&args[..], &loads].concat());
    if events(&output, "started").is_empty() {
        // The controllers are on cgroup v1 here: none of the commands has been run.
        assert!(std::env::var_os("TIDY_CONTROLLERS").is_none(), "{}", said(&output));
        for event in events(&output, "ended") {
            assert!(event["error"].as_str().unwrap().starts_with("limit memory: "), "{event}");
        }
        return stage.close(Alone::Yes);
    }
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let ended = events(&output, "ended");
    let of = |load: &str| {
        let is_it = |event: &&Value| event["command"][1] == format!("{WISH}={load}");
        ended.iter().find(is_it).unwrap()
    };
    assert_eq!(of("memory 200")["cause"], "out-of-memory", "{ended:?}");
    for load in ["memory 40", "memory 41", "memory 42", "forks 20"] {
        assert_eq!((&of(load)["cause"], &of(load)["exit"]), (&"exited".into(), &0.into()));
    }
    for event in &ended {
        let peak = event["usage"]["memory_peak_bytes"].as_u64().unwrap();
        assert!((1..=64 << 20).contains(&peak), "{event}");
    }
    assert!(of("memory 40")["usage"]["memory_peak_bytes"].as_u64() > Some(40 << 20));
    let notes = of("forks 20")["notes"].to_string();
    assert!(notes.contains("pids"), "{notes}");
    // A third of a CPU each, not of both together.
    let burns = format!("{WISH}=burn-for 1000 1");
    let args = ["-q", "-j2", "--cpus", "0.3", "--json", "-", "--", "env", &burns, exe, ":::"];
    let output = pool(&stage, &[&args[..], &["a", "b"]].concat());
    for event in events(&output, "ended") {
        let seconds = |key: &str| event["usage"][key].as_f64().unwrap();
        let cpu = seconds("user_seconds") + seconds("system_seconds");
        let share = cpu / event["wall_seconds"].as_f64().unwrap();
        assert!((0.1..0.45).contains(&share), "{event}");
    }
    exits(&stage, &["-q", "--", "true", ":::", "a"], 0);
    stage.close(Alone::Yes);
}
