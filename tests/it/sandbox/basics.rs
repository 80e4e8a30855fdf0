//! What a sandbox is and is not, seen from inside; how it ends, seen from outside.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use serial_test::{parallel, serial};
use tidy_process::{Cause, Level, Network, Sandbox, Stdio};

use super::{boxed, open_dir, said, stage, text};
use crate::support::{Alone, SOON, paced, read_ready, skip, until};

fn plain() -> Sandbox {
    Sandbox::new().system()
}

#[test]
#[serial]
fn status_signal_and_usage_are_mains_own() {
    let Some(stage) = stage() else { return };
    let report = boxed(&stage, "exit 3", &plain()).run().unwrap();
    assert_eq!((report.status.code(), report.cause), (Some(3), Cause::Exited));
    assert_eq!(report.leftover_count, 0, "{:?}", report.leftovers);
    let confined = report.sandbox.unwrap();
    assert_eq!(confined.level, Level::Sandbox);
    assert!(confined.mechanisms.contains(&"pid-namespace"), "{confined}");
    let report = boxed(&stage, "kill -SEGV $$", &plain()).run().unwrap();
    assert_eq!(report.status.signal(), Some(libc::SIGSEGV));
    let child = boxed(&stage, "sleep 60", &plain()).spawn().unwrap();
    child.kill().unwrap();
    assert_eq!(child.finish().unwrap().status.signal(), Some(libc::SIGKILL));
    drop(child);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn what_is_left_is_named_and_killed_and_init_is_neither() {
    let Some(stage) = stage() else { return };
    for join in [false, true] {
        let mut command = boxed(&stage, "setsid sleep 60 & exec sleep 0", &plain());
        let report = command.force_join(join).run().unwrap();
        let names: Vec<_> = report.leftovers.iter().map(|left| left.name.as_str()).collect();
        assert_eq!(names, ["sleep"]);
        drop(command);
        stage.assert_clean("after a leftover");
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_tree_is_empty_once_its_last_process_has_ended() {
    let Some(stage) = stage() else { return };
    // The orphan outlives main by a while, then init ends too.
    let start = Instant::now();
    let report = boxed(&stage, "sleep 0.3 & exit 0", &plain()).linger(true).run().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(250));
    assert_eq!((report.leftover_count, report.cause), (0, Cause::Exited));
    let child = boxed(&stage, "exit 0", &plain()).spawn().unwrap();
    child.wait().unwrap();
    assert!(child.tree().wait_empty(Instant::now() + SOON).unwrap());
    assert_eq!(child.tree().process_count(), 0);
    drop(child);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn members_signals_and_freezes_pass_over_init() {
    let Some(stage) = stage() else { return };
    let mut command = boxed(&stage, "trap 'exit 9' TERM; echo ready; sleep 60 & wait", &plain());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    let two = || child.tree().process_count() == 2;
    assert!(until(SOON, two), "{:?}", child.tree().processes());
    assert!(child.tree().processes().iter().all(|process| process.name != "tidy-init"));
    assert!(child.tree().freeze().unwrap());
    child.tree().thaw().unwrap();
    assert_eq!(child.tree().signal(libc::SIGTERM).unwrap(), 2);
    assert_eq!(child.wait().unwrap().code(), Some(9));
    drop((child, command));
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn orphans_are_reaped_and_main_is_not_process_one() {
    let Some(stage) = stage() else { return };
    // Bounded: nothing tells when they are reaped.
    let script = "echo $$; (true & true & true &); n=0
        while ps -A -o stat= | grep -q Z && [ $n -lt 200 ]; do n=$((n + 1)); sleep 0.1; done
        ps -A -o stat= | grep -c Z; echo end";
    assert_eq!(said(&stage, script, &plain()), "2\n0\nend\n");
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_timeout_and_a_grace_are_kept() {
    let Some(stage) = stage() else { return };
    let mut command = boxed(&stage, "trap 'exit 5' TERM; sleep 60 & wait", &plain());
    // Long enough for the trap to be set.
    command.timeout(paced(Duration::from_millis(200))).grace(SOON);
    let report = command.run().unwrap();
    assert_eq!((report.status.code(), report.cause), (Some(5), Cause::TimedOut));
    drop(command);
    let mut command = boxed(&stage, "trap '' TERM; sleep 60", &plain());
    command.timeout(Duration::from_millis(200)).grace(Duration::from_millis(100));
    let report = command.run().unwrap();
    assert_eq!(report.status.signal(), Some(libc::SIGKILL));
    drop(command);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn the_view_has_what_is_named_and_no_more() {
    let Some(stage) = stage() else { return };
    let (read, write) = (open_dir("read"), open_dir("write"));
    fs::write(read.join("there"), "old").unwrap();
    fs::create_dir_all(read.join("secret/deep")).unwrap();
    let sandbox = plain().read_only(&read).read_write(&write).hide(read.join("secret"));
    let script = format!(
        "cd {0}; cat there; echo new >there; ls secret; echo new >{1}/made; echo >/x; \
         echo >/tmp/x; \
         ls -d /tmp/* /home /root /var /run /sys 2>&1; ls {2}",
        read.display(),
        write.display(),
        std::env::temp_dir().display(),
    );
    let text = said(&stage, &script, &sandbox);
    assert!(text.starts_with("old"), "{text}");
    assert!(text.contains("there: Read-only file system"), "{text}");
    assert!(text.contains("/x: Read-only file system"), "{text}");
    assert!(!text.contains("deep") && text.contains("/home': No such file"), "{text}");
    assert_eq!(fs::read_to_string(read.join("there")).unwrap(), "old");
    assert_eq!(fs::read_to_string(write.join("made")).unwrap(), "new\n");
    [read, write].iter().for_each(|dir| fs::remove_dir_all(dir).unwrap());
    drop(sandbox);
    stage.close(Alone::Yes);
}

/// What every view has, and what `system` shows, as what is named.
#[test]
#[serial]
fn what_is_hidden_is_not_there_whatever_has_shown_it() {
    let Some(stage) = stage() else { return };
    for (hidden, script) in [
        ("/etc", "ls -A /etc"),
        ("/etc/passwd", "cat /etc/passwd"),
        ("/dev/full", "ls /dev/full"),
        ("/proc/sys", "ls -A /proc/sys"),
        ("/sbin", "ls -A /sbin"),
    ] {
        let script = format!("{script} 2>/dev/null; echo well");
        for _ in 0..3 {
            let sandbox = plain().hide(hidden);
            assert_eq!(said(&stage, &script, &sandbox), "well\n", "{hidden}");
        }
        assert_ne!(said(&stage, &script, &plain()), "well\n", "{hidden}");
    }
    // A part of what is hidden can be shown.
    let sandbox = plain().hide("/etc").read_only("/etc/passwd");
    assert_eq!(said(&stage, "ls -A /etc", &sandbox), "passwd\n");
    for own in ["/proc", "/tmp", "/dev", "/dev/shm", "/dev/pts"] {
        let error = boxed(&stage, "true", &plain().hide(own)).run().unwrap_err();
        assert!(error.is_invalid_input() && error.to_string().contains("its own"), "{error}");
    }
    drop(sandbox);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn no_mount_point_is_made_in_a_directory_of_the_hosts() {
    let Some(stage) = stage() else { return };
    let (dir, other) = (open_dir("points"), open_dir("other"));
    fs::write(dir.join("file"), "").unwrap();
    fs::create_dir(dir.join("place")).unwrap();
    std::os::unix::fs::symlink(&other, dir.join("link")).unwrap();
    let shown = plain().read_write(&dir);
    for (sandbox, errno) in [
        (shown.clone().private(dir.join("new")), libc::ENOENT),
        (shown.clone().private(dir.join("file")), libc::ENOTDIR),
        (shown.clone().private(dir.join("link")), libc::ELOOP),
        (shown.clone().private(dir.join("link/x")), libc::ELOOP),
        (shown.clone().hide(dir.join("gone")), libc::ENOENT),
        (plain().read_only(dir.join("link")), libc::ELOOP),
        (plain().read_only(dir.join("gone")), libc::ENOENT),
    ] {
        let error = boxed(&stage, "true", &sandbox).run().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{error}");
        assert!(error.to_string().starts_with("show in the sandbox: "), "{error}");
        assert!(error.hint().is_some(), "{error}");
        stage.assert_clean("after a refusal");
    }
    let mut names: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["file", "link", "place"]);
    let script = format!("echo >{0}/place/x && ls {0}/place", dir.display());
    let place = shown.private(dir.join("place"));
    assert_eq!(said(&stage, &script, &place), "x\n");
    drop(place);
    assert_eq!(fs::read_dir(dir.join("place")).unwrap().count(), 0);
    [dir, other].iter().for_each(|dir| fs::remove_dir_all(dir).unwrap());
    stage.close(Alone::Yes);
}

/// A directory on the way to what is covered is renamed, and another one put in its place.
#[test]
#[serial]
fn what_is_covered_below_a_writable_path_stays_covered() {
    let Some(stage) = stage() else { return };
    let dir = open_dir("held");
    fs::create_dir_all(dir.join("git/deep/hooks")).unwrap();
    fs::write(dir.join("git/deep/secret"), "told").unwrap();
    for open in ["git", "git/deep", "git/deep/hooks"] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(dir.join(open), PermissionsExt::from_mode(0o777)).unwrap();
    }
    let shown = plain().read_write(&dir);
    let script = format!(
        "cd {}; mv git/deep git/x; mv git y; mkdir -p git/deep/hooks; echo >git/deep/hooks/new; \
         cat git/deep/secret y/x/secret git/x/secret; echo >git/deep/beside",
        dir.display(),
    );
    let text = said(&stage, &script, &shown.clone().read_only(dir.join("git/deep/hooks")));
    assert!(text.contains("Device or resource busy"), "{text}");
    assert!(text.contains("new: Read-only file system"), "{text}");
    assert!(dir.join("git/deep/beside").exists() && !dir.join("git/deep/hooks/new").exists());
    let text = said(&stage, &script, &shown.clone().hide(dir.join("git/deep/secret")));
    assert!(text.contains("Device or resource busy") && !text.contains("told"), "{text}");
    // A second run sees nothing of it either.
    let text = said(&stage, &script, &shown.clone().hide(dir.join("git/deep/secret")));
    assert!(text.contains("Device or resource busy") && !text.contains("told"), "{text}");
    assert_eq!(fs::read_to_string(dir.join("git/deep/secret")).unwrap(), "told");
    // Without a cover it is renamed, and read.
    assert!(said(&stage, &script, &shown).contains("told"));
    fs::remove_dir_all(dir).unwrap();
    drop(shown);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn no_capability_is_left_nor_can_come_back() {
    let Some(stage) = stage() else { return };
    let sets = said(
        &stage,
        "grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs):' /proc/self/status; true",
        &plain(),
    );
    let none = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| format!("{set}:\t{:016x}\n", 0));
    assert_eq!(sets, format!("{}NoNewPrivs:\t1\n", none.concat()));
    // Nor is uid 0 more than others, whatever becomes of no_new_privs.
    let bits = said(&stage, "setpriv --dump | grep '^Securebits'", &plain());
    for bit in ["noroot", "no_setuid_fixup", "keep_caps_locked"] {
        assert!(bits.contains(bit) && bits.contains("noroot_locked"), "{bits}");
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn the_environment_is_cleared_but_for_what_is_kept() {
    let Some(stage) = stage() else { return };
    let own: Vec<String> = std::env::vars().map(|(key, _)| key).collect();
    // The first of cargo's, or of the shell that runs the tests without it.
    let is_kept = |key: &&String| key.starts_with("CARGO") || *key == "USER" || *key == "LOGNAME";
    let Some(kept) = own.iter().find(is_kept) else { return skip("no CARGO, USER or LOGNAME") };
    let output =
        boxed(&stage, "env", &plain().keep_env([kept])).env("OF_THE_COMMAND", "1").output();
    let text = text(&output.unwrap());
    let mut keys: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    keys.retain(|key| !["PWD", "SHLVL", "_", "OLDPWD", "TERM", "LANG", "TZ"].contains(key));
    keys.retain(|key| !["COLORTERM", "NO_COLOR"].contains(key) && !key.starts_with("LC_"));
    keys.sort_unstable();
    let mut wanted = [kept.as_str(), "HOME", "OF_THE_COMMAND", "PATH", "TIDY_MARK"];
    wanted.sort_unstable();
    assert_eq!(keys, wanted, "{text}");
    assert!(text.contains("HOME=/tmp\n"));
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn it_starts_in_its_directory_or_not_at_all() {
    let Some(stage) = stage() else { return };
    let dir = open_dir("cwd");
    let mut command = stage.sh("pwd");
    command.sandbox(&plain().read_only(&dir)).current_dir(&dir);
    assert_eq!(text(&command.output().unwrap()), format!("{}\n", dir.display()));
    drop(command);
    let mut command = stage.sh("pwd");
    let error = command.sandbox(&plain()).run().unwrap_err();
    assert!(error.to_string().starts_with("chdir in the sandbox to "), "{error}");
    assert!(error.hint().unwrap().contains("current_dir"), "{error:#}");
    drop(command);
    fs::remove_dir(dir).unwrap();
    stage.close(Alone::Yes);
}

#[test]
#[parallel]
fn the_plan_has_every_piece_and_runs_nothing() {
    let sandbox = plain().read_write("/data").hide("/usr/share").network(Network::Loopback);
    let plan = match sandbox.plan() {
        Ok(plan) => plan.to_string(),
        Err(error) => return assert!(error.is_unconfinable(), "{error}"),
    };
    for piece in [
        "read-write \"/data\"",
        "hidden \"/usr/share\"",
        "read-only \"/usr\"",
        "private \"/tmp\"",
        "device \"/dev/null\"",
        "own processes \"/proc\"",
        "its own loopback",
        "keep PATH",
        "refuse mount",
    ] {
        assert!(plan.contains(piece), "{piece} is not in {plan}");
    }
}
