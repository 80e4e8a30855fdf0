//! The request reaches the child as it was made, on both paths.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use serial_test::parallel;
use tidy_process::{Cause, Command, Placement, Stdio};

use crate::support::{Alone, Stage, lacks, paced};

/// Runs a check on both spawn paths.
fn on_both_paths(check: impl Fn(&Stage, bool)) {
    let Some(stage) = Stage::set() else { return };
    check(&stage, false);
    check(&stage, true);
    stage.close(Alone::No);
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
#[parallel]
fn arguments_arrive_as_they_are() {
    on_both_paths(|stage, join| {
        let mut command = stage.command("sh");
        command.args(["-c", "printf '%s|' \"$0\" \"$@\"", "zero", "", "a b", "$HOME\n*"]);
        assert_eq!(stdout(command.force_join(join)), "zero||a b|$HOME\n*|");
    });
}

#[test]
#[parallel]
fn arg0_is_what_the_program_sees() {
    on_both_paths(|stage, join| {
        let mut command = stage.command("sh");
        command.arg0("other").args(["-c", "cat /proc/$$/cmdline"]).force_join(join);
        assert!(stdout(&mut command).starts_with("other\0-c\0"));
    });
}

#[test]
#[parallel]
fn the_environment_is_inherited_changed_and_cleared() {
    on_both_paths(|stage, join| {
        let mut command = stage.sh("echo $A-$B-${HOME:+home}");
        command.env("A", "1").envs([("B", "2")]).force_join(join);
        assert_eq!(stdout(&mut command), "1-2-home\n");
        assert_eq!(stdout(command.env_remove("B").env_remove("HOME")), "1--\n");
        let mut command = stage.command("env");
        command.env_clear().env("ONLY", "this").force_join(join);
        assert_eq!(stdout(&mut command), "ONLY=this\n");
    });
}

#[test]
#[parallel]
fn the_program_is_looked_up_in_the_path_of_the_child() {
    on_both_paths(|stage, join| {
        let dir = std::env::temp_dir().join(format!("tidy-path-{}-{join}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink("/bin/echo", dir.join("tidy-only-there")).unwrap();
        let mut command = stage.command("tidy-only-there");
        command.arg("found").force_join(join);
        assert!(command.output().unwrap_err().is_not_found());
        assert_eq!(
            stdout(command.env("PATH", format!("/nonexistent::{}", dir.display()))),
            "found\n"
        );
        std::fs::remove_dir_all(dir).unwrap();
    });
}

#[test]
#[parallel]
fn without_a_path_the_standard_directories_are_searched() {
    on_both_paths(|stage, join| {
        assert_eq!(
            stdout(stage.command("echo").arg("x").env_remove("PATH").force_join(join)),
            "x\n"
        );
    });
}

#[test]
#[parallel]
fn the_directory_changes_and_relative_programs_start_from_it() {
    on_both_paths(|stage, join| {
        assert_eq!(stdout(stage.command("pwd").current_dir("/usr").force_join(join)), "/usr\n");
        let mut command = stage.command("bin/echo");
        assert_eq!(stdout(command.arg("x").current_dir("/usr").force_join(join)), "x\n");
    });
}

#[test]
#[parallel]
fn streams_are_piped_shared_and_closed() {
    on_both_paths(|stage, join| {
        let mut command = stage.sh("cat; echo err >&2");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .force_join(join);
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"through").unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("through", "err\n"));
        assert!(child.wait().unwrap().success());
    });
}

#[test]
#[parallel]
fn a_file_and_another_childs_pipe_can_be_streams() {
    on_both_paths(|stage, join| {
        let mut command = stage.sh("echo one; echo two >&2");
        command.stdout(Stdio::piped()).stderr(Stdio::null()).force_join(join);
        let mut first = command.spawn().unwrap();
        let mut second = stage.command("cat");
        second.stdin(first.stdout.take().unwrap()).force_join(join);
        assert_eq!(stdout(&mut second), "one\n");
        let (mut reads, writes) = std::io::pipe().unwrap();
        let mut third = stage.sh("echo to a pipe");
        third.stdout(writes).force_join(join).run().unwrap();
        drop(third);
        let mut said = String::new();
        reads.read_to_string(&mut said).unwrap();
        assert_eq!(said, "to a pipe\n");
    });
}

#[test]
#[parallel]
fn a_command_may_spawn_again() {
    on_both_paths(|stage, join| {
        let mut command = stage.sh("echo again");
        command.force_join(join);
        assert_eq!(stdout(&mut command), "again\n");
        assert_eq!(stdout(&mut command), "again\n");
    });
}

#[test]
#[parallel]
fn the_child_stays_in_our_process_group_and_session() {
    on_both_paths(|stage, join| {
        let mut command = stage.sh("cut -d' ' -f5,6 /proc/$$/stat");
        let said = stdout(command.force_join(join));
        let ours = (nix::unistd::getpgrp(), nix::unistd::getsid(None).unwrap());
        assert_eq!(said, format!("{} {}\n", ours.0, ours.1));
        let mut child =
            stage.command("sleep").arg("20").process_group(0).force_join(join).spawn().unwrap();
        child.stdin.take();
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        assert_eq!(nix::unistd::getpgid(Some(pid)).unwrap(), pid);
    });
}

#[test]
#[parallel]
fn user_group_and_groups_are_set_and_we_stay_dumpable() {
    if !nix::unistd::geteuid().is_root() {
        return lacks("users", "only root can change users");
    }
    on_both_paths(|stage, join| {
        let mut command = stage.command("id");
        command.uid(65534).gid(65534).force_join(join);
        assert!(stdout(&mut command).starts_with("uid=65534(nobody) gid=65534"));
        assert_eq!(stdout(command.arg("-G")), "65534\n");
        assert_eq!(stdout(command.groups(&[7, 8])), "65534 7 8\n");
        assert_eq!(nix::sys::prctl::get_dumpable(), Ok(true));
    });
}

#[test]
#[parallel]
fn no_signal_is_blocked_and_sigpipe_is_the_default() {
    let Some(stage) = Stage::set() else { return };
    // glibc's posix_spawn lets the child ignore the two signals that are libc's own: 32 and 33.
    let own = |text: String| {
        let (rest, ignored) = text.trim_end().rsplit_once('\t').unwrap();
        let ignored = u64::from_str_radix(ignored, 16).unwrap() & !(0b11 << 31);
        format!("{rest}\t{ignored:016x}")
    };
    let read = |join: bool| {
        let mut command = stage.command("grep");
        own(stdout(command.args(["-E", "Sig(Blk|Ign)", "/proc/self/status"]).force_join(join)))
    };
    // What a child of std's gets from the same parent is what ours must get.
    let theirs = std::process::Command::new("grep")
        .args(["-E", "Sig(Blk|Ign)", "/proc/self/status"])
        .output()
        .unwrap();
    let theirs = own(String::from_utf8(theirs.stdout).unwrap());
    assert!(theirs.contains("SigBlk:\t0000000000000000"));
    assert_eq!(read(false), theirs);
    assert_eq!(read(true), theirs);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn pre_exec_runs_and_its_error_is_ours() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.command("pwd");
    // SAFETY: chdir(2) is async-signal-safe.
    #[expect(unsafe_code, reason = "the closure keeps pre_exec's rules")]
    unsafe {
        command.pre_exec(|| Ok(nix::unistd::chdir("/usr")?));
    }
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"/usr\n");
    assert_eq!(output.report.placement, Placement::Joined);
    // SAFETY: nothing is done at all.
    #[expect(unsafe_code, reason = "the closure keeps pre_exec's rules")]
    unsafe {
        command.pre_exec(|| Err(std::io::Error::from_raw_os_error(libc::EXDEV)));
    }
    let error = command.output().unwrap_err();
    assert_eq!(error.to_string(), "pre_exec \"pwd\": Cross-device link (EXDEV)");
    drop(command);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn output_ends_with_the_main_process_whoever_holds_the_pipe() {
    on_both_paths(|stage, join| {
        let start = Instant::now();
        let output = stage.sh("sleep 300 & echo hi").force_join(join).output().unwrap();
        assert_eq!(output.stdout, b"hi\n");
        assert_eq!(output.report.leftovers.len(), 1);
        assert_eq!(output.report.cause, Cause::Exited);
        let most = paced(Duration::from_secs(3));
        assert!(start.elapsed() < most, "took {:?}", start.elapsed());
    });
}

#[test]
#[parallel]
fn output_ends_though_a_stranger_holds_the_pipe() {
    let Some(stage) = Stage::set() else { return };
    // The stranger gets its copy of the pipe from us, before the tree is gone, and is no member of
    // the tree.
    let (reads, writes) = std::io::pipe().unwrap();
    let mut stranger = std::process::Command::new("sleep");
    let mut stranger = stranger.arg("20").stdout(writes.try_clone().unwrap()).spawn().unwrap();
    let mut command = stage.sh("echo hi");
    let start = Instant::now();
    command.stdout(writes).run().unwrap();
    let mut first = [0; 3];
    (&reads).read_exact(&mut first).unwrap();
    assert_eq!(&first, b"hi\n");
    assert!(start.elapsed() < Duration::from_secs(3));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    drop(command);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn large_outputs_on_both_pipes_do_not_deadlock() {
    on_both_paths(|stage, join| {
        let script = "head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait";
        let output = stage.sh(script).force_join(join).output().unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (3_000_000, 3_000_000));
    });
}

#[test]
#[parallel]
fn what_was_written_just_before_the_end_is_not_lost() {
    on_both_paths(|stage, join| {
        for _ in 0..20 {
            let output = stage.sh("head -c 60000 /dev/zero").force_join(join).output().unwrap();
            assert_eq!(output.stdout.len(), 60_000);
        }
    });
}

#[test]
#[parallel]
fn lingering_output_waits_for_the_whole_tree() {
    on_both_paths(|stage, join| {
        let mut command = stage.sh("(sleep 0.3; echo late) & echo early");
        let output = command.linger(true).force_join(join).output().unwrap();
        assert_eq!(output.stdout, b"early\nlate\n");
        assert_eq!(output.report.leftovers, []);
    });
}

#[test]
#[parallel]
fn lingering_is_bounded_by_the_timeout() {
    on_both_paths(|stage, join| {
        let mut command = stage.sh("sleep 300 & echo early");
        // Long enough for a shell's start.
        command.linger(true).timeout(paced(Duration::from_millis(200))).force_join(join);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"early\n");
        assert_eq!(output.report.cause, Cause::TimedOut);
        assert_eq!(output.report.leftovers.len(), 1);
        let report = command.stdout(Stdio::null()).run().unwrap();
        assert_eq!(report.cause, Cause::TimedOut);
    });
}

#[test]
#[parallel]
fn a_running_child_can_be_asked_for_its_output() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.sh("cat; echo out; echo err >&2; sleep 30 & exit 3");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"in, ").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"in, out\n");
    // Not piped, so not ours to read.
    assert_eq!(output.stderr, b"");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.report.leftovers.len(), 1);
    drop(command);
    stage.close(Alone::No);
}

#[test]
fn what_was_asked_for_can_be_read_back() {
    let mut command = Command::new("sh");
    assert_eq!(command.get_current_dir(), None);
    command.args(["-c", "true"]).env("A", "1").env_remove("B").current_dir("/x");
    assert_eq!(command.get_program(), "sh");
    assert_eq!(command.get_args().collect::<Vec<_>>(), ["-c", "true"]);
    let envs: Vec<_> = command.get_envs().collect();
    assert_eq!(envs, [("A".as_ref(), Some("1".as_ref())), ("B".as_ref(), None)]);
    assert_eq!(command.get_current_dir(), Some("/x".as_ref()));
}

#[test]
#[parallel]
fn a_program_just_written_is_tried_again_while_it_is_busy() {
    let Some(stage) = Stage::set() else { return };
    let path = std::env::temp_dir().join(format!("tidy-busy-{}", std::process::id()));
    std::fs::copy("/bin/true", &path).unwrap();
    for join in [false, true] {
        let holder = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let release = std::thread::spawn(move || {
            // Long enough that the first attempt has met it; the retry is bounded by half a second.
            std::thread::sleep(Duration::from_millis(50));
            drop(holder);
        });
        let mut command = stage.command(path.to_str().unwrap());
        assert!(command.force_join(join).status().unwrap().success());
        release.join().unwrap();
    }
    std::fs::remove_file(path).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn no_fd_of_ours_reaches_the_child() {
    on_both_paths(|stage, join| {
        let said = stdout(stage.sh("ls -l /proc/$$/fd").force_join(join));
        for ours in ["cgroup", "pidfd"] {
            assert!(!said.contains(ours), "{said}");
        }
    });
}

#[test]
#[parallel]
fn a_std_command_of_the_same_shape_sees_the_same() {
    let Some(stage) = Stage::set() else { return };
    let script = "echo $0; pwd; ulimit -n; umask; ls /proc/$$/fd | head -3";
    let mut theirs = std::process::Command::new("sh");
    theirs.args(["-c", script]).arg0("name").current_dir("/");
    let theirs = theirs.output().unwrap().stdout;
    let mut ours = stage.command("sh");
    ours.args(["-c", script]).arg0("name").current_dir("/");
    let said = ours.output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&said), String::from_utf8_lossy(&theirs));
    drop(ours);
    stage.close(Alone::No);
}
