//! The parent of the tool, or more of those above it, which it is to die with.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use tidy_process::cli_support::Partner;

use crate::print::text::line;

pub(crate) struct Parent {
    /// The nearest first.
    processes: Vec<Partner>,
    quiet: bool,
    /// Readable when a signal has come or one of them has ended: one fd for each wait to poll, and
    /// so no wait that knows only of the signals.
    news: Epoll,
    told: Cell<bool>,
}

impl Parent {
    /// `quiet`: their end is not said.
    pub(crate) fn watch(
        processes: Vec<Partner>,
        quiet: bool,
        signals: BorrowedFd<'_>,
    ) -> nix::Result<Self> {
        let news = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for fd in processes.iter().map(AsFd::as_fd).chain([signals]) {
            news.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        }
        Ok(Self { processes, quiet, news, told: Cell::new(false) })
    }

    /// Whether one of them has ended and that is news: true once.
    pub(crate) fn has_just_ended(&self) -> bool {
        if self.told.get() {
            return false;
        }
        let mut placed = self.processes.iter().enumerate();
        let Some((place, process)) = placed.find(|(_, process)| process.has_ended()) else {
            return false;
        };
        self.told.set(true);
        for process in &self.processes {
            // One that has ended would stay readable for ever.
            let _ = self.news.delete(process);
        }
        if !self.quiet {
            let whose = if place == 0 { "the parent" } else { "a parent of the parent" };
            line(format_args!("{whose}, process {}, has ended", process.pid()));
        }
        true
    }

    pub(crate) fn news(&self) -> BorrowedFd<'_> {
        self.news.0.as_fd()
    }
}
