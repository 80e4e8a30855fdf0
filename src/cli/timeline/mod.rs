//! `--timeline FILE`: what was recorded of a run, as a page, a picture or JSON.
//!
//! The recording itself is the library's (`src/record/`); here it is only drawn.

mod chart;
mod curves;
mod json;
mod layout;
mod page;
mod svg;
mod words;

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use tidy_process::cli_support::{quoted, shortened};
use tidy_process::{Command, Recording};

use crate::exit::{Failure, open_failure};
use crate::whole::WholeFile;

/// Characters of the command in the title.
const TITLE: usize = 160;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TimelineArgs {
    /// Draw what runs over time (processes, CPU, memory, io, events) into FILE, by its ending a
    /// page (.html), a picture (.svg) or numbers (.json); see docs/timeline.md
    #[arg(long, value_name = "FILE", value_parser = named())]
    pub(crate) timeline: Option<PathBuf>,
}

/// What is written.
#[derive(Clone, Copy)]
enum Form {
    Page,
    Picture,
    Json,
}

fn named() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|word| {
        let path = PathBuf::from(word);
        match form(&path) {
            Some(_) => Ok(path),
            None => Err("its name has to end in .html, .svg or .json"),
        }
    })
}

fn form(path: &Path) -> Option<Form> {
    let ending = path.extension().and_then(OsStr::to_str)?.to_ascii_lowercase();
    match &*ending {
        "html" | "htm" => Some(Form::Page),
        "svg" => Some(Form::Picture),
        "json" => Some(Form::Json),
        _ => None,
    }
}

/// Where a timeline goes, and what records it; nothing unless it is asked for.
#[derive(Default)]
pub(crate) struct Sheet {
    drawn: Option<(Form, WholeFile, Recording)>,
    /// The file turned out to be another's: it stays as it is.
    is_taken: Cell<bool>,
}

impl Sheet {
    /// Fails where the file could not be written, before the command is started; nor may it be one
    /// that `is_taken`: the timeline takes its place, and what was written there would be lost.
    pub(crate) fn open(
        args: &TimelineArgs,
        is_taken: impl FnOnce(&Path) -> bool,
    ) -> Result<Self, Failure> {
        let Some(path) = &args.timeline else { return Ok(Self::default()) };
        let file = WholeFile::open(path)?.check()?;
        let form = form(path).unwrap_or(Form::Page);
        let drawn = Some((form, file, Recording::new()));
        let sheet = Self { drawn, ..Self::default() };
        sheet.stays_apart(is_taken).map(|()| sheet)
    }

    /// Fails where the file `is_taken`, by what was opened since.
    pub(crate) fn stays_apart(&self, is_taken: impl FnOnce(&Path) -> bool) -> Result<(), Failure> {
        match &self.drawn {
            Some((_, file, _)) if is_taken(file.path()) => {
                self.is_taken.set(true);
                let why = "something else is written to it: --timeline needs a file of its own";
                Err(open_failure(file.path(), io::Error::other(why)))
            }
            _ => Ok(()),
        }
    }

    /// Whether more than a command's end is of interest.
    pub(crate) fn is_open(&self) -> bool {
        self.drawn.is_some()
    }

    pub(crate) fn record(&self, command: &mut Command) {
        if let Some((_, _, recording)) = &self.drawn {
            command.record(recording);
        }
    }

    /// Writes what was recorded; `failure` is why there may be nothing.
    pub(crate) fn write(
        &self,
        command: &[OsString],
        failure: Option<&Failure>,
    ) -> Result<(), Failure> {
        let drawn = self.drawn.as_ref().filter(|_| !self.is_taken.get());
        let Some((form, file, recording)) = drawn else { return Ok(()) };
        let timeline = recording.timeline();
        let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        let title = shortened(&quoted(&words.join(" ")), TITLE);
        let note = failure.map(|failure| quoted(&failure.to_string()));
        let text = match form {
            Form::Page => page::page(&timeline, &title, note.as_deref()),
            Form::Picture => chart::draw(&timeline, &title, true),
            Form::Json => json::json(&timeline, note.as_deref()),
        };
        file.put(&text).map_err(|error| open_failure(file.path(), error))
    }
}
