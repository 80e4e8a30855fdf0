//! Takes up both sides of an overlay when its command starts.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::fstat;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use crate::error::{Error, Result, Step};
use crate::overlay::files::{Kind, names};
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
/// `uid` can write there: what is no new directory of that user's in memory is refused, so that
/// nothing is read for it.
pub(crate) fn upper(fd: OwnedFd, uid: u32) -> std::result::Result<OwnedFd, Errno> {
    let stat = fstat(&fd)?;
    let is_memory = fstatfs(&fd)?.filesystem_type() == TMPFS_MAGIC;
    let is_new = Kind::of(&stat) == Kind::Dir && names(fd.as_fd())?.is_empty();
    if !is_memory || !is_new || stat.st_uid != uid {
        return Err(Errno::EPROTO);
    }
    above_two(fd)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs::{self, File};

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn what_is_no_new_directory_in_memory_is_no_upper_one() {
        let uid = geteuid().as_raw();
        let dir = Path::new("/dev/shm").join(format!("tidy-upper-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let open = |path: &Path| OwnedFd::from(File::open(path).unwrap());
        assert!(upper(open(&dir), uid).is_ok());
        let refused = |path: &Path, uid| upper(open(path), uid).err() == Some(Errno::EPROTO);
        assert!(refused(&dir, uid + 1) && refused(Path::new("/etc"), 0));
        fs::write(dir.join("file"), "").unwrap();
        assert!(refused(&dir, uid) && refused(&dir.join("file"), uid));
        fs::remove_dir_all(&dir).unwrap();
    }
}
