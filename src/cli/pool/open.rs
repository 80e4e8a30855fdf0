//! Opens what the pool reads and writes, before anything is started: a bad path costs nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, stdin};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tidy_process::cli_support::quoted;

use crate::exit::{Ended, Failure, open_failure};
use crate::pool::args::PoolArgs;
use crate::pool::backlog::Backlog;
use crate::pool::bar::bar;
use crate::pool::clerk::Books;
use crate::pool::desk::Feed;
use crate::pool::gate::Gate;
use crate::pool::joblog::{self, Log};
use crate::pool::source::{Args, Origin, Recipe, Source, Upcoming, is_blank, split};
use crate::pool::spool::Spools;
use crate::pool::table::Table;
use crate::pool::template::Template;
use crate::print::ci::{Ci, CiArgs};
use crate::print::json::{Sink, Subject};
use crate::print::text::{failed, line};
use crate::run::files::Files;
use crate::scratch::Scratch;
use crate::wait::open::{INPUT, Opener};
use crate::wait::signals::Signals;

/// A larger input is not counted before it is worked off: the bar knows no end then.
const COUNTED: u64 = 64 << 20;

pub(crate) struct Opened {
    pub(crate) recipe: Recipe,
    pub(crate) feed: Feed,
    pub(crate) spools: Spools,
    pub(crate) books: Books,
}

impl Opened {
    /// Reads the commands that are still to be run, without running them; a signal ends that.
    pub(crate) fn each(
        self,
        signals: &Signals,
        mut take: impl FnMut(&Recipe, u64, &Args) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Opened { recipe, mut feed, .. } = self;
        let failed = |error| open_failure(Path::new("input"), error);
        let mut number = 0;
        loop {
            if let Some(signal) = signals.answer_alone()? {
                return Err(Failure::NotStarted(signal));
            }
            match feed.source.next().map_err(failed)? {
                Upcoming::Is(args) => {
                    number += 1;
                    if !feed.done.has(number) {
                        take(&recipe, number, &args)?;
                    }
                }
                Upcoming::End => return Ok(()),
                Upcoming::NotYet => feed.source.wait(signals.as_fd()).map_err(failed)?,
            }
        }
    }
}

pub(crate) fn open(args: &PoolArgs, opener: &Opener<'_>) -> Result<Opened, Failure> {
    let (command, words) = split(&args.command);
    let mut files = Files::new(opener, false);
    let mut origins = Vec::new();
    for path in args.file.iter().chain(&args.arg_file) {
        origins.push(Origin::File(input(path, opener)?));
    }
    origins.extend(words);
    if origins.is_empty() {
        origins.push(Origin::File(input(Path::new("-"), opener)?));
    }
    let is_line = command.is_empty();
    refuse_mixtures(args, is_line, origins.len())?;
    refuse_line(args, &command)?;
    let shows = args.progress.is_shown(args.quiet) && !args.runs_none();
    let length = shows.then(|| expected(&origins, args, is_line)).flatten();
    let recipe = match is_line {
        true => Recipe::Line,
        false => Recipe::Template(Template::new(&command, &args.replace, args.shell)),
    };
    let source = Source::new(origins, args.delimiter(), args.max_args, is_line);
    let source = source.map_err(|error| open_failure(Path::new("input"), error))?;
    let gate = Gate::new(args.load, args.mem_free, args.delay);
    let (log, joblog) = joblog(args, opener, &mut files)?;
    // A dry run tells of nothing, and leaves the files of an earlier one as they are.
    let told = (!args.dry_run).then_some((args.json.as_deref(), &args.ci));
    let none = CiArgs::default();
    let (json, ci) = told.unwrap_or((None, &none));
    let json = Sink::open(json, |path| files.writing(path))?;
    let mut summary = Files::new(opener, true);
    let ci = Ci::open(
        ci,
        "tidy-process pool",
        |path| files.writing(path),
        |path| summary.writing(path),
    )?;
    let spools = match &args.results {
        Some(dir) if !args.runs_none() => Spools::results(dir)?,
        None if args.ungroup => Spools::Ours,
        _ => Spools::unnamed()?,
    };
    let backlog = args.keep_order.then(|| Scratch::open()?.file()).transpose()?;
    let backlog = backlog.map(Backlog::new);
    let length = length.map(|length| length - log.done.up_to(length));
    let (table, bar) = (Table::default(), bar(shows, length));
    let books = Books { joblog, json, ci, table, backlog, bar };
    Ok(Opened { recipe, feed: Feed::new(source, gate, log.done), spools, books })
}

fn refuse_mixtures(args: &PoolArgs, is_line: bool, origins: usize) -> Result<(), Failure> {
    let refuse = |what: &str, hint: &'static str| {
        Err(Failure::Nowhere { what: what.to_owned(), hint: hint.into() })
    };
    if is_line && (args.max_args > 1 || args.shell || origins > 1) {
        let hint = "give CMD behind --, as in: tidy-process pool -n 2 -- CMD {}";
        return refuse(
            "-n, --shell and several inputs are for arguments, and there is no CMD",
            hint,
        );
    }
    if args.max_args > 1 && origins > 1 {
        let hint = "give -n 1, or one input";
        return refuse("-n with several inputs: each of their combinations is a command", hint);
    }
    Ok(())
}

/// One word with blanks in it is what parallel takes for a line.
fn refuse_line(args: &PoolArgs, command: &[OsString]) -> Result<(), Failure> {
    match command {
        [line] if !args.shell && line.as_bytes().contains(&b' ') && !Path::new(line).exists() => {
            Err(Failure::Nowhere {
                what: format!("no program is called {line:?}"),
                hint: "for a line of sh: tidy-process pool --shell -- 'LINE'".into(),
            })
        }
        _ => Ok(()),
    }
}

/// `-` is standard input.
fn input(path: &Path, opener: &Opener<'_>) -> Result<File, Failure> {
    if path.as_os_str() != "-" {
        return opener.open(path, INPUT);
    }
    let ours = stdin().as_fd().try_clone_to_owned();
    ours.map(File::from).map_err(|error| open_failure(Path::new("standard input"), error))
}

/// The log to be written, and what it has already.
fn joblog(
    args: &PoolArgs,
    opener: &Opener<'_>,
    files: &mut Files<'_>,
) -> Result<(Log, Sink), Failure> {
    let mut log = Log { begin: joblog::header(), ..Log::default() };
    // A script's log is the engine's.
    let Some(path) = args.joblog.as_deref().filter(|_| args.emit.is_none()) else {
        return Ok((log, Sink::open(None, |path| files.writing(path))?));
    };
    let resumes = args.resume || args.resume_failed;
    if resumes && path.exists() {
        let file = opener.open(path, INPUT)?;
        log = joblog::read(&file, args.resume_failed).map_err(|error| open_failure(path, error))?;
        if log.odd > 0 && !args.quiet {
            let path = quoted(&path.to_string_lossy());
            line(format_args!("joblog {path}: {} lines are none of a log", log.odd));
        }
    }
    if args.dry_run {
        return Ok((log, Sink::open(None, |path| files.writing(path))?));
    }
    let sink = match resumes {
        true => Sink::open(Some(path), |path| Files::new(opener, true).writing(path))?,
        false => Sink::open(Some(path), |path| files.writing(path))?,
    };
    sink.text(log.begin)?;
    Ok((log, sink))
}

/// How many commands there will be, if that can be told without reading a pipe.
fn expected(origins: &[Origin], args: &PoolArgs, is_line: bool) -> Option<u64> {
    let counts = origins.iter().map(|origin| match origin {
        Origin::Words(words) => u64::try_from(words.len()).ok(),
        Origin::File(file) => records(file, args.delimiter(), is_line),
    });
    let all = counts.collect::<Option<Vec<u64>>>()?;
    let product = all.into_iter().try_fold(1_u64, u64::checked_mul)?;
    Some(product.div_ceil(args.max_args as u64))
}

fn records(file: &File, delimiter: u8, skips_blank: bool) -> Option<u64> {
    let data = file.metadata().ok().filter(|data| data.is_file() && data.len() <= COUNTED)?;
    let mut file = file;
    let begin = file.stream_position().ok()?;
    let mut text = Vec::new();
    let read = file.take(data.len()).read_to_end(&mut text);
    file.seek(SeekFrom::Start(begin)).ok()?;
    read.ok()?;
    let records = text.split_inclusive(|&byte| byte == delimiter);
    let counts = |record: &&[u8]| {
        !skips_blank || !is_blank(record.strip_suffix(&[delimiter]).unwrap_or(record))
    };
    Some(records.filter(counts).count() as u64)
}

/// Says what would confine the commands.
pub(crate) fn say_plan(args: &PoolArgs, signals: &Signals) -> Ended {
    let opener = Opener { signals, deadline: None };
    let mut files = Files::new(&opener, false);
    match Sink::open(args.json.as_deref(), |path| files.writing(path)) {
        Ok(sink) => {
            let subject =
                Subject { command: &args.command, name: None, servers: None, changes: None };
            args.confine.say_plan(&sink, subject)
        }
        Err(failure) => failed(&failure),
    }
}
