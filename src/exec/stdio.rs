//! Standard streams: what the caller asked for, and the fds that make it so.

use std::fs::File;
use std::io::{PipeReader, PipeWriter};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;

use crate::error::{Error, Result, Step, errno_of};
use crate::sys::above_two;

/// What a standard stream of the child is connected to; as [`std::process::Stdio`].
#[derive(Debug)]
pub struct Stdio(Kind);

#[derive(Debug)]
enum Kind {
    Inherit,
    Null,
    Piped,
    Fd(OwnedFd),
}

impl Stdio {
    /// The caller's own stream.
    #[must_use]
    pub const fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// `/dev/null`.
    #[must_use]
    pub const fn null() -> Self {
        Self(Kind::Null)
    }

    /// A pipe, whose other end is in [`Child`](crate::Child).
    #[must_use]
    pub const fn piped() -> Self {
        Self(Kind::Piped)
    }
}

macro_rules! from_owned_fd {
    ($($source:ty),*) => {$(
        impl From<$source> for Stdio {
            fn from(source: $source) -> Self {
                Self(Kind::Fd(source.into()))
            }
        }
    )*};
}
from_owned_fd!(OwnedFd, File, PipeReader, PipeWriter, ChildStdin, ChildStdout, ChildStderr);

/// One stream made ready: what the child gets (-1: as it is), what must stay open until it has it,
/// and our end of a pipe.
#[derive(Debug, Default)]
pub(crate) struct Stream<'a> {
    pub(crate) child: RawFd,
    _held: Option<OwnedFd>,
    _lent: PhantomData<&'a Stdio>,
    pub(crate) ours: Option<OwnedFd>,
}

impl<'a> Stream<'a> {
    /// `number` is 0, 1 or 2. The child's fd is always above 2, so that no `dup2` overwrites the
    /// source of a later one.
    pub(crate) fn make(number: u8, asked: &'a Stdio) -> Result<Self> {
        let name = ["stdin", "stdout", "stderr"].get(usize::from(number)).unwrap_or(&"stream");
        Self::of(number == 0, &asked.0).map_err(|errno| Error::os(Step::Stdio, *name, errno))
    }

    fn of(is_input: bool, kind: &'a Kind) -> Result<Self, Errno> {
        match kind {
            Kind::Inherit => Ok(Self { child: -1, ..Self::default() }),
            Kind::Null => {
                let access = if is_input { OFlag::O_RDONLY } else { OFlag::O_WRONLY };
                let null = open("/dev/null", access | OFlag::O_CLOEXEC, Mode::empty())?;
                Self::holding(null, None)
            }
            Kind::Piped => {
                let (reads, writes) = pipe2(OFlag::O_CLOEXEC)?;
                let (child, ours) = if is_input { (reads, writes) } else { (writes, reads) };
                Self::holding(child, Some(ours))
            }
            Kind::Fd(fd) if fd.as_raw_fd() > 2 => {
                Ok(Self { child: fd.as_raw_fd(), ..Self::default() })
            }
            Kind::Fd(fd) => Self::holding(fd.try_clone().map_err(|error| errno_of(&error))?, None),
        }
    }

    fn holding(fd: OwnedFd, ours: Option<OwnedFd>) -> Result<Self, Errno> {
        let fd = above_two(fd)?;
        Ok(Self { child: fd.as_raw_fd(), _held: Some(fd), ours, ..Self::default() })
    }
}

/// Our end of an output pipe is read without blocking: a stranger may hold the other end for ever.
pub(crate) fn set_nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    set_flag(fd, OFlag::O_NONBLOCK)
}

/// Every write goes to the end, whoever else writes.
pub(crate) fn set_appending(fd: &File) -> Result<(), Errno> {
    set_flag(fd, OFlag::O_APPEND)
}

fn set_flag(fd: impl AsFd, flag: OFlag) -> Result<(), Errno> {
    let now = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(now | flag)).map(drop)
}
