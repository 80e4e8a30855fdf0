//! Finds the memory that a process needs no more once it only makes system calls, from
//! `/proc/PID/maps`. As in `proc/walk.rs` nothing here allocates or panics.

use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::OFlag;

use crate::proc::walk::{open, open_at, read};

/// The least bytes worth a system call.
const WORTH: usize = 1 << 20;

/// Calls `see` with start and length of each mapping that may be unmapped: large, private,
/// writable, of no file, not behind a file's (that is the zeroed part of a program's own data), and
/// without any of the used addresses in it.
pub(crate) fn each_idle(
    proc: BorrowedFd<'_>,
    pid: i32,
    used: [usize; 2],
    see: &mut dyn FnMut(usize, usize),
) {
    let maps = open(proc, pid).and_then(|dir| open_at(&dir, c"maps", OFlag::empty()));
    let Some(maps) = maps else { return };
    let mut buffer = [0; 1024];
    let mut line = MapsLine::new();
    let mut end_of_file = 0;
    while let Some(text) = read(maps.as_fd(), &mut buffer) {
        for &byte in text {
            let Some(Map { start, end, writable, has_file }) = line.push(byte) else { continue };
            let len = end.saturating_sub(start);
            let idle = writable && !has_file && start != end_of_file && len >= WORTH;
            if idle && !used.iter().any(|address| (start..end).contains(address)) {
                see(start, len);
            }
            if has_file {
                end_of_file = end;
            }
        }
    }
}

pub(crate) struct Map {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// And private.
    pub(crate) writable: bool,
    pub(crate) has_file: bool,
}

/// The beginning of a line.
pub(crate) struct MapsLine {
    text: [u8; 128],
    len: usize,
}

impl MapsLine {
    pub(crate) fn new() -> Self {
        Self { text: [0; 128], len: 0 }
    }

    /// Takes one byte; at a line's end returns what the line says.
    pub(crate) fn push(&mut self, byte: u8) -> Option<Map> {
        if byte != b'\n' {
            if let Some(place) = self.text.get_mut(self.len) {
                *place = byte;
                self.len = self.len.saturating_add(1);
            }
            return None;
        }
        let map = self.text.get(..self.len).and_then(map);
        self.len = 0;
        map
    }
}

/// `START-END rw-p OFFSET DEVICE INODE   PATH`; a path may also be `[heap]`, or missing.
fn map(line: &[u8]) -> Option<Map> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut range = fields.next()?.split(|&byte| byte == b'-');
    let (start, end) = (hex(range.next()?)?, hex(range.next()?)?);
    let writable = matches!(fields.next()?, [_, b'w', _, b'p']);
    let path = fields.nth(3).unwrap_or_default();
    let path = path.trim_ascii_start();
    let has_file = !(path.is_empty() || path == b"[heap]");
    Some(Map { start, end, writable, has_file })
}

fn hex(digits: &[u8]) -> Option<usize> {
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Option<(usize, usize, bool, bool)> {
        let map = map(line.as_bytes())?;
        Some((map.start, map.end, map.writable, map.has_file))
    }

    #[test]
    fn only_what_has_no_file_behind_it_is_anonymous() {
        let tells = |line, writable, has_file| {
            assert_eq!(told(line), Some((0x1000, 0x20_0000, writable, has_file)), "{line}");
        };
        tells("1000-200000 rw-p 00000000 00:00 0 ", true, false);
        tells("1000-200000 rw-p 00000000 00:00 0                          [heap]", true, false);
        tells("1000-200000 rw-p 00000000 00:00 0                          [stack]", true, true);
        tells("1000-200000 rw-p 00000000 fe:00 99               /lib/a b.so", true, true);
        tells("1000-200000 rw-s 00000000 00:01 7          /dev/zero (deleted)", false, true);
        tells("1000-200000 r--p 00000000 00:00 0 ", false, false);
        for odd in ["", "1000", "1000-", "1000-x rw-p 0 0 0", "1000-2000"] {
            assert_eq!(told(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_long_path_is_cut() {
        let mut line = MapsLine::new();
        let text = format!("1000-200000 rw-p 00000000 fe:00 99 /{}\n", "x".repeat(4000));
        let maps: Vec<Map> = text.bytes().filter_map(|byte| line.push(byte)).collect();
        assert!(matches!(maps.as_slice(), [Map { start: 0x1000, has_file: true, .. }]));
    }
}
