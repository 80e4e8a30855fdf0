//! What a guard does, from its first instruction to its last: the same code in the program that the
//! library carries and, where that cannot be executed, in a fork of the owner.
//!
//! It allocates nothing, starts no process, does not recurse, and names no path: it works from the
//! fds that it was given. So neither a limit of processes or memory, nor a mount, nor a tree of any
//! depth keeps it from its work. It never leaves the cgroup2 file system, nor the run root.
//!
//! Fds: the line to its owner, the directory of the base, the owner's pidfd. A message on the line
//! brings those of the run root; see `wait.rs`. What it does when its owner is gone is in
//! `ending.rs`.
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

/// The run roots' prefix: a guard removes nothing else.
const PREFIX: &[u8] = b"tidy-process-";

/// Given at its start, in place of the standard streams.
const LINE: i32 = 0;
const BASE: i32 = 1;
const OWNER: i32 = 2;

/// Lives as the guard of the run root with this id.
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
