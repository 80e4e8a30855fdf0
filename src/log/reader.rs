//! The thread that reads a log's pipe, and the record of one spawn's part of the log.

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

/// One spawn's part of a log: the byte that it begins at, and the thread that reads the pipe.
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

    /// Makes the record of a spawn whose two output streams a wait collects: it copies these of
    /// them to the log.
    pub(crate) fn copied(log: Option<&Log>, streams: [bool; 2]) -> Self {
        let start = log.map_or(0, Log::len);
        Self { log: log.cloned(), start, copied: streams, ..Self::default() }
    }

    /// The logs that standard output and error are copied to.
    pub(crate) fn copies(&self) -> [Option<Log>; 2] {
        self.copied.map(|copied| self.log.clone().filter(|_| copied))
    }

    /// Hands on a last line without newline, once all that was collected is copied.
    pub(crate) fn close_copies(&self) {
        if let (Some(log), true) = (&self.log, self.copied.contains(&true)) {
            log.close();
        }
    }

    pub(crate) fn stdio(&self) -> Option<&Stdio> {
        self.stdio.as_ref()
    }

    /// Closes this process's copy of the pipe's other end and starts the thread; after the spawn.
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

    /// Lets the thread read the rest and end; once the tree is gone.
    pub(crate) fn finish_reading(&self) {
        drop(self.pump.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Lets the thread read until every process has closed the pipe: the tree lives on without its
    /// handle.
    pub(crate) fn detach_reader(&self) {
        std::mem::forget(self.pump.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A thread that reads the pipe into the log, until the pipe ends or this is dropped. On the drop
/// it reads what the pipe holds, and no more: another process may have the other end.
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
            // Closing it does not suffice: a fork may hold it open.
            let _ = stop.write(&[0]);
            let _ = thread.join();
        }
    }
}

/// How long a full tap waits for its reader. The tree stands still meanwhile, as its pipe is full,
/// and a wait that is not polled must not hold it up for ever.
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
