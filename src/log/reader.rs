//! The reader of a log's pipe: its thread, and what it keeps in memory.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result, Step, errno_of};
use crate::exec::stdio::{Stdio, set_nonblocking};
use crate::log::Log;
use crate::sys::SignalsBlocked;
use crate::sys::identity::Identity;

/// The log of one spawn: from where on it is this child's, and the thread that reads for it.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) log: Option<Log>,
    pub(crate) start: u64,
    stdio: Option<Stdio>,
    /// Whether the wait that collects standard output and error copies them here.
    copied: [bool; 2],
    pipe: Option<PipeReader>,
    pump: Mutex<Option<Pump>>,
}

impl Record {
    pub(crate) fn open(log: Option<&Log>) -> Result<Self> {
        let Some(log) = log else {
            return Ok(Self::default());
        };
        let (stdio, pipe) = log.attach()?;
        let start = log.len();
        Ok(Self { log: Some(log.clone()), start, stdio: Some(stdio), pipe, ..Self::default() })
    }

    /// The same where a wait collects the two output streams: it copies these of them to the log.
    pub(crate) fn copied(log: Option<&Log>, streams: [bool; 2]) -> Self {
        let start = log.map_or(0, Log::len);
        Self { log: log.cloned(), start, copied: streams, ..Self::default() }
    }

    /// Where copies of standard output and error go.
    pub(crate) fn copies(&self) -> [Option<Log>; 2] {
        self.copied.map(|copied| self.log.clone().filter(|_| copied))
    }

    /// All that was collected is copied: a last line without newline is one too.
    pub(crate) fn close_copies(&self) {
        if let (Some(log), true) = (&self.log, self.copied.contains(&true)) {
            log.close();
        }
    }

    pub(crate) fn stdio(&self) -> Option<&Stdio> {
        self.stdio.as_ref()
    }

    /// After the spawn: our copy of the pipe's other end goes, and the thread starts.
    pub(crate) fn start(mut self) -> Result<Self> {
        self.stdio = None;
        if let (Some(log), Some(pipe)) = (&self.log, self.pipe.take()) {
            self.pump = Mutex::new(Some(Pump::start(log, pipe)?));
        }
        Ok(self)
    }

    /// Whether a thread reads for it, which has to be waited for.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_reader(&self) -> bool {
        self.pump.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Once the tree is gone: the rest is read, and the thread ends.
    pub(crate) fn finish_reading(&self) {
        drop(self.pump.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The tree lives on without its handle: the thread reads until everybody has closed the pipe.
    pub(crate) fn detach_reader(&self) {
        std::mem::forget(self.pump.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A thread that reads the pipe into the log, until the pipe ends or this is dropped. Then what is
/// in the pipe is still read, and no more: a stranger may have the other end.
#[derive(Debug)]
pub(crate) struct Pump {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
    owner: Identity,
}

impl Pump {
    pub(crate) fn start(log: &Log, from: PipeReader) -> Result<Self> {
        let failed = |errno| Error::os(Step::Log, "of the command", errno);
        let (until, stop) = pipe().map_err(|error| failed(errno_of(&error)))?;
        let from = OwnedFd::from(from);
        set_nonblocking(&from).map_err(failed)?;
        let from = PipeReader::from(from);
        let log = log.clone();
        // A signal must never find this thread: the caller's threads know what to do with it.
        let _blocked = SignalsBlocked::new().map_err(failed)?;
        let named = Builder::new().name("tidy-process-log".to_owned());
        let thread = named.spawn(move || {
            pump(&log, from, &until);
            log.close();
        });
        let thread = thread.map_err(|error| failed(errno_of(&error)))?;
        Ok(Self { stop: Some(stop), thread: Some(thread), owner: Identity::of_this_process() })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let (stop, thread) = (self.stop.take(), self.thread.take());
        // A fork of the process has no such thread to join.
        if let (Some(mut stop), Some(thread)) = (stop, thread)
            && self.owner.is_this_process()
        {
            // To close it would do, but a fork may hold it open.
            let _ = stop.write(&[0]);
            let _ = thread.join();
        }
    }
}

/// A reader that waits for a line has this long to come for what is there: the tree stands still
/// meanwhile, as its pipe is full, and is not to be held up for ever by a wait that nobody polls.
const READ_WITHIN: Duration = Duration::from_secs(1);

fn pump(log: &Log, mut from: PipeReader, until: &PipeReader) {
    let mut buffer = vec![0; 64 * 1024];
    let mut full_since = None;
    loop {
        if log.has_room() {
            full_since = None;
        } else if full_since.get_or_insert_with(Instant::now).elapsed() > READ_WITHIN {
            log.give_up_waiting();
        }
        let full = full_since.is_some();
        let mut fds = [until, &from].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        let (asked, timeout) = match full {
            false => (&mut fds[..], PollTimeout::NONE),
            true => (&mut fds[..1], PollTimeout::from(1u8)),
        };
        match poll(asked, timeout) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let [end, news] = fds.map(|fd| fd.any().unwrap_or(true));
        if end {
            let most = fcntl(&from, FcntlArg::F_GETPIPE_SZ).unwrap_or(0);
            let mut rest = Vec::new();
            let _ = from.take(u64::from(most.cast_unsigned())).read_to_end(&mut rest);
            return log.take(&rest);
        }
        if news && !full {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => log.take(buffer.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}
