//! Standard streams: what the caller asked for, and the fds that make it so.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Seek, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;

use crate::error::{Error, Result, Step, errno_of};
use crate::sys::above_two;

/// What a standard stream of the child is connected to; as [`std::process::Stdio`].
#[derive(Debug)]
pub struct Stdio(Source);

#[derive(Debug)]
enum Source {
    Inherit,
    Null,
    Piped,
    Fd(OwnedFd),
    /// The caller's own stdout (1) or stderr (2).
    Own(u8),
    Bytes(Vec<u8>),
}

impl Stdio {
    /// The caller's own stream.
    #[must_use]
    pub const fn inherit() -> Self {
        Self(Source::Inherit)
    }

    /// `/dev/null`.
    #[must_use]
    pub const fn null() -> Self {
        Self(Source::Null)
    }

    /// A pipe, whose other end is in [`Child`](crate::Child).
    #[must_use]
    pub const fn piped() -> Self {
        Self(Source::Piped)
    }

    /// These bytes, then the end: for a child's standard input alone. They stand in a sealed,
    /// unnamed file in memory; a command that spawns again gives them again.
    ///
    /// # Examples
    /// ```
    /// use tidy_process::{Command, Stdio};
    ///
    /// let output = Command::new("wc").arg("-c").stdin(Stdio::bytes("hello")).output()?;
    /// assert_eq!(output.stdout, b"5\n");
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    #[must_use]
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Source::Bytes(bytes.into()))
    }

    /// Whether it is a pipe whose other end stays in this process.
    pub(crate) fn is_piped(&self) -> bool {
        matches!(self.0, Source::Piped)
    }
}

/// The caller's standard output, as it is at the spawn.
impl From<io::Stdout> for Stdio {
    fn from(_: io::Stdout) -> Self {
        Self(Source::Own(1))
    }
}

/// The caller's standard error, as it is at the spawn.
impl From<io::Stderr> for Stdio {
    fn from(_: io::Stderr) -> Self {
        Self(Source::Own(2))
    }
}

macro_rules! from_owned_fd {
    ($($source:ty),*) => {$(
        impl From<$source> for Stdio {
            fn from(source: $source) -> Self {
                Self(Source::Fd(source.into()))
            }
        }
    )*};
}
from_owned_fd!(OwnedFd, File, PipeReader, PipeWriter, ChildStdin, ChildStdout, ChildStderr);

/// One stream made ready: the child's fd (-1: inherited), what must stay open until the child has
/// it, and this process's end of a pipe.
#[derive(Debug, Default)]
pub(crate) struct ChildStream<'a> {
    pub(crate) child: RawFd,
    _held: Option<OwnedFd>,
    _lent: PhantomData<&'a Stdio>,
    pub(crate) ours: Option<OwnedFd>,
}

impl<'a> ChildStream<'a> {
    /// Makes stream `number` (0, 1 or 2) ready. The child's fd is always above 2, so that no `dup2`
    /// overwrites the source of a later one.
    pub(crate) fn make(number: u8, asked: &'a Stdio) -> Result<Self> {
        let name = ["stdin", "stdout", "stderr"].get(usize::from(number)).unwrap_or(&"stream");
        if let (Source::Bytes(_), 1..) = (&asked.0, number) {
            let why = "bytes are for standard input alone";
            return Err(Error::invalid(Step::Prepare, *name, why));
        }
        Self::of(number == 0, &asked.0).map_err(|errno| Error::os(Step::Stdio, *name, errno))
    }

    fn of(is_input: bool, kind: &'a Source) -> Result<Self, Errno> {
        match kind {
            Source::Inherit => Ok(Self { child: -1, ..Self::default() }),
            Source::Null => {
                let access = if is_input { OFlag::O_RDONLY } else { OFlag::O_WRONLY };
                let null = open("/dev/null", access | OFlag::O_CLOEXEC, Mode::empty())?;
                Self::holding(null, None)
            }
            Source::Piped => {
                let (reads, writes) = pipe2(OFlag::O_CLOEXEC)?;
                let (child, ours) = if is_input { (reads, writes) } else { (writes, reads) };
                Self::holding(child, Some(ours))
            }
            Source::Fd(fd) if fd.as_raw_fd() > 2 => {
                Ok(Self { child: fd.as_raw_fd(), ..Self::default() })
            }
            Source::Fd(fd) => Self::copying(fd.as_fd()),
            Source::Own(1) => Self::copying(io::stdout().as_fd()),
            Source::Own(_) => Self::copying(io::stderr().as_fd()),
            Source::Bytes(bytes) => Self::holding(memory(bytes)?.into(), None),
        }
    }

    fn copying(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        Self::holding(fd.try_clone_to_owned().map_err(|error| errno_of(&error))?, None)
    }

    fn holding(fd: OwnedFd, ours: Option<OwnedFd>) -> Result<Self, Errno> {
        let fd = above_two(fd)?;
        Ok(Self { child: fd.as_raw_fd(), _held: Some(fd), ours, ..Self::default() })
    }
}

/// Makes a file in memory, at its start. It is sealed: the child cannot change it.
fn memory(bytes: &[u8]) -> Result<File, Errno> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"tidy-process-stdin", flags)?);
    let written = file.write_all(bytes).and_then(|()| file.rewind());
    written.map_err(|error| errno_of(&error))?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
    Ok(file)
}

/// Makes reads return at once: another process may hold the other end of an output pipe for ever.
pub(crate) fn set_nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    set_flag(fd, OFlag::O_NONBLOCK)
}

/// Makes each write go to the end of the file, whatever other processes write.
pub(crate) fn set_appending(fd: &File) -> Result<(), Errno> {
    set_flag(fd, OFlag::O_APPEND)
}

fn set_flag(fd: impl AsFd, flag: OFlag) -> Result<(), Errno> {
    let now = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(now | flag)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn null_is_read_or_written_and_never_inherited() -> Result<(), Box<dyn std::error::Error>> {
        for (number, access) in [(0, OFlag::O_RDONLY), (1, OFlag::O_WRONLY), (2, OFlag::O_WRONLY)] {
            let null = Stdio::null();
            let stream = ChildStream::make(number, &null)?;
            let fd = stream._held.as_ref().ok_or("it is held")?;
            let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
            assert_eq!(flags & OFlag::O_ACCMODE, access, "{number}");
            assert_eq!(fcntl(fd, FcntlArg::F_GETFD)?, 1, "closed on exec");
        }
        Ok(())
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn given_bytes_are_sealed_and_logs_only_grow() -> io::Result<()> {
        let mut file = memory(b"given")?;
        let all = SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SEAL;
        assert_eq!(fcntl(&file, FcntlArg::F_GET_SEALS)?, all.bits());
        assert_eq!(io::read_to_string(&file)?, "given");
        assert!(file.write_all(b"more").is_err());
        let mut log = File::from(memfd_create(c"log", MFdFlags::MFD_CLOEXEC)?);
        set_appending(&log)?;
        log.write_all(b"one")?;
        log.rewind()?;
        log.write_all(b"two")?;
        log.rewind()?;
        assert_eq!(io::read_to_string(&log)?, "onetwo");
        Ok(())
    }
}
