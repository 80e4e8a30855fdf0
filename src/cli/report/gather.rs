//! Reads reports that others may have written: bounded in depth, number, length and nesting, and no
//! link is followed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;
use tidy_process::cli_support::{quoted, shortened};

use crate::exit::{Failure, open_failure};
use crate::scratch::{directory, length};
use crate::words::typed;

/// Directories below each other.
const DEPTH: usize = 16;

/// Entries of one directory, and files in all.
const ENTRIES: usize = 1_000_000;

/// Bytes of one report: a line.
const LINE: u64 = 4 << 20;

/// Commands that are told apart.
pub(crate) const COMMANDS: usize = 2_000;

/// Characters of a command line.
const NAME: usize = 300;

/// Values of which a median is taken; of more, every other one is kept.
const SAMPLES: usize = 4096;

/// Leftovers that are named of one command.
const LEFT: usize = 5;

#[derive(Default)]
pub(crate) struct Found {
    pub(crate) commands: BTreeMap<String, Command>,
    pub(crate) runs: u64,
    /// Runs of commands beyond those that are told apart.
    pub(crate) others: u64,
    pub(crate) files: usize,
    /// Lines that are no report, and files that cannot be read.
    pub(crate) odd: u64,
}

#[derive(Default)]
pub(crate) struct Command {
    pub(crate) runs: u64,
    pub(crate) failed: u64,
    /// Runs that came out otherwise than the one before.
    pub(crate) flips: u64,
    was_well: Option<bool>,
    pub(crate) walls: Samples,
    pub(crate) cpu: Samples,
    pub(crate) peak: Option<u64>,
    pub(crate) leaking: u64,
    pub(crate) left: Vec<String>,
    /// How it ended, where not well: each with its number.
    pub(crate) causes: BTreeMap<String, u64>,
}

/// A sample of values, in constant memory.
#[derive(Default)]
pub(crate) struct Samples {
    kept: Vec<f64>,
    /// One in 2^this is kept.
    thinned: u32,
    seen: u64,
}

impl Samples {
    fn add(&mut self, value: f64) {
        if self.seen.is_multiple_of(1 << self.thinned) {
            self.kept.push(value);
        }
        self.seen += 1;
        if self.kept.len() >= SAMPLES {
            let mut place = 0;
            self.kept.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.thinned += 1;
        }
    }

    /// The value that this share of them is not above.
    pub(crate) fn quantile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.kept.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len().saturating_sub(1)) * percent / 100).copied()
    }
}

/// `comes`: whether a signal asks to end.
pub(crate) fn gather(
    dir: &Path,
    comes: impl Fn() -> nix::Result<Option<Signal>>,
) -> Result<Found, Failure> {
    let mut found = Found::default();
    let top = Level::of(directory(dir)?).map_err(|errno| open_failure(dir, errno.into()))?;
    let mut levels = vec![top];
    let stopped = |signal| Failure::OpenStopped { path: format!("{dir:?}"), signal };
    while let Some(level) = levels.last_mut() {
        if let Some(signal) = comes()? {
            return Err(stopped(signal));
        }
        let Some(name) = level.names.next() else {
            levels.pop();
            continue;
        };
        match open_entry(&level.dir, &name) {
            Some(Entry::Directory(fd)) => match Level::of(fd) {
                Ok(below) if levels.len() <= DEPTH => levels.push(below),
                _ => found.odd += 1,
            },
            Some(Entry::Report(file)) if found.files < ENTRIES => {
                if let Some(signal) = found.read(file, &comes)? {
                    return Err(stopped(signal));
                }
            }
            Some(_) => found.odd += 1,
            None => {}
        }
    }
    Ok(found)
}

/// A directory, and what of it is still to be read. One is open for each level: a pool has made one
/// for each of its commands, more than a process may have open.
struct Level {
    dir: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
}

impl Level {
    fn of(dir: OwnedFd) -> nix::Result<Self> {
        let names = names(&dir)?.into_iter();
        Ok(Self { dir, names })
    }
}

/// In order, so that the same directory makes the same page.
fn names(dir: &OwnedFd) -> nix::Result<Vec<Vec<u8>>> {
    let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(dir.as_fd(), ".", how, Mode::empty())?;
    let names = dir.iter().flatten().map(|entry| entry.file_name().to_bytes().to_vec());
    let mut names: Vec<_> =
        names.filter(|name| name != b"." && name != b"..").take(ENTRIES).collect();
    names.sort();
    Ok(names)
}

enum Entry {
    Directory(OwnedFd),
    Report(File),
    Unreadable,
}

/// Opens without blocking on a FIFO, and without following a link.
fn open_entry(dir: &OwnedFd, name: &[u8]) -> Option<Entry> {
    let below = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(dir.as_fd(), name, below, Mode::empty()) {
        Ok(fd) => return Some(Entry::Directory(fd)),
        Err(Errno::ENOTDIR | Errno::ELOOP | Errno::ENOENT) => {}
        // It may be one.
        Err(_) => return Some(Entry::Unreadable),
    }
    let endings: [&[u8]; 3] = [b".json", b".jsonl", b".ndjson"];
    if !endings.iter().any(|ending| name.ends_with(ending)) {
        return None;
    }
    let how = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(dir.as_fd(), name, how | OFlag::O_NOCTTY, Mode::empty()).map(File::from);
    let is_file = |file: &File| file.metadata().is_ok_and(|data| data.is_file());
    Some(file.ok().filter(is_file).map_or(Entry::Unreadable, Entry::Report))
}

impl Found {
    /// One line after the other; the file may be of any length, or grow. Returns the signal that
    /// asks to end, if one comes meanwhile.
    fn read(
        &mut self,
        file: File,
        comes: &impl Fn() -> nix::Result<Option<Signal>>,
    ) -> nix::Result<Option<Signal>> {
        self.files += 1;
        let length = length(&file);
        let mut reader = BufReader::new(file.take(length));
        let mut line = Vec::new();
        loop {
            if let Some(signal) = comes()? {
                return Ok(Some(signal));
            }
            line.clear();
            match reader.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(0) => return Ok(None),
                Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(_) => match serde_json::from_slice(&line) {
                    Ok(value) => self.note(&value),
                    Err(_) => self.odd += 1,
                },
                Err(_) => {
                    self.odd += 1;
                    return Ok(None);
                }
            }
        }
    }

    fn note(&mut self, value: &Value) {
        let event = value.get("event").and_then(Value::as_str);
        let exit = value.get("exit").and_then(Value::as_u64);
        let name = value.get("command").and_then(command);
        match (event, exit, name) {
            (Some("started" | "over"), ..) => {}
            (None | Some("ended"), Some(exit), Some(name)) => {
                self.runs += 1;
                if self.commands.len() >= COMMANDS && !self.commands.contains_key(&name) {
                    self.others += 1;
                } else {
                    self.commands.entry(name).or_default().note(value, exit);
                }
            }
            _ => self.odd += 1,
        }
    }
}

/// A command line, as it is typed.
fn command(words: &Value) -> Option<String> {
    let words = words.as_array().filter(|words| !words.is_empty())?;
    let words = words.iter().map(|word| word.as_str().map(Into::into));
    let words = words.collect::<Option<Vec<std::ffi::OsString>>>()?;
    let line = match words.as_slice() {
        [sh, c, line] if sh == "/bin/sh" && c == "-c" => line.to_string_lossy().into_owned(),
        words => typed(words),
    };
    Some(shortened(&quoted(&line), NAME))
}

impl Command {
    fn note(&mut self, value: &Value, exit: u64) {
        let is_well = exit == 0;
        self.runs += 1;
        self.failed += u64::from(!is_well);
        self.flips += u64::from(self.was_well.is_some_and(|was_well| was_well != is_well));
        self.was_well = Some(is_well);
        let seconds = |of: &Value, key: &str| of.get(key).and_then(Value::as_f64);
        seconds(value, "wall_seconds").into_iter().for_each(|wall| self.walls.add(wall));
        if let Some(usage) = value.get("usage") {
            let cpu = seconds(usage, "user_seconds").zip(seconds(usage, "system_seconds"));
            cpu.into_iter().for_each(|(user, system)| self.cpu.add(user + system));
            let peak = usage.get("memory_peak_bytes").and_then(Value::as_u64);
            self.peak = self.peak.max(peak);
        }
        if !is_well {
            let cause = value.get("cause").and_then(Value::as_str).unwrap_or("not started");
            let cause = match cause {
                "exited" => format!("exit status {exit}"),
                cause => shortened(&quoted(cause), 30),
            };
            if self.causes.len() < LEFT || self.causes.contains_key(&cause) {
                *self.causes.entry(cause).or_default() += 1;
            }
        }
        self.note_left(value);
    }

    fn note_left(&mut self, value: &Value) {
        let count = value.get("leftover_count").and_then(Value::as_u64).unwrap_or(0);
        self.leaking += u64::from(count > 0);
        let left = value.get("leftovers").and_then(Value::as_array);
        for process in left.into_iter().flatten().take(LEFT) {
            let name = process.get("command").and_then(command);
            let name = name.or_else(|| process.get("name")?.as_str().map(quoted));
            let name = shortened(&name.unwrap_or_else(|| "?".to_owned()), 120);
            if self.left.len() < LEFT && !self.left.contains(&name) {
                self.left.push(name);
            }
        }
    }

    pub(crate) fn is_flaky(&self) -> bool {
        self.failed > 0 && self.failed < self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_many_needs_few() {
        let mut samples = Samples::default();
        (0..1_000_000_u32).for_each(|value| samples.add(f64::from(value)));
        assert!(samples.kept.len() < SAMPLES);
        let median = samples.quantile(50).unwrap_or_default();
        assert!((490_000.0..510_000.0).contains(&median), "{median}");
        assert_eq!(Samples::default().quantile(50), None);
    }
}
