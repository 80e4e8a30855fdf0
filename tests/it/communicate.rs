//! Input that is fed while output is collected, input given as bytes, and streams of our own.

use std::io::Read;
use std::time::{Duration, Instant};

use serial_test::parallel;
use tidy_process::{Cause, Command, Stdio, Supervisor};

use crate::load;
use crate::support::{Alone, SOON, Stage};

fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// More than all the pipes hold, in and out on both streams.
#[test]
#[parallel]
fn what_does_not_fit_into_a_pipe_goes_through() {
    let input = vec![b'x'; 3_000_000];
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let child = piped(&mut stage.sh("tee /dev/stderr")).spawn().unwrap();
        let output = child.communicate(&input).unwrap();
        assert!(output.stdout == input && output.stderr == input && output.report.success());
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn input_that_is_not_read_keeps_nothing_from_ending() {
    let input = vec![b'x'; 3_000_000];
    let Some(stage) = Stage::set() else { return };
    // It ends, it closes its input, or it has left somebody with the pipe.
    for script in ["exit 3", "exec <&-; echo said; exit 3", "sleep 20 <&0 & exit 3"] {
        let child = piped(&mut stage.sh(script)).spawn().unwrap();
        let output = child.communicate(&input).unwrap();
        assert_eq!((output.status.code(), output.report.cause), (Some(3), Cause::Exited));
    }
    let mut command = stage.command("sleep");
    let start = Instant::now();
    let child = piped(command.arg("60").timeout(Duration::from_millis(200))).spawn().unwrap();
    assert_eq!(child.communicate(&input).unwrap().report.cause, Cause::TimedOut);
    assert!(start.elapsed() < SOON);
    let child = stage.command("cat").stdin(Stdio::null()).spawn().unwrap();
    assert!(child.communicate(b"lost").unwrap_err().is_invalid_input());
    drop(command);
    stage.close(Alone::No);
}

#[cfg(feature = "tokio")]
#[test]
#[parallel]
fn a_future_feeds_and_collects_too() {
    let input = vec![b'x'; 3_000_000];
    let Some(stage) = Stage::set() else { return };
    let runtime = crate::async_child::current_thread();
    runtime.block_on(async {
        let child = piped(&mut stage.sh("tee /dev/stderr")).spawn_async().unwrap();
        let output = child.communicate(&input).await.unwrap();
        assert!(output.stdout == input && output.stderr == input);
        let child = piped(&mut stage.sh("exec <&-; exit 3")).spawn_async().unwrap();
        assert_eq!(child.communicate(&input).await.unwrap().status.code(), Some(3));
        let log = tidy_process::Log::bounded(4096, 4096);
        let output = stage.sh("echo said").log(&log).output_async().await.unwrap();
        assert_eq!(
            (output.stdout.as_slice(), log.text().to_string()),
            (&b"said\n"[..], "said\n".into())
        );
    });
    drop(runtime);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn bytes_are_the_input_of_every_spawn_and_no_output() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let input = vec![b'x'; 300_000];
        for join in [false, true] {
            let mut command = stage.command("cat");
            command.stdin(Stdio::bytes(input.clone())).force_join(join);
            for _ in 0..2 {
                assert!(command.output().unwrap().stdout == input);
            }
            let mut writes = stage.sh("cat; echo more >&0");
            let output = writes.stdin(Stdio::bytes("in")).output().unwrap();
            assert_eq!((output.stdout.as_slice(), output.status.success()), (&b"in"[..], false));
            let error = command.stdout(Stdio::bytes("")).spawn().unwrap_err();
            assert!(error.is_invalid_input(), "{error}");
        }
        stage.close(Alone::No);
    }
}

/// The two streams of this process change places in the child of a child.
#[test]
#[parallel]
fn streams_of_our_own_can_be_given_away() {
    let Some(stage) = Stage::set() else { return };
    let output = load::load(&stage, "swap").output().unwrap();
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"err\n"[..], &b"out\n"[..])
    );
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn exec_becomes_the_command_or_says_why_not() {
    let Some(stage) = Stage::set() else { return };
    let mut command = load::load(&stage, "exec");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, format!("{} in / with 1\n", child.id()));
    assert_eq!(child.wait().unwrap().code(), Some(7));
    drop(child);
    let error = stage.command("true").timeout(SOON).exec();
    assert!(error.is_invalid_input(), "{error}");
    let error = stage.command("true").die_with(std::process::id()).exec();
    assert!(error.is_invalid_input(), "{error}");
    let supervisor = Supervisor::builder().guard(false).die_with_parent().build().unwrap();
    let error = stage.command("true").supervisor(&supervisor).exec();
    assert!(error.is_invalid_input(), "{error}");
    drop(supervisor);
    let error = stage.command("true").arg("\0").exec();
    assert!(error.is_invalid_input(), "{error}");
    let error = stage.command("true").inherit_fds([12345]).exec();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
    stage.close(Alone::No);
}

/// As a spawn by that supervisor does.
#[test]
#[parallel]
fn exec_closes_what_its_supervisor_closes() {
    let Some(stage) = Stage::set() else { return };
    let output = load::load(&stage, "exec-closing").output().unwrap();
    assert_eq!(output.stdout, b"0\n", "{output:?}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn what_std_shows_of_its_command_is_taken_over() {
    let Some(stage) = Stage::set() else { return };
    let mut theirs = std::process::Command::new("sh");
    theirs.args(["-c", "pwd; echo $A-${HOME-none}"]).env("A", "1").env_remove("HOME");
    let mut ours = Command::from_std(theirs.current_dir("/usr"));
    let output = ours.supervisor(&stage.supervisor).output().unwrap();
    assert_eq!(output.stdout, b"/usr\n1-none\n");
    let output = std::process::Output::from(output);
    assert_eq!(output, theirs.output().unwrap());
    drop(ours);
    stage.close(Alone::No);
}
