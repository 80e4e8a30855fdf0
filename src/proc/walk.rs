//! Walks the descendants of a process, read from `/proc` ([proc(5)]).
//!
//! Nothing here allocates or panics: a keeper walks the tree by these functions too, in a process
//! that may do neither (see `keeper/process.rs`). A process is held by its directory below `/proc`:
//! what is read through that fd is never about another process that has got the same pid since.
//!
//! [proc(5)]: https://man7.org/linux/man-pages/man5/proc.5.html

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::sys;

/// The most processes whose children are still to be listed in this round. A process that does not
/// fit is met in a later round, when its parent is dead.
const QUEUED: usize = 1024;

/// Opens the directory of a process; `proc` is that of `/proc`.
pub(crate) fn open(proc: BorrowedFd<'_>, pid: i32) -> Option<OwnedFd> {
    let mut text = [0; 12];
    open_at(proc, decimal(pid, &mut text)?, OFlag::O_DIRECTORY)
}

pub(crate) fn open_at(dir: impl AsFd, name: &CStr, flags: OFlag) -> Option<OwnedFd> {
    openat(dir, name, flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()
}

/// Reads into the buffer; none at the end and after an error.
pub(crate) fn read<'a>(file: BorrowedFd<'_>, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let len = nix::unistd::read(file, buffer).ok().filter(|len| *len > 0)?;
    buffer.get(..len)
}

/// Writes the pid in decimal, with the NUL that ends it.
pub(crate) fn decimal(pid: i32, text: &mut [u8; 12]) -> Option<&CStr> {
    let mut rest = u32::try_from(pid).ok()?;
    let mut start = text.len().checked_sub(1)?;
    *text.get_mut(start)? = 0;
    loop {
        start = start.checked_sub(1)?;
        *text.get_mut(start)? = b'0'.wrapping_add(u8::try_from(rest % 10).ok()?);
        rest /= 10;
        if rest == 0 {
            return CStr::from_bytes_with_nul(text.get(start..)?).ok();
        }
    }
}

/// Reads the state and the parent of a process from `/proc/PID/stat`.
pub(crate) fn state_and_parent(process: &OwnedFd) -> Option<(u8, i32)> {
    let file = open_at(process, c"stat", OFlag::empty())?;
    let mut buffer = [0; 256];
    stat(read(file.as_fd(), &mut buffer)?)
}

pub(crate) fn parent_of(process: &OwnedFd) -> Option<i32> {
    state_and_parent(process).map(|(_, parent)| parent)
}

/// Parses `PID (NAME) STATE PPID ...`; the name may have anything in it.
pub(crate) fn stat(text: &[u8]) -> Option<(u8, i32)> {
    let after = text.iter().rposition(|&byte| byte == b')')?;
    let mut fields = text.get(after..)?.split(|&byte| byte == b' ').skip(1);
    let state = fields.next()?.first()?;
    let mut parent = None;
    each_number(fields.next()?, &mut parent, &mut |_| ());
    // A field without one behind it may have been cut.
    fields.next()?;
    parent.map(|parent| (*state, parent))
}

/// Sees the children of a process: each of its threads has its own.
pub(crate) fn each_child(process: &OwnedFd, see: &mut dyn FnMut(i32)) {
    each_task(process, &mut |task| each_child_of_task(&task, see));
}

/// Sees the children of one thread.
pub(crate) fn each_child_of_task(task: &OwnedFd, see: &mut dyn FnMut(i32)) {
    let Some(list) = open_at(task, c"children", OFlag::empty()) else { return };
    let mut buffer = [0; 1024];
    let mut begun = None;
    while let Some(text) = read(list.as_fd(), &mut buffer) {
        each_number(text, &mut begun, see);
    }
}

/// Sees the directories of its first threads, as many as there is room for.
pub(crate) fn first_tasks(process: &OwnedFd, room: &mut usize, see: &mut dyn FnMut(OwnedFd)) {
    each_entry(process, c"task", &mut |tasks, name| {
        if let Some(left) = room.checked_sub(1) {
            *room = left;
            open_at(tasks, name, OFlag::O_DIRECTORY).into_iter().for_each(&mut *see);
        }
    });
}

/// Sees the directories of its threads.
pub(crate) fn each_task(process: &OwnedFd, see: &mut dyn FnMut(OwnedFd)) {
    each_entry(process, c"task", &mut |tasks, name| {
        open_at(tasks, name, OFlag::O_DIRECTORY).into_iter().for_each(&mut *see);
    });
}

/// Sees its fds, which may be closed meanwhile.
pub(crate) fn each_fd(process: &OwnedFd, see: &mut dyn FnMut(i32)) {
    each_entry(process, c"fd", &mut |fds, name| {
        let mut fd = None;
        each_number(name.to_bytes(), &mut fd, &mut |_| ());
        fd.filter(|fd| *fd != fds.as_raw_fd()).into_iter().for_each(&mut *see);
    });
}

fn each_entry(process: &OwnedFd, name: &CStr, see: &mut dyn FnMut(&OwnedFd, &CStr)) {
    let Some(dir) = open_at(process, name, OFlag::O_DIRECTORY) else { return };
    let mut buffer = [0; 1024];
    while let Ok(entries @ [_, ..]) = sys::getdents(dir.as_fd(), &mut buffer) {
        let mut rest = entries;
        while let Some((name, after)) = first_entry(rest) {
            if name.to_bytes().first() != Some(&b'.') {
                see(&dir, name);
            }
            rest = after;
        }
    }
}

/// Parses a `linux_dirent64`: eight bytes each of inode and offset, two of length, one of type, a
/// name.
pub(crate) fn first_entry(entries: &[u8]) -> Option<(&CStr, &[u8])> {
    let len = u16::from_ne_bytes(entries.get(16..18)?.try_into().ok()?);
    let name = CStr::from_bytes_until_nul(entries.get(19..len.into())?).ok()?;
    Some((name, entries.get(len.into()..)?))
}

/// Sees the numbers of a text, each of which ends in another byte; a read may cut one in two.
pub(crate) fn each_number(text: &[u8], begun: &mut Option<i32>, see: &mut dyn FnMut(i32)) {
    for &byte in text {
        match byte.checked_sub(b'0').filter(|&digit| digit < 10) {
            Some(digit) => {
                let before = begun.unwrap_or(0);
                *begun = Some(before.wrapping_mul(10).wrapping_add(digit.into()));
            }
            None => begun.take().into_iter().for_each(&mut *see),
        }
    }
}

/// Pids and their parents' pids, first in, first out.
pub(crate) struct Queue {
    places: [(i32, i32); QUEUED],
    first: usize,
    end: usize,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { places: [(0, 0); QUEUED], first: 0, end: 0 }
    }

    pub(crate) fn push(&mut self, pid: i32, parent: i32) {
        if let Some(place) = self.places.get_mut(self.end) {
            *place = (pid, parent);
            self.end = self.end.saturating_add(1);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<(i32, i32)> {
        let place = self.places.get(self.first).filter(|_| self.first < self.end).copied()?;
        self.first = self.first.saturating_add(1);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(parts: &[&[u8]]) -> Vec<i32> {
        let (mut all, mut begun) = (Vec::new(), None);
        for part in parts {
            each_number(part, &mut begun, &mut |number| all.push(number));
        }
        all
    }

    #[test]
    fn a_list_may_be_cut_anywhere() {
        assert_eq!(numbers(&[b"12 345 6 "]), [12, 345, 6]);
        assert_eq!(numbers(&[b"12 3", b"4", b"5 6 "]), [12, 345, 6]);
        assert_eq!(numbers(&[b"12", b" 345 "]), [12, 345]);
        assert_eq!(numbers(&[b""]), Vec::<i32>::new());
    }

    #[test]
    fn a_name_may_look_like_the_fields_behind_it() {
        assert_eq!(stat(b"7 (sh) S 1 7 7 0 "), Some((b'S', 1)));
        assert_eq!(stat(b"7 (a) R 99 (b) Z 4711 7 "), Some((b'Z', 4711)));
        for cut in [&b""[..], b"7", b"7 (sh", b"7 (sh)", b"7 (sh) S", b"7 (sh) S "] {
            assert_eq!(stat(cut), None);
        }
    }

    #[test]
    fn pids_are_written_in_decimal() {
        for pid in [0, 7, 10, 4_194_304, i32::MAX] {
            let mut text = [0; 12];
            let written = decimal(pid, &mut text).map(CStr::to_bytes);
            assert_eq!(written, Some(pid.to_string().as_bytes()));
        }
        assert_eq!(decimal(-1, &mut [0; 12]), None);
    }
}
