//! One worker: the next command, to its end and that of its tree, and the next one.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::ProgressBar;
use tidy_process::{Command, Error, Report, Stdio, Supervisor};

use crate::args::Options;
use crate::signals::{Slot, Stop};
use crate::table::Table;

type Source<'a> = Box<dyn Iterator<Item = Vec<OsString>> + Send + 'a>;

/// The commands that are still to be run, handed out one by one.
pub(crate) struct Jobs<'a>(Mutex<Source<'a>>);

impl<'a> Jobs<'a> {
    pub(crate) fn new(source: Source<'a>) -> Self {
        Self(Mutex::new(source))
    }

    fn next(&self) -> Option<Vec<OsString>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// What all workers share.
pub(crate) struct Pool<'a> {
    pub(crate) options: &'a Options,
    pub(crate) supervisor: &'a Supervisor,
    pub(crate) jobs: Jobs<'a>,
    pub(crate) bar: &'a ProgressBar,
}

impl Pool<'_> {
    /// Until there is nothing to do any more, or a signal has come.
    pub(crate) fn work(&self, slot: &Slot, stop: &Stop) -> Table {
        let mut table = Table::default();
        while stop.signal().is_none()
            && let Some(words) = self.jobs.next()
        {
            match self.run(&words, slot, stop) {
                Ok(Some(report)) => table.count(&words, &report),
                Ok(None) => {}
                Err(error) => table.count_error(&words, &error),
            }
            self.bar.inc(1);
        }
        table
    }

    /// None for one that was ended by a signal to the pool.
    fn run(&self, words: &[OsString], slot: &Slot, stop: &Stop) -> Result<Option<Report>, Error> {
        let [program, args @ ..] = words else { return Ok(None) };
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).supervisor(self.supervisor);
        command.limits(self.options.limits.clone());
        if let Some(timeout) = self.options.timeout {
            command.timeout(timeout);
        }
        let child = Arc::new(command.spawn()?);
        *slot.lock() = Some(Arc::clone(&child));
        // A signal that came before this looked into an empty slot.
        if stop.signal().is_some() {
            let _ = child.kill();
        }
        let waited = child.wait();
        *slot.lock() = None;
        waited?;
        let report = child.finish()?;
        Ok(stop.signal().is_none().then_some(report))
    }
}
