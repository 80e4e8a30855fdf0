//! Leftovers that are about to end by themselves may do so, and what they write is not lost; those
//! that sleep get no time.

use std::io::Read;
use std::process::Command as StdCommand;
use std::time::{Duration, Instant};

use serial_test::parallel;
use tidy_process::{Command, Output, Stdio};

use crate::support::{Alone, SOON, Stage, rounds, skip};

/// The shell ends first; what it has said is on its way through two filters.
const FILTERS: &str = "exec > >(sed 's/^/[build] /' | cat); echo important";

/// Time enough to be seen if it were taken.
const ENDLESS: Duration = Duration::from_secs(60);

fn bash(stage: &Stage, script: &str) -> Command {
    let mut command = stage.command("bash");
    command.args(["-c", script]);
    command
}

/// As often as the paths of the library divide the rounds. The bound is not what is tried: on a
/// machine that is busy a filter may need longer than that to get a CPU at all.
fn each_round(stage: &Stage, paths: u32, mut seen: impl FnMut(&mut Command)) {
    for _ in 0..rounds(200, 3000) / paths {
        seen(bash(stage, FILTERS).settle(ENDLESS));
    }
}

fn is_whole(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "[build] important\n", "{:?}", output.report);
    assert_eq!(output.report.leftovers, []);
}

#[test]
#[parallel]
fn what_filters_write_behind_the_main_process_is_in_the_output() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        each_round(&stage, 4, |command| is_whole(&command.output().unwrap()));
        each_round(&stage, 4, |command| is_whole(&command.force_join(true).output().unwrap()));
        each_round(&stage, 8, |command| {
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            is_whole(&child.communicate("").unwrap());
        });
        each_round(&stage, 8, |command| {
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            child.wait().unwrap();
            assert_eq!(child.finish().unwrap().leftovers, []);
            let mut text = String::new();
            child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "[build] important\n");
        });
        stage.close(Alone::No);
    }
}

#[cfg(feature = "tokio")]
#[test]
#[parallel]
fn what_filters_write_is_in_the_output_of_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        each_round(&stage, 2, |command| {
            is_whole(&runtime.block_on(command.output_async()).unwrap());
        });
        each_round(&stage, 4, |command| {
            let mut child = {
                let _inside = runtime.enter();
                command.stdout(Stdio::piped()).spawn_async().unwrap()
            };
            let report = runtime.block_on(async {
                child.wait().await.unwrap();
                child.finish().await.unwrap()
            });
            assert_eq!(report.leftovers, []);
            let pipe = child.stdout.take().unwrap().into_blocking_fd().unwrap();
            let mut text = String::new();
            std::fs::File::from(pipe).read_to_string(&mut text).unwrap();
            assert_eq!(text, "[build] important\n");
        });
        stage.close(Alone::No);
    }
}

#[cfg(feature = "cli")]
fn tool(stage: &Stage, options: &[&str], script: &str) -> std::process::Output {
    let mut command = stage.tool(&["run"]);
    command.args(options).args(["bash", "-c", script]).output().unwrap()
}

#[cfg(feature = "cli")]
#[test]
#[parallel]
fn the_tool_loses_nothing_and_calls_no_filter_a_leak() {
    let Some(stage) = Stage::set() else { return };
    let log = std::env::temp_dir().join(format!("tidy-settle-{}", std::process::id()));
    let tee = format!("exec > >(tee {log:?}); echo important; exit 7");
    for round in 0..rounds(40, 600) {
        let how: &[&str] = match round % 4 {
            0 => &["--settle=60", "--leaks=fail"],
            1 => &["--settle=60", "--leaks=stop"],
            2 => &["--settle=60", "--containment", "keeper", "--leaks=fail"],
            _ => &["--settle=60", "--force-join"],
        };
        let output = tool(&stage, how, FILTERS);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(output.stdout, b"[build] important\n", "{output:?}");
        let output = tool(&stage, how, &tee);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert_eq!(std::fs::read(&log).unwrap(), b"important\n", "{output:?}");
    }
    std::fs::remove_file(log).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn what_merely_sleeps_gets_no_time() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let many = "for i in 1 2 3 4 5 6 7 8; do sleep 30 & done; echo hi";
        let stopped = "sh -c 'kill -STOP $$; sleep 30' &
                       until grep -q '^State:.T' /proc/$!/status; \
                       do :; done; echo hi";
        for (script, count) in [("sleep 30 & echo hi", 1), (many, 8), (stopped, 1)] {
            let start = Instant::now();
            let output = stage.sh(script).settle(ENDLESS).output().unwrap();
            assert_eq!(output.report.leftover_count, count, "{script}");
            assert_eq!(output.stdout, b"hi\n");
            assert!(start.elapsed() < SOON, "{script}");
        }
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn what_works_on_has_its_time_and_no_more() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let busy = "(while :; do :; done) & exit 3";
        for settle in [Duration::ZERO, Duration::from_millis(50)] {
            let start = Instant::now();
            let report = stage.sh(busy).settle(settle).run().unwrap();
            assert_eq!((report.leftover_count, report.status.code()), (1, Some(3)));
            assert!(start.elapsed() >= settle && start.elapsed() < SOON);
        }
        // Dropping is finishing.
        let child = stage.sh(busy).settle(Duration::from_millis(50)).spawn().unwrap();
        child.wait().unwrap();
        let start = Instant::now();
        drop(child);
        assert!(start.elapsed() >= Duration::from_millis(50));
        stage.close(Alone::No);
    }
}

/// A computation of a while, in a thread; the main thread sleeps.
const THREAD: &str = "
import threading
def work():
    sum(range(3_000_000))
    print('done', flush=True)
thread = threading.Thread(target=work)
thread.start()
thread.join()
";

#[test]
#[parallel]
fn a_thread_works_while_its_main_thread_sleeps() {
    if StdCommand::new("python3").arg("-V").output().is_err() {
        return skip("python3 is missing");
    }
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let mut command = stage.command("sh");
        command.args(["-c", "python3 -c \"$CODE\" &"]).env("CODE", THREAD).settle(ENDLESS);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"done\n");
        assert_eq!(output.report.leftovers, []);
        drop(command);
        stage.close(Alone::No);
    }
}

/// More than the pipes hold: it comes only if it is read while it settles.
const MUCH: usize = 3_000_000;

#[test]
#[parallel]
fn a_full_pipe_is_read_meanwhile() {
    let script = format!("exec > >(cat); head -c {MUCH} /dev/zero");
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        for _ in 0..rounds(10, 100) {
            let output = bash(&stage, &script).settle(ENDLESS).output().unwrap();
            assert_eq!(output.stdout.len(), MUCH);
            #[cfg(feature = "tokio")]
            {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let mut command = bash(&stage, &script);
                let output = command.settle(ENDLESS).output_async();
                assert_eq!(runtime.unwrap().block_on(output).unwrap().stdout.len(), MUCH);
            }
        }
        stage.close(Alone::No);
    }
}

/// The reader is slow: what waits for it has not done its work yet.
#[cfg(feature = "cli")]
#[test]
#[parallel]
fn a_writer_that_waits_for_its_reader_is_no_sleeper() {
    let place = std::fs::read("/proc/self/wchan").unwrap_or_default();
    if place.is_empty() {
        return skip("this kernel does not say where a process waits");
    }
    let Some(stage) = Stage::set() else { return };
    // The shell has ended when the last of it is in the first of two pipes, the second one full.
    let script = "exec > >(cat); head -c 120000 /dev/zero";
    let mut command = stage.tool(&["run", "--settle", "60s", "bash", "-c", script]);
    let mut tool = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut pipe = tool.stdout.take().unwrap();
    // The reader takes its time: this is what is tested.
    std::thread::sleep(Duration::from_millis(500));
    let mut all = Vec::new();
    pipe.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 120_000);
    assert!(tool.wait().unwrap().success());
    stage.close(Alone::No);
}

/// States are not to be had; the CPU time tells, as far as it can.
#[cfg(feature = "cli")]
#[test]
#[parallel]
fn without_proc_filters_are_waited_for_and_sleepers_are_not() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    let Some(stage) = Stage::set() else { return };
    let run = |script: &str| {
        let mut outer = StdCommand::new("unshare");
        let shell = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
        outer.args(["-m", "sh", "-c", shell, crate::support::tool(), "run", "--settle", "60s"]);
        stage.mark_std(outer.args(["--leaks=fail", "--", "bash", "-c", script]));
        let start = Instant::now();
        (outer.output().unwrap(), start.elapsed())
    };
    // Process substitution needs /dev/fd, which leads to /proc.
    let (output, _) = run("{ i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo done; } &");
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"done\n"[..]), "{output:?}");
    let (output, took) = run("sleep 30 & echo hi");
    assert_eq!((output.status.code(), &*output.stdout), (Some(123), &b"hi\n"[..]), "{output:?}");
    assert!(took < SOON);
    stage.close(Alone::No);
}

/// Tells that it is ready to be stopped before the main process ends.
const CLEANER: &str = "mkfifo $F; \
    sh -c 'trap \"sleep 0.2; echo cleaned; exit\" TERM; echo up >$F; \
           while :; do sleep 0.05; done' & \
    read up <$F; rm $F; exit 4";

#[test]
#[parallel]
fn leftovers_may_be_asked_to_end_first() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let make = |way: &str| {
            let mut command = stage.sh(CLEANER);
            let fifo = format!("tidy-stop-{}-{way}", std::process::id());
            let fifo = std::env::temp_dir().join(fifo);
            command.env("F", fifo).grace(SOON).stop_leftovers(true);
            command
        };
        let check = |output: &Output| {
            assert_eq!(output.status.code(), Some(4));
            assert_eq!(output.stdout, b"cleaned\n");
            let named = output.report.leftovers.iter().map(|left| left.command.join(" "));
            assert!(named.collect::<String>().contains("echo cleaned"), "{:?}", output.report);
        };
        check(&make("blocking").output().unwrap());
        #[cfg(feature = "tokio")]
        {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            check(&runtime.unwrap().block_on(make("async").output_async()).unwrap());
        }
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn leftovers_that_do_not_end_when_asked_are_killed() {
    let deaf = "trap '' TERM; sleep 30 & exit 4";
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let mut command = stage.sh(deaf);
        let grace = Duration::from_millis(100);
        let start = Instant::now();
        let report = command.stop_leftovers(true).grace(grace).run().unwrap();
        assert_eq!((report.status.code(), report.leftover_count), (Some(4), 1));
        assert!(start.elapsed() >= grace && start.elapsed() < SOON);
        drop(command);
        stage.close(Alone::No);
    }
}
