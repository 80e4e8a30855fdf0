//! Output that waits for its turn, with `--keep-order`: in one file without a name, so that what a
//! slow command holds up costs neither memory nor open files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::pool::spool::Spool;
use crate::scratch::{each_piece, length};

/// More commands than these are not held up: no more are started then.
pub(crate) const MOST: usize = 10_000;

/// Where the streams of a command stand, and what begins each line of it.
pub(crate) struct Kept {
    pub(crate) tag: Option<Vec<u8>>,
    pub(crate) out: (u64, u64),
    pub(crate) err: (u64, u64),
}

pub(crate) struct Backlog {
    file: File,
    end: u64,
    waiting: BTreeMap<u64, Kept>,
    next: u64,
}

impl Backlog {
    pub(crate) fn new(file: File) -> Self {
        Self { file, end: 0, waiting: BTreeMap::new(), next: 0 }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether it is this one's turn; then the next one's comes.
    pub(crate) fn turn(&mut self, order: u64) -> bool {
        let is_next = order == self.next;
        self.next += u64::from(is_next);
        is_next
    }

    pub(crate) fn keep(
        &mut self,
        order: u64,
        tag: Option<Vec<u8>>,
        spool: Option<&Spool>,
    ) -> io::Result<()> {
        let out = spool.map_or(Ok((0, 0)), |spool| self.copy(&spool.out))?;
        let err = spool.map_or(Ok((0, 0)), |spool| self.copy(&spool.err))?;
        self.waiting.insert(order, Kept { tag, out, err });
        Ok(())
    }

    fn copy(&mut self, from: &File) -> io::Result<(u64, u64)> {
        let begin = self.end;
        each_piece(from, (0, length(from)), |piece| {
            self.file.write_all_at(piece, self.end)?;
            self.end += piece.len() as u64;
            Ok(())
        })?;
        Ok((begin, self.end - begin))
    }

    /// The one whose turn it is, if it waits.
    pub(crate) fn due(&mut self) -> Option<Kept> {
        let kept = self.waiting.remove(&self.next)?;
        self.next += 1;
        Some(kept)
    }

    /// The next one of those that wait, though what comes before it never will.
    pub(crate) fn skip_to_next(&mut self) -> bool {
        let first = self.waiting.keys().next().copied();
        self.next = first.unwrap_or(self.next);
        first.is_some()
    }

    /// Gives the disk back what was printed.
    pub(crate) fn forget(&mut self, kept: &Kept) -> io::Result<()> {
        if self.waiting.is_empty() {
            self.end = 0;
            return self.file.set_len(0);
        }
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        for (at, length) in [kept.out, kept.err] {
            if let (Ok(at), Ok(length @ 1..)) = (i64::try_from(at), i64::try_from(length)) {
                // A file system without holes keeps it until nothing waits.
                let _ = fallocate(&self.file, hole, at, length);
            }
        }
        Ok(())
    }
}
