//! The modules of the command-line tool, with an entry for each parser of what it is given and for
//! each printer of what others have a part in.
#![allow(dead_code, reason = "the tool's main function is not here")]

#[path = "../../src/cli/args.rs"]
mod args;
#[path = "../../src/cli/doctor/mod.rs"]
mod doctor;
#[path = "../../src/cli/exit.rs"]
mod exit;
#[path = "../../src/cli/forgotten.rs"]
mod forgotten;
#[path = "../../src/cli/late.rs"]
mod late;
#[path = "../../src/cli/options.rs"]
mod options;
#[path = "../../src/cli/place/mod.rs"]
mod place;
#[path = "../../src/cli/print/mod.rs"]
mod print;
#[path = "../../src/cli/ps.rs"]
mod ps;
#[path = "../../src/cli/run/mod.rs"]
mod run;
#[path = "../../src/cli/script.rs"]
mod script;
#[path = "../../src/cli/systemd.rs"]
mod systemd;
#[path = "../../src/cli/values.rs"]
mod values;
#[path = "../../src/cli/wait/mod.rs"]
mod wait;
#[path = "../../src/cli/with/mod.rs"]
mod with;
#[path = "../../src/cli/words.rs"]
mod words;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tidy_process::{IoLimit, Report};

use crate::args::{Cli, What};

/// The text in pieces; its last byte says how long each is. So any file is an input.
pub fn pieces(data: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]> + Clone) {
    let (length, text) = data.split_last().unwrap_or((&0, data));
    (text, text.chunks(usize::from(*length).max(1)))
}

pub type Parsed<T> = Result<T, String>;

pub fn duration(text: &str) -> Parsed<Duration> {
    values::duration(text)
}

pub fn size(text: &str) -> Parsed<u64> {
    values::size(text)
}

pub fn memory(text: &str) -> Parsed<u64> {
    values::memory(text)
}

pub fn cpus(text: &str) -> Parsed<f64> {
    values::cpus(text)
}

pub fn number(text: &str) -> Parsed<u64> {
    values::number(text)
}

pub fn weight(text: &str) -> Parsed<u64> {
    values::weight(text)
}

pub fn signal(text: &str) -> Parsed<i32> {
    values::signal(text)
}

pub fn io(text: &str) -> Parsed<(PathBuf, IoLimit)> {
    values::io(text)
}

pub fn variable(text: &OsStr) -> Parsed<(OsString, OsString)> {
    values::variable(text)
}

/// The port in a value of `--ready`; none if it is refused.
pub fn ready_port(word: &OsStr) -> Option<Option<u16>> {
    with::ready::ready_word(word).ok().map(|ready| ready.port())
}

/// A `run` that was understood, and the line that is proposed in its place.
pub struct Understood {
    pub command: Vec<OsString>,
    pub instead: Option<String>,
}

/// None for another subcommand; an error has its text.
pub fn run(argv: &[OsString]) -> Result<Option<Understood>, String> {
    match Cli::try_parse_from(argv).map_err(|error| error.render().to_string())?.what {
        What::Run(run) => {
            let meant = words::meant("run", &run.0.command);
            let instead = meant.map(|meant| words::line(argv, &run.0.command, &meant.words));
            Ok(Some(Understood { command: run.0.command, instead }))
        }
        _ => Ok(None),
    }
}

/// The line that is proposed where `run` was forgotten.
pub fn forgotten(argv: &[OsString]) -> Option<String> {
    forgotten::forgotten_run(argv)
}

/// The JSON of a report, as a value and as it is written.
pub fn json(command: &[OsString], name: &OsStr, report: &Report) -> (Value, String) {
    let subject = print::json::Subject { command, name: Some(name), servers: None };
    let mut value = subject.value(0);
    print::json::ended(&mut value, report);
    let text = print::json::text(&value);
    (value, text)
}
