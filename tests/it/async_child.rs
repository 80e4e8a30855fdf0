//! Children in tokio's runtimes, both kinds of them: what a blocking wait keeps, a future keeps.

use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use serial_test::parallel;
use tidy_process::{AsyncChild, Cause, Command, Limits, Log, Ready, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use crate::server::server;
use crate::support::{Alone, SOON, Stage};

pub(crate) fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs a check in both kinds of runtime; there it is a task, so its future can go to any thread.
fn in_both<F: Future<Output = ()> + Send + 'static>(check: impl Fn(&Stage) -> F) {
    for runtime in [current_thread, multi_thread] {
        let Some(stage) = Stage::set() else { return };
        let runtime = runtime();
        runtime.block_on(runtime.spawn(check(&stage))).unwrap();
        drop(runtime);
        stage.close(Alone::No);
    }
}

/// A child that has said `ready`.
pub(crate) async fn ready(command: &mut Command) -> AsyncChild {
    let mut child = command.stdout(Stdio::piped()).spawn_async().unwrap();
    let mut line = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"ready\n");
    child
}

#[test]
#[parallel]
fn the_exit_status_is_kept_for_every_later_wait() {
    in_both(|stage| {
        let mut command = stage.sh("sleep 0.02; exit 7");
        async move {
            let child = command.spawn_async().unwrap();
            assert_eq!(child.wait_timeout(Duration::from_millis(1)).await.unwrap(), None);
            for _ in 0..2 {
                assert_eq!(child.wait().await.unwrap().code(), Some(7));
            }
            assert_eq!(child.wait_timeout(Duration::ZERO).await.unwrap().unwrap().code(), Some(7));
            assert_eq!(child.finish().await.unwrap().status.code(), Some(7));
        }
    });
}

#[test]
#[parallel]
fn the_timeout_is_kept_by_every_future_that_waits() {
    in_both(|stage| {
        let mut command = stage.sh("sleep 20 & sleep 20");
        command.timeout(Duration::from_millis(40));
        async move {
            let child = command.spawn_async().unwrap();
            assert_eq!(child.wait().await.unwrap().signal(), Some(9));
            assert_eq!(child.finish().await.unwrap().cause, Cause::TimedOut);
            let child = command.spawn_async().unwrap();
            assert!(child.wait_timeout(SOON).await.unwrap().is_some());
            drop(child);
            let child = command.spawn_async().unwrap();
            let soon = Instant::now() + SOON;
            let error = child.wait_ready(Ready::tcp(1), soon).await.unwrap_err();
            assert!(error.is_not_ready() && Instant::now() < soon, "{error}");
            drop(child);
            assert_eq!(command.run_async().await.unwrap().cause, Cause::TimedOut);
            let report = command.linger(true).output_async().await.unwrap().report;
            assert_eq!(report.cause, Cause::TimedOut);
        }
    });
}

#[test]
#[parallel]
fn the_cpu_time_is_kept_too() {
    in_both(|stage| {
        let mut command = stage.sh("while :; do :; done");
        command.limits(Limits::new().cpu_time(Duration::from_millis(50)));
        async move {
            let report = command.run_async().await.unwrap();
            assert_eq!(report.cause, Cause::CpuTimeExceeded);
        }
    });
}

#[test]
#[parallel]
fn the_stop_signal_comes_first_where_there_is_a_grace() {
    in_both(|stage| {
        let mut command = stage.sh("trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done");
        command.grace(SOON).stop_signal(libc::SIGUSR1);
        let mut deaf = stage.sh("trap '' TERM; echo ready; sleep 20 & wait; sleep 20");
        deaf.grace(Duration::from_millis(60));
        async move {
            let child = ready(&mut command).await;
            child.stop(SOON).await.unwrap();
            let report = child.finish().await.unwrap();
            assert_eq!((report.status.code(), report.cause), (Some(5), Cause::Stopped));
            let report = ready(&mut command).await.finish().await.unwrap();
            assert_eq!((report.status.code(), report.cause), (Some(5), Cause::Stopped));
            let start = Instant::now();
            let report = ready(&mut deaf).await.finish().await.unwrap();
            assert_eq!((report.status.signal(), report.cause), (Some(9), Cause::Stopped));
            assert!(start.elapsed() >= Duration::from_millis(60));
        }
    });
}

#[test]
#[parallel]
fn a_kill_takes_all_and_leaves_the_exit_status() {
    in_both(|stage| {
        let mut command = stage.sh("setsid sleep 20 & sleep 20");
        async move {
            let child = command.spawn_async().unwrap();
            child.kill().await.unwrap();
            assert_eq!(child.tree().processes(), []);
            assert_eq!(child.wait().await.unwrap().signal(), Some(9));
            assert_eq!(child.finish().await.unwrap().cause, Cause::Stopped);
        }
    });
}

#[test]
#[parallel]
fn leftovers_are_named() {
    in_both(|stage| {
        let mut command = stage.sh("sleep 21 & setsid sleep 22 & exec sh -c 'exit 4'");
        async move {
            let report = command.run_async().await.unwrap();
            assert_eq!((report.status.code(), report.cause), (Some(4), Cause::Exited));
            assert_eq!(report.leftovers.len(), 2, "{:?}", report.leftovers);
        }
    });
}

#[test]
#[parallel]
fn the_streams_are_pipes_of_the_runtime() {
    in_both(|stage| {
        let mut command = stage.command("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        async move {
            let mut child = command.spawn_async().unwrap();
            let (mut stdin, mut stdout) =
                (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            // More than a pipe holds: the writer has to wait for the reader.
            let text = vec![b'x'; 1 << 20];
            let sent = text.clone();
            let writer = tokio::spawn(async move { stdin.write_all(&sent).await.unwrap() });
            let mut got = Vec::new();
            stdout.read_to_end(&mut got).await.unwrap();
            writer.await.unwrap();
            assert!(got == text, "{} bytes", got.len());
            assert!(child.wait().await.unwrap().success());
            drop(child);
        }
    });
}

#[test]
#[parallel]
fn output_is_whole_and_waits_for_nobody_else() {
    in_both(|stage| {
        let script = "head -c 3000000 /dev/zero & head -c 2000000 /dev/zero >&2; wait; sleep 20 &";
        let (mut much, mut rest) = (stage.sh(script), stage.sh("sleep 20 & echo last"));
        let (mut both, mut late) =
            (stage.sh("sleep 0.05; echo a"), stage.sh("(sleep 0.1; echo b) &"));
        late.linger(true);
        async move {
            let start = Instant::now();
            let output = much.output_async().await.unwrap();
            assert_eq!((output.stdout.len(), output.stderr.len()), (3_000_000, 2_000_000));
            assert_eq!(output.report.leftovers.len(), 1);
            // What was written last is there, though nobody has told the runtime of it.
            for _ in 0..50 {
                assert_eq!(rest.output_async().await.unwrap().stdout, b"last\n");
            }
            assert_eq!(both.output_async().await.unwrap().stdout, b"a\n");
            assert_eq!(late.output_async().await.unwrap().stdout, b"b\n");
            assert!(start.elapsed() < SOON);
        }
    });
}

#[test]
#[parallel]
fn a_log_is_read_to_its_end() {
    in_both(|stage| {
        let log = Log::bounded(100, 100);
        let mut command = stage.sh("echo one; sleep 20 & echo two");
        command.log(&log);
        async move {
            command.run_async().await.unwrap();
            assert_eq!(log.text().to_string(), "one\ntwo\n");
        }
    });
}

#[test]
#[parallel]
fn readiness_is_that_of_the_tree() {
    in_both(|stage| {
        let log = Log::unnamed().unwrap();
        let mut lines = stage.sh("echo serving; sleep 20");
        lines.log(&log);
        let mut http = server(stage, "tcp 127.0.0.1:0\nhttp 503 503 200\nstay");
        let mut dead = stage.sh("exit 3");
        async move {
            let soon = || Instant::now() + SOON;
            let child = lines.spawn_async().unwrap();
            child.wait_ready(Ready::log("serving"), soon()).await.unwrap();
            drop(child);
            let child = http.spawn_async().unwrap();
            child.wait_ready(Ready::any_tcp(), soon()).await.unwrap();
            let port = child.tree().listening_ports().unwrap()[0].address.port();
            let url = format!("http://localhost:{port}/health");
            child.wait_ready(Ready::http(&url).unwrap(), soon()).await.unwrap();
            drop(child);
            let start = Instant::now();
            let child = dead.spawn_async().unwrap();
            let error = child.wait_ready(Ready::when(|| false), soon()).await.unwrap_err();
            assert!(error.to_string().contains("exit status: 3"), "{error}");
            assert!(start.elapsed() < SOON);
        }
    });
}

#[test]
#[parallel]
fn without_a_runtime_there_is_an_error_and_nothing_is_left() {
    let Some(stage) = Stage::set() else { return };
    let error = stage.command("sleep").arg("20").spawn_async().unwrap_err();
    assert!(error.to_string().ends_with("there is no tokio runtime here"), "{error}");
    stage.assert_clean("after the error");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_child_ends_with_the_process_that_it_names() {
    in_both(|stage| {
        let partner = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let commands: Vec<_> = (0..2).map(|_| stage.sh("exec sleep 30")).collect();
        let mut left = stage.sh("sleep 30 & exit 3");
        left.linger(true);
        let pid = partner.id();
        async move {
            let mut children = Vec::new();
            for mut command in commands {
                children.push(command.die_with(pid).spawn_async().unwrap());
            }
            let mut partner = partner;
            let lingers = left.die_with(pid).spawn_async().unwrap();
            assert_eq!(lingers.wait().await.unwrap().code(), Some(3));
            tokio::task::spawn_blocking(move || {
                partner.kill().unwrap();
                partner.wait().unwrap();
            });
            for child in children {
                child.wait().await.unwrap();
                assert_eq!(child.finish().await.unwrap().cause, Cause::Stopped);
            }
            let output = lingers.wait_with_output().await.unwrap();
            assert_eq!((output.status.code(), output.report.cause), (Some(3), Cause::Stopped));
        }
    });
}
