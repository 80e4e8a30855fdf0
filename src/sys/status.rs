//! Takes the status of a child, by its pidfd ([waitid(2)]).
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them: thin wrappers of one call.
//!
//! [waitid(2)]: https://man7.org/linux/man-pages/man2/waitid.2.html
#![expect(unsafe_code, reason = "waitid, whose nix wrapper knows no real-time signal")]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;

use nix::errno::Errno;

/// Reaps the child behind `pidfd` if it has ended. `ECHILD` where another thread took its status,
/// or SIGCHLD is ignored.
///
/// Not nix's `waitid`: that one has no value for a real-time signal.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> Result<Option<ExitStatus>, Errno> {
    take(pidfd, libc::WEXITED | libc::WNOHANG)
}

/// Waits until the child behind `pidfd` has ended, and reaps it; None after a signal. Where another
/// thread may reap it too, that one would find no child.
pub(crate) fn await_end(pidfd: BorrowedFd<'_>) -> Result<Option<ExitStatus>, Errno> {
    match take(pidfd, libc::WEXITED) {
        Err(Errno::EINTR) => Ok(None),
        taken => taken,
    }
}

fn take(pidfd: BorrowedFd<'_>, flags: c_int) -> Result<Option<ExitStatus>, Errno> {
    let id = pidfd.as_raw_fd().cast_unsigned();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is writable for the length of the call.
    let answer = unsafe { libc::waitid(libc::P_PIDFD, id, info.as_mut_ptr(), flags) };
    Errno::result(answer)?;
    // SAFETY: zeroed is a valid siginfo, and the kernel has filled it since.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills the SIGCHLD fields, or leaves zeroes where none has ended.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    Ok((pid != 0).then(|| decode(info.si_code, status)))
}

/// Whether the child behind `pidfd` is stopped by a signal. Its status stays there for other waits.
pub(crate) fn is_stopped(pidfd: BorrowedFd<'_>) -> bool {
    let id = pidfd.as_raw_fd().cast_unsigned();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is writable for the length of the call.
    let answer = unsafe { libc::waitid(libc::P_PIDFD, id, info.as_mut_ptr(), flags) };
    // SAFETY: zeroed is a valid siginfo, and the kernel has filled it since.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills the SIGCHLD fields, or leaves zeroes where nothing has happened.
    answer == 0 && unsafe { info.si_pid() } != 0
}

/// Makes the status word of wait(2) from two fields of waitid(2).
fn decode(code: i32, status: i32) -> ExitStatus {
    ExitStatus::from_raw(match code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    })
}

/// `ECHILD` if the process is no child of this one that nothing has reaped.
pub(crate) fn check_child(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    let id = pidfd.as_raw_fd().cast_unsigned();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: a null siginfo is allowed, and nothing is reaped.
    let answer = unsafe { libc::waitid(libc::P_PIDFD, id, ptr::null_mut(), flags) };
    Errno::result(answer).map(drop)
}
