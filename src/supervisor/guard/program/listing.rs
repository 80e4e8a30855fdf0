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
