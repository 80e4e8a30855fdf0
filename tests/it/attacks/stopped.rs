//! A child, or its keeper, that is stopped before it has executed.

use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use serial_test::serial;
use tidy_process::{Cause, Command};

use crate::kept::in_time;
use crate::support::{Alone, Stage};

fn each_stage(test: impl Fn(&Stage)) {
    for make in [Stage::set, Stage::of_keepers] {
        let Some(stage) = make() else { continue };
        test(&stage);
        stage.close(Alone::Yes);
    }
}

#[expect(unsafe_code, reason = "pre_exec")]
fn before_exec(command: &mut Command, signal: Signal) {
    let act = move || raise(signal).map_err(Into::into);
    // SAFETY: two system calls at the most.
    unsafe { command.pre_exec(act) };
}

/// As by a Ctrl-Z, or a stranger's SIGSTOP, of that moment.
#[test]
#[serial]
fn a_child_that_is_stopped_before_its_exec_goes_on() {
    each_stage(|stage| {
        for signal in [Signal::SIGSTOP, Signal::SIGTSTP, Signal::SIGTTIN] {
            let mut command = stage.command("true");
            before_exec(&mut command, signal);
            let report = in_time(signal.as_str(), move || command.run().unwrap());
            assert_eq!((report.cause, report.status.success()), (Cause::Exited, true), "{signal}");
        }
    });
}

/// Nothing lets it go on: the wait ends all the same, and so does the child.
#[test]
#[serial]
fn a_child_that_never_executes_is_given_up() {
    each_stage(|stage| {
        let mut command = stage.command("true");
        #[expect(unsafe_code, reason = "pre_exec")]
        // SAFETY: system calls only.
        unsafe {
            command.pre_exec(|| {
                loop {
                    nix::unistd::pause();
                }
            })
        };
        command.timeout(Duration::from_millis(100));
        let error = in_time("spawn", move || command.spawn().unwrap_err());
        assert!(error.is_timed_out(), "{error}");
        assert!(error.to_string().contains("exec \"true\": not executed after 1."), "{error}");
        stage.assert_clean("after the error");
    });
}

/// A wait has the main process's end from the keeper alone; `run` has no timeout then.
#[test]
#[serial]
fn a_keeper_that_its_workload_stops_holds_up_nothing() {
    let Some(stage) = Stage::of_keepers() else { return };
    // The others stop it while it is to kill, too; their CPU time is bounded, should they live on.
    let again = "for i in 1 2 3 4 5 6; do
        (ulimit -t 9; exec setsid sh -c 'while kill -STOP $0; do :; done' $PPID) & done";
    for stops in ["kill -STOP $PPID", again] {
        let script = format!("{stops}\nsleep .1; exit 3");
        let mut command = stage.sh(&script);
        let report = in_time("run", move || command.run().unwrap());
        assert_eq!((report.status.code(), report.cause), (Some(3), Cause::Exited), "{script}");
        stage.assert_clean(&script);
        #[cfg(feature = "cli")]
        {
            let mut tool = stage.tool(&["run", "-q", "--containment", "keeper", "sh", "-c"]);
            let status = in_time("tool", move || tool.arg(&script).status().unwrap());
            assert_eq!(status.code(), Some(3), "{stops}");
            stage.assert_clean(stops);
        }
    }
    stage.close(Alone::Yes);
}

#[cfg(feature = "cli")]
mod by_terminal {
    use std::fs;
    use std::os::unix::process::CommandExt;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill, killpg};
    use nix::unistd::Pid;
    use serial_test::serial;

    use crate::support::{Alone, SOON, Stage, rounds, until};

    fn state(pid: u32) -> char {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
    }

    /// The group's signal finds the tool, its guard or its command anywhere before their exec.
    #[test]
    #[serial]
    fn a_ctrl_z_at_any_moment_of_the_start_suspends_the_tool() {
        let ways: [&[&str]; 3] =
            [&["--containment=cgroup"], &["--force-join"], &["--containment=keeper"]];
        for args in ways {
            let Some(stage) = Stage::set() else { return };
            for round in 0..rounds(60, 2000) {
                let mut tool = stage.tool(&["run", "-q"]);
                tool.args(args).arg("true").stdin(std::process::Stdio::null()).process_group(0);
                let mut tool = tool.spawn().unwrap();
                let moment = Instant::now() + Duration::from_micros(u64::from(round * 613 % 12000));
                while Instant::now() < moment {
                    std::hint::spin_loop();
                }
                let group = Pid::from_raw(tool.id().cast_signed());
                killpg(group, Signal::SIGTSTP).unwrap();
                let still = || matches!(state(tool.id()), 'T' | 'Z');
                assert!(until(SOON, still), "{args:?}, round {round}: {}", state(tool.id()));
                let _ = killpg(group, Signal::SIGCONT);
                let mut ended = None;
                let over = until(SOON, || {
                    ended = tool.try_wait().unwrap();
                    ended.is_some()
                });
                assert!(over && ended.unwrap().success(), "{args:?}, round {round}: {ended:?}");
            }
            stage.close(Alone::Yes);
        }
    }

    /// Children of a process, of its main thread.
    fn children(pid: u32) -> Vec<i32> {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Whether it has executed its program.
    fn has_executed(pid: i32) -> bool {
        const FORK_NO_EXEC: u64 = 0x40;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let flags = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(6)?.parse().ok());
        flags.is_some_and(|flags: u64| flags & FORK_NO_EXEC == 0)
    }

    /// Each child of the tool gets it once, as soon as it is there: the guard among them, which
    /// nothing continues.
    #[test]
    #[serial]
    fn a_ctrl_z_that_finds_a_guard_at_its_birth_is_nothing_to_it() {
        for args in ["--containment=cgroup", "--force-join"] {
            let Some(stage) = Stage::set() else { return };
            let mut met = 0;
            for round in 0..rounds(40, 400) {
                let mut tool = stage.tool(&["run", "-q", args, "true"]);
                let mut tool = tool.stdin(std::process::Stdio::null()).spawn().unwrap();
                let (mut known, mut ended) = (Vec::new(), None);
                let send = |pid: i32, signal| {
                    let _ = kill(Pid::from_raw(pid), signal);
                };
                let over = until(SOON, || {
                    // Looks as often as it can: a birth is over in a fraction of a millisecond.
                    let soon = Instant::now() + Duration::from_millis(2);
                    while Instant::now() < soon {
                        for pid in children(tool.id()) {
                            if !known.contains(&pid) {
                                met += u32::from(!has_executed(pid));
                                send(pid, Signal::SIGTSTP);
                                known.push(pid);
                            } else if has_executed(pid) {
                                send(pid, Signal::SIGCONT);
                            }
                        }
                    }
                    ended = tool.try_wait().unwrap();
                    ended.is_some()
                });
                assert!(over && ended.unwrap().success(), "{args}, round {round}: {ended:?}");
            }
            assert!(met > 0, "no birth was met");
            stage.close(Alone::Yes);
        }
    }
}
