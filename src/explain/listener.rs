//! The listener of a seccomp filter ([seccomp_unotify(2)]).
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them: three ioctls on structs of integers.
//!
//! [seccomp_unotify(2)]: https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html
#![expect(unsafe_code, reason = "ioctl(2) with structs that no safe crate of our choice has")]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::TrySendError;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::explain::calls::{self, Seen};
use crate::explain::process::{Call, Process};
use crate::sandbox::scope::Watch;

const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
const IS_VALID: libc::Ioctl = 0x4008_2102_u32 as libc::Ioctl;
const SET_FLAGS: libc::Ioctl = 0x4008_2104_u32 as libc::Ioctl;
/// The waiting thread and this one run by turns: the kernel wakes the other on this CPU.
const SYNC_WAKE_UP: u64 = 1;

/// The kernel's `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;

pub(super) struct Listener(OwnedFd);

impl Listener {
    pub(super) fn new(fd: OwnedFd) -> Self {
        // SAFETY: an integer as the argument. Before Linux 6.6 it is an error, and slower.
        unsafe { libc::ioctl(fd.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
        Self(fd)
    }

    /// Answers each call, until no process has the filter or `stopped` has ended. What a call is
    /// about is read while it waits, and told only if it still does then.
    pub(super) fn serve(
        &self,
        stopped: BorrowedFd<'_>,
        watch: &Watch,
        mut tell: impl FnMut(Seen) -> Result<(), TrySendError<Seen>>,
    ) {
        while self.has_news(stopped) {
            let call = match self.receive() {
                Ok(call) => call,
                // The process was killed, or this thread got a signal.
                Err(Errno::ENOENT | Errno::EINTR) => continue,
                Err(_) => return,
            };
            let refusal = watch.answers.refusal(call.number, call.arguments);
            let seen = calls::seen(watch, &call, &Process::of(call.thread), refusal);
            let told = if self.is_valid(&call) { seen } else { Vec::new() };
            self.answer(&call, refusal.map_or(0, |refusal| refusal.errno));
            for each in told {
                // Where the queue is full it is not explained: no call waits for that.
                let _ = tell(each);
            }
        }
    }

    /// Waits; false where there is nothing more to come.
    fn has_news(&self, stopped: BorrowedFd<'_>) -> bool {
        loop {
            let mut fds = [
                PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(stopped, PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(_) => return false,
                Ok(_) => {
                    let [news, _] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
                    // What waits is answered first.
                    return news.contains(PollFlags::POLLIN);
                }
            }
        }
    }

    fn receive(&self) -> Result<Call, Errno> {
        // SAFETY: a plain struct of integers, which the kernel wants to be zero.
        let mut notice: libc::seccomp_notif = unsafe { MaybeUninit::zeroed().assume_init() };
        let place = &raw mut notice;
        // SAFETY: the kernel writes the struct, which lives across the call.
        let answer = unsafe { libc::ioctl(self.0.as_raw_fd(), RECEIVE, place) };
        Errno::result(answer)?;
        let number = notice.data.nr.cast_unsigned();
        Ok(Call { id: notice.id, thread: notice.pid, number, arguments: notice.data.args })
    }

    /// Whether the process still waits in this call: if so, the pid has been its all the time.
    fn is_valid(&self, call: &Call) -> bool {
        // SAFETY: the kernel reads the number, which lives across the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), IS_VALID, &raw const call.id) == 0 }
    }

    /// Lets the call go on, or answers with the errno that the filter has for it.
    fn answer(&self, call: &Call, errno: i32) {
        let flags = if errno == 0 { CONTINUE } else { 0 };
        let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: -errno, flags };
        // SAFETY: the kernel reads the struct, which lives across the call. The process may have
        // been killed.
        unsafe { libc::ioctl(self.0.as_raw_fd(), SEND, &raw const answer) };
    }
}
