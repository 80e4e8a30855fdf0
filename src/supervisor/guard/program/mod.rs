//! The guard's code, the same in the program that the library carries and, where that cannot be
//! executed, in a fork of the owner.
//!
//! It allocates nothing, starts no process, does not recurse, and works from given fds instead of
//! paths. So neither a limit of processes or memory, nor a mount, nor a deep tree stops it. It
//! never leaves the cgroup2 file system, nor the run root.
//!
//! Fds: the line to its owner, the directory of the base, the owner's pidfd. A message on the line
//! brings those of the run root; see `wait.rs`. The teardown is in `ending.rs`.
//!
//! # Safety
//! [`live`] is given a string of C's; the system calls are in `calls.rs`.
#![expect(unsafe_code, reason = "the entry is given a string of C's")]

mod calls;
mod ending;
mod listing;
mod wait;
mod walk;

use core::ffi::{CStr, c_char};

pub(crate) use calls::exit;
use ending::Teardown;

#[cfg(fuzzing)]
pub(crate) mod fuzzed {
    use core::ffi::CStr;

    use super::listing::{Pids, split_entry};

    /// Inode, place of the next entry, whether it is a directory, and name; the other entries.
    pub(crate) fn entry(entries: &[u8]) -> Option<((u64, u64, bool, &CStr), &[u8])> {
        let (entry, others) = split_entry(entries)?;
        Some(((entry.inode, entry.next, entry.is_dir, entry.name), others))
    }

    pub(crate) fn pids(file: i32) -> impl Iterator<Item = u32> {
        Pids::of(file)
    }
}

/// The run roots' prefix: a guard removes nothing else.
const PREFIX: &[u8] = b"tidy-process-";

/// Fds that take the place of the standard streams at the start.
const LINE: i32 = 0;
const BASE: i32 = 1;
const OWNER: i32 = 2;

/// Runs as the guard of the run root with this id: waits for the owner's end, then tears down.
///
/// # Safety
/// `id` ends in NUL, or is null.
pub(crate) unsafe extern "C" fn live(id: *const c_char) -> ! {
    calls::block_signals();
    calls::settle();
    let mut buffer = [0; 64];
    // SAFETY: the caller's obligation.
    let id = (!id.is_null()).then(|| unsafe { CStr::from_ptr(id) });
    let Some(name) = id.and_then(|id| name(id, &mut buffer)) else { exit(2) };
    let held = wait::until_owner_is_gone(name);
    Teardown::new(name, held).bring_about();
    exit(0)
}

/// The name of the run root: prefix and id.
fn name<'a>(id: &CStr, buffer: &'a mut [u8; 64]) -> Option<&'a CStr> {
    let id = id.to_bytes_with_nul();
    if id.contains(&b'/') {
        return None;
    }
    let len = PREFIX.len().checked_add(id.len())?;
    let (prefix, rest) = buffer.get_mut(..len)?.split_at_mut_checked(PREFIX.len())?;
    for (to, from) in prefix.iter_mut().zip(PREFIX).chain(rest.iter_mut().zip(id)) {
        *to = *from;
    }
    CStr::from_bytes_until_nul(buffer).ok()
}

#[cfg(test)]
mod tests;
