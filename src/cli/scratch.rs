//! Files without names, for what is too much for memory: nothing of them is left whatever happens.

use std::fs::{File, OpenOptions, remove_file};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::exit::{Failure, open_failure};

/// Bytes that are copied at once.
const PIECE: usize = 64 << 10;

/// A file may be told to be longer than any disk; so much more than there is of it is believed.
const HOLES: u64 = 1 << 30;

/// Names that are tried where a file needs one for a moment.
const NAMES: u32 = 1000;

/// A directory for them: `TMPDIR`, else `/tmp`.
pub(crate) struct Scratch {
    path: PathBuf,
    dir: OwnedFd,
}

impl Scratch {
    pub(crate) fn open() -> Result<Self, Failure> {
        let path = std::env::temp_dir();
        let dir = directory(&path)?;
        Ok(Self { path, dir })
    }

    pub(crate) fn file(&self) -> Result<File, Failure> {
        let how = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let made = match openat(self.dir.as_fd(), ".", how, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => Ok(file.into()),
            // A file system that has no files without names.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT) => briefly_named(&self.path),
            Err(errno) => Err(errno.into()),
        };
        made.map_err(|error| open_failure(&self.path, error))
    }
}

/// A directory, to make files in.
pub(crate) fn directory(path: &Path) -> Result<OwnedFd, Failure> {
    let how = OFlag::O_DIRECTORY | OFlag::O_PATH;
    let opened = OpenOptions::new().read(true).custom_flags(how.bits()).open(path);
    opened.map(OwnedFd::from).map_err(|error| open_failure(path, error))
}

fn briefly_named(dir: &Path) -> io::Result<File> {
    for number in 0..NAMES {
        let path = dir.join(format!(".tidy-process-{}-{number}", std::process::id()));
        let new =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        match new {
            Ok(file) => return remove_file(&path).map(|()| file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// How much was written to a file.
pub(crate) fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |data| data.len().min(data.blocks() * 512 + HOLES))
}

/// Hands a part of a file on, piece by piece: where it begins, and how long it is.
pub(crate) fn each_piece(
    file: &File,
    (mut at, length): (u64, u64),
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE.min(usize::try_from(length).unwrap_or(PIECE))];
    let end = at.saturating_add(length);
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(PIECE).min(piece.len());
        let count = file.read_at(piece.get_mut(..most).unwrap_or_default(), at)?;
        if count == 0 {
            break;
        }
        take(piece.get(..count).unwrap_or_default())?;
        at += count as u64;
    }
    Ok(())
}
