//! What is kept of a text in bounded memory, and its lines.

use std::collections::VecDeque;
use std::fmt;

/// `Display` and `to_string` decode it and say what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Excerpt {
    /// The beginning; all there is where nothing was left out.
    pub head: Vec<u8>,
    /// How many bytes are missing.
    pub omitted: u64,
    /// The end; empty where nothing was left out.
    pub tail: Vec<u8>,
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.head))?;
        if self.omitted > 0 {
            write!(f, "\n[... {} bytes left out ...]\n", self.omitted)?;
        }
        f.write_str(&String::from_utf8_lossy(&self.tail))
    }
}

/// The head and the tail of a text, and whoever waits for more of it.
#[derive(Debug)]
pub(crate) struct Memory {
    head: Vec<u8>,
    head_most: usize,
    tail: VecDeque<u8>,
    tail_most: usize,
    pub(crate) total: u64,
    taps: Vec<(u64, Vec<u8>)>,
    tapped: u64,
}

impl Memory {
    pub(crate) fn new(head_most: usize, tail_most: usize) -> Self {
        let (head, tail, taps) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { head, head_most, tail, tail_most, total: 0, taps, tapped: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        for (_, tap) in &mut self.taps {
            tap.extend_from_slice(bytes);
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
        let mut excerpt = Excerpt { head: self.head.clone(), omitted: self.total - kept, tail };
        if excerpt.omitted == 0 {
            excerpt.head.append(&mut excerpt.tail);
        }
        excerpt
    }

    /// The last bytes, as far as they are kept.
    pub(crate) fn last(&self, most: usize) -> Vec<u8> {
        let Excerpt { head, omitted, tail } = self.excerpt();
        let end = if omitted == 0 { head } else { tail };
        end.get(end.len().saturating_sub(most)..).unwrap_or_default().to_vec()
    }

    /// Collects what comes from now on, and what is kept of it from `start` on.
    pub(crate) fn tap(&mut self, start: u64) -> u64 {
        let missed = usize::try_from(self.total.saturating_sub(start)).unwrap_or(usize::MAX);
        self.tapped += 1;
        let kept: Vec<u8> = self.head.iter().chain(&self.tail).copied().collect();
        let from = kept.len().saturating_sub(missed);
        self.taps.push((self.tapped, kept.get(from..).unwrap_or_default().to_vec()));
        self.tapped
    }

    pub(crate) fn tapped(&mut self, tap: u64) -> Vec<u8> {
        let found = self.taps.iter_mut().find(|(id, _)| *id == tap);
        found.map(|(_, bytes)| std::mem::take(bytes)).unwrap_or_default()
    }

    pub(crate) fn untap(&mut self, tap: u64) {
        self.taps.retain(|(id, _)| *id != tap);
    }
}

/// A line that is longer than this is handed on in pieces: nobody bounds what a tree writes.
const LINE: usize = 64 * 1024;

/// Bytes cut into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) partial: Vec<u8>,
}

impl Lines {
    pub(crate) fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(&str)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() > LINE {
                self.finish(each);
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
            (memory.excerpt().head.as_slice(), memory.excerpt().omitted),
            (&b"abcdef"[..], 0)
        );
        memory.push(b"ghijkl");
        let all = memory.excerpt();
        assert_eq!((&*all.head, all.omitted, &*all.tail), (&b"abcd"[..], 4, &b"ijkl"[..]));
        assert_eq!(all.to_string(), "abcd\n[... 4 bytes left out ...]\nijkl");
        assert_eq!(memory.last(3), b"jkl");
        memory.push(b"0123456789");
        assert_eq!(&*memory.excerpt().tail, b"6789");
        assert_eq!(memory.excerpt().omitted, 14);
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
