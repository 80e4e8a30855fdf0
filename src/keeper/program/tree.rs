//! Finds the children of a process in `/proc`.
//!
//! A process is held by its directory below `/proc`: what is read through that fd is never about
//! another process that has got the same pid since.

use core::ffi::CStr;

use super::calls::{self, Fd};
use super::parse::{decimal, each_number, first_entry, stat};

/// The most processes whose children are still to be listed in this round. A process that does not
/// fit is met in a later round, when its parent is dead.
const QUEUED: usize = 1024;

/// Opens the directory of a process; `proc` is that of `/proc`.
pub(super) fn open(proc: i32, pid: i32) -> Option<Fd> {
    let mut text = [0; 12];
    calls::open_dir(proc, decimal(pid, &mut text)?)
}

pub(super) fn parent_of(process: &Fd) -> Option<i32> {
    let file = calls::open_file(process.number(), c"stat")?;
    let mut buffer = [0; 256];
    stat(calls::read(file.number(), &mut buffer)?).map(|(_, parent)| parent)
}

/// Whether this is the process's name in `/proc/PID/comm`, which ends in a newline.
pub(super) fn has_name(process: &Fd, name: &[u8]) -> bool {
    let mut buffer = [0; 32];
    calls::open_file(process.number(), c"comm")
        .is_some_and(|comm| calls::read(comm.number(), &mut buffer) == Some(name))
}

/// Sees the children of this process, which has one thread.
pub(super) fn each_own_child(proc: i32, see: &mut dyn FnMut(i32)) {
    if let Some(list) = calls::open_file(proc, c"thread-self/children") {
        each_listed(&list, see);
    }
}

/// Sees the children of a process: each of its threads has its own.
pub(super) fn each_child(process: &Fd, see: &mut dyn FnMut(i32)) {
    each_entry(process, c"task", &mut |tasks, name| {
        if let Some(task) = calls::open_dir(tasks.number(), name) {
            let list = calls::open_file(task.number(), c"children");
            list.into_iter().for_each(|list| each_listed(&list, see));
        }
    });
}

fn each_listed(list: &Fd, see: &mut dyn FnMut(i32)) {
    let mut buffer = [0; 1024];
    let mut begun = None;
    while let Some(text) = calls::read(list.number(), &mut buffer) {
        each_number(text, &mut begun, see);
    }
}

/// Sees its fds, which may be closed meanwhile.
pub(super) fn each_fd(process: &Fd, see: &mut dyn FnMut(i32)) {
    each_entry(process, c"fd", &mut |fds, name| {
        let mut fd = None;
        each_number(name.to_bytes_with_nul(), &mut None, &mut |number| fd = Some(number));
        fd.filter(|&fd| fd != fds.number()).into_iter().for_each(&mut *see);
    });
}

fn each_entry(process: &Fd, name: &CStr, see: &mut dyn FnMut(&Fd, &CStr)) {
    let Some(dir) = calls::open_dir(process.number(), name) else { return };
    let mut buffer = [0; 1024];
    while let Some(mut rest) = calls::getdents(dir.number(), &mut buffer) {
        while let Some((name, after)) = first_entry(rest) {
            if name.to_bytes().first() != Some(&b'.') {
                see(&dir, name);
            }
            rest = after;
        }
    }
}

/// Pids and their parents' pids, first in, first out.
pub(super) struct Queue {
    places: [(i32, i32); QUEUED],
    first: usize,
    end: usize,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { places: [(0, 0); QUEUED], first: 0, end: 0 }
    }

    pub(super) fn push(&mut self, pid: i32, parent: i32) {
        if let Some(place) = self.places.get_mut(self.end) {
            *place = (pid, parent);
            self.end = self.end.saturating_add(1);
        }
    }

    pub(super) fn pop(&mut self) -> Option<(i32, i32)> {
        let place = self.places.get(self.first).filter(|_| self.first < self.end).copied()?;
        self.first = self.first.saturating_add(1);
        Some(place)
    }
}
