//! Waits for a command and for signals at the same time.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tidy_process::{Child, cli_support};

use crate::exit::Failure;
use crate::wait::signals::{Asked, Signals, is_init, suspend};

/// How a command is stopped: the signal, and the time until the kill.
#[derive(Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) signal: i32,
    pub(crate) kill_after: Duration,
}

pub(crate) struct Watch<'a> {
    child: &'a Child,
    signals: &'a Signals,
    stop: Stop,
    /// Suspended together with the command, which is ended when one of them ends.
    servers: &'a [&'a Child],
    /// The first signal that asked this process to end.
    pub(crate) asked: Option<Signal>,
    kill_at: Option<Instant>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(child: &'a Child, signals: &'a Signals, stop: Stop) -> Self {
        Self { child, signals, stop, servers: &[], asked: None, kill_at: None }
    }

    pub(crate) fn beside(self, servers: &'a [&'a Child]) -> Self {
        Self { servers, ..self }
    }

    pub(crate) fn until_main_ended(&mut self) -> Result<(), Failure> {
        while self.child.try_wait()?.is_none() {
            self.reap_orphans();
            self.sleep(self.child.as_fd(), PollFlags::POLLIN)?;
        }
        Ok(())
    }

    pub(crate) fn until_empty(&mut self) -> Result<(), Failure> {
        while !self.child.tree().wait_empty(Instant::now())? {
            self.reap_orphans();
            let (fd, news) = cli_support::empty_news(self.child.tree());
            self.sleep(fd, news)?;
        }
        Ok(())
    }

    /// Gives what the command has left its time: to end by itself, or after a stop signal.
    pub(crate) fn until_settled(&mut self) -> Result<(), Failure> {
        cli_support::wind_down(self.child, |until| {
            self.reap_orphans();
            let (fd, news) = cli_support::empty_news(self.child.tree());
            self.sleep_until(fd, news, until)
        })
    }

    /// Waits until the command has ended or nothing is left of a server, whose number it returns.
    /// Once a signal has asked this process to end, the end of a server does not count.
    pub(crate) fn until_server_ended(&mut self) -> Result<Option<usize>, Failure> {
        while self.child.try_wait()?.is_none() {
            for (number, server) in self.servers.iter().enumerate() {
                if self.asked.is_none() && is_over(server)? && !self.signal_comes()? {
                    return Ok(Some(number));
                }
            }
            self.reap_orphans();
            self.sleep(self.child.as_fd(), PollFlags::POLLIN)?;
        }
        Ok(None)
    }

    /// Reaps orphans if this is the first process of a container, whose duty that is. The command
    /// and the servers are reaped by their handles.
    fn reap_orphans(&self) {
        if is_init() {
            let ours = self.servers.iter().chain([&self.child]).map(|child| child.id());
            cli_support::reap_all_but(&ours.collect::<Vec<_>>());
        }
    }

    /// Whether a signal comes within 50 ms: a Ctrl-C reaches the servers too, and may end one
    /// before this process sees it.
    fn signal_comes(&mut self) -> Result<bool, Failure> {
        let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(50u8)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.take_signals()?;
        Ok(self.asked.is_some())
    }

    fn take_signals(&mut self) -> Result<(), Failure> {
        while let Some(asked) = self.signals.next()? {
            self.answer(asked)?;
        }
        Ok(())
    }

    /// Sleeps until `fd` has news, a signal has come, a server may have ended, or the next step of
    /// a timeout is due; answers signals.
    pub(crate) fn sleep(&mut self, fd: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Failure> {
        self.sleep_until(fd, flags, None)
    }

    fn sleep_until(
        &mut self,
        fd: BorrowedFd<'_>,
        flags: PollFlags,
        until: Option<Instant>,
    ) -> Result<(), Failure> {
        let mut next = [self.kill_at, until].into_iter().flatten().min();
        let mut fds =
            vec![PollFd::new(fd, flags), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        for server in self.servers {
            if server.try_wait()?.is_none() {
                fds.push(PollFd::new(server.as_fd(), PollFlags::POLLIN));
            } else {
                // A daemon: no fd says for sure that it has ended.
                let look = Instant::now() + Duration::from_millis(100);
                next = Some(next.map_or(look, |next| next.min(look)));
            }
        }
        cli_support::rest(self.child, &mut fds, next)?;
        self.take_signals()?;
        if self.kill_at.is_some_and(|at| Instant::now() >= at) {
            self.kill_at = None;
            self.child.kill()?;
        }
        Ok(())
    }

    fn answer(&mut self, asked: Asked) -> Result<(), Failure> {
        match asked {
            Asked::Suspend => {
                for child in self.servers.iter().chain([&self.child]) {
                    cli_support::set_still(child.tree(), true)?;
                }
                suspend()?;
                for child in self.servers.iter().chain([&self.child]) {
                    cli_support::set_still(child.tree(), false)?;
                }
            }
            Asked::Stop { .. } if self.asked.is_some() => {
                self.kill_at = None;
                self.child.kill()?;
            }
            Asked::Stop { signal, from_terminal } => {
                self.asked = Some(signal);
                cli_support::note_stop(self.child, self.stop.kill_after);
                self.kill_at = Instant::now().checked_add(self.stop.kill_after);
                // Ctrl-C has reached the whole foreground group already: a second signal just
                // behind it would cut off a handler that is cleaning up. A process outside that
                // group has got none yet.
                if from_terminal {
                    let group = nix::unistd::getpgrp();
                    let outside = |pid: u32| group_of(pid) != Some(group);
                    cli_support::stop_where(self.child.tree(), self.stop.signal, outside)?;
                } else {
                    cli_support::stop_all(self.child, self.stop.signal)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether nothing of the server is left: a daemon may have outlived the main process.
fn is_over(server: &Child) -> Result<bool, Failure> {
    Ok(server.try_wait()?.is_some() && server.tree().wait_empty(Instant::now())?)
}

fn group_of(pid: u32) -> Option<Pid> {
    nix::unistd::getpgid(Some(Pid::from_raw(pid.cast_signed()))).ok()
}
