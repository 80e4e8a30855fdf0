//! A timeline where little is as it was at the desk: a full disk, a sandbox, another timeline
//! around it, a runtime, an ordinary user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command as StdCommand, Output};

use serde_json::Value;
use serial_test::{parallel, serial};
#[cfg(feature = "tokio")]
use tidy_process::Recording;

use super::{Dir, json, said, tool, well_formed, with_word};
use crate::attacks::permissions::{delegated, ordinary};
use crate::support::{Alone, Stage, tool as exe};

/// What a shell writes and how it exits in a mount namespace of its own, where a small file system
/// is on `dir`: `$1` is the tool.
fn on_a_small_disk(stage: &Stage, dir: &Dir, options: &str, script: &str) -> Output {
    let user: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["-Ur"] };
    let mut command = StdCommand::new("unshare");
    stage.mark_std(command.args(user).args(["-m", "--propagation", "private", "sh", "-ec"]));
    let script = format!("mount -t tmpfs -o {options} none {}\ncd .\n{script}", dir.0.display());
    command.arg(script).args(["sh", exe()]).current_dir(&dir.0).output().unwrap()
}

/// The old file stays, and nothing is left beside it; the command has run.
#[test]
#[parallel]
fn a_disk_that_is_full_at_the_end_leaves_the_old_file_and_no_other() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("full");
    for name in ["a.html", "a.svg", "a.json"] {
        let script = format!(
            "cd {0}; echo old >{name}; set +e
             $1 run --timeline {0}/{name} -- sh -c 'cat /dev/zero >fill; exit 3'
             echo status $?; cat {name}; ls -A; rm fill
             $1 run -q --timeline {0}/{name} -- true; echo status $?; ls -A; grep -c tidy {name}",
            dir.0.display()
        );
        let output = on_a_small_disk(&stage, &dir, "size=64k", &script);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let first = format!("status 125\nold\n{name}\nfill\nstatus 0\n{name}\n");
        assert!(text.starts_with(&first), "{name}: {text}{}", said(&output));
        let errors = said(&output);
        assert!(errors.contains(name) && errors.contains("ENOSPC"), "{errors}");
    }
    stage.close(Alone::No);
}

/// Where not even an empty file can be made the command is not started.
#[test]
#[parallel]
fn a_disk_without_room_for_a_name_is_told_of_before_the_start() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("inodes");
    let script = format!(
        "cd {0}; set +e; : >fill; rm fill; : >last
         $1 run --timeline {0}/a.html -- sh -c 'echo started'; echo status $?; ls -A",
        dir.0.display()
    );
    let output = on_a_small_disk(&stage, &dir, "size=64k,nr_inodes=2", &script);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "status 125\nlast\n", "{}", said(&output));
    assert!(said(&output).contains("ENOSPC"), "{}", said(&output));
    stage.close(Alone::No);
}

/// What was started is in it, and what confines it is not.
#[cfg(feature = "sandbox")]
#[test]
#[parallel]
fn a_confined_run_has_a_timeline_of_its_own_processes() {
    let Some(stage) = crate::sandbox::stage() else { return };
    let dir = Dir::new("confined");
    let script = "sleep 0.31; setsid -f sleep 71; sleep 0.32; exit 7";
    let levels = [&["--fence"][..], &["--sandbox", "-C", "/"], &["--sandbox", "--net", "loopback"]];
    for (number, level) in levels.iter().enumerate() {
        let file = dir.file(&format!("{number}.json"));
        let args = [&["run", "-q", "--timeline", &file], *level, &["--", "sh", "-c", script]];
        let output = stage.tool(&args.concat()).current_dir("/").output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{level:?}: {}", said(&output));
        let lane = &json(&file)["lanes"][0];
        let main = &lane["main"];
        for word in ["0.31", "0.32"] {
            let sleeps = with_word(lane, word);
            let sleep = sleeps.iter().find(|span| span["name"] == "sleep").unwrap();
            assert_eq!(&sleep["ppid"], main, "{level:?}: {lane}");
        }
        let left = with_word(lane, "71");
        let left = left.iter().find(|span| span["name"] == "sleep").unwrap();
        assert_eq!((&left["left"], &left["killed"]), (&true.into(), &true.into()), "{left}");
        assert_eq!(lane["status"]["code"], 7);
        let known = ["sh", "sleep", "setsid"];
        let spans = lane["processes"].as_array().unwrap();
        // One that ends at once may do so before it is read.
        let is_known =
            |span: &Value| span["name"].is_null() || known.iter().any(|name| span["name"] == *name);
        assert!(spans.iter().all(is_known), "{level:?}: {spans:?}");
        let main = spans.iter().find(|span| span["pid"] == *main).unwrap();
        assert_eq!(main["command"][0], "sh", "{level:?}: {main}");
    }
    stage.close(Alone::No);
}

/// The inner one has its own processes, the outer one all of them.
#[test]
#[parallel]
fn a_timeline_in_a_timeline_is_part_of_it() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("nested");
    let (outer, inner) = (dir.file("outer.json"), dir.file("inner.json"));
    let script = format!(
        "sleep 0.41; env -u TIDY_PROCESS_PARENT {} run -q --timeline {inner} -- \
         sh -c 'sleep 0.42; setsid -f sleep 71; sleep 0.43'",
        exe()
    );
    let output = tool(&stage, &["run", "-q", "--timeline", &outer, "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let (outer, inner) = (json(&outer), json(&inner));
    let (all, own) = (&outer["lanes"][0], &inner["lanes"][0]);
    for word in ["0.42", "0.43", "71"] {
        let spans = (with_word(all, word), with_word(own, word));
        let of = |spans: &[&Value]| {
            let sleep = spans.iter().find(|span| span["name"] == "sleep");
            sleep.unwrap_or_else(|| panic!("{word}: {spans:?}"))["pid"].clone()
        };
        assert_eq!(of(&spans.0), of(&spans.1), "{word}");
    }
    assert!(with_word(own, "0.41").is_empty() && with_word(all, "0.41").len() == 1, "{own}");
    assert_eq!((&all["left_count"], &own["left_count"]), (&0.into(), &1.into()), "{outer}");
    let left = with_word(own, "71").into_iter().find(|span| span["left"] == true);
    assert!(left.is_some_and(|span| span["killed"] == true), "{own}");
    stage.close(Alone::No);
}

#[cfg(feature = "tokio")]
#[test]
#[serial]
fn a_future_is_recorded_whether_it_ends_or_is_dropped() {
    use crate::async_child::{current_thread, multi_thread};
    for runtime in [current_thread, multi_thread] {
        let Some(stage) = Stage::set() else { return };
        let recording = Recording::new();
        let mut command = stage.sh("sleep 0.1; setsid -f sleep 71; exit 5");
        let mut endless = stage.sh("sleep 72");
        command.record(&recording);
        endless.record(&recording);
        let runtime = runtime();
        runtime.block_on(async {
            assert_eq!(command.run_async().await.unwrap().status.code(), Some(5));
            drop(endless.spawn_async().unwrap());
            let child = endless.spawn_async().unwrap();
            child.kill().await.unwrap();
            child.finish().await.unwrap();
        });
        drop(runtime);
        let lanes = recording.timeline().lanes;
        assert_eq!(lanes.len(), 3);
        assert!(lanes.iter().all(|lane| lane.ended.is_some()), "{lanes:?}");
        assert!(lanes[0].processes.iter().any(|span| span.left && span.killed), "{lanes:?}");
        assert_eq!(lanes[0].status.unwrap().code(), Some(5));
        assert!(lanes[1..].iter().all(|lane| lane.processes.iter().any(|span| span.killed)));
        drop((recording, command, endless, lanes));
        stage.close(Alone::Yes);
    }
}

/// In the initial pid namespace the kernel may tell an ordinary user too (from Linux 6.6 on); in
/// another one it does not, and the page says what that means.
#[test]
#[serial]
fn an_ordinary_user_is_told_that_short_lived_processes_may_be_missed() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("ordinary");
    fs::set_permissions(&dir.0, PermissionsExt::from_mode(0o755)).unwrap();
    chown(&dir.0, Some(65534), Some(65534)).unwrap();
    let namespace = &["unshare", "-Upf", "--mount-proc", "--kill-child"][..];
    for (name, before) in [("here", &["env"][..]), ("namespace", namespace)] {
        let files = ["json", "html", "svg"].map(|ending| dir.file(&format!("{name}.{ending}")));
        for file in &files {
            let Some(tree) = delegated(&stage) else { return };
            let mut command = StdCommand::new(before[0]);
            stage.mark_std(command.args(&before[1..]).args([exe(), "run", "-q", "--timeline"]));
            let script = "n=0; while [ $n -lt 30 ]; do n=$((n+1)); /bin/true; done; \
                          sleep 0.5; setsid -f sleep 71; sleep 0.2";
            command.arg(file).args(["--", "sh", "-c", script]);
            ordinary(&mut command, &tree);
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{name}: {}", said(&output));
            drop(command);
            assert_eq!(tree.finish().unwrap().leftovers, []);
        }
        let [numbers, page, picture] = files;
        let lane = &json(&numbers)["lanes"][0];
        let told = lane["births"] == "told";
        assert!(name == "here" || !told, "{lane}");
        assert!(!told || lane["process_count"].as_u64() >= Some(33), "{lane}");
        let left = with_word(lane, "71").into_iter().find(|span| span["left"] == true);
        assert!(left.is_some_and(|span| span["killed"] == true), "{lane}");
        for file in [page, picture] {
            well_formed(&file);
            let text = fs::read_to_string(&file).unwrap();
            assert_ne!(told, text.contains("may be missing"), "{file}");
        }
    }
    stage.close(Alone::Yes);
}
