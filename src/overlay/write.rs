//! Writes to the host's directory, one name at a time: all that a commit does there.

use std::ffi::{OsStr, OsString};
use std::io::{Read, copy};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, futimens, mkdirat, stat};
use nix::sys::time::TimeSpec;
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, Whence, fchown, ftruncate, geteuid, linkat, lseek, symlinkat, unlinkat,
};

use crate::error::errno_of;
use crate::overlay::attributes;
use crate::overlay::files::{
    Kind, Opened, PERMISSIONS, beneath, data, file, look, names, open_dir,
};

/// Names that are tried for a file, before one is taken that is not there.
const TRIES: u32 = 1000;

/// Until it is whole. Setting attributes needs the right to write.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// Levels of what is removed, at the most.
const MOST_DEPTH: usize = 256;

/// A name in an open directory of the host's, and what has it.
pub(super) struct Place<'a> {
    pub(super) host: BorrowedFd<'a>,
    pub(super) name: &'a OsStr,
    pub(super) old: Option<&'a FileStat>,
}

/// A new file of the host's, under no name until it is whole: then nothing is left of it, whenever
/// this process is killed. Where the file system has no such files it has a name of its own.
enum New<'a> {
    Nameless(OwnedFd),
    Named(Draft<'a>, OwnedFd),
}

impl New<'_> {
    fn file(&self) -> &OwnedFd {
        match self {
            Self::Nameless(file) | Self::Named(_, file) => file,
        }
    }
}

/// A file under a name of its own, which goes with it unless it is put in its place.
struct Draft<'a> {
    host: BorrowedFd<'a>,
    name: OsString,
    placed: bool,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.placed {
            let _ = unlinkat(self.host, &*self.name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

impl<'a> Place<'a> {
    /// Makes something under a name that is free.
    fn draft<T>(
        &self,
        mut make: impl FnMut(&OsStr) -> Result<T, Errno>,
    ) -> Result<(Draft<'a>, T), Errno> {
        for number in 0..TRIES {
            let name = OsString::from(format!(".tidy-commit-{}-{number}", std::process::id()));
            match make(&name) {
                Err(Errno::EEXIST) => {}
                made => {
                    let made = made?;
                    return Ok((Draft { host: self.host, name, placed: false }, made));
                }
            }
        }
        Err(Errno::EEXIST)
    }

    /// Gives a draft its name, in place of what has that.
    fn take(&self, mut draft: Draft<'_>) -> Result<(), Errno> {
        if self.old.is_some_and(|old| Kind::of(old) == Kind::Dir) {
            clear(self.host, self.name)?;
        }
        renameat(self.host, &*draft.name, self.host, self.name)?;
        // Renaming one link of a file to another one of it leaves both.
        draft.placed = look(self.host, &draft.name)?.is_none();
        Ok(())
    }

    /// Gives a new thing the place's name: at once where that is free, else by way of a draft.
    fn put(&self, mut make: impl FnMut(&OsStr) -> Result<(), Errno>) -> Result<(), Errno> {
        if self.old.is_none() {
            match make(self.name) {
                // It has come meanwhile.
                Err(Errno::EEXIST) => {}
                made => return made,
            }
        }
        let (draft, ()) = self.draft(make)?;
        self.take(draft)
    }

    pub(super) fn write(&self, from: Opened, seen: &FileStat) -> Result<(), Errno> {
        let new = self.new_file()?;
        let to = new.file();
        fill(&from.fd, to, seen.st_size)?;
        if let Some(old) = self.old.filter(|old| Kind::of(old) == Kind::File) {
            keep_owner(to, old)?;
        }
        attributes::copy(&from.fd, to)?;
        fchmod(to, Mode::from_bits_truncate(seen.st_mode & PERMISSIONS))?;
        let time = TimeSpec::new(seen.st_mtime, seen.st_mtime_nsec);
        futimens(to, &TimeSpec::UTIME_OMIT, &time)?;
        match new {
            New::Nameless(file) => self.put(|name| name_it(&file, self.host, name)),
            New::Named(draft, _) => self.take(draft),
        }
    }

    fn new_file(&self) -> Result<New<'a>, Errno> {
        let nameless = beneath(self.host, ".", OFlag::O_WRONLY | OFlag::O_TMPFILE, PRIVATE);
        // Without /proc it could be given no name later.
        if let Ok(file) = nameless
            && is_in_proc(&file)
        {
            return Ok(New::Nameless(file));
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let (draft, file) = self.draft(|name| beneath(self.host, name, flags, PRIVATE))?;
        Ok(New::Named(draft, file))
    }

    /// Makes it another link to what is at this path below the overlay's directory.
    pub(super) fn link_to(&self, root: BorrowedFd<'_>, first: &Path) -> Result<(), Errno> {
        let (Some(dir), Some(name)) = (first.parent(), first.file_name()) else {
            return Err(Errno::ENOENT);
        };
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let dir = beneath(root, dir, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?;
        self.put(|new| linkat(&dir, name, self.host, new, AtFlags::empty()))
    }

    pub(super) fn symlink(&self, target: &OsStr) -> Result<(), Errno> {
        self.put(|name| symlinkat(target, self.host, name))
    }
}

/// The file's path in `/proc`: by its fd alone only root links it.
fn in_proc(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn is_in_proc(file: &OwnedFd) -> bool {
    let known = fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
    stat(&*in_proc(file)).map(|stat| (stat.st_dev, stat.st_ino)) == known
}

fn name_it(file: &OwnedFd, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    linkat(AT_FDCWD, &*in_proc(file), dir, name, AtFlags::AT_SYMLINK_FOLLOW)
}

/// Makes a directory in place of what has the name, for its owner alone.
pub(super) fn dir(place: &Place<'_>) -> Result<OwnedFd, Errno> {
    if place.old.is_some() {
        unlinkat(place.host, place.name, UnlinkatFlags::NoRemoveDir)?;
    }
    mkdirat(place.host, place.name, Mode::S_IRWXU)?;
    open_dir(place.host, place.name)
}

/// Gives a directory the permissions that it has in the layer, and these besides. Set-id bits are
/// the host's: its own, or those of the directory above it.
pub(super) fn permit(host: &OwnedFd, now: &FileStat, besides: Mode) -> Result<(), Errno> {
    let kept = fstat(host)?.st_mode & !PERMISSIONS & !libc::S_IFMT;
    let mode = kept | besides.bits() | now.st_mode & PERMISSIONS;
    fchmod(host, Mode::from_bits_retain(mode))
}

/// Removes what has this name, with all that is below it.
pub(super) fn clear(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    clear_below(dir, name, MOST_DEPTH)
}

fn clear_below(dir: BorrowedFd<'_>, name: &OsStr, depth: usize) -> Result<(), Errno> {
    match look(dir, name)? {
        None => Ok(()),
        Some(stat) if Kind::of(&stat) == Kind::Dir => {
            let depth = depth.checked_sub(1).ok_or(Errno::ENAMETOOLONG)?;
            let below = open_dir(dir, name)?;
            for name in names(below.as_fd())? {
                clear_below(below.as_fd(), &name, depth)?;
            }
            unlinkat(dir, name, UnlinkatFlags::RemoveDir)
        }
        Some(_) => unlinkat(dir, name, UnlinkatFlags::NoRemoveDir),
    }
}

/// A file that root replaces stays its owner's.
fn keep_owner(file: &OwnedFd, old: &FileStat) -> Result<(), Errno> {
    if !geteuid().is_root() {
        return Ok(());
    }
    fchown(file, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)))
}

/// Copies what there is up to this size, with its holes: a file may be far larger than what it
/// holds.
fn fill(from: &OwnedFd, to: &OwnedFd, size: i64) -> Result<(), Errno> {
    let (mut input, mut output) = (file(from)?, file(to)?);
    ftruncate(to, size)?;
    let mut end = 0;
    while end < size {
        let start = data(from, end, size)?;
        if start == size {
            break;
        }
        end = lseek(from, start, Whence::SeekHole)?.min(size);
        lseek(from, start, Whence::SeekSet)?;
        lseek(to, start, Whence::SeekSet)?;
        let length = u64::try_from(end - start).unwrap_or(0);
        let copied = copy(&mut (&mut input).take(length), &mut output);
        if copied.map_err(|error| errno_of(&error))? < length {
            return Err(Errno::ESTALE);
        }
    }
    Ok(())
}
