//! The controlling terminal: restores its modes, which a program that is killed cannot do; decides
//! by it which process group a command stands in.

use std::fs::{File, OpenOptions};
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcgetsid, tcsetattr};
use nix::unistd::{Pid, getpgid, getpgrp, getsid, tcgetpgrp};
use tidy_process::cli_support::StandIn;
use tidy_process::{Child, Command, Mechanism};

use crate::wait::signals::Signals;

/// The terminal, if there is one, and the modes that it had.
pub(crate) struct Modes(Option<(OwnedFd, Termios)>);

impl Modes {
    /// Saves the modes of the controlling terminal, on which a program asks for its password
    /// wherever its streams go; without one, those of standard input, which may still be a
    /// terminal.
    pub(crate) fn save() -> Self {
        let controlling = controlling().map(OwnedFd::from);
        let terminal = controlling.or_else(|| stdin().as_fd().try_clone_to_owned().ok());
        Self(terminal.and_then(|terminal| {
            let modes = tcgetattr(&terminal).ok()?;
            Some((terminal, modes))
        }))
    }

    /// Restores them, unless another process group is in the foreground now: from the background
    /// that would stop this process.
    pub(crate) fn put_back(&self) {
        let Some((terminal, modes)) = &self.0 else { return };
        match tcgetpgrp(terminal) {
            Ok(group) if group == getpgrp() => {}
            // No session's controlling terminal, or another session's: this process cannot be in
            // its background.
            Err(Errno::ENOTTY) => {}
            _ => return,
        }
        let _ = tcsetattr(terminal, SetArg::TCSANOW, modes);
    }
}

/// Chooses the command's process group. Keep what is returned until the command is spawned.
///
/// Where there is a terminal that is this process's own: reading from it, Ctrl-C, Ctrl-Z, `&` and
/// `fg` are for the group that the shell knows, in the background too. Where there is none, one of
/// its own: what is sent to this process's group then reaches the command once, from here.
pub(crate) fn choose_group(command: &mut Command, signals: &Signals) -> Option<StandIn> {
    if is_there() {
        signals.tell_group_apart();
        return None;
    }
    stand_apart(command)
}

/// The leader, if it has to stay for as long as the child does. A keeper is the command's parent
/// and has a session of its own, so that only the leader's parent, this process, ties the group to
/// this session. Without it the group is orphaned: should a member be stopped at that moment, the
/// kernel sends all of them SIGHUP (exit(3)).
pub(crate) fn stays(leader: Option<StandIn>, child: &Child) -> Option<StandIn> {
    leader.filter(|_| child.tree().mechanism() == Mechanism::Keeper)
}

/// Puts the command into a process group of its own, which in a terminal is one of the background.
/// It does not lead it: setsid(2) fails for a leader, and setsid(1) forks.
pub(crate) fn stand_apart(command: &mut Command) -> Option<StandIn> {
    let leader = StandIn::start().ok();
    let group = leader.as_ref().and_then(|leader| leader.lead().ok());
    command.process_group(group.unwrap_or_default());
    leader
}

/// Whether a process is in this one's process group.
pub(crate) fn is_beside_us(pid: u32) -> bool {
    group_of(pid).is_some_and(is_ours)
}

/// A process's process group.
pub(crate) fn group_of(pid: u32) -> Option<Pid> {
    getpgid(Some(Pid::from_raw(pid.cast_signed()))).ok()
}

pub(crate) fn is_ours(group: Pid) -> bool {
    group == getpgrp()
}

/// Whether this process has a controlling terminal.
fn is_there() -> bool {
    let session = getsid(None);
    let is_ours = |stream: &dyn AsFd| session.is_ok() && tcgetsid(stream.as_fd()) == session;
    controlling().is_some()
        || [&stdin() as &dyn AsFd, &stdout(), &stderr()].into_iter().any(is_ours)
}

/// Opens the controlling terminal, without blocking: it may have hung up.
fn controlling() -> Option<File> {
    let how = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(how.bits()).open("/dev/tty").ok()
}
