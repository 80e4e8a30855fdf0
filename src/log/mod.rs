//! Where a tree's output goes: to a file, or through a pipe into bounded memory, copies and
//! callbacks.
//!
//! A file needs no reader, so it never blocks the tree, and any process may read it while it grows.
//! A bound, a copy and callbacks need a reader that empties a pipe all the time: one thread for
//! each spawn, that ends with the tree.

pub(crate) mod excerpt;
pub(crate) mod reader;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Write, pipe};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Error, Result, Step, errno_of};
use crate::exec::stdio::{Stdio, set_appending};
use crate::log::excerpt::{Excerpt, Lines, Memory};

/// Keeps what a command writes to its standard output and error, merged in order.
///
/// [`Ready::log`](crate::Ready::log) and the errors of [`wait_ready`](crate::Child::wait_ready)
/// read it, and so may the caller. [`Command::log`](crate::Command::log) gives it to a command; it
/// is a handle, whose clones share what is kept.
///
/// [`create`](Self::create) and [`unnamed`](Self::unnamed) hand the command a file: no thread,
/// nothing that could block it, and no bound but the disk's. [`bounded`](Self::bounded), and any
/// log with [`tee`](Self::tee) or [`on_line`](Self::on_line), hands it a pipe that a thread reads,
/// one for each spawn. That thread ends with the tree; what the tree had written by then is kept,
/// and no other process that holds the pipe is waited for.
///
/// # Cleanup
/// The file of [`unnamed`](Self::unnamed) goes with the last handle and the last process that
/// writes to it; that of [`create`](Self::create) stays.
///
/// # Examples
/// ```
/// use tidy_process::{Command, Log};
///
/// let log = Log::bounded(4096, 4096);
/// Command::new("sh").args(["-c", "echo one; echo two >&2"]).log(&log).run()?;
/// assert_eq!(log.text().to_string(), "one\ntwo\n");
/// # Ok::<(), tidy_process::Error>(())
/// ```
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    store: Store,
    sinks: Mutex<Vec<Sink>>,
}

enum Store {
    File(File),
    Memory(Mutex<Memory>),
}

type Callback = Box<dyn FnMut(&str) + Send>;

enum Sink {
    Tee(Box<dyn Write + Send>),
    Lines(Lines, Callback),
}

/// Bytes of a file that are read into an excerpt, at either end.
const PART: usize = 64 * 1024;

/// Bytes at the end of a log in which the last lines are looked for.
const TAIL: usize = 8 * 1024;

impl Log {
    /// Makes a log in a new file, or in an existing one made empty.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error| Error::at(Step::Log, path, errno_of(&error));
        // Appending alone lets two streams, and several spawns, share the file.
        File::create(path).map_err(failed)?;
        let file = OpenOptions::new().read(true).append(true).open(path).map_err(failed)?;
        Ok(Self::new(Store::File(file)))
    }

    /// Makes a log in an unnamed file in memory (or swapped out), which is charged to the writing
    /// processes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn unnamed() -> Result<Self> {
        let failed = |errno| Error::os(Step::Log, "in memory", errno);
        let file =
            File::from(memfd_create(c"tidy-process-log", MFdFlags::MFD_CLOEXEC).map_err(failed)?);
        set_appending(&file).map_err(failed)?;
        Ok(Self::new(Store::File(file)))
    }

    /// Makes a log in this process's memory: the first `head` and the last `tail` bytes, and how
    /// many are missing between them.
    #[must_use]
    pub fn bounded(head: usize, tail: usize) -> Self {
        Self::new(Store::Memory(Mutex::new(Memory::new(head, tail))))
    }

    fn new(store: Store) -> Self {
        Self(Arc::new(Inner { store, sinks: Mutex::new(Vec::new()) }))
    }

    /// Copies everything to this writer too, as it comes. A writer that fails gets nothing more;
    /// one that blocks holds up the tree, as it would if the tree wrote to it directly.
    #[must_use]
    pub fn tee(self, writer: impl Write + Send + 'static) -> Self {
        lock(&self.0.sinks).push(Sink::Tee(Box::new(writer)));
        self
    }

    /// Calls this with each line as it comes, without its newline, bytes that are no UTF-8
    /// replaced. The reading thread calls it; a callback that takes long may hold up the tree.
    #[must_use]
    pub fn on_line(self, callback: impl FnMut(&str) + Send + 'static) -> Self {
        lock(&self.0.sinks).push(Sink::Lines(Lines::default(), Box::new(callback)));
        self
    }

    /// Returns what was written so far; of a file the first and the last 64 KiB.
    #[must_use]
    pub fn text(&self) -> Excerpt {
        match &self.0.store {
            Store::Memory(memory) => lock(memory).excerpt(),
            Store::File(file) => {
                let len = length(file);
                let head = read_at(file, 0, PART);
                let rest = len.saturating_sub(head.len() as u64);
                let kept = rest.min(PART as u64);
                let tail = read_at(file, len - kept, PART);
                Excerpt { head, omitted_bytes: rest - kept, tail }
            }
        }
    }

    /// Returns the last lines, this many at the most, and 8 KiB at the most.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let bytes = match &self.0.store {
            Store::Memory(memory) => lock(memory).last(TAIL),
            Store::File(file) => {
                let from = length(file).saturating_sub(TAIL as u64);
                read_at(file, from, TAIL)
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }

    /// Counts the bytes that were written so far.
    pub(crate) fn len(&self) -> u64 {
        match &self.0.store {
            Store::Memory(memory) => lock(memory).total,
            Store::File(file) => length(file),
        }
    }

    /// Makes the stream that a child gets, and returns the pipe's end to read from, if it is a
    /// pipe.
    pub(crate) fn attach(&self) -> Result<(Stdio, Option<PipeReader>)> {
        let failed = |error| Error::os(Step::Log, "of the command", errno_of(&error));
        match &self.0.store {
            Store::File(file) if lock(&self.0.sinks).is_empty() => {
                Ok((file.try_clone().map_err(failed)?.into(), None))
            }
            _ => {
                let (reads, writes) = pipe().map_err(failed)?;
                Ok((writes.into(), Some(reads)))
            }
        }
    }

    /// Takes bytes from the pipe: into the store first, so that a slow sink hides nothing.
    pub(crate) fn take(&self, bytes: &[u8]) {
        match &self.0.store {
            Store::Memory(memory) => lock(memory).push(bytes),
            Store::File(file) => drop((&*file).write_all(bytes)),
        }
        lock(&self.0.sinks).retain_mut(|sink| match sink {
            Sink::Tee(writer) => writer.write_all(bytes).and_then(|()| writer.flush()).is_ok(),
            Sink::Lines(lines, callback) => {
                lines.push(bytes, &mut **callback);
                true
            }
        });
    }

    /// Hands on a last line without newline: the pipe has ended.
    pub(crate) fn close(&self) {
        for sink in &mut *lock(&self.0.sinks) {
            if let Sink::Lines(lines, callback) = sink {
                lines.finish(&mut **callback);
            }
        }
    }

    /// Follows what is written from byte `start` on.
    pub(crate) fn follow(&self, start: u64) -> Follower {
        let at = match &self.0.store {
            Store::Memory(memory) => lock(memory).tap(start),
            Store::File(_) => start,
        };
        Follower { log: self.clone(), at }
    }

    /// Whether its followers have room for more.
    pub(crate) fn has_room(&self) -> bool {
        match &self.0.store {
            Store::Memory(memory) => lock(memory).has_room(),
            Store::File(_) => true,
        }
    }

    /// Lets followers that have not read for too long miss what is to come.
    pub(crate) fn give_up_waiting(&self) {
        if let Store::Memory(memory) = &self.0.store {
            lock(memory).give_up_waiting();
        }
    }
}

/// Makes a log in a file that is open for reading and appending.
#[cfg(feature = "cli")]
#[must_use]
pub fn log_into(file: File) -> Log {
    Log::new(Store::File(file))
}

/// Reads a log on, from where it read last; see [`Log::follow`].
pub(crate) struct Follower {
    log: Log,
    /// The number of a tap, or a place in the file.
    at: u64,
}

impl Follower {
    /// Returns what has come since the last call, or a part of that; empty if nothing has.
    pub(crate) fn fresh(&mut self) -> Vec<u8> {
        match &self.log.0.store {
            Store::Memory(memory) => lock(memory).tapped(self.at),
            Store::File(file) => {
                let bytes = read_at(file, self.at, PART);
                self.at += bytes.len() as u64;
                bytes
            }
        }
    }

    /// Counts the bytes that came and were dropped between two calls.
    pub(crate) fn missed(&self) -> u64 {
        match &self.log.0.store {
            Store::Memory(memory) => lock(memory).missed(self.at),
            Store::File(_) => 0,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Store::Memory(memory) = &self.log.0.store {
            lock(memory).untap(self.at);
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("len", &self.len()).finish_non_exhaustive()
    }
}

fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |meta| meta.len())
}

/// Reads `most` bytes at the most from this place on; none where reading fails.
fn read_at(file: &File, from: u64, most: usize) -> Vec<u8> {
    let there = length(file).saturating_sub(from);
    let mut bytes = vec![0; usize::try_from(there).map_or(most, |there| there.min(most))];
    let len = file.read_at(&mut bytes, from).unwrap_or(0);
    bytes.truncate(len);
    bytes
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
