//! Restores the terminal's modes, which a program that is killed cannot do.

use std::fs::{File, OpenOptions};
use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// The terminal, if there is one, and the modes that it had.
pub(crate) struct Modes(Option<(OwnedFd, Termios)>);

impl Modes {
    /// Saves the modes of the controlling terminal, on which a program asks for its password
    /// wherever its streams go; without one, those of standard input, which may still be a
    /// terminal.
    pub(crate) fn save() -> Self {
        let controlling = controlling().map(OwnedFd::from);
        let terminal = controlling.or_else(|| stdin().as_fd().try_clone_to_owned().ok());
        Self(terminal.and_then(|terminal| {
            let modes = tcgetattr(&terminal).ok()?;
            Some((terminal, modes))
        }))
    }

    /// Restores them, unless another process group is in the foreground now: from the background
    /// that would stop this process.
    pub(crate) fn put_back(&self) {
        let Some((terminal, modes)) = &self.0 else { return };
        match tcgetpgrp(terminal) {
            Ok(group) if group == getpgrp() => {}
            // No session's controlling terminal, or another session's: this process cannot be in
            // its background.
            Err(Errno::ENOTTY) => {}
            _ => return,
        }
        let _ = tcsetattr(terminal, SetArg::TCSANOW, modes);
    }
}

/// Opens the controlling terminal, without blocking: it may have hung up.
fn controlling() -> Option<File> {
    let how = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(how.bits()).open("/dev/tty").ok()
}
