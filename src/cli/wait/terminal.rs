//! The terminal's modes: a program that is killed cannot put back what it has changed.

use std::fs::{File, OpenOptions};
use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// How the terminal was, if there is one.
pub(crate) struct Modes(Option<(OwnedFd, Termios)>);

impl Modes {
    /// The controlling terminal is what a program asks for its password on, wherever its streams
    /// go. Without one, standard input may still be a terminal.
    pub(crate) fn save() -> Self {
        let controlling = controlling().map(OwnedFd::from);
        let terminal = controlling.or_else(|| stdin().as_fd().try_clone_to_owned().ok());
        Self(terminal.and_then(|terminal| {
            let modes = tcgetattr(&terminal).ok()?;
            Some((terminal, modes))
        }))
    }

    /// Puts them back, unless the terminal is another job's now: in the background that would stop
    /// us.
    pub(crate) fn put_back(&self) {
        let Some((terminal, modes)) = &self.0 else { return };
        match tcgetpgrp(terminal) {
            Ok(group) if group == getpgrp() => {}
            // Nobody's controlling terminal, or another session's: it has no background for us.
            Err(Errno::ENOTTY) => {}
            _ => return,
        }
        let _ = tcsetattr(terminal, SetArg::TCSANOW, modes);
    }
}

/// The driver of a terminal that has hung up shall not keep us.
fn controlling() -> Option<File> {
    let how = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(how.bits()).open("/dev/tty").ok()
}
