//! `--explain` and `--learn` of the tool.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command as StdCommand, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use serial_test::serial;

use super::{open_dir, overlay::overlay_stage, stage};
use crate::actor::{ROLE, actor};
use crate::attacks::permissions::succeeds_as_ordinary;
use crate::attacks::succeeds;
use crate::support::{Alone, tool, until};

fn said(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap()
}

#[test]
#[serial]
fn denials_are_said_at_the_end_and_in_the_report() {
    let Some(stage) = stage() else { return };
    let dir = open_dir("tool");
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    let (at, file) = (dir.to_str().unwrap(), file.to_str().unwrap());
    let line = format!("allow it with --read {at}\n");
    for subcommand in ["run", "with"] {
        let args = [subcommand, "--sandbox", "-C", "/", "--explain", "--json", "-"];
        let output = stage.tool(&[&args[..], &["--", "cat", file]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        let start = format!("tidy-process: denied: read {file} (openat, cat ");
        assert!(errors.contains(&start) && errors.ends_with(&line), "{errors}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let denied = &report["denied"][0];
        assert_eq!((&report["denied_count"], &denied["target"]), (&1.into(), &file.into()));
        assert_eq!((&denied["action"], &denied["name"]), (&"read".into(), &"cat".into()));
        let quiet = stage.tool(&[&args[..5], &["-q", "--", "cat", file]].concat());
        let quiet = said(&{ quiet }.output().unwrap());
        assert!(!quiet.contains("denied"), "{quiet}");
    }
    let none = stage.tool(&["run", "--explain", "true"]).output().unwrap();
    assert!(said(&none).contains("--explain"), "{none:?}");
    // A supervisor that is explained itself.
    let inner = [tool(), "run", "--fence", "--explain"];
    let inner = [&["run", "--fence", "--explain", "--"], &inner[..]].concat();
    let inner = [&inner[..], &["--containment", "best-effort", "--", "true"]].concat();
    let output = stage.tool(&inner).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let text = said(&output);
    assert!(text.contains("explain (listener") && text.contains("leave --explain out"), "{text}");
    fs::remove_dir_all(&dir).unwrap();
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_signal_ends_an_explained_command_with_its_denials() {
    let Some(stage) = stage() else { return };
    for (signal, status) in [(Signal::SIGINT, 2), (Signal::SIGTERM, 15)] {
        let args = ["run", "--sandbox", "-C", "/", "--explain", "--stdout"];
        let out = open_dir("signal").join("out");
        let script = "echo >/usr/x; echo ready; while :; do cat /opt/none; done 2>/dev/null";
        let more = [out.to_str().unwrap(), "--", "sh", "-c", script];
        let mut tool = stage.tool(&[&args[..], &more].concat());
        let child = tool.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let ready = || fs::read_to_string(&out).is_ok_and(|text| text.contains("ready"));
        assert!(until(std::time::Duration::from_secs(20), ready));
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let ended = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(ended, Some(status), "{output:?}");
        assert!(said(&output).contains("denied: write /usr/x"), "{output:?}");
        fs::remove_dir_all(out.parent().unwrap()).unwrap();
    }
    stage.close(Alone::Yes);
}

/// Programs, by the file that they leave: each needs what is beside its directory too.
const PROGRAMS: [(&str, &str); 3] = [
    ("/usr/bin/python3", "import shutil, sys; shutil.copy('../side/data', 'out')"),
    ("/usr/bin/gcc", "gcc -I../side a.c -o out && ./out"),
    (
        "/usr/bin/git",
        "git init -q r && cd r && git -c user.name=n -c user.email=e commit -q \
      --allow-empty -m x && git -C . log --oneline >../out",
    ),
];

/// As an actor: learns each program, and runs it once more with what was learned.
pub(crate) fn play() {
    for (program, script) in PROGRAMS.iter().filter(|(program, _)| Path::new(program).exists()) {
        let top = open_dir("learned");
        let (work, side) = (top.join("work"), top.join("side"));
        for dir in [&work, &side] {
            fs::create_dir(dir).unwrap();
            let open = PermissionsExt::from_mode(0o777);
            fs::set_permissions(dir, open).unwrap();
        }
        fs::write(side.join("data"), "data").unwrap();
        fs::write(side.join("a.h"), "").unwrap();
        fs::write(work.join("a.c"), "#include \"a.h\"\nint main(void){return 0;}\n").unwrap();
        let run = |options: &[&str]| {
            let mut tool = StdCommand::new(tool());
            tool.env_remove(ROLE).current_dir(&work).arg("run").args(options).arg("--");
            match program.ends_with("python3") {
                true => tool.args([program, "-c", script]),
                false => tool.args(["sh", "-ec", script]),
            };
            tool.output().unwrap()
        };
        let profile = top.join("profile.toml");
        let name = profile.to_str().unwrap();
        let without = run(&["--sandbox", "--read", work.to_str().unwrap()]);
        assert!(!without.status.success(), "{program}: {without:?}");
        let learned = run(&["--learn", name]);
        assert!(learned.status.success(), "{program}: {learned:?}");
        assert!(said(&learned).contains("learned"), "{learned:?}");
        // What it has reached was not denied.
        assert!(!said(&learned).contains("--read"), "{learned:?}");
        assert!(!said(&learned).contains("--write"), "{learned:?}");
        // The host is as it was.
        assert!(!work.join("out").exists() && !work.join("r").exists(), "{program}");
        let text = fs::read_to_string(&profile).unwrap();
        let with = run(&["--profile", name]);
        assert!(with.status.success(), "{program}: {with:?} by {text}");
        assert!(work.join("out").exists(), "{program}");
        // A profile may be learned anew; another file is kept. For root what is there now is
        // another user's.
        fs::remove_file(work.join("out")).unwrap();
        let _ = fs::remove_dir_all(work.join("r"));
        assert!(run(&["--learn", name]).status.success());
        let data = side.join("data");
        let refused = run(&["--learn", data.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(125), "{refused:?}");
        assert_eq!(fs::read_to_string(&data).unwrap(), "data");
        fs::remove_dir_all(&top).unwrap();
    }
}

#[test]
#[serial]
fn a_learned_profile_lets_the_same_command_run() {
    let Some(stage) = overlay_stage() else { return };
    succeeds(&mut actor(&stage, "learn"), "as this user");
    succeeds_as_ordinary(&stage, actor(&stage, "learn"));
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_command_that_fails_leaves_what_is_known_and_a_hostile_one_no_key() {
    let Some(stage) = overlay_stage() else { return };
    let dir = open_dir("failing");
    let odd = dir.join("a\"]\nallow-syscall = [\"ptrace");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("f"), "").unwrap();
    let profile = dir.join("profile.toml");
    let name = profile.to_str().unwrap();
    let script = "cat a*/f; unshare -U true; exit 7";
    let args = ["run", "--learn", name, "-C", dir.to_str().unwrap(), "--", "sh", "-c", script];
    let output = stage.tool(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(said(&output).contains("CMD has not succeeded"), "{output:?}");
    assert!(said(&output).contains("denied: unshare"), "{output:?}");
    let text = fs::read_to_string(&profile).unwrap();
    assert!(text.contains("# It was refused unshare"), "{text}");
    let plan = stage.tool(&["run", "--profile", name, "--plan"]).output().unwrap();
    assert!(plan.status.success(), "{plan:?}");
    assert!(said(&plan).contains("refuse ptrace"), "{text}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    fs::remove_dir_all(&dir).unwrap();
    stage.close(Alone::Yes);
}

/// The command may write where the profile goes: links and another directory lead nowhere.
#[test]
#[serial]
fn a_command_cannot_choose_where_its_profile_goes() {
    let Some(stage) = overlay_stage() else { return };
    let dir = open_dir("chosen");
    let (proj, victim) = (dir.join("proj"), dir.join("victim"));
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "precious").unwrap();
    for swaps in [false, true] {
        fs::create_dir(&proj).unwrap();
        fs::set_permissions(&proj, PermissionsExt::from_mode(0o777)).unwrap();
        let script = match swaps {
            false => format!("ln -s {}/file p.toml; touch made", victim.display()),
            true => format!("cd ..; mv proj moved; ln -s {} proj; touch made", victim.display()),
        };
        let (name, write) = (proj.join("p.toml"), if swaps { &dir } else { &proj });
        let (name, write) = (name.to_str().unwrap(), write.to_str().unwrap());
        let at = proj.to_str().unwrap();
        let args = ["run", "--learn", name, "--write", write, "-C", at, "--", "sh", "-c", &script];
        let mut tool = stage.tool(&args).spawn().unwrap();
        // A name that its pid gives away, too.
        let link = proj.join(format!("p.toml.{}.tmp", tool.id()));
        let _ = std::os::unix::fs::symlink(victim.join("file"), link);
        assert!(tool.wait().unwrap().success(), "{swaps}");
        assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "precious");
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
        let place = if swaps { dir.join("moved") } else { proj.clone() };
        let profile = place.join("p.toml");
        assert!(profile.symlink_metadata().unwrap().is_file(), "{swaps}");
        let _ = (fs::remove_file(&proj), fs::remove_dir_all(&place));
    }
    let fifo = dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let args = ["run", "--learn", fifo.to_str().unwrap(), "--", "true"];
    assert_eq!(stage.tool(&args).output().unwrap().status.code(), Some(125));
    fs::remove_dir_all(&dir).unwrap();
    stage.close(Alone::Yes);
}
