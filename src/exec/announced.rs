//! Judges the process that is announced on the line of a set-up program. For a moment another
//! process of the sandbox's user can write there: the one that it names may be a stranger, or a
//! sibling.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

use crate::error::errno_of;
use crate::sandbox::layout::news;
use crate::sys::{self, Newborn};

/// Takes a handle on init or main if it is one: a child of this process that nothing has reaped,
/// of this number here, and the first or second one of a pid namespace below. `EPROTO` if not:
/// nothing may be done to it then.
pub(super) fn announced(which: u32, pid: i32, pidfd: Option<OwnedFd>) -> Result<Newborn, Errno> {
    if pid <= 0 {
        return Err(Errno::EPROTO);
    }
    // There was no room for it here.
    let pidfd = pidfd.ok_or(Errno::EMFILE)?;
    let child = sys::check_child(pidfd.as_fd());
    let info = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", pidfd.as_raw_fd()));
    let info =
        info.map_err(|error| if child.is_ok() { errno_of(&error) } else { Errno::EPROTO })?;
    let inside = if which == news::INIT { 1 } else { 2 };
    let is_it = child.is_ok() && numbers(&info) == Some([pid, inside]);
    // Where SIGCHLD is ignored the kernel reaps it, and a signal reaches no process.
    let is_gone = field(&info, "Pid:") == Some("-1");
    if is_it || is_gone { Ok(Newborn { pid, pidfd }) } else { Err(Errno::EPROTO) }
}

/// The process's number in the namespace above its own, and in its own.
fn numbers(info: &str) -> Option<[i32; 2]> {
    let all = field(info, "NSpid:")?.split_whitespace().map(|number| number.parse().ok());
    let all: Vec<i32> = all.collect::<Option<_>>()?;
    all.last_chunk().copied()
}

fn field<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn numbers_are_those_of_the_two_innermost_namespaces() {
        let numbers = |list: &str| numbers(&format!("pos:\t0\nPid:\t9\nNSpid:\t{list}\n"));
        assert_eq!(numbers("40\t1"), Some([40, 1]));
        assert_eq!(numbers("9\t40\t2"), Some([40, 2]));
        assert_eq!(numbers("40"), None);
        assert_eq!(numbers("40\tx"), None);
    }

    /// Each is what a process that has got hold of the line would send.
    #[test]
    fn a_stranger_and_another_child_are_neither_init_nor_main() {
        let told = |pid: i32, of: i32| {
            let pidfd = sys::pidfd_open(of).unwrap();
            [news::INIT, news::MAIN]
                .map(|which| announced(which, pid, Some(pidfd.try_clone().unwrap())).map(drop))
        };
        let no = [Err(Errno::EPROTO); 2];
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id().cast_signed();
        assert_eq!(told(1, 1), no);
        assert_eq!(told(pid, pid), no);
        assert_eq!(told(pid, 1), no);
        assert_eq!(announced(news::MAIN, -1, None).map(drop), Err(Errno::EPROTO));
        assert_eq!(announced(news::MAIN, pid, None).map(drop), Err(Errno::EMFILE));
        assert!(child.try_wait().unwrap().is_none(), "it was signalled");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
