//! Waiting until a server is ready ends in time and in bounded memory, whatever the server does.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use serial_test::{parallel, serial};
use tidy_process::{Log, Ready, Stdio};

use super::measured;
use crate::support::{Alone, SOON, Stage, skip};

fn soon() -> Instant {
    Instant::now() + SOON
}

/// KiB.
const MEMORY: u64 = 100 * 1024;

#[test]
#[serial]
fn a_flood_that_is_waited_for_is_kept_in_bounded_memory() {
    let Some(stage) = Stage::set() else { return };
    // Lines, and one line without end.
    for flood in ["yes", "exec cat /dev/zero"] {
        let mut tool = stage.tool(&["with", "--server", flood, "--ready", "log:READY"]);
        tool.args(["--ready-timeout", "2s", "--", "true"]);
        let seen = measured(tool);
        eprintln!("{flood}: {:?}, {} KiB", seen.took, seen.peak);
        assert_eq!(seen.status.unwrap().code(), Some(125), "{seen:?}");
        assert!(seen.peak < MEMORY, "{flood}: {} KiB", seen.peak);
    }
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_line_behind_much_else_is_found_soon() {
    let Some(stage) = Stage::set() else { return };
    for log in [Log::unnamed().unwrap(), Log::bounded(1000, 1000)] {
        let script = "head -c 40000000 /dev/zero; echo READY; exec sleep 20";
        let child = stage.sh(script).log(&log).spawn().unwrap();
        let start = Instant::now();
        child.wait_ready(Ready::log("READY"), start + Duration::from_secs(15)).unwrap();
        eprintln!("took {:?}", start.elapsed());
    }
    stage.close(Alone::No);
}

/// A tree is not held up for ever by a wait that is not looked after.
#[test]
#[serial]
fn a_wait_that_sleeps_does_not_stop_the_tree() {
    let Some(stage) = Stage::set() else { return };
    let log = Log::bounded(10, 10);
    let flag = Arc::new(AtomicBool::new(false));
    let script = "head -c 50000000 /dev/zero; echo; echo over; exec sleep 20";
    let child = stage.sh(script).log(&log).spawn().unwrap();
    let line = |_: &str| {
        if !flag.swap(true, Ordering::Relaxed) {
            // Longer than the tree is held up for a reader that does not come.
            std::thread::sleep(Duration::from_secs(4));
        }
        false
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    let error = child.wait_ready(Ready::line(line), deadline).unwrap_err().to_string();
    assert!(log.tail(1).contains("over"), "it was held up: {error}");
    drop(child);
    stage.close(Alone::No);
}

/// One byte now and then: each is in time, all of them are not.
#[test]
#[serial]
fn a_server_that_drips_is_not_waited_for() {
    let Some(stage) = Stage::set() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let given = Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()));
    let child = stage.command("sleep").arg("30").stdin(given).spawn().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    listener.set_nonblocking(true).unwrap();
    let server = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => drop(std::thread::spawn(move || drip(stream))),
                // Nothing but a poll announces the next one.
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    });
    let start = Instant::now();
    let ready = Ready::http(&format!("http://localhost:{port}/")).unwrap();
    let deadline = start + Duration::from_secs(1);
    let error = child.wait_ready(ready, deadline).unwrap_err();
    eprintln!("took {:?}", start.elapsed());
    assert!(error.is_not_ready());
    assert!(start.elapsed() < Duration::from_secs(7), "took {:?}", start.elapsed());
    over.store(true, Ordering::Relaxed);
    server.join().unwrap();
    drop(child);
    stage.close(Alone::No);
}

fn drip(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let _ = reader.read_line(&mut String::new());
    for byte in b"HTTP/1.1 200 OK\r\n\r\n" {
        // Just within the patience for one answer.
        std::thread::sleep(Duration::from_millis(800));
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
    }
}

/// A server that accepts nobody, and whose queue is full.
#[test]
#[serial]
fn a_server_with_a_full_queue_is_not_waited_for() {
    let Some(stage) = Stage::set() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let given = Stdio::from(std::os::fd::OwnedFd::from(listener));
    let child = stage.command("sleep").arg("30").stdin(given).spawn().unwrap();
    let quick = Duration::from_millis(100);
    let connect = || TcpStream::connect_timeout(&address, quick).ok();
    let held: Vec<_> = std::iter::from_fn(connect).take(10_000).collect();
    let start = Instant::now();
    let ready = Ready::http(&format!("http://localhost:{}/", address.port())).unwrap();
    assert!(child.wait_ready(ready, start + Duration::from_millis(500)).is_err());
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    drop((held, child));
    stage.close(Alone::No);
}

/// A file system whose server answers nothing.
#[test]
#[serial]
fn a_path_that_hangs_does_not_hang_the_wait() {
    let Some(stage) = Stage::set() else { return };
    if !geteuid().is_root() || !std::path::Path::new("/dev/fuse").exists() {
        return skip("only root mounts, and /dev/fuse is needed");
    }
    let dir = std::env::temp_dir().join(format!("tidy-dead-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let options = "fd=3,rootmode=40000,user_id=0,group_id=0";
    for kind in ["file", "unix"] {
        // What the tool inherits on fd 3 keeps the file system alive, and dead.
        let script = format!(
            "exec 3<>/dev/fuse; mount -i -t fuse -o {options} dead {dir} || exit 77; \
             exec \"$0\" with --server 'exec sleep 20' --ready {kind}:{dir}/x --ready-timeout 1s \
             -- true",
            dir = dir.display()
        );
        let mut outer = std::process::Command::new("unshare");
        outer.args(["-m", "sh", "-c", &script, crate::support::tool()]);
        stage.mark_std(&mut outer);
        let seen = measured(outer);
        eprintln!("{kind}: {:?}", seen.took);
        assert_eq!(seen.status.and_then(|status| status.code()), Some(125), "{kind}: {seen:?}");
        assert!(seen.stderr.contains("blocks"), "{kind}: {seen:?}");
    }
    std::fs::remove_dir(&dir).unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn an_endless_ready_timeout_is_no_panic() {
    let Some(stage) = Stage::set() else { return };
    for time in ["10000000000000000000", "18446744073709551615", "1e19d", "100000000000d"] {
        let server = "echo READY; exec sleep 20";
        let mut tool = stage.tool(&["with", "--server", server, "--ready", "log:READY"]);
        tool.args(["--ready-timeout", time, "--timeout", time, "-k", time, "--", "true"]);
        let seen = measured(tool);
        let code = seen.status.and_then(|status| status.code());
        // What no duration can be is refused.
        let refused = code == Some(125) && seen.stderr.contains("invalid value");
        assert!(code == Some(0) || refused, "{time}: {seen:?}");
        assert!(!seen.stderr.contains("panicked"), "{seen:?}");
    }
    let child = stage.sh("echo READY; exec sleep 20").log(&Log::bounded(9, 9)).spawn().unwrap();
    child.wait_ready(Ready::log("READY"), soon()).unwrap();
    drop(child);
    stage.close(Alone::No);
}

/// A deadline that has passed bounds the wait, and not what is there already.
#[test]
#[parallel]
fn what_is_ready_is_found_at_a_deadline_that_has_passed() {
    let Some(stage) = Stage::set() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let given = Stdio::from(std::os::fd::OwnedFd::from(listener));
    let log = Log::bounded(99, 99);
    let mut command = stage.sh("echo READY; exec sleep 20");
    let child = command.stdin(given).log(&log).spawn().unwrap();
    drop(command);
    child.wait_ready(Ready::log("READY"), soon()).unwrap();
    for ready in [Ready::tcp(port), Ready::any_tcp(), Ready::log("READY"), Ready::when(|| true)] {
        child.wait_ready(ready, Instant::now()).unwrap();
    }
    drop(child);
    stage.close(Alone::No);
}
