//! Keeps the head and the tail of a text in bounded memory, and cuts texts into lines.

use std::collections::VecDeque;
use std::fmt;

/// The first and last part of a text, and how much was left out between them; see
/// [`Log::text`](crate::Log::text).
///
/// `Display` and `to_string` decode it and say what is missing. It is what the command wrote, byte
/// for byte: a terminal obeys it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Excerpt {
    /// The beginning; all there is where nothing was left out.
    pub head: Vec<u8>,
    /// How many bytes are missing.
    pub omitted_bytes: u64,
    /// The end; empty where nothing was left out.
    pub tail: Vec<u8>,
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.head))?;
        if self.omitted_bytes > 0 {
            write!(f, "\n[... {} bytes left out ...]\n", self.omitted_bytes)?;
        }
        f.write_str(&String::from_utf8_lossy(&self.tail))
    }
}

/// The head and the tail of a text, and what its waiting readers have not read yet.
#[derive(Debug)]
pub(crate) struct Memory {
    head: Vec<u8>,
    head_most: usize,
    tail: VecDeque<u8>,
    tail_most: usize,
    pub(crate) total: u64,
    taps: Vec<Tap>,
    tapped: u64,
}

/// What has come since a waiting reader read last.
#[derive(Debug)]
struct Tap {
    id: u64,
    bytes: Vec<u8>,
    missed: u64,
    /// Its reader has not read for too long: nothing waits for it.
    is_late: bool,
}

/// Bytes of a full tap: no more is taken from the pipe before its reader has read them.
const TAP: usize = 256 * 1024;

impl Memory {
    pub(crate) fn new(head_most: usize, tail_most: usize) -> Self {
        let (head, tail, taps) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { head, head_most, tail, tail_most, total: 0, taps, tapped: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        for tap in &mut self.taps {
            if tap.is_late && tap.bytes.len() >= TAP {
                tap.missed += std::mem::take(&mut tap.bytes).len() as u64;
            }
            tap.bytes.extend_from_slice(bytes);
        }
        let room = self.head_most.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        let kept = rest.get(rest.len().saturating_sub(self.tail_most)..).unwrap_or_default();
        let over = (self.tail.len() + kept.len()).saturating_sub(self.tail_most);
        self.tail.drain(..over.min(self.tail.len()));
        self.tail.extend(kept);
    }

    pub(crate) fn excerpt(&self) -> Excerpt {
        let kept = (self.head.len() + self.tail.len()) as u64;
        let tail = self.tail.iter().copied().collect();
        let omitted_bytes = self.total.saturating_sub(kept);
        let mut excerpt = Excerpt { head: self.head.clone(), omitted_bytes, tail };
        if excerpt.omitted_bytes == 0 {
            excerpt.head.append(&mut excerpt.tail);
        }
        excerpt
    }

    /// Returns the last bytes, `most` of them, as far as they are kept.
    pub(crate) fn last(&self, most: usize) -> Vec<u8> {
        let Excerpt { head, omitted_bytes, tail } = self.excerpt();
        let end = if omitted_bytes == 0 { head } else { tail };
        end.get(end.len().saturating_sub(most)..).unwrap_or_default().to_vec()
    }

    /// Opens a tap: it collects what comes from now on, and has at once what is kept from byte
    /// `start` on. Returns its number.
    pub(crate) fn tap(&mut self, start: u64) -> u64 {
        let missed = usize::try_from(self.total.saturating_sub(start)).unwrap_or(usize::MAX);
        self.tapped += 1;
        let kept: Vec<u8> = self.head.iter().chain(&self.tail).copied().collect();
        let from = kept.len().saturating_sub(missed);
        let bytes = kept.get(from..).unwrap_or_default().to_vec();
        self.taps.push(Tap { id: self.tapped, bytes, missed: 0, is_late: false });
        self.tapped
    }

    pub(crate) fn tapped(&mut self, tap: u64) -> Vec<u8> {
        let Some(tap) = self.taps.iter_mut().find(|each| each.id == tap) else {
            return Vec::new();
        };
        tap.is_late = false;
        std::mem::take(&mut tap.bytes)
    }

    /// Counts the bytes that the tap's reader will never see.
    pub(crate) fn missed(&self, tap: u64) -> u64 {
        self.taps.iter().find(|each| each.id == tap).map_or(0, |tap| tap.missed)
    }

    /// Whether no tap is full, except of late readers.
    pub(crate) fn has_room(&self) -> bool {
        self.taps.iter().all(|tap| tap.is_late || tap.bytes.len() < TAP)
    }

    /// Marks the readers of full taps as late: they miss what there is no room for.
    pub(crate) fn give_up_waiting(&mut self) {
        self.taps.iter_mut().for_each(|tap| tap.is_late |= tap.bytes.len() >= TAP);
    }

    pub(crate) fn untap(&mut self, tap: u64) {
        self.taps.retain(|each| each.id != tap);
    }
}

/// Bytes of a line; a longer one is handed on in pieces, since nothing bounds what a tree writes.
const LINE: usize = 64 * 1024;

/// Bytes cut into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) partial: Vec<u8>,
    /// Bytes at the end of a piece that open the next one too.
    overlap: usize,
}

impl Lines {
    /// Makes pieces that overlap, for a search: a text that the end of one piece cuts is whole in
    /// the next.
    pub(crate) fn overlapping() -> Self {
        Self { overlap: LINE / 2, ..Self::default() }
    }

    pub(crate) fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(&str)) {
        let lines = bytes.split_inclusive(|&byte| byte == b'\n');
        for piece in lines.flat_map(|line| line.chunks(LINE)) {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.finish(each);
            } else if self.partial.len() > LINE {
                let from = self.partial.len() - self.overlap;
                let kept = self.partial.get(from..).unwrap_or_default().to_vec();
                self.finish(each);
                self.partial = kept;
            }
        }
    }

    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(&str)) {
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            each(&String::from_utf8_lossy(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_head_and_the_tail_and_says_what_is_missing() {
        let mut memory = Memory::new(4, 4);
        memory.push(b"ab");
        assert_eq!(memory.excerpt().to_string(), "ab");
        memory.push(b"cdef");
        assert_eq!(
            (memory.excerpt().head.as_slice(), memory.excerpt().omitted_bytes),
            (&b"abcdef"[..], 0)
        );
        memory.push(b"ghijkl");
        let all = memory.excerpt();
        assert_eq!((&*all.head, all.omitted_bytes, &*all.tail), (&b"abcd"[..], 4, &b"ijkl"[..]));
        assert_eq!(all.to_string(), "abcd\n[... 4 bytes left out ...]\nijkl");
        assert_eq!(memory.last(3), b"jkl");
        memory.push(b"0123456789");
        assert_eq!(&*memory.excerpt().tail, b"6789");
        assert_eq!(memory.excerpt().omitted_bytes, 14);
    }

    #[test]
    fn a_tap_gets_what_was_kept_and_all_that_comes() {
        let mut memory = Memory::new(2, 2);
        memory.push(b"abcdef");
        let tap = memory.tap(5);
        memory.push(b"ghijk");
        assert_eq!(memory.tapped(tap), b"fghijk");
        assert_eq!(memory.tapped(tap), b"");
        memory.untap(tap);
        memory.push(b"x");
        assert_eq!(memory.tapped(tap), b"");
    }

    #[test]
    fn a_tap_that_is_not_read_is_bounded_and_says_what_it_misses() {
        let mut memory = Memory::new(2, 2);
        let tap = memory.tap(0);
        assert!(memory.has_room());
        memory.push(&[b'x'; TAP]);
        assert!(!memory.has_room());
        memory.give_up_waiting();
        assert_eq!((memory.has_room(), memory.missed(tap)), (true, 0));
        memory.push(b"y");
        assert_eq!((memory.tapped(tap), memory.missed(tap)), (b"y".to_vec(), TAP as u64));
        memory.push(&[b'x'; TAP]);
        assert!(!memory.has_room());
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes there")]
    fn a_line_without_end_is_searched_in_pieces_that_overlap() {
        let text = [&vec![b'x'; LINE - 2][..], b"READY", &[b'y'; 3 * LINE]].concat();
        for at_a_time in [1000, LINE - 1, LINE, LINE + 1, text.len()] {
            let (mut hits, mut longest) = (0, 0);
            let mut lines = Lines::overlapping();
            for bytes in text.chunks(at_a_time) {
                lines.push(bytes, &mut |line| {
                    hits += usize::from(line.contains("READY"));
                    longest = longest.max(line.len());
                });
            }
            assert!(hits > 0 && longest <= 2 * LINE, "{at_a_time}: {hits}, {longest}");
        }
    }

    #[test]
    fn lines_are_cut_where_they_end() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for bytes in [&b"on"[..], b"e\n\ntw", b"o\nthr", b"ee"] {
            lines.push(bytes, &mut |line| seen.push(line.to_owned()));
        }
        lines.finish(&mut |line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "", "two", "three"]);
    }
}
