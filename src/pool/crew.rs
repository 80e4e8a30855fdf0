//! The threads of a pool, and what reaches them from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use crate::child::Child;
use crate::command::Command;
use crate::error::{Error, Result, Step, errno_of};
use crate::report::Report;
use crate::sys::poll::lock;

/// What there is to start.
#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "the tool has a pool too"))]
pub enum Next<J> {
    /// This.
    Start(J, Box<Command>),
    /// Nothing before this moment.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the tool alone waits"))]
    Later(Instant),
    /// Nothing before [`Work::news`] has something to read.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the tool alone waits"))]
    NotYet,
    /// Nothing, unless the end of what runs brings more.
    Over,
}

/// What a crew works on. Each of these may be called by several threads at once.
#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "the tool has a pool too"))]
pub trait Work: Sync {
    /// What belongs to one command.
    type Job: Send;

    /// What is to be started next; does not block.
    fn next(&self) -> Next<Self::Job>;

    /// Starts a command.
    ///
    /// # Errors
    /// As for [`Command::spawn`].
    fn spawn(&self, job: &mut Self::Job, command: &mut Command) -> Result<Child>;

    /// Takes what became of a command.
    fn ended(&self, job: Self::Job, result: Result<Report>);

    /// What to poll for reading while there is nothing to start yet.
    fn news(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether the reports are to have the usage.
    fn is_counted(&self) -> bool {
        true
    }
}

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const KILLED: u8 = 2;

/// Starts commands and awaits them.
#[derive(Default)]
#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "the tool has a pool too"))]
pub struct Crew {
    state: AtomicU8,
    /// Closed, so that the other end has news, when no more is to be started.
    bell: Mutex<Option<PipeWriter>>,
    running: Mutex<BTreeMap<u64, Arc<Child>>>,
    last: AtomicU64,
    /// Held for each birth, until the child is listed.
    births: RwLock<()>,
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = lock(&self.running).len();
        f.debug_struct("Crew").field("running", &running).finish_non_exhaustive()
    }
}

#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "the tool has a pool too"))]
impl Crew {
    /// The end of a pipe that has news when no more is to be started.
    pub(crate) fn open_bell(&self) -> Result<PipeReader> {
        let failed = |error: std::io::Error| {
            Error::os(Step::Prepare, "a pipe of the pool", errno_of(&error))
        };
        let (reader, writer) = pipe().map_err(failed)?;
        let mut bell = lock(&self.bell);
        if bell.is_some() {
            let why = "it runs already: one list of commands at a time, or another pool";
            return Err(Error::invalid(Step::Prepare, "the pool", why));
        }
        if !self.is_closed() {
            *bell = Some(writer);
        }
        Ok(reader)
    }

    /// Starts no more; what runs goes on.
    pub fn close(&self) {
        self.state.fetch_max(CLOSED, Ordering::SeqCst);
        self.ring();
    }

    pub(crate) fn ring(&self) {
        drop(lock(&self.bell).take());
    }

    /// Starts no more, and kills what runs.
    pub fn kill(&self) {
        self.state.fetch_max(KILLED, Ordering::SeqCst);
        self.close();
        // Whatever a kill meets with, the end of the command meets too, and reports.
        self.each(|child| drop(child.kill()));
    }

    /// Calls this with each that runs now. Others may start meanwhile.
    pub fn each(&self, call: impl FnMut(&Child)) {
        let all: Vec<Arc<Child>> = lock(&self.running).values().cloned().collect();
        all.iter().map(AsRef::as_ref).for_each(call);
    }

    /// A birth, as long as it takes.
    pub(crate) fn birth(&self) -> RwLockReadGuard<'_, ()> {
        self.births.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls this while none is being born: [`each`](Self::each) has every child then. False if one
    /// is.
    #[cfg(feature = "cli")]
    pub fn between_births(&self, call: impl FnOnce()) -> bool {
        let none = self.births.try_write();
        none.map(|_none| call()).is_ok()
    }

    /// Whether no more is to be started.
    pub fn is_closed(&self) -> bool {
        self.state.load(Ordering::SeqCst) != OPEN
    }

    /// Lists a child. One that was started during a kill is killed here.
    pub(crate) fn enter(&self, child: &Arc<Child>) -> u64 {
        let key = self.last.fetch_add(1, Ordering::Relaxed);
        lock(&self.running).insert(key, Arc::clone(child));
        if self.state.load(Ordering::SeqCst) == KILLED {
            let _ = child.kill();
        }
        key
    }

    pub(crate) fn leave(&self, key: u64) {
        lock(&self.running).remove(&key);
    }
}
