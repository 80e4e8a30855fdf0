//! A keeper that is killed before its owner has a handle on the main process.

use std::path::Path;
use std::process::{Command as StdCommand, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serial_test::serial;

use crate::keeper::keepers_of;
use crate::support::{Alone, SOON, Stage, skip, tool, until};

/// Reaps whatever becomes its child, as pid 1 of a container may do; ends as its own child does.
const REAPER: &str = "
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
own = subprocess.Popen(sys.argv[1:]).pid
while True:
    pid, status = os.wait()
    if pid == own:
        sys.exit(os.waitstatus_to_exitcode(status))
";

/// The second handle that the tool opens is the one on the main process: by then that is dead, and
/// reaped.
#[test]
#[serial]
fn a_keeper_that_is_killed_at_once_is_named_though_its_child_was_reaped() {
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing");
    }
    let Some(stage) = Stage::set() else { return };
    let mut command = StdCommand::new("python3");
    command.args(["-c", REAPER, "strace", "-o", "/dev/null"]);
    command.args(["-e", "inject=pidfd_open:delay_enter=3000000:when=2"]);
    command.arg(tool()).args(["run", "-q", "--containment=keeper", "sleep", "30"]);
    stage.mark_std(&mut command);
    let running = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // It has no environment that a mark could be in.
    let is_there = |pid: &i32| Path::new(&format!("/proc/{pid}/task")).exists();
    let marked = || stage.alive().into_iter().filter(is_there);
    let keeper = || marked().flat_map(|pid| keepers_of(pid.cast_unsigned())).next();
    assert!(until(SOON, || keeper().is_some()), "there is no keeper");
    // Nothing announces that its first word has been read.
    std::thread::sleep(Duration::from_millis(500));
    kill(keeper().unwrap(), Signal::SIGKILL).unwrap();
    let output = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("keeper ") && said.contains(" was killed"), "{said}");
    assert!(!said.contains("ESRCH"), "{said}");
    assert!(until(SOON, || stage.alive().is_empty()), "{:?}", stage.alive());
    stage.close(Alone::Yes);
}
