//! Reads the signals that tidy-process answers from a signalfd: no handler, no race with the wait.

use std::os::fd::{AsFd, BorrowedFd};
use tidy_process::cli_support;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks for.
pub(crate) enum Asked {
    /// End the command; `from_terminal`: the terminal has sent the signal to its process group too.
    Stop { signal: Signal, from_terminal: bool },
    /// Stop until SIGCONT.
    Suspend,
}

impl Asked {
    /// The signal, if it asks this process to end.
    pub(crate) fn signal(self) -> Option<Signal> {
        match self {
            Self::Stop { signal, .. } => Some(signal),
            Self::Suspend => None,
        }
    }
}

pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks and collects the signals that are answered. Ignored ones stay ignored (nohup).
    pub(crate) fn collect() -> nix::Result<Self> {
        let mut set = SigSet::empty();
        let answered =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP];
        for signal in answered {
            if !cli_support::ignores(signal as i32) {
                set.add(signal);
            }
        }
        if is_init() {
            set.add(Signal::SIGCHLD);
        }
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }

    /// Returns the next signal that has come.
    pub(crate) fn next(&self) -> nix::Result<Option<Asked>> {
        while let Some(info) = self.0.read_signal()? {
            return Ok(Some(match Signal::try_from(info.ssi_signo.cast_signed())? {
                Signal::SIGTSTP => Asked::Suspend,
                // SIGCHLD has done its work: it has ended a wait.
                Signal::SIGCHLD => continue,
                signal => Asked::Stop { signal, from_terminal: info.ssi_code == SI_KERNEL },
            }));
        }
        Ok(None)
    }
}

/// Whether this is the first process of its pid namespace, and so the parent of every orphan there.
pub(crate) fn is_init() -> bool {
    std::process::id() == 1
}

/// `si_code` of a signal that the terminal driver sent (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Stops this process as the signal would have; returns at SIGCONT (at once in an orphaned process
/// group).
pub(crate) fn suspend() -> nix::Result<()> {
    let only = SigSet::from(Signal::SIGTSTP);
    raise(Signal::SIGTSTP)?;
    only.thread_swap_mask(SigmaskHow::SIG_UNBLOCK)?;
    only.thread_block()
}

/// Ends this process by the signal, so that its parent sees that in the status.
pub(crate) fn end_by(signal: Signal) {
    let _ = raise(signal);
    let _ = SigSet::from(signal).thread_unblock();
}
