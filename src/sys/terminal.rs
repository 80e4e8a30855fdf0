//! The size of a terminal, and how to have what is on it drawn anew.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them: the kernel fills or reads one struct,
//! which outlives its call.
#![expect(unsafe_code, reason = "nix has no safe calls for it")]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Columns and rows of a terminal, where it says them.
#[must_use]
pub fn terminal_size(terminal: impl AsFd) -> Option<(u16, u16)> {
    size(terminal.as_fd()).map(|size| (size.ws_col, size.ws_row))
}

fn size(terminal: BorrowedFd<'_>) -> Option<libc::winsize> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    let fd = terminal.as_raw_fd();
    // SAFETY: `size` is writable, and outlives the call.
    let answer = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, size.as_mut_ptr()) };
    // SAFETY: zeroed is a valid winsize, and the kernel may have filled it since.
    let size = unsafe { size.assume_init() };
    (answer == 0 && size.ws_col > 0 && size.ws_row > 0).then_some(size)
}

fn set_size(terminal: BorrowedFd<'_>, size: libc::winsize) -> bool {
    // SAFETY: `size` is readable, and outlives the call.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) == 0 }
}

/// A terminal that says it has one row less than it has. Dropping it says the truth again. At each
/// of both the kernel sends SIGWINCH to the processes in the foreground: a program that fills the
/// screen draws it anew, as it would not for a signal alone.
#[derive(Debug)]
pub struct Shortened {
    terminal: OwnedFd,
    rows: u16,
}

impl Shortened {
    /// Shortens it, if it says its size.
    #[must_use]
    pub fn say(terminal: impl AsFd) -> Option<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned().ok()?;
        let size = size(terminal.as_fd()).filter(|size| size.ws_row > 1)?;
        let shorter = libc::winsize { ws_row: size.ws_row - 1, ..size };
        set_size(terminal.as_fd(), shorter).then_some(Self { terminal, rows: size.ws_row })
    }
}

impl Drop for Shortened {
    fn drop(&mut self) {
        let terminal = self.terminal.as_fd();
        // Another number of rows is news from the terminal itself.
        if let Some(now) = size(terminal).filter(|now| now.ws_row == self.rows - 1) {
            set_size(terminal, libc::winsize { ws_row: self.rows, ..now });
        }
    }
}
