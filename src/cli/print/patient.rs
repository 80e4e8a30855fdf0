//! Writing to a stream that was made non-blocking: by a child that shares it, or by the one that
//! started us.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::write;

/// A pipe that can be written takes this much at once.
const PIECE: usize = 4096;

/// Writes to a fd, and waits where that says "try again".
pub(crate) struct Patient<T>(pub(crate) T);

impl<T: AsFd> Write for Patient<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match write(&self.0, bytes) {
                Ok(count) => return Ok(count),
                Err(Errno::EAGAIN) => writable(self.0.as_fd())?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits with signals as they are.
fn writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes the last words of a run. All else is done, so a request to end may end us where the
/// reader does not read. Signals that were for the command stay out.
pub(crate) fn write_finally(fd: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd();
    let mut mask = SigSet::thread_get_mask()?;
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP]
        .into_iter()
        .for_each(|signal| mask.remove(signal));
    for piece in bytes.chunks(PIECE) {
        match ppoll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], None, Some(mask)) {
            Ok(_) | Err(Errno::EINTR) => Patient(fd).write_all(piece)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A reader that has seen enough, as `head` has, is no failure.
pub(crate) fn forgiving(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
