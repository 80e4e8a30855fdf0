//! Each step of the set-up failing, and the machine refusing what it needs: a named error, and
//! nothing left.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serial_test::serial;
use tidy_process::Sandbox;

use super::template::warm;
use super::{boxed, stage};
use crate::support::{Alone, Stage};

/// What each step is called, by its number in `src/sandbox/layout.rs`.
const STEPS: [(usize, &str); 16] = [
    (3, "confine (user namespace, unshare)"),
    (4, "confine (user of the namespace, /proc/self/uid_map)"),
    (5, "confine (mount, pid, ipc, uts and cgroup namespaces, unshare)"),
    (6, "confine (network namespace)"),
    (7, "confine (init and main, clone)"),
    (8, "confine (a root of its own, mount)"),
    (9, "confine (mount) link \"/bin\""),
    (10, "confine (a root of its own, mount)"),
    (11, "chdir in the sandbox to \"/\""),
    (12, "setpgid"),
    (13, "confine (no new privileges, prctl)"),
    (14, "confine (processes and cgroups outside, landlock)"),
    (15, "confine (system calls, seccomp)"),
    (16, "reset signals"),
    (17, "exec \"sh\""),
    (18, "confine (other fds, close_range)"),
];

/// The children of this process that nothing has reaped, but for those of tests before.
fn zombies(before: &[String]) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let ours = format!(" Z {} ", std::process::id());
    stats.filter(|stat| stat.contains(&ours) && !before.contains(stat)).collect()
}

#[test]
#[serial]
fn each_step_that_fails_is_named_and_leaves_nothing() {
    let Some(stage) = stage() else { return };
    let before = zombies(&[]);
    for (number, name) in STEPS {
        for join in [false, true] {
            let sandbox = Sandbox::new().system().fail_at(number);
            let mut command = boxed(&stage, "true", &sandbox);
            command.process_group(0).force_join(join);
            // exec is made to fail by a program that is none: its step has no check.
            let error = match number {
                17 => {
                    let mut command = stage.command("/etc/hostname");
                    command.sandbox(&sandbox).current_dir("/").run().unwrap_err()
                }
                _ => command.run().unwrap_err(),
            };
            let name = if number == 17 { "exec \"/etc/hostname\"" } else { name };
            assert!(error.to_string().starts_with(name), "{number}: {error}");
            let confines = name.starts_with("confine");
            assert_eq!(error.is_unconfinable(), confines, "{number}: {error}");
            stage.assert_clean(name);
            assert_eq!(zombies(&before), [""; 0], "{number}");
        }
    }
    stage.close(Alone::Yes);
}

/// What the steps are called that a command does in the mounts of a template: set-up, init and
/// main, of which the last two are at work at the same time.
const STEPS_INSIDE: [(usize, &str); 12] = [
    (4, "confine (user of the namespace, /proc/self/uid_map)"),
    (5, "confine (mount, pid, ipc, uts and cgroup namespaces, unshare)"),
    (7, "confine (init and main, clone)"),
    (8, "confine (a root of its own, mount)"),
    (9, "confine (mount) own terminals \"/dev/pts\""),
    (11, "chdir in the sandbox to \"/\""),
    (12, "setpgid"),
    (13, "confine (no new privileges, prctl)"),
    (14, "confine (processes and cgroups outside, landlock)"),
    (15, "confine (system calls, seccomp)"),
    (16, "reset signals"),
    (18, "confine (other fds, close_range)"),
];

#[test]
#[serial]
fn each_step_that_fails_in_a_template_is_named_and_leaves_nothing() {
    let Some(stage) = stage() else { return };
    let before = zombies(&[]);
    for (number, name) in STEPS_INSIDE {
        let sandbox = Sandbox::new().system().fail_in_template(number);
        warm(&stage, &sandbox);
        for round in 0..10 {
            let mut command = boxed(&stage, "true", &sandbox);
            let error = command.process_group(0).force_join(round == 0).run().unwrap_err();
            assert!(error.to_string().starts_with(name), "{number}: {error}");
            stage.assert_clean(name);
            assert_eq!(zombies(&before), [""; 0], "{number}");
        }
    }
    stage.close(Alone::Yes);
}

/// With one fd more each time, until there are enough: also where just those of init and main fail.
#[test]
#[serial]
fn where_fds_run_out_at_any_step_it_is_said_and_nothing_is_left() {
    let Some(stage) = stage() else { return };
    let before = zombies(&[]);
    let (own, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let (mut failed, mut steps) = (0, BTreeSet::new());
    for limit in 3..200 {
        let mut command = boxed(&stage, "exit 7", &Sandbox::new().system());
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
        let ended = command.run();
        setrlimit(Resource::RLIMIT_NOFILE, own, hard).unwrap();
        drop(command);
        assert_eq!(zombies(&before), [""; 0], "{limit}: {ended:?}");
        match ended {
            Ok(status) => assert_eq!(status.status.code(), Some(7)),
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("EMFILE") && !error.is_unconfinable(), "{limit}: {said}");
                steps.insert(said);
                failed = limit;
            }
        }
        stage.assert_clean(&format!("{limit}: {steps:?}"));
        if limit > failed + 10 && !steps.is_empty() {
            break;
        }
    }
    let births = steps.iter().any(|step| step.starts_with("confine (init and main"));
    assert!(births, "{steps:#?}");
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn what_the_command_asks_for_and_a_sandbox_has_not_is_refused() {
    let Some(stage) = stage() else { return };
    let plain = Sandbox::new().system();
    let error = boxed(&stage, "true", &plain).groups(&[1]).run().unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
    let error = boxed(&stage, "true", &plain).uid(0).run().unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
    let error = boxed(&stage, "true", &plain).exec();
    assert!(error.is_invalid_input(), "{error}");
    let error = stage.command("no-such-program").sandbox(&plain).current_dir("/").run();
    assert!(error.unwrap_err().is_not_found());
    drop(plain);
    if let Some(kept) = Stage::of_keepers() {
        let error = boxed(&kept, "true", &Sandbox::new().system()).run().unwrap_err();
        assert!(error.is_unsupported(), "{error}");
        kept.close(Alone::No);
    }
    stage.close(Alone::Yes);
}

/// The tool, in namespaces where something is forbidden by this script.
#[cfg(feature = "cli")]
fn refused(stage: &Stage, unshare: &[&str], script: &str) -> (Option<i32>, String) {
    let mut command = std::process::Command::new("unshare");
    let tool = format!("{} run --sandbox -C / -- echo ran", crate::support::tool());
    command.args(unshare).args(["sh", "-c", &format!("{script}; exec {tool}")]);
    if unshare == ["-U"] {
        // Many ids, which only a process outside maps. An exec as the new root brings its rights.
        let inside = format!(
            "while [ $(id -u) != 0 ]; do sleep 0.01; done; exec sh -c '{script}; exec {tool}'"
        );
        let outside = "unshare -U sh -c \"$INSIDE\" & \
            while [ $(readlink /proc/$!/ns/user) = $(readlink /proc/self/ns/user) ]; \
            do sleep 0.01; done; \
            for map in gid_map uid_map; do echo 0 0 65536 >/proc/$!/$map; done; wait $!";
        command = std::process::Command::new("sh");
        command.args(["-c", outside]).env("INSIDE", inside);
    }
    stage.mark_std(&mut command);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[cfg(feature = "cli")]
#[test]
#[serial]
fn where_the_machine_forbids_it_the_reason_and_what_to_type_are_said() {
    let Some(stage) = stage() else { return };
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skip("only root forbids");
    }
    let users = ["-U"];
    for (unshare, script, hint) in [
        (&users[..], "echo 0 >/proc/sys/user/max_user_namespaces", "user.max_user_namespaces"),
        (&users[..], "echo 0 >/proc/sys/user/max_net_namespaces", "max_*_namespaces"),
        (&users[..], "echo 0 >/proc/sys/user/max_pid_namespaces", "--fence"),
        (&["-m"][..], "mount -t tmpfs none /proc/sys", "systempaths=unconfined"),
        (&["-Ur"][..], "true", "too few ids"),
    ] {
        let (status, said) = refused(&stage, unshare, script);
        assert_eq!(status, Some(125), "{script}: {said}");
        assert!(said.contains(hint) && !said.contains("ran\n"), "{script}: {said}");
        stage.assert_clean(script);
    }
    stage.close(Alone::Yes);
}

/// The tool with a sandbox, under strace with these options; none where that is missing.
#[cfg(feature = "cli")]
fn straced(stage: &Stage, strace: &[&str], sandbox: &[&str]) -> Option<(Option<i32>, String)> {
    let mut command = std::process::Command::new("strace");
    command.args(["-qq"]).args(strace).arg(crate::support::tool());
    command.args(["run", "--no-guard", "--sandbox", "-C", "/"]).args(sandbox);
    command.args(["--", "echo", "ran"]);
    stage.mark_std(&mut command);
    let Ok(output) = command.output() else {
        crate::support::skip("strace is missing: apt-get install strace");
        return None;
    };
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.code(), String::from_utf8(said).unwrap()))
}

/// A signal to 0 reaches the supervisor's process group out of a pid namespace.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn without_landlock_there_is_no_sandbox_whatever_its_network() {
    let Some(stage) = stage() else { return };
    for errno in ["EOPNOTSUPP", "ENOSYS", "EMFILE:when=2+"] {
        for network in ["none", "loopback", "host"] {
            let inject = format!("inject=landlock_create_ruleset:error={errno}");
            let strace = ["-o", "/dev/null", "-e", &inject];
            let Some((status, said)) = straced(&stage, &strace, &["--net", network]) else {
                return;
            };
            assert_eq!(status, Some(125), "{errno} {network}: {said}");
            assert!(said.contains("landlock") && !said.contains("ran\n"), "{errno}: {said}");
            let scarce = errno.starts_with("EMFILE");
            assert_eq!(said.contains("(EMFILE)"), scarce, "{errno}: {said}");
            assert_eq!(said.contains("Linux 6.12"), !scarce, "{errno}: {said}");
            stage.assert_clean(errno);
        }
    }
    stage.close(Alone::Yes);
}

/// Another process of its user could trace it else, and name its supervisor whom it likes.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn the_set_up_program_is_closed_to_others_before_it_makes_init_and_main() {
    let Some(stage) = stage() else { return };
    let trace = ["-f", "-e", "trace=prctl,clone"];
    let Some((status, said)) = straced(&stage, &trace, &[]) else { return };
    assert_eq!(status, Some(0), "{said}");
    let calls = said.lines().filter_map(|line| {
        let calls = ["SUID_DUMP_USER", "SUID_DUMP_DISABLE", "CLONE_PARENT"];
        calls.into_iter().find(|call| line.contains(call))
    });
    let calls: Vec<_> = calls.take(3).collect();
    let expected = ["SUID_DUMP_USER", "SUID_DUMP_DISABLE", "CLONE_PARENT"];
    assert_eq!(calls, expected, "{said}");
    stage.close(Alone::Yes);
}

/// As Debian's kernels for clouds are: whichever file system the kernel lacks is named.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn a_kernel_without_overlayfs_is_named_with_what_to_type() {
    let Some(stage) = super::overlay::overlay_stage() else { return };
    let dir = super::open_dir("lacking");
    let overlay = ["--overlay", dir.to_str().unwrap()];
    let mut named = 0;
    for number in 1..20 {
        let inject = format!("inject=fsopen:error=ENODEV:when={number}");
        let strace = ["-f", "-o", "/dev/null", "-e", &inject];
        let Some((status, said)) = straced(&stage, &strace, &overlay) else { return };
        if status == Some(0) {
            assert!(said.contains("ran\n") && number > 2, "{number}: {said}");
            // Its layer, which a kernel has that has got so far, and the overlay itself.
            assert_eq!(named, 2);
            break;
        }
        assert!(status == Some(125) && said.contains("(ENODEV)"), "{number}: {said}");
        assert!(!said.contains("ran\n"), "{number}: {said}");
        if said.contains("this kernel has no overlayfs") {
            assert!(said.contains("modprobe overlay"), "{said}");
            named += 1;
        }
        stage.assert_clean("without a file system");
    }
    fs::remove_dir(&dir).unwrap();
    stage.close(Alone::Yes);
}
