//! Waiting: one path, any number of threads, with a kill at any moment.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serial_test::parallel;
use tidy_process::{Cause, Stdio};

use crate::support::{Alone, SOON, Stage, read_ready};

#[test]
#[parallel]
fn the_exit_status_is_kept_for_every_later_wait() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.sh("exit 7").spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(7));
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap().unwrap().code(), Some(7));
    assert_eq!(child.finish().unwrap().status.code(), Some(7));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_signal_is_a_status_real_time_ones_too() {
    let Some(stage) = Stage::set() else { return };
    for signal in [libc::SIGKILL, libc::SIGTERM, 40] {
        let child = stage.command("sleep").arg("20").spawn().unwrap();
        child.signal(signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal));
        let report = child.finish().unwrap();
        assert_eq!(report.cause, Cause::Signaled(signal));
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn waits_with_a_limit_come_back_and_the_child_runs_on() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.command("sleep").arg("20").spawn().unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    let start = Instant::now();
    assert_eq!(child.wait_timeout(Duration::from_millis(30)).unwrap(), None);
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(child.wait_deadline(Instant::now()).unwrap(), None);
    assert_eq!(child.wait_deadline(start).unwrap(), None);
    assert_eq!(child.tree().processes().len(), 1);
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn an_endless_timeout_is_no_timeout() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.sh("exit 1");
    let child = command.timeout(Duration::MAX).spawn().unwrap();
    assert_eq!(child.wait_timeout(Duration::MAX).unwrap().unwrap().code(), Some(1));
    drop((child, command));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn several_threads_wait_while_another_kills() {
    let Some(stage) = Stage::set() else { return };
    for round in 0..20 {
        let child = stage.sh("sleep 20 & sleep 20").spawn().unwrap();
        let start = Barrier::new(5);
        let statuses: Vec<_> = thread::scope(|scope| {
            let waiters: Vec<_> = (0..4)
                .map(|waiter| {
                    let (child, start) = (&child, &start);
                    scope.spawn(move || {
                        start.wait();
                        if waiter % 2 == 0 {
                            child.wait().unwrap()
                        } else {
                            child.wait_timeout(SOON).unwrap().unwrap()
                        }
                    })
                })
                .collect();
            start.wait();
            child.kill().unwrap();
            waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
        });
        assert!(statuses.iter().all(|status| status.signal() == Some(9)), "round {round}");
        assert_eq!(child.finish().unwrap().cause, Cause::Stopped);
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_timeout_is_kept_by_every_kind_of_wait() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.sh("sleep 20 & sleep 20");
    command.timeout(Duration::from_millis(50));
    let child = command.spawn().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_eq!(child.finish().unwrap().cause, Cause::TimedOut);
    let child = command.spawn().unwrap();
    assert_eq!(child.wait_timeout(SOON).unwrap().unwrap().signal(), Some(9));
    drop(child);
    let child = command.spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < SOON);
        // The timeout has to pass; nothing announces it.
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(child.finish().unwrap().cause, Cause::TimedOut);
    assert_eq!(command.run().unwrap().cause, Cause::TimedOut);
    assert_eq!(command.output().unwrap().report.cause, Cause::TimedOut);
    drop(command);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_child_that_ends_in_time_did_not_time_out() {
    let Some(stage) = Stage::set() else { return };
    let report = stage.sh("exit 0").timeout(SOON).run().unwrap();
    assert_eq!((report.cause, report.status.code()), (Cause::Exited, Some(0)));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_stop_signal_comes_first_where_there_is_a_grace() {
    let Some(stage) = Stage::set() else { return };
    let script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done";
    let mut command = stage.sh(script);
    command.grace(SOON).stop_signal(libc::SIGUSR1).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    child.stop(SOON).unwrap();
    let report = child.finish().unwrap();
    assert_eq!((report.status.code(), report.cause), (Some(5), Cause::Stopped));
    let mut child = command.spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    let report = child.finish().unwrap();
    assert_eq!((report.status.code(), report.cause), (Some(5), Cause::Stopped));
    drop(command);
    stage.close(Alone::No);
}

/// A worker that hears of the stop only from its main process, and one that hears it itself.
#[test]
#[parallel]
fn the_stop_signal_goes_to_all_or_to_the_main_process_alone() {
    let Some(stage) = Stage::set() else { return };
    let worker = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let main =
        "trap 'kill -0 $! && exit 3; exit 4' TERM; sh -c \"$0\" & while :; do sleep 0.01; done";
    for main_only in [true, false] {
        let mut command = stage.sh(main);
        command.arg(worker).stop_main_only(main_only).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(command);
        read_ready(child.stdout.take().unwrap());
        let asked = Instant::now();
        child.stop(if main_only { Duration::from_millis(200) } else { SOON }).unwrap();
        if main_only {
            assert_eq!(child.wait().unwrap().code(), Some(3), "the worker had been told too");
        } else {
            assert!(asked.elapsed() < SOON, "nobody told the worker");
        }
        drop(child);
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn who_ignores_the_stop_signal_is_killed_after_the_grace() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.sh("trap '' TERM; echo ready; sleep 20 & wait; sleep 20");
    command.grace(Duration::from_millis(60)).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    let start = Instant::now();
    let report = child.finish().unwrap();
    assert_eq!((report.status.signal(), report.cause), (Some(9), Cause::Stopped));
    assert!(start.elapsed() >= Duration::from_millis(60));
    let report = command.timeout(Duration::from_millis(300)).run().unwrap();
    assert_eq!((report.status.signal(), report.cause), (Some(9), Cause::TimedOut));
    assert!(report.wall >= Duration::from_millis(360));
    drop(command);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_pidfd_is_readable_once_it_has_ended() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let Some(stage) = Stage::set() else { return };
    let child = stage.command("sleep").arg("20").spawn().unwrap();
    let news = |timeout: PollTimeout| {
        poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], timeout).unwrap()
    };
    assert_eq!(news(PollTimeout::ZERO), 0);
    child.kill().unwrap();
    assert_eq!(news(PollTimeout::from(20_000u16)), 1);
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_signal_never_goes_to_a_stranger() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.command("true").spawn().unwrap();
    child.wait().unwrap();
    let error = child.signal(libc::SIGKILL).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn leftovers_are_named_and_a_stopped_tree_has_none() {
    let Some(stage) = Stage::set() else { return };
    let report = stage.sh("sleep 21 & setsid sleep 22 & exec sh -c 'exit 4'").run().unwrap();
    assert_eq!((report.status.code(), report.cause), (Some(4), Cause::Exited));
    assert_eq!(report.leftovers.len(), 2, "{:?}", report.leftovers);
    let report = stage.sh("exit 0").run().unwrap();
    assert_eq!(report.leftovers, []);
    let child = stage.sh("sleep 21 & sleep 22").spawn().unwrap();
    assert_eq!(child.finish().unwrap().leftovers, []);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_leftover_says_who_it_is() {
    let Some(stage) = Stage::set() else { return };
    let script = "sleep 21 & echo $! $$; until grep -q sleep /proc/$!/comm; do :; done";
    let output = stage.sh(script).output().unwrap();
    let pids = String::from_utf8(output.stdout).unwrap();
    let [left] = output.report.leftovers.as_slice() else { panic!("{:?}", output.report) };
    assert_eq!(pids.split_whitespace().next(), Some(left.pid.to_string().as_str()));
    assert_eq!(
        (left.name.as_str(), left.command.as_slice()),
        ("sleep", ["sleep", "21"].map(String::from).as_slice())
    );
    assert_eq!(left.to_string(), format!("{} sleep 21", left.pid));
    assert!(left.running < SOON);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn an_escaped_main_process_is_found_and_killed() {
    let Some(stage) = Stage::set() else { return };
    let above = stage.supervisor.path().unwrap().parent().unwrap().join("cgroup.procs");
    let script = format!("echo $$ > {} && echo ready && exec sleep 20", above.display());
    let mut child = stage.sh(&script).stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    let report = child.finish().unwrap();
    assert_eq!((report.cause, report.status.signal()), (Cause::Escaped, Some(9)));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_detached_child_lives_until_its_supervisor_ends() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.command("sleep").arg("20").spawn().unwrap();
    let pid = child.id().cast_signed();
    child.detach();
    assert_eq!(stage.alive(), [pid]);
    let root = stage.supervisor.path().unwrap().to_owned();
    let Stage { supervisor, .. } = stage;
    drop(supervisor);
    assert!(!root.exists());
    // Nobody waited for it: it is a zombie of ours.
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
}
