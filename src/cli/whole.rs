//! A file that is there whole or not at all: written beside its name, then renamed.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::exit::{Failure, open_failure};

/// Where a file goes: its directory is opened before the command runs, which may be able to put
/// another one, or links, in its place.
pub(crate) struct WholeFile {
    path: PathBuf,
    dir: OwnedFd,
    name: OsString,
}

impl WholeFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        if path.file_name().is_none() || path.as_os_str().as_bytes().ends_with(b"/") {
            let error = io::Error::new(ErrorKind::InvalidInput, "it is the name of no file");
            return Err(open_failure(path, error));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(parent.unwrap_or(Path::new(".")), flags, Mode::empty());
        let dir = dir.map_err(|errno| open_failure(path, errno.into()))?;
        let name = path.file_name().unwrap_or_default().to_owned();
        Ok(Self { path: path.to_owned(), dir, name })
    }

    /// Fails where [`put`](Self::put) would, as far as that can be told before: in a directory that
    /// cannot be written to. So does what is there and is no file: a device, say, by a link of
    /// another name (`/dev/stdout`), would be replaced.
    pub(crate) fn check(self) -> Result<Self, Failure> {
        let failed = |error| open_failure(&self.path, error);
        if std::fs::metadata(&self.path).is_ok_and(|there| !there.is_file()) {
            let why = "it is there and is no file: it would be replaced";
            return Err(failed(io::Error::other(why)));
        }
        let (name, _) = self.make().map_err(failed)?;
        self.unmake(&name);
        Ok(self)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A reader finds the old file or the whole new one.
    pub(crate) fn put(&self, text: &str) -> io::Result<()> {
        let (name, mut file) = self.make()?;
        let written = file.write_all(text.as_bytes());
        let renamed = written.and_then(|()| {
            renameat(&self.dir, &*name, &self.dir, &*self.name).map_err(io::Error::from)
        });
        renamed.inspect_err(|_| self.unmake(&name))
    }

    /// Makes a file of a name that nothing could have been put at. It has nothing of the name that
    /// it is to get: that may be as long as a name can be.
    fn make(&self) -> io::Result<(OsString, File)> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let mode = Mode::from_bits_truncate(0o666);
        let number = RandomState::new().hash_one(0);
        let name = OsString::from(format!(".tidy-process-{number:x}.tmp"));
        let file = openat(&self.dir, &*name, flags | OFlag::O_CLOEXEC, mode)?;
        Ok((name, File::from(file)))
    }

    fn unmake(&self, name: &OsString) {
        let _ = unlinkat(&self.dir, &**name, UnlinkatFlags::NoRemoveDir);
    }
}
