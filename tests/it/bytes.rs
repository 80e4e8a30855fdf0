//! Words of a command line that are no text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Stdio};

use serial_test::parallel;

use crate::conduct::{Scene, said};
use crate::support::{Alone, Stage, tool};

#[test]
#[parallel]
fn words_that_are_no_text_are_passed_on_and_kept() {
    let Some(stage) = Stage::set() else { return };
    let bytes = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    let mut command = stage.tool(&["run", "--json", "-", "-E"]);
    command.arg(bytes(b"A=\xff\\")).arg("--name").arg(bytes(b"n\xfe"));
    command.args(["--stdout", "/dev/null", "sh", "-c"]);
    let script =
        b"test \"$A\" = \"$1\" && exec \"$T\" ps --json --parent \"$TIDY_PROCESS_PARENT\" >&2";
    command.arg(bytes(script)).arg("sh").arg(bytes(b"\xff\\")).env("T", tool());
    let output = command.output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["exit"], 0, "{report} {}", said(&output));
    assert_eq!(report["command"][4], r"\xff\\");
    assert_eq!(report["command_escaped"], serde_json::json!([4]));
    assert_eq!((&report["name"], &report["name_escaped"]), (&r"n\xfe".into(), &true.into()));
    let list = said(&output);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap_or_else(|_| panic!("{list}"));
    let roots = list["run_roots"].as_array().unwrap();
    let tree = roots.iter().find_map(|root| root["trees"].get(0)).unwrap();
    assert_eq!((&tree["name"], &tree["name_escaped"]), (&r"n\xfe".into(), &true.into()), "{list}");
    let mut command = stage.tool(&["kill"]);
    let unknown = command.arg(bytes(b"\xff")).output().unwrap();
    assert!(said(&unknown).contains("no tree of this name"), "{}", said(&unknown));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_tree_whose_name_is_no_text_is_killed_by_it() {
    let Some(stage) = Stage::set() else { return };
    let name = OsStr::from_bytes(b"odd-\xff");
    let mut tool = stage.tool(&["run", "-q", "--name"]);
    tool.arg(name).args(["sh", "-c", "echo ready; exec sleep 25"]);
    let mut tool = tool.stdout(Stdio::piped()).spawn().unwrap();
    crate::support::read_ready(tool.stdout.take().unwrap());
    assert!(stage.tool(&["kill"]).arg(name).status().unwrap().success());
    assert_eq!(tool.wait().unwrap().code(), Some(137));
    stage.close(Alone::No);
}

/// Nobody has named them: each owner's first tree has the same number.
#[test]
#[parallel]
fn a_tree_without_a_name_is_killed_by_its_owner_and_number() {
    let Some(stage) = Stage::set() else { return };
    let started = || {
        let mut tool = stage.tool(&["run", "-q", "sh", "-c", "echo ready; exec sleep 25"]);
        let mut tool = tool.stdout(Stdio::piped()).spawn().unwrap();
        crate::support::read_ready(tool.stdout.take().unwrap());
        tool
    };
    let [mut first, mut second] = [started(), started()];
    let output = stage.tool(&["kill", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(said(&output).contains("more than one tree is meant"), "{}", said(&output));
    assert!(said(&output).contains("OWNER/NAME"), "{}", said(&output));
    let kill = |tool: &mut Child| {
        let name = format!("{}/0", tool.id());
        assert!(stage.tool(&["kill", &name]).status().unwrap().success());
        assert_eq!(tool.wait().unwrap().code(), Some(137));
    };
    kill(&mut second);
    assert_eq!(first.try_wait().unwrap(), None, "the other one too");
    kill(&mut first);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_file_to_wait_for_need_not_be_text() {
    let Some(stage) = Stage::set() else { return };
    let scene = Scene::set("ready");
    let mut command =
        stage.tool(&["with", "--server", ": > $(printf '\\377'); exec sleep 25", "--ready"]);
    command
        .arg(OsStr::from_bytes(b"file:\xff"))
        .args(["--", "echo", "ready"])
        .current_dir(&scene.0);
    let output = command.output().unwrap();
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(0), &b"ready\n"[..]),
        "{}",
        said(&output)
    );
    stage.close(Alone::No);
}
