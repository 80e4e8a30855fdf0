//! Walks the descendants of a process, read from `/proc` ([proc(5)]).
//!
//! A process is held by its directory below `/proc`: what is read through that fd is never about
//! another process that has got the same pid since. Nothing here allocates or panics: a forked
//! keeper reads its maps by these functions (see `keeper/idle_memory.rs`).
//!
//! [proc(5)]: https://man7.org/linux/man-pages/man5/proc.5.html

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::proc::parse::{decimal, each_number, first_entry, stat};
use crate::sys;

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

/// Reads the state and the parent of a process from `/proc/PID/stat`.
pub(crate) fn state_and_parent(process: &OwnedFd) -> Option<(u8, i32)> {
    let file = open_at(process, c"stat", OFlag::empty())?;
    let mut buffer = [0; 256];
    stat(read(file.as_fd(), &mut buffer)?)
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
