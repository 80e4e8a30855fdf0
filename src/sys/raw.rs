//! Makes system calls that do not touch errno, for a child that shares its parent's memory.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them: thin wrappers of the calls.
#![expect(unsafe_code, reason = "system calls")]

#[cfg(feature = "sandbox")]
use std::ffi::CStr;
use std::ffi::{c_int, c_long};
#[cfg(feature = "sandbox")]
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

#[cfg(feature = "sandbox")]
use nix::errno::Errno;

use crate::bare;

/// Makes a system call that does not touch errno: its answer, or a negative errno.
///
/// # Safety
/// That of the call itself.
#[expect(clippy::cast_possible_truncation, reason = "numbers of calls are small")]
#[expect(clippy::cast_sign_loss, reason = "and positive")]
pub(crate) unsafe fn call<const N: usize>(number: c_long, args: [usize; N]) -> isize {
    // SAFETY: the caller's obligation.
    unsafe { bare::call(number as usize, args) }
}

/// The errno in a negative answer.
#[expect(clippy::cast_possible_truncation, reason = "an errno is less than 4096")]
pub(crate) fn errno(answer: isize) -> c_int {
    answer.wrapping_neg() as c_int
}

/// An integer argument of a raw call.
pub(crate) const fn int(value: c_int) -> usize {
    value as isize as usize
}

/// The bit of a signal in a mask.
pub(crate) fn bit(signal: c_int) -> u64 {
    1u64.wrapping_shl(signal.wrapping_sub(1).cast_unsigned())
}

/// Lends an fd that is known by its number alone, where it is open.
#[cfg(feature = "sandbox")]
pub(crate) fn lent<T>(fd: RawFd, look: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    // SAFETY: plain integers.
    let flags = unsafe { call(libc::SYS_fcntl, [int(fd), int(libc::F_GETFD), 0, 0, 0]) };
    if fd < 0 || flags < 0 {
        return None;
    }
    // SAFETY: it is open and not -1, and what looks at it closes nothing.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Some(look(fd))
}

/// Whether an fd of this number is open.
pub(crate) fn is_open(fd: c_int) -> bool {
    // SAFETY: plain integers.
    unsafe { call(libc::SYS_fcntl, [int(fd), int(libc::F_GETFD), 0, 0, 0]) >= 0 }
}

/// prctl(2).
///
/// # Safety
/// That of the option.
pub(crate) unsafe fn prctl(option: c_int, value: usize) -> isize {
    // SAFETY: the caller's obligation.
    unsafe { call(libc::SYS_prctl, [int(option), value, 0, 0, 0]) }
}

/// The kernel's `sigaction`: the handler, whose place is the same on all machines, then zeroes,
/// more than the largest layout needs.
#[repr(C)]
struct Disposition {
    handler: libc::sighandler_t,
    _rest: [usize; 7],
}

/// Sets a signal to be ignored (`SIG_IGN`) or to the default (`SIG_DFL`).
pub(crate) fn dispose(signal: c_int, handler: libc::sighandler_t) -> isize {
    let new = Disposition { handler, _rest: [0; 7] };
    let new = (&raw const new).expose_provenance();
    // SAFETY: SIG_DFL and SIG_IGN need nothing but zeroes behind them.
    unsafe { call(libc::SYS_rt_sigaction, [int(signal), new, 0, 8, 0]) }
}

/// Resets a signal that has a handler to the default.
pub(crate) fn default_unless_ignored(signal: c_int) {
    if !matches!(disposition(signal), None | Some(libc::SIG_IGN | libc::SIG_DFL)) {
        dispose(signal, libc::SIG_DFL);
    }
}

/// What is done at a signal; none for one that has no disposition.
pub(crate) fn disposition(signal: c_int) -> Option<libc::sighandler_t> {
    let mut now = Disposition { handler: libc::SIG_DFL, _rest: [0; 7] };
    let place = (&raw mut now).expose_provenance();
    // SAFETY: `now` is writable and large enough.
    let answer = unsafe { call(libc::SYS_rt_sigaction, [int(signal), 0, place, 8, 0]) };
    (answer == 0).then_some(now.handler)
}

/// The first byte of an open file's extended attribute; none where it has none of that name.
#[cfg(feature = "sandbox")]
pub(crate) fn attribute(file: BorrowedFd<'_>, name: &CStr) -> Option<u8> {
    let mut value = [0u8; 1];
    let place = value.as_mut_ptr().cast();
    // SAFETY: a string that ends in NUL, and a buffer of this length, that live across the call.
    let length = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), place, value.len()) };
    (length == 1).then(|| value[0])
}

/// Writes the names of an open file's extended attributes to the buffer, each with a NUL behind it.
#[cfg(feature = "sandbox")]
pub(crate) fn attribute_names(file: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    let place = buffer.as_mut_ptr().cast();
    // SAFETY: a buffer of this length that lives across the call.
    let length = unsafe { libc::flistxattr(file.as_raw_fd(), place, buffer.len()) };
    Errno::result(length).map(isize::cast_unsigned)
}

/// Writes the value of one to the buffer.
#[cfg(feature = "sandbox")]
pub(crate) fn attribute_value(
    file: BorrowedFd<'_>,
    name: &CStr,
    buffer: &mut [u8],
) -> Result<usize, Errno> {
    let (place, fd) = (buffer.as_mut_ptr().cast(), file.as_raw_fd());
    // SAFETY: a string that ends in NUL, and a buffer of this length, that live across the call.
    let length = unsafe { libc::fgetxattr(fd, name.as_ptr(), place, buffer.len()) };
    Errno::result(length).map(isize::cast_unsigned)
}

#[cfg(feature = "sandbox")]
pub(crate) fn set_attribute(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let (place, fd) = (value.as_ptr().cast(), file.as_raw_fd());
    // SAFETY: a string that ends in NUL, and a value of this length, that live across the call.
    let answer = unsafe { libc::fsetxattr(fd, name.as_ptr(), place, value.len(), 0) };
    Errno::result(answer).map(drop)
}

#[cfg(feature = "sandbox")]
pub(crate) fn remove_attribute(file: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    // SAFETY: a string that ends in NUL.
    let answer = unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) };
    Errno::result(answer).map(drop)
}
