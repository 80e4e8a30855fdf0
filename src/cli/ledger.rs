//! What becomes of the changes in overlays: listed by `--changes` and `--json`, kept by `--commit`.

use std::fs::File;
use std::path::Path;

use serde_json::Value;
use tidy_process::{ChangeList, Report};

use crate::confine::ConfineArgs;
use crate::exit::Failure;
use crate::print::json::{Sink, changed};
use crate::print::text;

pub(crate) struct Ledger {
    sink: Sink,
    commit: bool,
}

impl Ledger {
    /// `open` makes the file, or finds the end of one: before the command starts.
    pub(crate) fn open(
        args: &ConfineArgs,
        open: impl FnOnce(&Path) -> Result<File, Failure>,
    ) -> Result<Self, Failure> {
        let sink = Sink::open(args.changes.as_deref(), open)?;
        Ok(Self { sink, commit: args.commit })
    }

    /// Lists the changes, and commits them if the command has succeeded. Returns them for JSON.
    pub(crate) fn settle(&self, report: &Report, exit: u8) -> Result<Option<Value>, Failure> {
        if report.changes.is_empty() {
            return Ok(None);
        }
        let commits = self.commit && report.success() && exit == 0;
        let (mut all, mut lines, mut skipped) = (Vec::new(), String::new(), 0);
        for changes in &report.changes {
            let list = changes.list()?;
            lines += &listed(changes.dir(), &list);
            skipped += list.skipped;
            all.push(changed(changes.dir(), &list, commits));
        }
        self.sink.text(&lines)?;
        if self.commit && !commits {
            text::line("nothing is committed: CMD has not succeeded");
        }
        if commits {
            commit(report)?;
            if skipped > 0 {
                text::line(format_args!("{skipped} changes are not committed: see --changes"));
            }
        }
        Ok(Some(all.into()))
    }
}

/// One overlay after the other: an error says which are done.
fn commit(report: &Report) -> Result<(), Failure> {
    for (number, changes) in report.changes.iter().enumerate() {
        if let Err(error) = changes.commit() {
            let done = report.changes.iter().take(number).map(|it| it.dir().to_owned()).collect();
            return Err(Failure::Commit { error, done });
        }
    }
    Ok(())
}

/// A line for the directory, one for each change.
fn listed(dir: &Path, list: &ChangeList) -> String {
    let mut lines = format!("{dir:?} {}\n", list.count);
    list.changes.iter().for_each(|change| lines += &format!("  {change}\n"));
    if list.count > list.changes.len() {
        lines += &format!("  and {} more\n", list.count - list.changes.len());
    }
    lines
}
