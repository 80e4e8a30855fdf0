//! Records of a file, a pipe or a terminal, read as they come.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// No argument of exec is longer (MAX_ARG_STRLEN).
pub(crate) const LONGEST: usize = 128 << 10;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Of a record whose middle is left out no more than this is: no command line is longer, however
/// it is quoted.
const LEFT_OUT: usize = 64 << 20;

/// What comes next of an input.
pub(crate) enum Record {
    Is(Vec<u8>),
    /// Nothing yet: there is no end, and nothing to read.
    NotYet,
    End,
}

pub(crate) struct Input {
    file: File,
    delimiter: u8,
    buffer: Vec<u8>,
    /// Where the next record begins in the buffer, and up to where it has no delimiter.
    at: usize,
    searched: usize,
    is_over: bool,
    /// Whether of a record that is too long the middle is left out.
    cuts: bool,
    /// How much was left out of the record that is read now.
    left_out: usize,
    /// Whether the last record had no end.
    lacks_end: bool,
}

impl Input {
    pub(crate) fn new(file: File, delimiter: u8) -> Self {
        let (buffer, at, searched, is_over) = (Vec::new(), 0, 0, false);
        let (cuts, left_out, lacks_end) = (false, 0, false);
        Self { file, delimiter, buffer, at, searched, is_over, cuts, left_out, lacks_end }
    }

    /// One of which only the beginning of each record matters, however long that is.
    pub(crate) fn of_heads(file: File, delimiter: u8) -> Self {
        Self { cuts: true, ..Self::new(file, delimiter) }
    }

    /// Whether the last record that was read had no end.
    pub(crate) fn lacks_end(&self) -> bool {
        self.lacks_end
    }

    /// The next record, without its end; never blocks.
    pub(crate) fn next(&mut self) -> io::Result<Record> {
        loop {
            if let Some(record) = self.buffered() {
                return Ok(Record::Is(record));
            }
            if self.cuts && self.left_out < LEFT_OUT && self.buffer.len() - self.at > PIECE {
                self.left_out += self.buffer.len() - self.at - PIECE;
                self.buffer.truncate(self.at + PIECE);
                self.searched = self.buffer.len();
            }
            if self.buffer.len() - self.at > LONGEST {
                let why = format!("a line is longer than {LONGEST} bytes");
                return Err(io::Error::new(ErrorKind::InvalidData, why));
            }
            if self.is_over {
                return Ok(self.last());
            }
            if !is_readable(self.file.as_fd())? {
                return Ok(Record::NotYet);
            }
            self.read()?;
        }
    }

    fn buffered(&mut self) -> Option<Vec<u8>> {
        let rest = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| byte == self.delimiter) else {
            self.searched = self.buffer.len();
            return None;
        };
        let end = self.searched + length;
        let record = self.buffer.get(self.at..end).unwrap_or_default().to_vec();
        (self.at, self.searched, self.left_out) = (end + 1, end + 1, 0);
        Some(record)
    }

    /// What stands before the end without a delimiter.
    fn last(&mut self) -> Record {
        let rest = self.buffer.split_off(self.at.min(self.buffer.len()));
        self.buffer.clear();
        (self.at, self.searched) = (0, 0);
        self.lacks_end |= !rest.is_empty();
        if rest.is_empty() { Record::End } else { Record::Is(rest) }
    }

    fn read(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.at);
        (self.at, self.searched) = (0, self.searched - self.at);
        let before = self.buffer.len();
        self.buffer.resize(before + PIECE, 0);
        let read = self.file.read(self.buffer.get_mut(before..).unwrap_or_default());
        let count = match read {
            Ok(count) => {
                self.is_over = count == 0;
                count
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                0
            }
            Err(error) => {
                self.buffer.truncate(before);
                return Err(error);
            }
        };
        self.buffer.truncate(before + count);
        Ok(())
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a read would not block now.
fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn records(text: &[u8], delimiter: u8) -> io::Result<Vec<Vec<u8>>> {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(text)?;
        drop(writer);
        let mut input = Input::new(File::from(std::os::fd::OwnedFd::from(reader)), delimiter);
        let mut all = Vec::new();
        while let Ok(Record::Is(record)) = input.next() {
            all.push(record);
        }
        Ok(all)
    }

    #[test]
    fn records_are_bytes_and_the_last_one_needs_no_end() -> io::Result<()> {
        assert_eq!(records(b"a\n\nb\xff", b'\n')?, [&b"a"[..], b"", b"b\xff"]);
        assert_eq!(records(b"a\nb\0c\0", 0)?, [&b"a\nb"[..], b"c"]);
        assert!(records(b"", b'\n')?.is_empty());
        Ok(())
    }

    #[test]
    fn a_record_without_end_is_refused() -> io::Result<()> {
        let (reader, _writer) = io::pipe()?;
        let mut input = Input::new(File::from(std::os::fd::OwnedFd::from(reader)), b'\n');
        assert!(matches!(input.next(), Ok(Record::NotYet)));
        assert!(Input::new(File::open("/dev/zero")?, b'\n').next().is_err());
        assert!(Input::of_heads(File::open("/dev/zero")?, b'\n').next().is_err());
        Ok(())
    }
}
