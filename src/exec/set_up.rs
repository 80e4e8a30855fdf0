//! The set-up program of a sandbox, as the child is to execute it in place of the command.

use std::ffi::{CString, c_char};
use std::os::fd::RawFd;

/// What the program is told. The strings of the command stay where its image has them.
#[derive(Debug)]
pub(crate) struct SetUp {
    pub(crate) program: RawFd,
    pub(crate) argv: Vec<*const c_char>,
    /// The fds that the program needs.
    pub(crate) fds: Vec<RawFd>,
    pub(crate) _numbers: CString,
}
