//! Waits that Ctrl-C ends: poll(2) without the GIL, in the thread that Python's signals come to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pyo3::prelude::*;
use tidy_process::Child;

/// Sleeps until one of the fds is readable or this moment; runs Python's signal handlers, whose
/// exceptions end it.
pub(crate) fn sleep<'a>(
    py: Python<'_>,
    fds: impl IntoIterator<Item = BorrowedFd<'a>>,
    until: Option<Instant>,
) -> PyResult<()> {
    let mut fds: Vec<_> = fds.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let slept = py.detach(|| poll(&mut fds, timeout(until)));
    match slept {
        Ok(_) => Ok(()),
        Err(Errno::EINTR) => py.check_signals(),
        Err(errno) => Err(std::io::Error::from(errno).into()),
    }
}

fn timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else { return PollTimeout::NONE };
    let left = until.saturating_duration_since(Instant::now());
    // Rounded up, so that it never returns just before.
    PollTimeout::try_from(left + std::time::Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
}

/// Does in a thread of its own what cannot be interrupted: a grace. An exception of a signal
/// handler kills the tree, with which the work ends.
pub(crate) fn apart<T: Send + 'static>(
    py: Python<'_>,
    child: &Arc<Child>,
    work: impl FnOnce(&Child) -> T + Send + 'static,
) -> PyResult<Option<T>> {
    let (ended, line): (std::io::PipeReader, std::io::PipeWriter) = std::io::pipe()?;
    let theirs = Arc::clone(child);
    let worker = thread::Builder::new().name("tidy-process".to_owned()).spawn(move || {
        let done = work(&theirs);
        drop(theirs);
        drop(line);
        done
    })?;
    let ended: OwnedFd = ended.into();
    let mut interrupted = Ok(());
    while !worker.is_finished() {
        // The end of the line comes a moment before that of the thread, which is joined then.
        match sleep(py, [ended.as_fd()], None) {
            Ok(()) if is_over(&ended) => break,
            Ok(()) => {}
            Err(error) => {
                interrupted = Err(error);
                let _ = py.detach(|| child.kill());
                break;
            }
        }
    }
    let done = py.detach(|| worker.join()).ok();
    interrupted.map(|()| done)
}

fn is_over(line: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(line.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|number| number > 0)
}
