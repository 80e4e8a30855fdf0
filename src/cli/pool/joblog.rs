//! The log of GNU parallel: a line for each command, read back by `--resume`, ours and its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::time::{Duration, SystemTime};

use crate::pool::input::{Input, Record};

const HEADER: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

/// What a line says.
pub(crate) struct Row<'a> {
    pub(crate) number: u64,
    pub(crate) start: SystemTime,
    pub(crate) wall: Duration,
    pub(crate) received: u64,
    pub(crate) exit: i32,
    pub(crate) signal: i32,
    pub(crate) command: &'a [u8],
}

impl Row<'_> {
    pub(crate) fn line(&self) -> Vec<u8> {
        let start = self.start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (start, wall) = (start.as_secs_f64(), self.wall.as_secs_f64());
        let Self { number, received, exit, signal, .. } = self;
        let line =
            format!("{number}\t:\t{start:.3}\t{wall:10.3}\t0\t{received}\t{exit}\t{signal}\t");
        // A line's end would make two of it, as parallel has it.
        let command = self.command.iter().map(|&byte| if byte == b'\n' { 0 } else { byte });
        line.into_bytes().into_iter().chain(command).chain([b'\n']).collect()
    }
}

/// Numbers, as ranges of them: those of a log that is whole are one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers(BTreeMap<u64, u64>);

impl Numbers {
    pub(crate) fn has(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, &last)| number <= last)
    }

    /// How many of them are from 1 to `last`.
    pub(crate) fn up_to(&self, last: u64) -> u64 {
        let count =
            |(first, end): (&u64, &u64)| Some(last.min(*end).checked_sub(*first.max(&1))? + 1);
        self.0.range(..=last).filter_map(count).sum()
    }

    pub(crate) fn add(&mut self, number: u64) {
        if self.has(number) {
            return;
        }
        let (mut first, mut last) = (number, number);
        if let Some((&start, &end)) = self.0.range(..number).next_back()
            && end + 1 == number
        {
            first = start;
        }
        if let Some(end) = number.checked_add(1).and_then(|next| self.0.remove(&next)) {
            last = end;
        }
        self.0.insert(first, last);
    }
}

/// What a log has.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) done: Numbers,
    /// What is to be written before the next line: a header, or the end of one that was cut.
    pub(crate) begin: &'static str,
    /// Lines that are none of a log.
    pub(crate) odd: usize,
}

/// Reads a log; `only_well` leaves out commands that have failed.
pub(crate) fn read(file: &File, only_well: bool) -> io::Result<Log> {
    let mut log = Log { begin: HEADER, ..Log::default() };
    // A command line may be longer than a line of an input.
    let mut input = Input::of_heads(file.try_clone()?, b'\n');
    loop {
        match input.next()? {
            Record::Is(line) => {
                log.begin = "";
                match number(&line, only_well) {
                    Some(Some(number)) => log.done.add(number),
                    Some(None) => {}
                    None => log.odd += usize::from(!line.starts_with(b"Seq\t")),
                }
            }
            Record::End => break,
            Record::NotYet => return Err(ErrorKind::WouldBlock.into()),
        }
    }
    if input.lacks_end() {
        log.begin = "\n";
    }
    Ok(log)
}

/// The number of a line; none inside for one that does not count. A line that was cut has too few
/// columns, and its number may be cut too.
fn number(line: &[u8], only_well: bool) -> Option<Option<u64>> {
    let mut columns = line.splitn(9, |&byte| byte == b'\t');
    let text = |column: &[u8]| std::str::from_utf8(column).ok()?.trim().parse::<i64>().ok();
    let number = u64::try_from(text(columns.next()?)?).ok()?;
    let mut columns = columns.skip(5);
    let (exit, signal) = (text(columns.next()?)?, text(columns.next()?)?);
    columns.next()?;
    Some((!only_well || (exit, signal) == (0, 0)).then_some(number))
}

pub(crate) const fn header() -> &'static str {
    HEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_as_ranges() {
        let mut numbers = Numbers::default();
        for number in [3, 1, 2, 7, 2, u64::MAX] {
            numbers.add(number);
        }
        assert_eq!(numbers.0, BTreeMap::from([(1, 3), (7, 7), (u64::MAX, u64::MAX)]));
        assert_eq!([0, 1, 3, 6, 7, 9].map(|last| numbers.up_to(last)), [0, 1, 3, 3, 4, 4]);
        assert_eq!(numbers.up_to(u64::MAX), 5);
        assert!(numbers.has(2) && numbers.has(7) && !numbers.has(4) && !numbers.has(0));
    }

    #[test]
    fn a_line_of_the_log_is_read_and_a_cut_one_is_none() {
        let row = Row {
            number: 12,
            start: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            wall: Duration::from_millis(20),
            received: 4,
            exit: 3,
            signal: 0,
            command: b"a\nb\tc",
        };
        let line = row.line();
        assert_eq!(line, b"12\t:\t1.500\t     0.020\t0\t4\t3\t0\ta\0b\tc\n");
        let line = line.strip_suffix(b"\n").unwrap_or_default();
        assert_eq!((number(line, false), number(line, true)), (Some(Some(12)), Some(None)));
        for cut in 0..line.len() - 5 {
            assert_eq!(number(line.get(..cut).unwrap_or_default(), false), None, "{cut}");
        }
        assert_eq!(number(b"Seq\tHost", false), None);
    }
}
