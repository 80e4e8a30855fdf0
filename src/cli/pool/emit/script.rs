//! What the scripts of all engines have in common.

use std::io::{self, IsTerminal};

use crate::exit::Failure;
use crate::print::patient::{forgiving, write_finally};
use crate::print::text::print;

/// Hands each command on, as a line for sh.
pub(crate) type Lines<'a> = Box<dyn FnOnce(&mut Take<'_>) -> Result<(), Failure> + 'a>;
pub(crate) type Take<'a> = dyn FnMut(&[u8]) -> Result<(), Failure> + 'a;

pub(crate) fn refusal(what: String, hint: &'static str) -> Failure {
    Failure::Nowhere { what, hint: hint.into() }
}

/// To standard output, byte for byte; what a terminal would obey is quoted for one.
pub(crate) fn put(text: &[u8]) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        return print(&String::from_utf8_lossy(text));
    }
    forgiving(write_finally(io::stdout(), text)).map_err(Failure::Print)
}
