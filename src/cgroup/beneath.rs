//! Opening what is in a cgroup, and nothing else.
//!
//! A workload with the right to mount may put anything in a directory's place, or in a control
//! file's: a tmpfs with a made-up `cgroup.procs`, a directory of the user's, another cgroup, a
//! FIFO. One without it may still take permissions away, if it is the same user as we are. So
//! nothing here crosses a mount (`EXDEV`), and an access that is refused to this user, the owner,
//! is granted by chmod, once for each attempt.
//!
//! openat2(2) refuses to cross a mount. Where a seccomp filter refuses it, what was opened is
//! compared with what the directory lists: the inode is another one behind a mount.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys;

pub(crate) const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

/// Names the file without opening it: an open has side effects on some.
const NAME_ONLY: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

/// Set once a seccomp filter has refused openat2: filters are never taken off.
static OPENAT2_REFUSED: AtomicBool = AtomicBool::new(false);

/// Opens a directory and nothing else. Follows the path wherever it leads.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    nix::fcntl::open(path, DIRECTORY, Mode::empty())
}

/// Opens a cgroup directory; `EXDEV` if it is on another file system.
pub(crate) fn open_cgroup(path: &Path) -> Result<OwnedFd, Errno> {
    let dir = open_dir(path)?;
    match fstatfs(&dir)?.filesystem_type() {
        CGROUP2_SUPER_MAGIC => Ok(dir),
        _ => Err(Errno::EXDEV),
    }
}

/// Opens what is below a cgroup; `EXDEV` where something is mounted on the way.
pub(crate) fn look(dir: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    if !OPENAT2_REFUSED.load(Ordering::Relaxed) {
        let within = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(within);
        match openat2(dir, path, how) {
            Err(Errno::ENOSYS | Errno::EPERM) => {}
            answer => return answer,
        }
    }
    let opened = look_by_parts(dir, path, flags)?;
    OPENAT2_REFUSED.store(true, Ordering::Relaxed);
    Ok(opened)
}

fn look_by_parts(dir: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let mut here: Option<OwnedFd> = None;
    let mut parts = path.iter().peekable();
    while let Some(part) = parts.next() {
        let above = here.as_ref().map_or(dir, AsFd::as_fd);
        let flags = if parts.peek().is_some() { DIRECTORY } else { flags };
        here = Some(look_at(above, part, flags)?);
    }
    here.ok_or(Errno::ENOENT)
}

/// Opens one name and compares inodes. `O_NONBLOCK`: opening a FIFO would wait for its other end.
fn look_at(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlag) -> Result<OwnedFd, Errno> {
    let careful = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match openat(dir, name, flags | careful, Mode::empty()) {
        Err(Errno::ENXIO) => return Err(Errno::EXDEV),
        file => file?,
    };
    let found = fstat(&file)?;
    let same = fstat(dir)?.st_dev == found.st_dev && inode(dir, name)? == found.st_ino;
    if same { Ok(file) } else { Err(Errno::EXDEV) }
}

/// The inode that the directory lists for the name: that of the cgroup, also where a mount hides
/// it.
fn inode(dir: BorrowedFd<'_>, name: &OsStr) -> Result<u64, Errno> {
    use std::os::unix::ffi::OsStrExt;
    if name == "." {
        return fstat(dir).map(|stat| stat.st_ino);
    }
    for entry in Dir::openat(dir, ".", DIRECTORY, Mode::empty())?.iter() {
        let entry = entry?;
        if entry.file_name().to_bytes() == name.as_bytes() {
            return Ok(entry.ino());
        }
    }
    Err(Errno::ENOENT)
}

/// Opens what is ours below a cgroup: permissions that were taken away are given back.
pub(crate) fn open(dir: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    match look(dir, path, flags) {
        Err(Errno::EACCES) => {
            give_back(dir, path);
            look(dir, path, flags)
        }
        answer => answer,
    }
}

/// Removes a directory of ours. Crosses no mount: one that is mounted on is busy.
pub(crate) fn remove_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    granted(dir, || unlinkat(dir, name, UnlinkatFlags::RemoveDir))
}

/// Acts, and once more with the owner's permissions on the directory if those were missing.
pub(crate) fn granted<T>(
    dir: BorrowedFd<'_>,
    act: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match act() {
        Err(Errno::EACCES) => {
            grant(dir);
            act()
        }
        answer => answer,
    }
}

/// Gives the owner its permissions on the directory and on each part of the path. Another user's
/// cannot be changed: the next attempt fails then.
pub(crate) fn give_back(dir: BorrowedFd<'_>, path: &Path) {
    grant(dir);
    let mut above: Option<OwnedFd> = None;
    for part in path.iter() {
        let dir = above.as_ref().map_or(dir, AsFd::as_fd);
        let Ok(next) = look(dir, Path::new(part), NAME_ONLY) else { return };
        // By name: fchmod takes no O_PATH fd. A mount that comes in between is the same user's, or
        // the chmod is refused.
        if let Some(mode) = fstat(&next).ok().and_then(|stat| lacking(&stat)) {
            let _ = fchmodat(dir, part, mode, FchmodatFlags::FollowSymlink);
        }
        above = Some(next);
    }
}

/// Gives the owner its permissions on one directory.
pub(crate) fn grant(dir: BorrowedFd<'_>) {
    if let Some(mode) = fstat(dir).ok().and_then(|stat| lacking(&stat)) {
        let _ = fchmod(dir, mode);
    }
}

/// The mode with all the bits that the owner needs; None if they are set.
fn lacking(stat: &FileStat) -> Option<Mode> {
    let is_directory = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    let needed = if is_directory { Mode::S_IRWXU } else { Mode::S_IRUSR | Mode::S_IWUSR };
    let mode = Mode::from_bits_truncate(stat.st_mode);
    (!mode.contains(needed)).then_some(mode | needed)
}

/// Acts, and once more below all mounts if one is in the way: a hidden cgroup may hold processes.
/// Needs CAP_SYS_ADMIN, as mounting does; without it the answer stays `EXDEV`.
pub(crate) fn reach<T>(
    dir: BorrowedFd<'_>,
    act: impl Fn(BorrowedFd<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    match act(dir) {
        Err(Errno::EXDEV) => {
            let bare = sys::without_mounts(dir).map_err(|_| Errno::EXDEV)?;
            act(bare.as_fd())
        }
        answer => answer,
    }
}

/// `ENODEV` on an open fd and `ENOENT` through a directory both mean that the cgroup is gone, which
/// teardown wants.
pub(crate) fn gone_is_fine<T: Default>(result: Result<T, Errno>) -> Result<T, Errno> {
    match result {
        Err(Errno::ENODEV | Errno::ENOENT) => Ok(T::default()),
        other => other,
    }
}
