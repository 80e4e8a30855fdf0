//! Waits for a command and for signals at the same time.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use libc::SIGCONT;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use tidy_process::{Child, cli_support};

use crate::exit::Failure;
use crate::wait::bar::Bar;
use crate::wait::request::{Answer, Requests};
use crate::wait::signals::{Asked, Came, ORPHANED, Reached, Signals, is_init, suspend};
use crate::wait::terminal::{group_of, is_beside_us, is_ours};

/// How long a command that Ctrl-Z has reached may take to stop by itself, as editors do once they
/// have put the terminal back; then it is made to stand still.
const STOPS_WITHIN: Duration = Duration::from_millis(200);

/// The time between two looks at what no event announces.
const LOOK: Duration = Duration::from_millis(100);

/// How a command is stopped.
#[derive(Clone, Copy)]
pub(crate) struct Stop {
    /// The signal, if it is not to be the one that has come.
    pub(crate) signal: Option<i32>,
    /// The time until the kill.
    pub(crate) kill_after: Duration,
    /// Send the signal to the main process alone.
    pub(crate) main_only: bool,
}

pub(crate) struct Watch<'a> {
    child: &'a Child,
    signals: &'a Signals,
    stop: Stop,
    /// Suspended together with the command, which is ended when one of them ends.
    servers: &'a [&'a Child],
    /// Whether the child is the command: it handles Ctrl-C, and gets signals that ask for nothing.
    is_command: bool,
    /// Whether the command was in this process's group when that was last looked at.
    is_beside: bool,
    /// Whether the main process has ended, and all signals were taken that it may have got.
    is_over: bool,
    requests: Requests,
    kill_at: Option<Instant>,
    bar: Option<Bar>,
}

impl<'a> Watch<'a> {
    /// Watches the command, just spawned.
    pub(crate) fn command(
        child: &'a Child,
        signals: &'a Signals,
        stop: Stop,
    ) -> Result<Self, Failure> {
        let mut watch = Self { is_command: true, ..Self::server(child, signals, stop) };
        watch.is_beside = match child.try_wait()? {
            None => is_beside_us(child.id()),
            // Its pid may be another's: it was born where it was put.
            Some(_) => signals.tells_group_apart(),
        };
        signals.take()?.into_iter().try_for_each(|came| watch.answer_early(came))?;
        Ok(watch)
    }

    /// Answers a signal that may be older than the command, whatever the group that it was for. To
    /// be told twice is better than never.
    fn answer_early(&mut self, came: Came) -> Result<(), Failure> {
        let reached = match (came.reached, came.asked) {
            (Reached::Terminal, Asked::Stop(signal @ (Signal::SIGINT | Signal::SIGQUIT))) => {
                cli_support::pass_on(self.child, signal as i32, None);
                came.reached
            }
            (Reached::Group | Reached::Terminal, _) => Reached::Us,
            (reached, _) => reached,
        };
        self.answer(Came { reached, ..came })
    }

    /// Watches a server, which stands in another process group than this process.
    pub(crate) fn server(child: &'a Child, signals: &'a Signals, stop: Stop) -> Self {
        Self {
            child,
            signals,
            stop,
            servers: &[],
            is_command: false,
            is_beside: false,
            is_over: false,
            requests: Requests::default(),
            kill_at: None,
            bar: None,
        }
    }

    pub(crate) fn beside(self, servers: &'a [&'a Child]) -> Self {
        Self { servers, ..self }
    }

    /// Goes on with the requests of a watch before this one.
    pub(crate) fn after(self, requests: Requests) -> Self {
        Self { requests, ..self }
    }

    /// Shows the time that it has.
    pub(crate) fn with_bar(self, bar: Option<Bar>) -> Self {
        Self { bar, ..self }
    }

    /// What has asked this process to end so far.
    pub(crate) fn requests(&self) -> Requests {
        self.requests
    }

    pub(crate) fn until_main_ended(&mut self) -> Result<(), Failure> {
        while self.child.try_wait()?.is_none() {
            self.reap_orphans();
            self.sleep(self.child.as_fd(), PollFlags::POLLIN, None)?;
        }
        self.end_of_main()
    }

    /// What the terminal has told it before its end was for it to handle.
    fn end_of_main(&mut self) -> Result<(), Failure> {
        self.bar = None;
        self.take_signals()?;
        self.is_over = true;
        Ok(())
    }

    pub(crate) fn until_empty(&mut self) -> Result<(), Failure> {
        while !self.child.tree().wait_empty(Instant::now())? {
            self.reap_orphans();
            let (fd, news) = cli_support::empty_news(self.child.tree());
            self.sleep(fd, news, None)?;
        }
        Ok(())
    }

    /// Once the main process has ended: gives what it has left its time, to end by itself, or the
    /// rest of the grace. After a Ctrl-C those that handle it have one.
    pub(crate) fn until_settled(&mut self) -> Result<(), Failure> {
        if self.requests.asked.is_none() {
            self.until_handled()?;
        }
        cli_support::wind_down(self.child, |until| {
            self.reap_orphans();
            let (fd, news) = cli_support::empty_news(self.child.tree());
            self.sleep(fd, news, until)
        })
    }

    /// Waits while a process that Ctrl-C has reached handles it, for a grace at the most.
    fn until_handled(&mut self) -> Result<(), Failure> {
        let Some((signal, at)) = self.requests.interrupted() else { return Ok(()) };
        let until = at.checked_add(self.stop.kill_after);
        while until.is_none_or(|until| Instant::now() < until) && self.is_handling(signal) {
            self.reap_orphans();
            let (fd, news) = cli_support::empty_news(self.child.tree());
            self.sleep(fd, news, Instant::now().checked_add(LOOK / 10))?;
        }
        Ok(())
    }

    /// Whether a process that the terminal has told is left, and does not simply go on.
    fn is_handling(&self, signal: Signal) -> bool {
        let told = |pid: &i32| is_beside_us(pid.cast_unsigned());
        let mut pids = cli_support::pids(self.child.tree()).into_iter().filter(told);
        pids.any(|pid| cli_support::handles(pid, signal as i32))
    }

    /// Stops the child, and waits until nothing is left of it. A request that comes meanwhile is a
    /// second one: it kills at once.
    pub(crate) fn until_put_down(&mut self) -> Result<(), Failure> {
        if is_over(self.child)? {
            return Ok(());
        }
        if self.requests.has_insisted() {
            return self.kill();
        }
        // A request that came while it was awaited has been sent on already.
        if !cli_support::is_ending(self.child) {
            cli_support::begin_stop(self.child, self.stop.kill_after);
        }
        self.kill_at = Instant::now().checked_add(self.stop.kill_after);
        self.requests.close();
        self.until_main_ended()?;
        self.until_empty()
    }

    /// Waits until the command has ended or nothing is left of a server, whose number it returns.
    /// Once a signal has asked this process to end, the end of a server does not count; nor does it
    /// for a while after a Ctrl-C: the command's own teardown may end it.
    pub(crate) fn until_server_ended(&mut self) -> Result<Option<usize>, Failure> {
        while self.child.try_wait()?.is_none() {
            for (number, server) in self.servers.iter().enumerate() {
                if !self.is_ending() && is_over(server)? && !self.signal_comes()? {
                    return Ok(Some(number));
                }
            }
            self.reap_orphans();
            self.sleep(self.child.as_fd(), PollFlags::POLLIN, None)?;
        }
        self.end_of_main().map(|()| None)
    }

    fn is_ending(&self) -> bool {
        let is_recent = |(_, at): (Signal, Instant)| at.elapsed() < self.stop.kill_after;
        self.requests.asked.is_some() || self.requests.interrupted().is_some_and(is_recent)
    }

    /// Reaps orphans if this is the first process of a container, whose duty that is. The command
    /// and the servers are reaped by their handles.
    fn reap_orphans(&self) {
        if is_init() {
            let ours = self.servers.iter().chain([&self.child]).map(|child| child.id());
            cli_support::reap_all_but(&ours.collect::<Vec<_>>());
        }
    }

    /// Whether a signal comes within 50 ms: systemd's reaches the servers too, and may end one
    /// before this process sees it.
    pub(crate) fn signal_comes(&mut self) -> Result<bool, Failure> {
        let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(50u8)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.take_signals()?;
        Ok(self.is_ending())
    }

    pub(crate) fn take_signals(&mut self) -> Result<(), Failure> {
        self.signals.take()?.into_iter().try_for_each(|came| self.answer(came))
    }

    /// Sleeps until `fd` has news, a signal has come, a server may have ended, the next step of
    /// a timeout is due, or `until`; answers signals.
    pub(crate) fn sleep(
        &mut self,
        fd: BorrowedFd<'_>,
        flags: PollFlags,
        until: Option<Instant>,
    ) -> Result<(), Failure> {
        let mut next = earlier(earlier(self.kill_at, until), self.bar.as_ref().and_then(Bar::due));
        let mut fds =
            vec![PollFd::new(fd, flags), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let news = self.bar.as_ref().and_then(Bar::news);
        fds.extend(news.map(|news| PollFd::new(news, PollFlags::POLLIN)));
        for server in self.servers {
            // Its limit of CPU time is watched here alone.
            next = [next, server.enforce()].into_iter().flatten().min();
            if server.try_wait()?.is_none() {
                fds.push(PollFd::new(server.as_fd(), PollFlags::POLLIN));
            } else {
                // A daemon: no fd says for sure that it has ended.
                next = earlier(next, Instant::now().checked_add(LOOK));
            }
        }
        cli_support::rest(self.child, &mut fds, next)?;
        self.bar.take_if(|bar| !bar.show());
        self.take_signals()?;
        if self.kill_at.is_some_and(|at| Instant::now() >= at) {
            self.kill()?;
        }
        Ok(())
    }

    fn answer(&mut self, came: Came) -> Result<(), Failure> {
        match came.asked {
            Asked::Suspend => self.suspend(came.reached),
            Asked::Pass(signal, value) => {
                if signal == Signal::SIGWINCH as i32 {
                    self.bar.iter_mut().for_each(Bar::is_resized);
                }
                let is_told =
                    came.reached == Reached::All || self.has_told_command(came.reached)?;
                if self.is_command && !is_told {
                    cli_support::pass_on(self.child, signal, value);
                }
                Ok(())
            }
            Asked::Orphaned => match self.requests.answer_orphaned() {
                Answer::Stop => self.begin_stop(ORPHANED, Reached::Us),
                _ => Ok(()),
            },
            Asked::Stop(signal) => {
                let is_commands = came.reached == Reached::Terminal
                    && matches!(signal, Signal::SIGINT | Signal::SIGQUIT)
                    && !self.is_over
                    && self.has_told_command(came.reached)?;
                match self.requests.answer(signal, is_commands) {
                    Answer::Nothing => Ok(()),
                    Answer::Stop => self.begin_stop(signal, came.reached),
                    Answer::Kill => self.kill(),
                }
            }
        }
    }

    /// Whether a signal with this reach has got to the command.
    fn has_told_command(&mut self, reached: Reached) -> Result<bool, Failure> {
        if !self.is_command || !matches!(reached, Reached::Group | Reached::Terminal) {
            return Ok(false);
        }
        // The pid of one that has ended may be another's, or, where its keeper has not told yet, of
        // none: what was seen last holds.
        if self.child.try_wait()?.is_none() {
            self.is_beside = group_of(self.child.id()).map_or(self.is_beside, is_ours);
        }
        Ok(self.is_beside)
    }

    fn kill(&mut self) -> Result<(), Failure> {
        self.kill_at = None;
        Ok(self.child.kill()?)
    }

    /// Sends the signal on, once: a second one just behind the first would cut off a handler that
    /// is cleaning up.
    fn begin_stop(&mut self, signal: Signal, reached: Reached) -> Result<(), Failure> {
        let Stop { signal: instead, kill_after, main_only } = self.stop;
        cli_support::note_stop(self.child, kill_after);
        self.kill_at = Instant::now().checked_add(kill_after);
        let number = instead.unwrap_or(signal as i32);
        let is_told = |pid: u32| match reached {
            _ if number != signal as i32 => false,
            Reached::Us => false,
            Reached::Group | Reached::Terminal => is_beside_us(pid),
            Reached::All => true,
        };
        Ok(cli_support::forward(self.child, number, main_only, |pid| !is_told(pid))?)
    }

    /// Stops this process and all that it watches; returns when it is continued.
    fn suspend(&mut self, reached: Reached) -> Result<(), Failure> {
        if self.has_told_command(reached)? {
            let until = Instant::now() + STOPS_WITHIN;
            while !is_stopped(self.child.id()) && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let all = || self.servers.iter().chain([&self.child]);
        for child in all() {
            cli_support::set_still(child.tree(), true)?;
        }
        self.bar.iter_mut().for_each(Bar::hide);
        suspend()?;
        // The shell has written meanwhile, and the command has not.
        self.bar.iter_mut().for_each(Bar::hide);
        for child in all() {
            // While they stand still it is one with the shell's own.
            let _ = child.tree().signal(SIGCONT);
            cli_support::set_still(child.tree(), false)?;
        }
        Ok(())
    }
}

/// Whether nothing of the server is left: a daemon may have outlived the main process.
pub(crate) fn is_over(server: &Child) -> Result<bool, Failure> {
    Ok(server.try_wait()?.is_some() && server.tree().wait_empty(Instant::now())?)
}

/// Whether a process is stopped, or has ended.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    matches!(state, None | Some('T' | 't' | 'Z' | 'X'))
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
