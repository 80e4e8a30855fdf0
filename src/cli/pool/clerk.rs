//! Tells what became of the commands: to the logs, and to the one that looks. It has a thread of
//! its own, so that a reader that does not read holds up no timeout.

use std::fs::File;
use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use tidy_process::cli_support::quoted;
use tidy_process::{Report, cli_support};

use crate::exit::{Failure, open_failure};
use crate::pool::backlog::Backlog;
use crate::pool::desk::{Desk, End, Event, Job};
use crate::pool::joblog::Row;
use crate::pool::spool::{Spool, new_file};
use crate::pool::table::Table;
use crate::print::case::Case;
use crate::print::ci::Ci;
use crate::print::json::{self as form, Sink, Subject, insert};
use crate::print::patient::Patient;
use crate::scratch::{each_piece, length};

/// Where it is told.
pub(crate) struct Books {
    pub(crate) joblog: Sink,
    pub(crate) json: Sink,
    pub(crate) ci: Ci,
    pub(crate) table: Table,
    pub(crate) backlog: Option<Backlog>,
    pub(crate) bar: ProgressBar,
}

pub(crate) struct Clerk<'a> {
    desk: &'a Desk<'a>,
    books: Books,
}

impl<'a> Clerk<'a> {
    pub(crate) fn new(desk: &'a Desk<'a>, books: Books) -> Self {
        Self { desk, books }
    }

    /// Works until there is nothing more to tell. A failure ends the pool; the rest is taken all
    /// the same.
    pub(crate) fn work(mut self, events: &Receiver<Event>) -> Books {
        for event in events {
            let told = match event {
                Event::Started { number, attempt, words, pid, start } => {
                    self.books.json.write_meanwhile(|| {
                        let mut value = json!({ "v": form::VERSION, "event": "started" });
                        about(&mut value, (number, attempt), &words);
                        insert(&mut value, "pid", pid.into());
                        insert(&mut value, "time", seconds(start).into());
                        value
                    })
                }
                Event::Ended(end) => self.ended(*end),
            };
            if let Err(failure) = told {
                self.desk.fail(failure);
            }
            self.desk.untold.fetch_sub(1, Ordering::SeqCst);
        }
        if let Some(mut backlog) = self.books.backlog.take() {
            let told = self.rest(&mut backlog);
            told.unwrap_or_else(|failure| self.desk.fail(failure));
        }
        self.books
    }

    fn ended(&mut self, end: End) -> Result<(), Failure> {
        self.books.json.write_meanwhile(|| event(&end))?;
        if end.is_retried {
            return Ok(());
        }
        let text = self.desk.recipe.text(&end.job.words);
        self.log(&end, &text)?;
        keep_report(&end)?;
        let text = String::from_utf8_lossy(&text);
        self.books.table.count(&end, &text);
        let case = case(&end, &text);
        let (bar, ci) = (&self.books.bar, &mut self.books.ci);
        bar.suspend(|| ci.note(&case))?;
        self.output(end.job)?;
        self.books.bar.inc(1);
        Ok(())
    }

    fn log(&self, end: &End, command: &[u8]) -> Result<(), Failure> {
        if !self.books.joblog.is_open() {
            return Ok(());
        }
        let signal = end.result.as_ref().ok().and_then(|report| report.status.signal());
        let row = Row {
            number: end.job.number,
            start: end.job.start,
            wall: end.wall,
            received: end.job.spool.as_ref().map_or(0, |spool| length(&spool.out)),
            exit: if signal.is_some() && end.exit > 128 { 0 } else { end.exit.into() },
            signal: signal.unwrap_or(0),
            command,
        };
        self.books.joblog.bytes_meanwhile(&row.line())
    }

    /// Prints the output, if it is its turn, and that of those that have waited for it.
    fn output(&mut self, job: Job) -> Result<(), Failure> {
        let tag = self.desk.args.tag.then(|| tag(&job));
        let Some(mut backlog) = self.books.backlog.take() else {
            self.print(job.spool.as_ref(), tag.as_deref())?;
            job.spool.into_iter().for_each(|spool| self.desk.spools.give_back(spool));
            return Ok(());
        };
        let told = self.in_order(&mut backlog, &job, tag);
        self.desk.held_up.store(backlog.len(), Ordering::SeqCst);
        self.books.backlog = Some(backlog);
        job.spool.into_iter().for_each(|spool| self.desk.spools.give_back(spool));
        told
    }

    fn in_order(
        &self,
        backlog: &mut Backlog,
        job: &Job,
        tag: Option<Vec<u8>>,
    ) -> Result<(), Failure> {
        let failed = |error| open_failure("the output that waits for its turn".as_ref(), error);
        if !backlog.turn(job.order) {
            return backlog.keep(job.order, tag, job.spool.as_ref()).map_err(failed);
        }
        self.print(job.spool.as_ref(), tag.as_deref())?;
        self.due(backlog)
    }

    /// Prints what waits for commands that were never started.
    fn rest(&self, backlog: &mut Backlog) -> Result<(), Failure> {
        while backlog.skip_to_next() {
            self.due(backlog)?;
        }
        Ok(())
    }

    fn due(&self, backlog: &mut Backlog) -> Result<(), Failure> {
        let failed = |error| open_failure("the output that waits for its turn".as_ref(), error);
        while let Some(kept) = backlog.due() {
            let tag = kept.tag.as_deref();
            self.part(backlog.file(), kept.out, tag, &mut Patient(stdout()))?;
            self.part(backlog.file(), kept.err, tag, &mut Patient(stderr()))?;
            backlog.forget(&kept).map_err(failed)?;
        }
        Ok(())
    }

    fn print(&self, spool: Option<&Spool>, tag: Option<&[u8]>) -> Result<(), Failure> {
        let Some(spool) = spool else { return Ok(()) };
        let (out, err) = (length(&spool.out), length(&spool.err));
        self.part(&spool.out, (0, out), tag, &mut Patient(stdout()))?;
        self.part(&spool.err, (0, err), tag, &mut Patient(stderr()))
    }

    fn part(
        &self,
        file: &File,
        place: (u64, u64),
        tag: Option<&[u8]>,
        to: &mut dyn Write,
    ) -> Result<(), Failure> {
        let is_kept = self.desk.args.results.is_some();
        if place.1 == 0 || is_kept || self.desk.is_unread.load(Ordering::SeqCst) {
            return Ok(());
        }
        let copied = self.books.bar.suspend(|| match tag {
            None => each_piece(file, place, |piece| to.write_all(piece)),
            Some(tag) => {
                let mut is_new = true;
                each_piece(file, place, |piece| tagged(piece, tag, &mut is_new, to))
            }
        });
        self.written(copied)
    }

    /// A reader that has seen enough ends the pool, as it would end the commands.
    fn written(&self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.desk.is_unread.store(true, Ordering::SeqCst);
                self.desk.stop_now();
                Ok(())
            }
            other => other.map_err(Failure::Print),
        }
    }
}

/// Begins each line with the tag.
fn tagged(piece: &[u8], tag: &[u8], is_new: &mut bool, to: &mut dyn Write) -> io::Result<()> {
    let mut lines = Vec::with_capacity(piece.len() + tag.len());
    for line in piece.split_inclusive(|&byte| byte == b'\n') {
        if *is_new {
            lines.extend_from_slice(tag);
        }
        *is_new = line.ends_with(b"\n");
        lines.extend_from_slice(line);
        if lines.len() > piece.len() + (1 << 16) {
            to.write_all(&lines)?;
            lines.clear();
        }
    }
    to.write_all(&lines)
}

/// The arguments, without what a terminal obeys.
fn tag(job: &Job) -> Vec<u8> {
    let args = job.args.0.iter().map(|arg| quoted(&String::from_utf8_lossy(arg)));
    let mut tag = args.collect::<Vec<_>>().join(" ").into_bytes();
    tag.push(b'\t');
    tag
}

fn seconds(time: std::time::SystemTime) -> f64 {
    time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn about(value: &mut Value, (number, attempt): (u64, u32), words: &[std::ffi::OsString]) {
    insert(value, "seq", number.into());
    insert(value, "try", attempt.into());
    form::insert_words(value, "command", words);
}

/// The report of one command, as `run --json` has it.
fn report(end: &End) -> Value {
    let subject = Subject { command: &end.job.words, name: None, servers: None, changes: None };
    let mut value = subject.value(end.exit);
    match &end.result {
        Ok(report) => form::ended(&mut value, report),
        Err(error) => {
            insert(&mut value, "error", error.to_string().into());
            if let Some(hint) = cli_support::hint(error) {
                insert(&mut value, "hint", hint.into());
            }
            error.report().into_iter().for_each(|report| form::ended(&mut value, report));
        }
    }
    value
}

fn event(end: &End) -> Value {
    let mut value = report(end);
    insert(&mut value, "event", "ended".into());
    insert(&mut value, "seq", end.job.number.into());
    insert(&mut value, "try", end.job.attempt.into());
    insert(&mut value, "retried", end.is_retried.into());
    insert(&mut value, "time", (seconds(end.job.start) + end.wall.as_secs_f64()).into());
    if let Some(spool) = &end.job.spool {
        insert(&mut value, "stdout_bytes", length(&spool.out).into());
        insert(&mut value, "stderr_bytes", length(&spool.err).into());
    }
    value
}

/// Writes the report beside the output.
fn keep_report(end: &End) -> Result<(), Failure> {
    let Some(dir) = end.job.spool.as_ref().and_then(|spool| spool.dir.as_ref()) else {
        return Ok(());
    };
    let written = new_file(dir, "report.json").map_err(io::Error::from);
    let text = form::text(&report(end)) + "\n";
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    let path = || format!("report.json of command {}", end.job.number);
    written.map_err(|error| Failure::Report { path: path(), error })
}

fn case<'a>(end: &'a End, text: &'a str) -> Case<'a> {
    Case {
        name: text,
        number: Some(end.job.number),
        wall: end.wall,
        exit: end.exit,
        report: end.result.as_ref().ok().or_else(|| failed_report(end)),
        error: end.result.as_ref().err().map(ToString::to_string),
        attempts: end.job.attempt,
    }
}

fn failed_report(end: &End) -> Option<&Report> {
    end.result.as_ref().err().and_then(|error| error.report())
}
