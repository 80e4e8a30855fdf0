//! Opens and looks at what has a name in an open directory, and nothing beyond.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions, set_permissions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat};
use nix::unistd::{Whence, lseek};

use crate::error::errno_of;
use crate::sys::raw::attribute;

/// Permissions, without set-id bits: the command cannot have made those.
pub(super) const PERMISSIONS: u32 = 0o1777;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dir,
    File,
    Link,
    /// Where overlayfs notes that the lower file is gone.
    Whiteout,
    Other,
}

impl Kind {
    pub(crate) fn of(stat: &FileStat) -> Self {
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Self::Dir,
            libc::S_IFREG => Self::File,
            libc::S_IFLNK => Self::Link,
            libc::S_IFCHR if stat.st_rdev == 0 => Self::Whiteout,
            _ => Self::Other,
        }
    }
}

/// Opens a name in a directory, or a path below it.
pub(super) fn beneath(
    dir: BorrowedFd<'_>,
    name: &(impl AsRef<Path> + ?Sized),
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    // A FIFO that has taken the file's place does not block.
    let unblocked = match flags.contains(OFlag::O_PATH) {
        true => OFlag::empty(),
        false => OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
    };
    let flags = flags | OFlag::O_CLOEXEC | unblocked;
    openat2(dir, name.as_ref(), OpenHow::new().flags(flags).mode(mode).resolve(resolve))
}

pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    beneath(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
}

/// What is known of a name; none if nothing has it.
pub(super) fn look(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<FileStat>, Errno> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names in a directory, in order.
pub(super) fn names(dir: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    // Opened anew: the place in an open directory is one for all that share it.
    let mut listed = Dir::from_fd(open_dir(dir, OsStr::new("."))?)?;
    let mut names = Vec::new();
    for entry in listed.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if ![c".", c".."].contains(&name) {
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A file of the layer, open. Permissions that it had to be given for that are taken back.
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    back: Option<Mode>,
}

impl Opened {
    /// Opens what was looked at, even where the command has left its user no permission to.
    pub(super) fn upper(
        dir: BorrowedFd<'_>,
        name: &OsStr,
        seen: &FileStat,
        flags: OFlag,
    ) -> Result<Self, Errno> {
        let opened = match beneath(dir, name, flags, Mode::empty()) {
            Err(Errno::EACCES) => {
                let path = beneath(dir, name, OFlag::O_PATH, Mode::empty())?;
                same_file(&path, seen)?;
                let link = format!("/proc/self/fd/{}", path.as_raw_fd());
                let given = set_permissions(link, Permissions::from_mode(0o700));
                given.map_err(|error| errno_of(&error))?;
                let back = Some(Mode::from_bits_truncate(seen.st_mode & PERMISSIONS));
                Self { fd: beneath(dir, name, flags, Mode::empty())?, back }
            }
            opened => Self { fd: opened?, back: None },
        };
        same_file(&opened.fd, seen)?;
        Ok(opened)
    }

    /// Whether it is a directory that covers all of the lower one.
    pub(super) fn is_opaque(&self) -> bool {
        attribute(self.fd.as_fd(), c"user.overlay.opaque") == Some(b'y')
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(mode) = self.back {
            let _ = fchmod(&self.fd, mode);
        }
    }
}

fn same_file(fd: &OwnedFd, seen: &FileStat) -> Result<(), Errno> {
    let now = fstat(fd)?;
    let same = (now.st_dev, now.st_ino) == (seen.st_dev, seen.st_ino);
    if same && Kind::of(&now) == Kind::of(seen) { Ok(()) } else { Err(Errno::ESTALE) }
}

/// Whether both have the same contents; both have this size. Where both have a hole nothing is
/// read: a file may be far larger than what it holds.
pub(super) fn same_contents(one: &OwnedFd, other: &OwnedFd, size: i64) -> Result<bool, Errno> {
    let files = [file(one)?, file(other)?];
    let mut chunks = [vec![0; CHUNK], vec![0; CHUNK]];
    let mut place = 0;
    loop {
        place = data(one, place, size)?.min(data(other, place, size)?);
        let left = usize::try_from(size - place).unwrap_or(0).min(CHUNK);
        if left == 0 {
            return Ok(true);
        }
        let [first, second] = &mut chunks;
        for (file, chunk) in files.iter().zip([&mut *first, &mut *second]) {
            let chunk = chunk.get_mut(..left).unwrap_or_default();
            let read = file.read_exact_at(chunk, place.cast_unsigned());
            read.map_err(|error| errno_of(&error))?;
        }
        if first.get(..left) != second.get(..left) {
            return Ok(false);
        }
        place += i64::try_from(left).unwrap_or(size);
    }
}

/// Bytes that are compared at once.
const CHUNK: usize = 1 << 16;

/// Where data is from this place on; the size where only a hole is left.
pub(super) fn data(file: &OwnedFd, place: i64, size: i64) -> Result<i64, Errno> {
    match lseek(file, place, Whence::SeekData) {
        Err(Errno::ENXIO) => Ok(size),
        found => found.map(|found| found.min(size)),
    }
}

pub(super) fn file(fd: &OwnedFd) -> Result<File, Errno> {
    fd.try_clone().map(File::from).map_err(|error| errno_of(&error))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_a_directory() {
        let dir = std::env::temp_dir().join(format!("tidy-beneath-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub/deep")).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        symlink("sub", dir.join("link")).unwrap();
        let open = OwnedFd::from(File::open(&dir).unwrap());
        let tried = |name: &str| beneath(open.as_fd(), name, OFlag::O_RDONLY, Mode::empty()).err();
        for name in ["file", "sub", "sub/deep", "."] {
            assert_eq!(tried(name), None, "{name}");
        }
        for (name, errno) in [
            ("link", Errno::ELOOP),
            ("link/deep", Errno::ELOOP),
            ("..", Errno::EXDEV),
            ("sub/../..", Errno::EXDEV),
            ("/etc", Errno::EXDEV),
        ] {
            assert_eq!(tried(name), Some(errno), "{name}");
        }
        // Another file system.
        let root = OwnedFd::from(File::open("/").unwrap());
        assert_eq!(open_dir(root.as_fd(), OsStr::new("proc")).err(), Some(Errno::EXDEV));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn holes_are_compared_and_not_read() {
        let dir = std::env::temp_dir().join(format!("tidy-holes-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let size = 1 << 40;
        let made = |name: &str, at: u64, text: &[u8]| {
            let file = File::create_new(dir.join(name)).unwrap();
            file.set_len(1 << 40).unwrap();
            file.write_all_at(text, at).unwrap();
            OwnedFd::from(File::open(dir.join(name)).unwrap())
        };
        let one = made("one", 1 << 30, b"text");
        let same = |other: OwnedFd| same_contents(&one, &other, size).unwrap();
        assert!(same(made("same", 1 << 30, b"text")));
        assert!(!same(made("text", 1 << 30, b"teXt")));
        assert!(!same(made("place", 1 << 31, b"text")));
        // A block of zeroes is no other content than a hole.
        let zeroes = made("zeroes", 1 << 20, &[0; 4096]);
        assert!(same_contents(&zeroes, &made("none", 0, b""), size).unwrap());
        fs::remove_dir_all(dir).unwrap();
    }
}
