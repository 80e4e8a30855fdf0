//! The commands, one after the other: lines for sh, or a template filled with arguments. The first
//! input is read as commands are wanted; of a second one every argument is used again and again, so
//! that one is held in memory.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::pool::input::{Input, Record};
use crate::pool::template::{Filling, Template};
use crate::words::typed;

/// No exec takes more bytes of arguments, each of which has a NUL and a pointer too (execve(2)).
const MOST_ARGUMENTS: usize = 6 << 20;
const POINTER: usize = 9;

/// Bytes that are held of an input, with what each argument costs besides.
const HELD: usize = 256 << 20;
const COST: usize = 40;

/// Where arguments come from.
pub(crate) enum Origin {
    /// What follows `:::`.
    Words(Vec<OsString>),
    File(File),
}

/// The arguments of one command, or its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args(pub(crate) Vec<Vec<u8>>);

/// What is to be run next.
pub(crate) enum Upcoming {
    Is(Args),
    NotYet,
    End,
}

pub(crate) struct Source {
    first: First,
    /// How many arguments of the first one a command has.
    at_once: usize,
    gathered: Vec<Vec<u8>>,
    /// Bytes of those, as exec counts them.
    length: usize,
    others: Vec<Vec<Vec<u8>>>,
    /// The arguments that are combined now with those of the others, and the combination.
    current: Option<Vec<Vec<u8>>>,
    places: Vec<usize>,
    skips_blank: bool,
    is_over: bool,
}

enum First {
    Words(std::vec::IntoIter<OsString>),
    Input(Input),
}

impl Source {
    pub(crate) fn new(
        origins: Vec<Origin>,
        delimiter: u8,
        at_once: usize,
        skips_blank: bool,
    ) -> io::Result<Self> {
        let mut origins = origins.into_iter();
        let first = match origins.next() {
            Some(Origin::File(file)) => First::Input(Input::new(file, delimiter)),
            Some(Origin::Words(words)) => First::Words(words.into_iter()),
            None => First::Words(Vec::new().into_iter()),
        };
        let others =
            origins.map(|origin| held(origin, delimiter)).collect::<io::Result<Vec<_>>>()?;
        let places = vec![0; others.len()];
        let (gathered, length, current) = (Vec::new(), 0, None);
        let is_over = others.iter().any(Vec::is_empty);
        Ok(Self { first, at_once, gathered, length, others, current, places, skips_blank, is_over })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// What to poll for more.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.first {
            First::Input(input) => Some(input.as_fd()),
            First::Words(_) => None,
        }
    }

    /// Waits until there may be more, or until this has news.
    pub(crate) fn wait(&self, news: BorrowedFd<'_>) -> io::Result<()> {
        let all = self.fd().into_iter().chain([news]);
        let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(crate) fn next(&mut self) -> io::Result<Upcoming> {
        if self.is_over {
            return Ok(Upcoming::End);
        }
        if self.current.is_none() {
            match self.gather()? {
                Upcoming::Is(Args(args)) => self.current = Some(args),
                other => {
                    self.is_over |= matches!(other, Upcoming::End);
                    return Ok(other);
                }
            }
        }
        let mut args = self.current.clone().unwrap_or_default();
        let others = self.others.iter().zip(&self.places);
        args.extend(others.filter_map(|(all, &place)| all.get(place).cloned()));
        self.advance();
        Ok(Upcoming::Is(Args(args)))
    }

    /// Goes to the next combination: the last one changes fastest.
    fn advance(&mut self) {
        for (place, all) in self.places.iter_mut().zip(&self.others).rev() {
            *place += 1;
            if *place < all.len() {
                return;
            }
            *place = 0;
        }
        self.current = None;
    }

    /// As many arguments of the first input as a command has; fewer at its end.
    fn gather(&mut self) -> io::Result<Upcoming> {
        while self.gathered.len() < self.at_once {
            if self.length > MOST_ARGUMENTS {
                let why =
                    format!("the arguments of a command are longer than {MOST_ARGUMENTS} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            let record = match &mut self.first {
                First::Words(words) => {
                    words.next().map_or(Record::End, |word| Record::Is(word.into_vec()))
                }
                First::Input(input) => input.next()?,
            };
            match record {
                Record::Is(record) if self.skips_blank && is_blank(&record) => {}
                Record::Is(record) => {
                    self.length += record.len() + POINTER;
                    self.gathered.push(record);
                }
                Record::NotYet => return Ok(Upcoming::NotYet),
                Record::End if self.gathered.is_empty() => return Ok(Upcoming::End),
                Record::End => break,
            }
        }
        self.length = 0;
        Ok(Upcoming::Is(Args(std::mem::take(&mut self.gathered))))
    }
}

/// A line that is no command.
pub(crate) fn is_blank(record: &[u8]) -> bool {
    record.iter().all(u8::is_ascii_whitespace)
}

/// All that it has.
fn held(origin: Origin, delimiter: u8) -> io::Result<Vec<Vec<u8>>> {
    match origin {
        Origin::Words(words) => Ok(words.into_iter().map(OsString::into_vec).collect()),
        Origin::File(file) => {
            let (mut input, mut all, mut length) = (Input::new(file, delimiter), Vec::new(), 0);
            loop {
                match input.next()? {
                    Record::Is(record) => {
                        length += record.len() + COST;
                        if length > HELD {
                            let why =
                                "only the first input may be so long: others are held in memory";
                            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                        }
                        all.push(record);
                    }
                    Record::End => return Ok(all),
                    Record::NotYet => {
                        let why = "only the first input may be a pipe that is written meanwhile";
                        return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
                    }
                }
            }
        }
    }
}

/// What a command is made of.
pub(crate) enum Recipe {
    /// The line itself, for sh.
    Line,
    Template(Template),
}

impl Recipe {
    pub(crate) fn words(&self, args: &Args, number: u64, slot: usize) -> Vec<OsString> {
        match self {
            Self::Line => {
                let line = args.0.first().cloned().unwrap_or_default();
                vec!["/bin/sh".into(), "-c".into(), OsString::from_vec(line)]
            }
            Self::Template(template) => template.fill(&Filling { args: &args.0, number, slot }),
        }
    }

    pub(crate) fn has_slot(&self) -> bool {
        matches!(self, Self::Template(template) if template.has_slot())
    }

    /// As it is written in logs.
    pub(crate) fn text(&self, words: &[OsString]) -> Vec<u8> {
        match (self, words) {
            (Self::Line, [_, _, line]) => line.as_bytes().to_vec(),
            (Self::Template(template), [_, _, line]) if template.is_line() => {
                line.as_bytes().to_vec()
            }
            _ => typed(words).into_bytes(),
        }
    }
}

/// The command, and what follows each `:::`.
pub(crate) fn split(words: &[OsString]) -> (Vec<OsString>, Vec<Origin>) {
    let mut parts = words.split(|word| word == ":::");
    let command = parts.next().unwrap_or_default().to_vec();
    (command, parts.map(|part| Origin::Words(part.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Origin {
        Origin::Words(words.iter().map(OsString::from).collect())
    }

    fn all(origins: Vec<Origin>, at_once: usize) -> io::Result<Vec<String>> {
        let mut source = Source::new(origins, b'\n', at_once, false)?;
        let mut all = Vec::new();
        while let Upcoming::Is(Args(args)) = source.next()? {
            let args: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
            all.push(args.join("-"));
        }
        assert!(source.is_over());
        Ok(all)
    }

    #[test]
    fn several_inputs_make_every_combination_the_last_one_first() -> io::Result<()> {
        let origins = vec![words(&["a", "b"]), words(&["1", "2"]), words(&["x"])];
        assert_eq!(all(origins, 1)?, ["a-1-x", "a-2-x", "b-1-x", "b-2-x"]);
        assert!(all(vec![words(&["a"]), words(&[])], 1)?.is_empty());
        Ok(())
    }

    #[test]
    fn several_arguments_make_one_command() -> io::Result<()> {
        assert_eq!(all(vec![words(&["a", "b", "c"])], 2)?, ["a-b", "c"]);
        assert!(all(Vec::new(), 1)?.is_empty());
        Ok(())
    }

    #[test]
    fn what_follows_three_colons_are_arguments() -> io::Result<()> {
        let line: Vec<OsString> = ["c", "{}", ":::", "a", ":::", "b"].map(Into::into).into();
        let (command, origins) = split(&line);
        assert_eq!(command, ["c", "{}"]);
        assert_eq!(all(origins, 1)?, ["a-b"]);
        Ok(())
    }
}
