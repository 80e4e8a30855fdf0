//! Waiting for a command and for signals, and the terminal that both share.

pub(crate) mod open;
pub(crate) mod watch;
pub(crate) mod signals;
pub(crate) mod terminal;
