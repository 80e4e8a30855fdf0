//! The fds that a command is given: those of the caller's that were meant, and none that would
//! break a promise of the level.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;
#[cfg(feature = "cli")]
use nix::fcntl::FdFlag;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs};

use crate::confinement::Level;
use crate::error::{Error, Result, Step};
use crate::sys::raw::lent;

/// The file that a number stood for when it was named: a number alone may come to mean another
/// file, one of this library's own among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meant {
    device: libc::dev_t,
    inode: libc::ino_t,
    mode: libc::mode_t,
}

impl Meant {
    pub(crate) fn by(fd: RawFd) -> Option<Self> {
        lent(fd, Self::of).and_then(std::result::Result::ok)
    }

    fn of(fd: BorrowedFd<'_>) -> std::result::Result<Self, Errno> {
        let stat = fstat(fd)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino, mode: stat.st_mode & libc::S_IFMT })
    }
}

/// Looks at what these fds are now; asked for each spawn.
pub(crate) fn check(fds: &BTreeMap<RawFd, Option<Meant>>, level: Level) -> Result<()> {
    for (&fd, meant) in fds {
        let no = |why| {
            let subject = format!("fd {fd} of inherit_fds (--keep-fd)");
            Err(Error::invalid(Step::Prepare, subject, why))
        };
        match (meant, Meant::by(fd)) {
            (None, _) => return no("it was not open when it was named: open it first"),
            (Some(_), None) => return no("it is no longer open: keep it open"),
            (Some(meant), Some(now)) if *meant != now => {
                return no("it is another file by now: name the fd that is meant");
            }
            (Some(_), Some(_)) => {}
        }
        if lent(fd, is_of_cgroups).unwrap_or(false) {
            return no("it is of a cgroup file system, which stays outside");
        }
        if level == Level::Sandbox && lent(fd, leads_out).unwrap_or(false) {
            return no(LEADS_OUT);
        }
    }
    Ok(())
}

/// Refuses a stream (-1: the caller's own of this number) by which everything would be in the view.
pub(crate) fn check_stream(number: RawFd, fd: RawFd) -> Result<()> {
    let fd = if fd < 0 { number } else { fd };
    if lent(fd, leads_out).unwrap_or(false) {
        return Err(Error::invalid(
            Step::Prepare,
            format!("stream {number} of a sandbox"),
            LEADS_OUT,
        ));
    }
    Ok(())
}

const LEADS_OUT: &str =
    "it is a directory or opened with O_PATH, from which all files of the host are reached";

/// Whether other files are reached by it: `/proc/self/fd/N/..`.
fn leads_out(fd: BorrowedFd<'_>) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    let is_path = flags.is_ok_and(|flags| flags.contains(OFlag::O_PATH));
    is_path || fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == SFlag::S_IFDIR.bits())
}

fn is_of_cgroups(fd: BorrowedFd<'_>) -> bool {
    let kind = fstatfs(fd).map(|stat| stat.filesystem_type());
    kind.is_ok_and(|kind| [CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&kind))
}

/// Refuses an fd that the caller of the tool has not handed over: one that is not open, or that
/// exec would close, as all of the tool's own are.
#[cfg(feature = "cli")]
pub fn check_handed_over(fd: RawFd) -> Result<()> {
    let flags = lent(fd, |fd| fcntl(fd, FcntlArg::F_GETFD)).and_then(std::result::Result::ok);
    match flags.map(FdFlag::from_bits_retain) {
        Some(flags) if !flags.contains(FdFlag::FD_CLOEXEC) => Ok(()),
        _ => {
            let why = "it was not open when tidy-process was started";
            Err(Error::invalid(Step::Prepare, format!("--keep-fd {fd}"), why))
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs::File;
    use std::os::fd::{AsRawFd, OwnedFd};

    use super::*;
    use crate::sandbox::Sandbox;

    fn refused(sandbox: &Sandbox) -> String {
        check(&sandbox.shared.request.fds, sandbox.level())
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn an_fd_is_the_file_that_was_meant_or_an_error() {
        let early = Sandbox::fence().inherit_fds([900]);
        assert!(refused(&early).contains("not open when it was named"), "{}", refused(&early));
        let mut held: OwnedFd = File::open("/proc/self/status").unwrap().into();
        let named = Sandbox::fence().inherit_fds([held.as_raw_fd()]);
        assert_eq!(refused(&named), "");
        let (reader, writer) = std::io::pipe().unwrap();
        nix::unistd::dup2(&reader, &mut held).unwrap();
        assert!(refused(&named).contains("another file"), "{}", refused(&named));
        drop((held, reader, writer));
        // No longer open, or another test's by now.
        assert_ne!(refused(&named), "");
    }

    #[test]
    fn what_leads_out_of_a_view_is_refused() {
        let dir = File::open("/").unwrap();
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let path = nix::fcntl::open("/dev/null", flags, nix::sys::stat::Mode::empty()).unwrap();
        for fd in [dir.as_raw_fd(), path.as_raw_fd()] {
            assert!(refused(&Sandbox::new().inherit_fds([fd])).contains("O_PATH"));
            assert_eq!(refused(&Sandbox::fence().inherit_fds([fd])), "");
            assert!(check_stream(0, fd).is_err());
        }
        let null = File::open("/dev/null").unwrap();
        assert!(check_stream(0, null.as_raw_fd()).is_ok());
        assert_eq!(refused(&Sandbox::new().inherit_fds([null.as_raw_fd()])), "");
    }
}
