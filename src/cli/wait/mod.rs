//! Waits for a command and for signals; saves and restores the terminal.

pub(crate) mod parent;
pub(crate) mod bar;
pub(crate) mod open;
pub(crate) mod request;
pub(crate) mod watch;
pub(crate) mod signals;
pub(crate) mod terminal;
