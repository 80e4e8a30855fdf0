//! Where the output of a command goes while it runs: files without names, so that nothing of them
//! is left whatever happens, or files in a directory of results. Never memory.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::exit::{Failure, open_failure};
use crate::scratch::{Scratch, directory};

/// Files that are kept for commands to come: most write nothing.
const SPARE: usize = 64;

/// Both streams of one command.
pub(crate) struct Spool {
    pub(crate) out: File,
    pub(crate) err: File,
    /// The directory of its results.
    pub(crate) dir: Option<OwnedFd>,
}

pub(crate) enum Spools {
    /// Commands write where the tool does.
    Ours,
    /// Files without names; some were not written to, and are kept.
    Unnamed(Scratch, Mutex<Vec<Spool>>),
    /// A directory that has one for each command.
    Results(PathBuf, OwnedFd),
}

impl Spools {
    pub(crate) fn unnamed() -> Result<Self, Failure> {
        Ok(Self::Unnamed(Scratch::open()?, Mutex::default()))
    }

    /// Makes the directory, if it is not there.
    pub(crate) fn results(dir: &Path) -> Result<Self, Failure> {
        let made = DirBuilder::new().recursive(true).mode(0o777).create(dir);
        made.map_err(|error| open_failure(dir, error))?;
        Ok(Self::Results(dir.to_owned(), directory(dir)?))
    }

    /// Files for the command with this number.
    pub(crate) fn open(&self, number: u64) -> Result<Option<Spool>, Failure> {
        match self {
            Self::Ours => Ok(None),
            Self::Unnamed(scratch, spare) => {
                if let Some(spool) = lock(spare).pop() {
                    return Ok(Some(spool));
                }
                Ok(Some(Spool { out: scratch.file()?, err: scratch.file()?, dir: None }))
            }
            Self::Results(path, dir) => {
                let path = path.join(number.to_string());
                let spool = results(dir, &number.to_string());
                spool.map(Some).map_err(|errno| open_failure(&path, errno.into()))
            }
        }
    }
}

impl Spools {
    /// Takes files back of which a command has made nothing.
    pub(crate) fn give_back(&self, spool: Spool) {
        let Self::Unnamed(_, spare) = self else { return };
        let mut spare = lock(spare);
        if spare.len() < SPARE && is_new(&spool.out) && is_new(&spool.err) {
            spare.push(spool);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a file is as it was made.
fn is_new(file: &File) -> bool {
    let is_new =
        |data: Metadata| data.len() == 0 && data.blocks() == 0 && data.mode() & 0o7777 == 0o600;
    file.metadata().is_ok_and(is_new)
}

/// The same file for the command, opened anew: position, flags and locks are its own, and end with
/// it. Without `/proc` they are shared.
pub(crate) fn lent(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let anew = OpenOptions::new().read(true).write(true).open(path);
    anew.or_else(|_| file.try_clone())
}

/// New files: one that is there already may be a link, a FIFO, or have another name elsewhere.
fn results(dir: &OwnedFd, name: &str) -> nix::Result<Spool> {
    match mkdirat(dir.as_fd(), name, Mode::from_bits_retain(0o777)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let how = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let dir = openat(dir.as_fd(), name, how, Mode::empty())?;
    let (out, err) = (new_file(&dir, "stdout")?, new_file(&dir, "stderr")?);
    Ok(Spool { out, err, dir: Some(dir) })
}

pub(crate) fn new_file(dir: &OwnedFd, name: &str) -> nix::Result<File> {
    match unlinkat(dir.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    let how = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir.as_fd(), name, how, Mode::from_bits_retain(0o666)).map(File::from)
}
