//! A caller with many open files: its children leave them behind at their birth, if they are to
//! have none of them.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command as StdCommand;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serial_test::serial;
use tidy_process::{Stdio, Supervisor};

use crate::support::skip;

/// More than a child keeps of a table that it shares.
const MANY: usize = 2000;

/// Many open files, half of them not marked to be closed by exec.
struct Crowd {
    files: Vec<OwnedFd>,
    /// The limit that was there before, which other tests are to find again.
    limit: u64,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.files.clear();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, self.limit, hard).unwrap();
    }
}

fn crowd(count: usize) -> Option<Crowd> {
    let (limit, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let wanted = hard.max(u64::try_from(count).unwrap() + 500);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        skip("the hard limit of open files is too low");
        return None;
    }
    let null: OwnedFd = File::open("/dev/null").unwrap().into();
    let files: Vec<OwnedFd> = (0..count).map(|_| null.try_clone().unwrap()).collect();
    for fd in files.iter().step_by(2) {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    }
    Some(Crowd { files, limit })
}

fn closing() -> Option<Supervisor> {
    let supervisor = Supervisor::builder().close_fds(true).build().ok()?;
    // Its places are made before the crowd is there.
    assert!(supervisor.command("true").inherit_fds([]).status().unwrap().success());
    Some(supervisor)
}

fn listed(supervisor: &Supervisor, keep: &[i32]) -> Vec<i32> {
    let mut command = supervisor.command("ls");
    let output = command.arg("/proc/self/fd").inherit_fds(keep.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(|fd| fd.parse().unwrap()).collect()
}

/// Streams have their own ends, whatever their numbers in the caller are.
#[test]
#[serial]
fn a_child_has_its_streams_and_what_is_listed() {
    let Some(supervisor) = closing() else { return skip("no cgroup") };
    let low = File::open("/dev/null").unwrap();
    let Some(crowd) = crowd(MANY) else { return };
    let high = crowd.files.last().unwrap().as_raw_fd();
    for _ in 0..3 {
        assert_eq!(listed(&supervisor, &[]), [0, 1, 2, 3]);
        assert!(listed(&supervisor, &[low.as_raw_fd()]).contains(&low.as_raw_fd()));
        assert!(listed(&supervisor, &[high]).contains(&high));
        let mut command = supervisor.command("sh");
        command.args(["-c", "cat; echo err >&2"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"in").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), (&b"in"[..], &b"err\n"[..]));
    }
    drop(crowd);
}

/// The reader of a pipe sees its end: nothing of this process holds the child's.
#[test]
#[serial]
fn a_pipe_ends_with_the_child() {
    let Some(supervisor) = closing() else { return skip("no cgroup") };
    let Some(crowd) = crowd(MANY) else { return };
    let (mut reader, writer) = pipe().unwrap();
    let mut command = supervisor.command("echo");
    let child = command.arg("hi").stdout(writer).spawn().unwrap();
    drop(command);
    let (sender, read) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        sender.send(reader.read_to_string(&mut text).map(|_| text)).unwrap();
    });
    // Without the end it would wait for ever.
    let text = read.recv_timeout(Duration::from_secs(20)).expect("the pipe has no end");
    assert_eq!(text.unwrap(), "hi\n");
    drop((child, crowd));
}

#[test]
#[serial]
fn a_spawn_that_fails_closes_nothing() {
    let Some(supervisor) = closing() else { return skip("no cgroup") };
    let Some(crowd) = crowd(MANY) else { return };
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = fds();
    for (program, dir) in [("/no/such/program", "/"), ("true", "/no/such/dir")] {
        let mut command = supervisor.command(program);
        command.current_dir(dir).stdout(Stdio::piped()).spawn().unwrap_err();
    }
    assert_eq!(fds(), before);
    assert!(crowd.files.iter().all(|fd| fcntl(fd, FcntlArg::F_GETFD).is_ok()));
    assert_eq!(listed(&supervisor, &[]), [0, 1, 2, 3]);
}

/// A lock of fcntl(2) goes with any close of its file, by a process that shares the table.
#[test]
#[serial]
fn the_callers_locks_stay() {
    let python = "/usr/bin/python3";
    if !std::path::Path::new(python).exists() {
        return skip("python3 is missing: apt-get install python3");
    }
    let Some(supervisor) = closing() else { return skip("no cgroup") };
    let Some(mut crowd) = crowd(MANY) else { return };
    let path = std::env::temp_dir().join(format!("tidy-lock-{}", std::process::id()));
    let file = File::create(&path).unwrap();
    crowd.files.push(file.try_clone().unwrap().into());
    let lock = libc::flock {
        l_type: libc::F_WRLCK.try_into().unwrap(),
        l_whence: libc::SEEK_SET.try_into().unwrap(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_SETLK(&lock)).unwrap();
    for program in ["true", "/no/such/program"] {
        let _ = supervisor.command(program).stdout(Stdio::piped()).output();
    }
    let script =
        "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)";
    let tried = StdCommand::new(python).args(["-c", script]).arg(&path).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(String::from_utf8_lossy(&tried.stderr).contains("BlockingIOError"), "{tried:?}");
}

/// Other threads spawn as std does, and by this library, meanwhile.
#[test]
#[serial]
fn spawns_of_several_threads_do_not_disturb_each_other() {
    let Some(supervisor) = closing() else { return skip("no cgroup") };
    let Some(crowd) = crowd(MANY) else { return };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let std = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(StdCommand::new("true").status().unwrap().success());
            }
        });
        let ours = |number: usize| {
            let text = format!("{number}\n");
            for _ in 0..50 {
                let output = supervisor.command("echo").arg(number.to_string()).output().unwrap();
                assert_eq!(output.stdout, text.as_bytes());
            }
        };
        let all: Vec<_> = (0..3).map(|number| scope.spawn(move || ours(number))).collect();
        let all: Vec<_> = all.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::Relaxed);
        std.join().unwrap();
        all.into_iter().for_each(|ended| ended.unwrap());
    });
    drop(crowd);
}

/// What a spawn costs does not grow with the caller's open files. Both sides in turns, in one run.
#[test]
#[serial]
fn a_spawn_does_not_pay_for_the_callers_files() {
    let Some(supervisor) = closing() else { return skip("no cgroup") };
    let plain = Supervisor::builder().build().unwrap();
    let Some(crowd) = crowd(18_000) else { return };
    let time = |supervisor: &Supervisor| {
        let start = Instant::now();
        assert!(supervisor.command("true").status().unwrap().success());
        start.elapsed()
    };
    let mut times = [Vec::<Duration>::new(), Vec::new()];
    for _ in 0..40 {
        times[0].push(time(&supervisor));
        times[1].push(time(&plain));
    }
    // The fastest ones: what else runs on the machine makes others longer.
    let [shared, copied] = times.map(|times| times.into_iter().min().unwrap());
    println!("shared {shared:?}, copied {copied:?}");
    assert!(shared * 10 < copied * 7, "shared {shared:?}, copied {copied:?}");
    drop(crowd);
}
