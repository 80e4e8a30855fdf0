//! Takes up both sides of an overlay when its command starts.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::fstat;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use crate::error::{Error, Result, Step, errno_of};
use crate::overlay::files::Kind;
use crate::sys::above_two;

/// Opens the host's directory: the one that the command is going to see.
pub(crate) fn host(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let opened = openat2(AT_FDCWD, dir, OpenHow::new().flags(flags).resolve(resolve));
    let opened = opened.and_then(above_two);
    opened.map_err(|errno| Error::os(Step::Show, format!("overlay {dir:?}"), errno))
}

/// Takes the upper directory that came over the line. For a moment another process of the user
/// `uid` can write there: what is not in memory of its own, at no path of this process, is refused,
/// so that nothing of others is read for it.
pub(crate) fn upper(fd: OwnedFd, uid: u32) -> std::result::Result<OwnedFd, Errno> {
    let stat = fstat(&fd)?;
    let is_memory = fstatfs(&fd)?.filesystem_type() == TMPFS_MAGIC;
    let is_plain = Kind::of(&stat) == Kind::Dir && stat.st_uid == uid;
    if !is_memory || !is_plain || is_mounted(stat.st_dev)? {
        return Err(Errno::EPROTO);
    }
    above_two(fd)
}

/// Whether this process sees a mount of this file system.
fn is_mounted(device: libc::dev_t) -> std::result::Result<bool, Errno> {
    let mounts = fs::read("/proc/self/mountinfo").map_err(|error| errno_of(&error))?;
    let device = format!("{}:{}", libc::major(device), libc::minor(device));
    let mut fields =
        mounts.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b' '));
    Ok(fields.any(|mut line| line.nth(2) == Some(device.as_bytes())))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs::File;

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn what_others_see_too_is_no_layer() {
        let uid = geteuid().as_raw();
        let dir = Path::new("/dev/shm").join(format!("tidy-upper-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        for path in [&*dir, &dir.join("file"), Path::new("/etc"), Path::new("/proc/self")] {
            let fd = OwnedFd::from(File::open(path).unwrap());
            assert_eq!(upper(fd, uid).err(), Some(Errno::EPROTO), "{path:?}");
        }
        assert!(is_mounted(fstat(File::open(&dir).unwrap()).unwrap().st_dev).unwrap());
        fs::remove_dir_all(&dir).unwrap();
    }
}
