//! A cgroup as one that merely looks at it has it: holds nothing that keeps it, changes nothing.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::read;

use crate::cgroup::beneath::{self, reach};
use crate::cgroup::walk::{self, Manner};

/// Bytes that are read of a control file: `io.stat` has some 150 for each device.
const SHORT: usize = 4096;

/// A cgroup by its parent and its name; it may be gone at any time.
#[derive(Debug)]
pub(crate) struct View {
    parent: Arc<OwnedFd>,
    name: OsString,
}

impl View {
    pub(crate) fn new(parent: &Arc<OwnedFd>, name: &OsStr) -> Self {
        Self { parent: Arc::clone(parent), name: name.to_owned() }
    }

    /// The pids in it and below, in order; as far as that may be read.
    pub(crate) fn pids(&self) -> Result<Vec<i32>, Errno> {
        walk::members(self.parent.as_fd(), &self.name, Manner::Look)
    }

    /// Reads the beginning of a control file.
    pub(crate) fn read(&self, file: &str) -> Result<String, Errno> {
        let path = Path::new(&self.name).join(file);
        let file =
            reach(self.parent.as_fd(), |parent| beneath::look(parent, &path, OFlag::O_RDONLY))?;
        let mut buffer = [0; SHORT];
        let len = read(&file, &mut buffer)?;
        Ok(String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).into_owned())
    }
}
