//! The parent of the tool, which it is to die with.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use tidy_process::cli_support::Partner;

use crate::print::text::line;

pub(crate) struct Parent {
    process: Partner,
    quiet: bool,
    /// Readable when a signal has come or the parent has ended: one fd for each wait to poll, and
    /// so no wait that knows only of the signals.
    news: Epoll,
    told: Cell<bool>,
}

impl Parent {
    /// `quiet`: its end is not said.
    pub(crate) fn watch(
        process: Partner,
        quiet: bool,
        signals: BorrowedFd<'_>,
    ) -> nix::Result<Self> {
        let news = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for fd in [signals, process.as_fd()] {
            news.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        }
        Ok(Self { process, quiet, news, told: Cell::new(false) })
    }

    /// Whether the parent has ended and that is news: true once.
    pub(crate) fn has_just_ended(&self) -> bool {
        if self.told.get() || !self.process.has_ended() {
            return false;
        }
        self.told.set(true);
        // It would stay readable for ever.
        let _ = self.news.delete(&self.process);
        if !self.quiet {
            line(format_args!("the parent, process {}, has ended", self.process.pid()));
        }
        true
    }

    pub(crate) fn news(&self) -> BorrowedFd<'_> {
        self.news.0.as_fd()
    }
}
