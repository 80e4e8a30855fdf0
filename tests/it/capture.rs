//! Logs: what a tree writes is kept, nothing it does can block or outlive that.

use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serial_test::{parallel, serial};
use tidy_process::{Log, Ready, Stdio, Supervisor};

use crate::server::{server, soon};
use crate::support::{Alone, SOON, Stage};

/// A writer whose text can be looked at.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// The threads of this process that read logs.
fn pumps() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("tidy-process-lo")).count()
}

#[test]
#[parallel]
fn both_streams_are_merged_in_order() {
    let Some(stage) = Stage::set() else { return };
    let script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf end";
    let wanted = "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nend";
    for log in [Log::unnamed().unwrap(), Log::bounded(100, 0), Log::bounded(0, 100)] {
        stage.sh(script).log(&log).run().unwrap();
        assert_eq!(log.text().to_string(), wanted);
        assert_eq!(log.tail(2), "out 3\nerr 3\nend".split_once('\n').unwrap().1);
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_stream_that_is_set_otherwise_is_not_logged() {
    let Some(stage) = Stage::set() else { return };
    let log = Log::bounded(100, 0);
    let mut command = stage.sh("echo out; echo err >&2");
    let output = command.stdout(Stdio::piped()).log(&log).output().unwrap();
    assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(log.text().to_string(), "err\n");
    drop(command);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_file_is_made_empty_and_then_appended_to() {
    let Some(stage) = Stage::set() else { return };
    let path = std::env::temp_dir().join(format!("tidy-log-{}", std::process::id()));
    fs::write(&path, "old").unwrap();
    let log = Log::create(&path).unwrap();
    let mut command = stage.sh("echo new");
    command.log(&log).run().unwrap();
    command.run().unwrap();
    drop(command);
    assert_eq!(fs::read_to_string(&path).unwrap(), "new\nnew\n");
    fs::remove_file(&path).unwrap();
    let error = Log::create("/no/such/log").unwrap_err().to_string();
    assert_eq!(error, "open log \"/no/such/log\": No such file or directory (ENOENT)");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn head_and_tail_are_kept_and_what_is_missing_is_said() {
    let Some(stage) = Stage::set() else { return };
    let flood = "echo first; head -c 3000000 /dev/zero; echo; echo last";
    for log in [Log::bounded(6, 5), Log::unnamed().unwrap()] {
        stage.sh(flood).log(&log).run().unwrap();
        let text = log.text();
        assert!(text.head.starts_with(b"first\n") && text.tail.ends_with(b"last\n"));
        let kept = text.head.len() + text.tail.len();
        assert_eq!(kept as u64 + text.omitted_bytes, 3_000_012);
        assert!(kept <= 128 * 1024 && text.to_string().contains("bytes left out"));
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_tee_and_a_callback_get_everything() {
    let Some(stage) = Stage::set() else { return };
    for log in [Log::bounded(4, 4), Log::unnamed().unwrap()] {
        let (copy, lines) = (Shared::default(), Shared::default());
        let mut sink = lines.clone();
        let broken = fs::File::open("/dev/null").unwrap();
        let log = log
            .tee(broken)
            .tee(copy.clone())
            .on_line(move |line| writeln!(sink, "<{line}>").unwrap());
        stage.sh("printf 'one\\ntwo\\n\\nthree'").log(&log).run().unwrap();
        assert_eq!(copy.text(), "one\ntwo\n\nthree");
        assert_eq!(lines.text(), "<one>\n<two>\n<>\n<three>\n");
        assert!(log.text().to_string().starts_with("one\n"));
    }
    stage.close(Alone::No);
}

/// Nobody waits on the child, and yet it is never blocked: far more than a pipe holds.
#[test]
#[parallel]
fn a_flood_blocks_nobody() {
    let Some(stage) = Stage::set() else { return };
    for log in [Log::bounded(10, 10), Log::unnamed().unwrap()] {
        let path = std::env::temp_dir().join(format!("tidy-flood-{}", std::process::id()));
        let script = format!("head -c 2000000 /dev/zero; : > {}; sleep 30", path.display());
        let child = stage.sh(&script).log(&log).spawn().unwrap();
        let deadline = Instant::now() + SOON;
        while !path.exists() {
            assert!(Instant::now() < deadline, "it is blocked");
            // What is tested is that nobody waits on the child: the file is all there is.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        fs::remove_file(path).unwrap();
        drop(child);
    }
    stage.close(Alone::No);
}

#[test]
#[serial]
fn what_was_written_last_is_kept_and_no_thread_stays() {
    let Some(stage) = Stage::set() else { return };
    let log = Log::bounded(4 << 20, 0);
    let mut command = stage.sh("head -c 65536 /dev/zero & head -c 60000 /dev/zero; sleep 20 &");
    for nth in 1..=20 {
        command.log(&log).run().unwrap();
        assert_eq!(pumps(), 0);
        assert!(log.text().head.len() >= nth * 60000);
    }
    let child = stage.sh("echo x; sleep 20").log(&log).spawn().unwrap();
    child.wait_ready(Ready::log("x"), soon()).unwrap();
    assert_eq!(pumps(), 1);
    drop((child, command));
    assert_eq!(pumps(), 0);
    stage.close(Alone::Yes);
}

/// A stranger who was handed the pipe writes on for ever.
#[test]
#[serial]
fn a_stranger_who_holds_the_pipe_is_not_waited_for() {
    let Some(stage) = Stage::set() else { return };
    let log = Log::bounded(100, 100);
    let child = stage.sh("echo mine; sleep 20").log(&log).spawn().unwrap();
    child.wait_ready(Ready::log("mine"), soon()).unwrap();
    let pipe = fs::OpenOptions::new().write(true).open(format!("/proc/{}/fd/1", child.id()));
    let start = Instant::now();
    child.finish().unwrap();
    drop(child);
    assert!(start.elapsed() < SOON / 4);
    assert_eq!(pumps(), 0);
    assert!(writeln!(pipe.unwrap(), "late").is_err(), "somebody still reads");
    assert_eq!(log.text().to_string(), "mine\n");
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_detached_child_is_still_read() {
    let Some(stage) = Stage::set() else { return };
    let supervisor = Supervisor::builder().base(stage.supervisor.path().unwrap()).build().unwrap();
    let log = Log::bounded(100, 100);
    let mut command = server(&stage, "read\nsay late\nstay");
    let mut child =
        command.supervisor(&supervisor).stdin(Stdio::piped()).log(&log).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    child.detach();
    stdin.write_all(b"\n").unwrap();
    let deadline = Instant::now() + SOON;
    while log.text().head.is_empty() {
        assert!(Instant::now() < deadline, "nobody reads");
        // The child was let go of: nothing tells when it has written.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    drop((supervisor, command));
    let gone = || (pumps() == 0).then_some(());
    while gone().is_none() {
        assert!(Instant::now() < deadline, "its thread stays");
        // The thread sees the end of its pipe by itself; it is nobody's to join.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    stage.close(Alone::No);
}
