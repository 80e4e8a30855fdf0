//! What all victims share: how a process is born, how it says `ready`, how it waits, how it ends.

use std::fmt::Display;
use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::BorrowedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, alarm, fork, pause, write};

/// Seconds that a process may live, however badly the test goes.
const LIFE: u32 = 30;

/// Between two looks at a state that no event announces.
const LOOK: Duration = Duration::from_millis(1);

/// What goes on forking stops here, well before the alarms.
pub(super) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// An alarm is not inherited over fork, but its being ignored or blocked is.
pub(super) fn mortal() {
    // SAFETY: the default action runs no code of ours.
    must("default SIGALRM", unsafe { signal(Signal::SIGALRM, SigHandler::SigDfl) });
    must("unblock SIGALRM", SigSet::from(Signal::SIGALRM).thread_unblock());
    alarm::set(LIFE);
}

/// Both sides return; `None` where no process can be had, as under a limit.
pub(super) fn split() -> Option<ForkResult> {
    // SAFETY: the caller is the only thread of its process, its dead leader excepted, and glibc's
    // own locks are taken by its fork: no lock is held in the child by somebody who is not there.
    let side = unsafe { fork() }.ok()?;
    if side.is_child() {
        mortal();
    }
    Some(side)
}

/// A new process that runs `body` and nothing else.
pub(super) fn try_child(body: impl FnOnce()) -> Option<Pid> {
    match split()? {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => {
            body();
            exit(0)
        }
    }
}

pub(super) fn child(body: impl FnOnce()) -> Pid {
    match try_child(body) {
        Some(pid) => pid,
        None => fail("fork", &std::io::Error::last_os_error()),
    }
}

/// The line that the test waits for: one raw write, since a buffer would be inherited by forks.
pub(super) fn ready() {
    // SAFETY: whoever starts a victim gives it a stdout, and who closes it does not come here.
    let stdout = unsafe { BorrowedFd::borrow_raw(libc::STDOUT_FILENO) };
    must("say ready", write(stdout, b"ready\n"));
}

pub(super) fn hold() -> ! {
    loop {
        pause();
    }
}

pub(super) fn exit(status: i32) -> ! {
    // SAFETY: ends the process at once; what atexit handlers would do is the harness's business.
    unsafe { libc::_exit(status) }
}

/// A panic would unwind into the loader, or in a fork into code of the parent: say it and end.
pub(super) fn fail(what: &str, why: &dyn Display) -> ! {
    let text = format!("victim {}: {what}: {why}\n", std::process::id());
    // SAFETY: fd 2 is used for this call only, and EBADF is fine.
    let stderr = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
    let _ = write(stderr, text.as_bytes());
    exit(99)
}

pub(super) fn must<T, E: Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => fail(what, &error),
    }
}

pub(super) fn reap(pid: Pid) {
    must("wait for a child", waitpid(pid, None));
}

/// Until `state` holds; what it waits for comes at once or never.
pub(super) fn until(what: &str, mut state: impl FnMut() -> bool) {
    let deadline = deadline();
    while !state() {
        if Instant::now() >= deadline {
            fail(what, &"has not come");
        }
        sleep(LOOK);
    }
}

/// The state letter of `/proc/<process>/stat`; the name before it may hold spaces and brackets.
pub(super) fn state(process: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Lets a process wait until others have reached their state.
pub(super) struct Gate {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Gate {
    pub(super) fn new() -> Self {
        let (reader, writer) = must("make a pipe", std::io::pipe());
        Self { reader, writer }
    }

    pub(super) fn arrived(&self) {
        must("tell the parent", (&self.writer).write_all(b"."));
    }

    /// One `arrived` of each of `count` processes.
    pub(super) fn wait(self, count: usize) {
        let Self { mut reader, writer } = self;
        drop(writer);
        must("hear of the children", reader.read_exact(&mut vec![0; count]));
    }

    /// Until no other process holds the gate.
    pub(super) fn wait_closed(self) {
        let Self { mut reader, writer } = self;
        drop(writer);
        must("hear of the children's end", reader.read_to_end(&mut Vec::new()));
    }
}
