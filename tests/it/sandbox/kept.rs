//! `--overlay`, `--changes` and `--commit` of the tool.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use serial_test::serial;

use super::{open_dir, overlay::overlay_stage};
use crate::support::{Alone, Stage};

/// The tool with an overlay of the directory, in which a script runs.
fn ran(stage: &Stage, subcommand: &str, dir: &Path, more: &[&str], script: &str) -> (i32, String) {
    let at = dir.to_str().unwrap();
    let mut args = vec![subcommand, "--sandbox", "-C", at, "--overlay", at, "--json"];
    let json = dir.with_extension("json");
    args.extend([&[json.to_str().unwrap()], more, &["--", "sh", "-ec", script]].concat());
    let output = stage.tool(&args).output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(both).unwrap())
}

fn report(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.with_extension("json")).unwrap()).unwrap()
}

fn change(path: &str, kind: &str, is_dir: bool, bytes: u64) -> Value {
    json!({ "path": path, "kind": kind, "directory": is_dir, "bytes": bytes })
}

#[test]
#[serial]
fn changes_are_listed_and_kept_only_if_asked() {
    let Some(stage) = overlay_stage() else { return };
    let dir = open_dir("kept");
    fs::write(dir.join("a"), "old").unwrap();
    let script = "printf newer >a; mkdir d; printf x >d/b";
    let listed = format!(
        "{dir:?} 3\n  changed \"a\" (5 bytes)\n  added \"d\" (directory)\n  \
         added \"d/b\" (1 bytes)\n",
    );
    for subcommand in ["run", "with"] {
        assert_eq!(ran(&stage, subcommand, &dir, &["--changes", "-"], script), (0, listed.clone()));
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "old");
        let changes = [
            change("a", "changed", false, 5),
            change("d", "added", true, 0),
            change("d/b", "added", false, 1),
        ];
        let all = json!({ "count": 3, "skipped": 0, "committed": false, "changes": changes });
        let mut found = report(&dir)["changes"].take();
        assert_eq!(found[0].as_object_mut().unwrap().remove("dir"), Some(json!(dir)));
        assert_eq!(found, json!([all]));
        // Kept, if it succeeds.
        let failing = format!("{script}; exit 7");
        let (exit, said) = ran(&stage, subcommand, &dir, &["--commit"], &failing);
        assert!(exit == 7 && said.contains("nothing is committed"), "{exit}: {said}");
        let (exit, said) = ran(&stage, subcommand, &dir, &["--commit", "-t", "0.2"], "sleep 60");
        assert!(exit == 124 && said.contains("nothing is committed"), "{exit}: {said}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert_eq!(ran(&stage, subcommand, &dir, &["--commit"], script), (0, String::new()));
        assert_eq!(report(&dir)["changes"][0]["committed"], true);
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "x");
        fs::remove_dir_all(dir.join("d")).unwrap();
        fs::write(dir.join("a"), "old").unwrap();
    }
    fs::remove_dir_all(&dir).unwrap();
    fs::remove_file(dir.with_extension("json")).unwrap();
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn what_is_not_committed_is_said() {
    let Some(stage) = overlay_stage() else { return };
    let dir = open_dir("said");
    let (exit, said) = ran(&stage, "run", &dir, &["--commit"], "mkfifo p; printf x >a");
    assert!(exit == 0 && said.contains("1 changes are not committed"), "{exit}: {said}");
    assert!(dir.join("a").exists() && !dir.join("p").exists());
    // Without an overlay there is nothing to commit.
    let plain = stage.tool(&["run", "--sandbox", "--commit", "--", "true"]).output().unwrap();
    let said = String::from_utf8(plain.stderr).unwrap();
    assert!(plain.status.code() == Some(125) && said.contains("--overlay"), "{said}");
    let profile = dir.join("profile.toml");
    fs::write(&profile, "overlay = '.'").unwrap();
    let args = ["run", "--profile", profile.to_str().unwrap(), "--plan"];
    let plan = stage.tool(&args).output().unwrap();
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.contains(&format!("overlay {dir:?}")), "{plan}");
    assert!(plan.contains("overlayfs: writes only what is named"), "{plan}");
    fs::remove_dir_all(&dir).unwrap();
    fs::remove_file(dir.with_extension("json")).unwrap();
    stage.close(Alone::Yes);
}

/// Also where they are not among those that are listed.
#[test]
#[serial]
fn all_that_is_not_committed_is_counted() {
    let Some(stage) = overlay_stage() else { return };
    let dir = open_dir("many");
    let script = "/usr/bin/python3 -c 'import os
for number in range(10020): open(f\"a{number}\", \"w\").close()
for number in range(3): os.mkfifo(f\"z{number}\")'";
    let (exit, said) = ran(&stage, "run", &dir, &["--commit"], script);
    assert!(exit == 0 && said.contains("3 changes are not committed"), "{exit}: {said}");
    let found = &report(&dir)["changes"][0];
    assert_eq!((&found["count"], &found["skipped"]), (&json!(10_023), &json!(3)));
    assert_eq!(found["changes"].as_array().unwrap().len(), 10_000);
    fs::remove_dir_all(&dir).unwrap();
    fs::remove_file(dir.with_extension("json")).unwrap();
    stage.close(Alone::Yes);
}

/// One overlay is committed after the other.
#[test]
#[serial]
fn a_commit_that_fails_names_the_overlays_that_are_committed() {
    let Some(stage) = overlay_stage() else { return };
    let (one, two) = (open_dir("first"), open_dir("second"));
    // More directories in each other than a commit removes, by any user.
    let mut deep = two.join("deep");
    (0..300).for_each(|_| deep.push("d"));
    fs::create_dir_all(&deep).unwrap();
    fs::set_permissions(two.join("deep"), PermissionsExt::from_mode(0o777)).unwrap();
    let second = two.to_str().unwrap();
    let script = format!("printf x >made; rm -rf {second}/deep || mv {second}/deep /tmp/gone");
    let (exit, said) = ran(&stage, "run", &one, &["--overlay", second, "--commit"], &script);
    assert_eq!(exit, 125, "{said}");
    let text = format!("(all of {one:?} is committed)");
    assert!(said.contains("commit \"deep\" in ") && said.contains(&text), "{said}");
    assert_eq!(fs::read_to_string(one.join("made")).unwrap(), "x");
    assert!(deep.exists() && !said.contains("are made)"), "{said}");
    // The first one that fails leaves nothing to be said of others.
    let (exit, said) = ran(&stage, "run", &two, &["--commit"], "rm -rf deep");
    assert!(exit == 125 && !said.contains("all of"), "{exit}: {said}");
    [&one, &two].iter().for_each(|dir| fs::remove_dir_all(dir).unwrap());
    [one, two].iter().for_each(|dir| drop(fs::remove_file(dir.with_extension("json"))));
    stage.close(Alone::Yes);
}
