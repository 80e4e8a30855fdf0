//! Parses directory entries and the pids of a `cgroup.procs`, piece by piece in a fixed buffer.

use core::ffi::CStr;

use super::calls;

/// An entry, as getdents64(2) has it.
pub(super) struct Entry<'a> {
    pub(super) inode: u64,
    /// The place of the *next* entry.
    pub(super) next: u64,
    pub(super) is_dir: bool,
    pub(super) name: &'a CStr,
}

/// Splits off the first entry.
pub(super) fn split_entry(entries: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    const DIRECTORY: u8 = 4;
    let (inode, rest) = entries.split_first_chunk::<8>()?;
    let (next, rest) = rest.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (kind, _) = rest.split_first()?;
    let len = usize::from(u16::from_ne_bytes(*len));
    let name = CStr::from_bytes_until_nul(entries.get(19..len)?).ok()?;
    let is_dots = name.to_bytes() == b"." || name.to_bytes() == b"..";
    let entry = Entry {
        inode: u64::from_ne_bytes(*inode),
        next: u64::from_ne_bytes(*next),
        is_dir: *kind == DIRECTORY && !is_dots,
        name,
    };
    Some((entry, entries.get(len..)?))
}

/// The pids of an open `cgroup.procs`, one after the other. One of another pid namespace is 0.
pub(super) struct Pids {
    file: i32,
    buffer: [u8; 512],
    next: usize,
    len: usize,
}

impl Pids {
    pub(super) fn of(file: i32) -> Self {
        Self { file, buffer: [0; 512], next: 0, len: 0 }
    }

    fn byte(&mut self) -> Option<u8> {
        if self.next >= self.len {
            self.len = calls::read(self.file, &mut self.buffer)?.len();
            self.next = 0;
        }
        let byte = self.buffer.get(self.next).copied();
        self.next = self.next.wrapping_add(1);
        byte
    }
}

impl Iterator for Pids {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let mut pid = 0u32;
        loop {
            match self.byte()? {
                digit @ b'0'..=b'9' => {
                    pid = pid.wrapping_mul(10).wrapping_add(u32::from(digit.wrapping_sub(b'0')));
                }
                _ => return Some(pid),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    fn entry(inode: u64, next: u64, kind: u8, name: &[u8]) -> Vec<u8> {
        let len = (19 + name.len() + 1).next_multiple_of(8);
        let mut bytes = [inode.to_ne_bytes(), next.to_ne_bytes()].concat();
        bytes.extend(u16::try_from(len).unwrap_or(0).to_ne_bytes());
        bytes.push(kind);
        bytes.extend(name);
        bytes.resize(len, 0);
        bytes
    }

    #[test]
    fn entries_are_split_off_one_by_one() {
        let given: [(&[u8], u8, bool); 5] = [
            (b".", 4, false),
            (b"..", 4, false),
            (b"...", 4, true),
            (b"cgroup.procs", 8, false),
            (b"\xff", 4, true),
        ];
        let each = given.iter().zip(1..);
        let all: Vec<u8> =
            each.flat_map(|((name, kind, _), at)| entry(at, at << 32, *kind, name)).collect();
        let mut rest = &*all;
        for ((name, _, is_dir), at) in given.iter().zip(1..) {
            let Some((entry, others)) = split_entry(rest) else { return assert!(at > 5, "{at}") };
            assert_eq!((entry.inode, entry.next, entry.is_dir), (at, at << 32, *is_dir));
            assert_eq!(entry.name.to_bytes(), *name);
            rest = others;
        }
        assert!(rest.is_empty() && split_entry(rest).is_none());
    }

    #[test]
    fn an_entry_that_is_cut_or_has_no_end_is_none() {
        let whole = entry(1, 2, 4, b"name");
        for len in 0..whole.len() {
            assert!(split_entry(whole.get(..len).unwrap_or_default()).is_none(), "{len}");
        }
        let mut endless = whole.clone();
        endless.get_mut(19..).unwrap_or_default().fill(b'x');
        assert!(split_entry(&endless).is_none());
        let mut short = whole;
        short.get_mut(16..18).unwrap_or_default().fill(0);
        assert!(split_entry(&short).is_none());
    }

    /// More than the buffer holds, and cut anywhere.
    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn pids_are_read_however_they_are_cut() -> std::io::Result<()> {
        let pids: Vec<u32> = (0..400).map(|n| n * n * 26).collect();
        let (reader, mut writer) = std::io::pipe()?;
        for pid in &pids {
            writeln!(writer, "{pid}")?;
        }
        drop(writer);
        let read: Vec<u32> = Pids::of(reader.as_raw_fd()).collect();
        assert_eq!(read, pids);
        assert_eq!(Pids::of(-1).next(), None);
        Ok(())
    }
}
