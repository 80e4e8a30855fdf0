//! The terminal's modes: a program that is killed cannot put back what it has changed.

use std::io::stdin;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// How the terminal was, if standard input is one.
pub(crate) struct Modes(Option<Termios>);

impl Modes {
    pub(crate) fn save() -> Self {
        Self(tcgetattr(stdin()).ok())
    }

    /// Puts them back, unless the terminal is somebody else's now: in the background that would
    /// stop us.
    pub(crate) fn put_back(&self) {
        if let (Some(modes), Ok(group)) = (&self.0, tcgetpgrp(stdin()))
            && group == getpgrp()
        {
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, modes);
        }
    }
}
