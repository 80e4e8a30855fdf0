//! What all keepers of one supervisor need.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use crate::error::{Error, Result, Step, errno_of};
use crate::sys::{self, pass};

/// The keeper's executable. Empty where it could not be linked.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/keeper"));

#[derive(Debug)]
pub(crate) struct Ground {
    /// The directory `/proc`.
    pub(crate) proc: OwnedFd,
    /// The keeper's program; none where it cannot be in memory, or would lose rights of this
    /// process.
    program: Option<OwnedFd>,
    /// It was refused: it is not tried again.
    refused: AtomicBool,
}

impl Ground {
    pub(crate) fn new() -> Result<Self> {
        let proc = proc()?;
        let program = match keeps_rights() {
            true => pass::sealed_program(c"tidy-keeper", PROGRAM).ok(),
            false => None,
        };
        Ok(Self { proc, program, refused: AtomicBool::new(false) })
    }

    /// The keeper's program, if it may be executed.
    pub(crate) fn program(&self) -> Option<&OwnedFd> {
        self.program.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed))
    }

    /// Notes that it could not be executed, if that may not change by itself: fds and memory may
    /// be scarce for a while, and another process may have killed it.
    pub(crate) fn refused(&self, errno: Errno) {
        let scarce = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN, Errno::ESRCH];
        if !scarce.contains(&errno) {
            self.refused.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether an exec takes no capability from this process: one without root would lose those that
/// are not ambient, and could not kill a process of another user that its owner could.
fn keeps_rights() -> bool {
    nix::unistd::geteuid().is_root()
        || fs::read_to_string("/proc/thread-self/status").is_ok_and(|status| are_kept(&status))
}

fn are_kept(status: &str) -> bool {
    let set = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    set("CapPrm:").is_some_and(|permitted| {
        permitted.bytes().all(|digit| digit == b'0') || set("CapAmb:") == Some(permitted)
    })
}

/// `/proc`, if a keeper can work with it.
pub(crate) fn proc() -> Result<OwnedFd> {
    let failed = |errno| Error::os(Step::Keeper, "\"/proc\"", errno);
    let directory = File::open("/proc").map_err(|error| failed(errno_of(&error)))?;
    let no = |why| Err(Error::invalid(Step::Keeper, "\"/proc\"", why));
    let me = fs::read_link("/proc/self").map_err(|error| failed(errno_of(&error)))?;
    if me.to_str() != Some(&std::process::id().to_string()) {
        return no("it is not of this process's pid namespace");
    }
    let children = File::open("/proc/thread-self/children");
    match children.and_then(|mut file| file.read_to_end(&mut Vec::new())) {
        Ok(_) => sys::above_two(directory.into()).map_err(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            no("it does not list children: the kernel is built without CONFIG_PROC_CHILDREN")
        }
        Err(error) => Err(failed(errno_of(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_kept_where_there_are_none_or_all_are_ambient() {
        let status = |permitted, ambient| format!("Name:\tx\nCapPrm:\t{permitted}\n{ambient}");
        assert!(are_kept(&status("0000000000000000", "")));
        assert!(are_kept(&status("0000000000000020", "CapAmb:\t0000000000000020\n")));
        assert!(!are_kept(&status("0000000000000020", "CapAmb:\t0000000000000000\n")));
        assert!(!are_kept(&status("0000000000000020", "")));
        assert!(!are_kept(""));
    }
}
