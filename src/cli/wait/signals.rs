//! Reads the signals that tidy-process answers from a signalfd: no handler, no race with the wait.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use tidy_process::cli_support::{self, Partner, SignalMask, StandIn, TO_ALL};

use libc::signalfd_siginfo;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid, getsid};

use crate::wait::parent::Parent;

/// What a signal asks for.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    /// End the command.
    Stop(Signal),
    /// Stop until SIGCONT.
    Suspend,
    /// Nothing: it is for the command. With the value that was queued with it.
    Pass(i32, Option<u64>),
    /// End the command as SIGTERM would: the parent has ended.
    Orphaned,
}

/// Which processes have got a signal, as far as this process can tell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// This process alone.
    Us,
    /// Its process group.
    Group,
    /// Its process group, by a key that was typed or the terminal's end.
    Terminal,
    /// Its tree: it is within one, and whatever has that has told all in it.
    All,
}

/// A signal that has come.
#[derive(Clone, Copy)]
pub(crate) struct Came {
    pub(crate) asked: Asked,
    pub(crate) reached: Reached,
}

/// Signals that ask this process, and so the command, to end.
const STOP: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// The signal that the end of the parent stands for.
pub(crate) const ORPHANED: Signal = Signal::SIGTERM;

/// Signals that ask a process for something else, or would kill it unasked. Real-time ones too.
const PASSED: [Signal; 9] = [
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGURG,
];

/// A request that was sent to this process alone is held back so long, where the command stands in
/// its group: a signal to the group may follow.
const JUST_BEHIND: Duration = Duration::from_millis(5);

/// Signals that the terminal driver sends to its foreground group.
const OF_TERMINAL: [Signal; 5] =
    [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGWINCH, Signal::SIGHUP];

pub(crate) struct Signals {
    fd: SignalFd,
    /// Gets what the whole process group gets.
    witness: RefCell<Option<StandIn>>,
    /// What a witness before this one had got, and is yet to be taken.
    carried: Cell<SignalMask>,
    /// The parent, whose end is news too.
    parent: Option<Parent>,
}

impl Signals {
    /// Blocks and collects the signals that are answered. Ignored ones stay ignored (nohup).
    ///
    /// SIGTTOU is blocked as well: a command that takes the terminal (tcsetpgrp(3), TOSTOP) would
    /// have this process stopped at its next line, deaf to its timeout. Blocked, it lets one write.
    pub(crate) fn collect() -> nix::Result<Self> {
        let answered = STOP.into_iter().chain(PASSED).chain([Signal::SIGTSTP]);
        let answered = answered.map(|signal| signal as i32);
        let answered = answered.chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
        let answered = answered.filter(|&signal| !cli_support::ignores(signal));
        let orphans = is_init().then_some(Signal::SIGCHLD as i32);
        let set = cli_support::signal_set(answered.chain(orphans));
        set.thread_block()?;
        SigSet::from(Signal::SIGTTOU).thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, witness: RefCell::new(None), carried: Cell::default(), parent: None })
    }

    /// Takes the end of one of these for a request to end from now on; says that unless `quiet`.
    pub(crate) fn die_with(self, parents: Vec<Partner>, quiet: bool) -> nix::Result<Self> {
        let parent = Some(Parent::watch(parents, quiet, self.fd.as_fd())?);
        Ok(Self { parent, ..self })
    }

    /// Makes signals to the whole process group known as such from now on, for a command that is
    /// about to stand in it and so gets them without this process. One that cannot be told apart
    /// counts as sent to this process alone.
    pub(crate) fn tell_group_apart(&self) {
        // The old one goes first: there may be no room for two.
        self.witness.take();
        self.witness.replace(StandIn::start().ok());
    }

    /// Whether the command was put into this process's group.
    pub(crate) fn tells_group_apart(&self) -> bool {
        self.witness.borrow().is_some()
    }

    /// Takes all signals that have come. Of several stop requests SIGHUP is the last: where it
    /// comes with another it says only that the terminal, if there is one, has gone.
    pub(crate) fn take(&self) -> nix::Result<Vec<Came>> {
        let mut infos = Vec::new();
        while let Some(info) = self.fd.read_signal()? {
            infos.push(info);
        }
        let told = self.told(&infos);
        let mut all: Vec<Came> = infos.iter().filter_map(|info| came(info, told)).collect();
        all.sort_by_key(|came| matches!(came.asked, Asked::Stop(Signal::SIGHUP)));
        if self.parent.as_ref().is_some_and(Parent::has_just_ended) {
            all.push(Came { asked: Asked::Orphaned, reached: Reached::Us });
        }
        Ok(all)
    }

    /// Answers what has come before there is a command; returns the signal, if one asks this tool
    /// to end.
    pub(crate) fn answer_alone(&self) -> nix::Result<Option<Signal>> {
        for came in self.take()? {
            match came.asked {
                Asked::Suspend => suspend()?,
                Asked::Stop(signal) => return Ok(Some(signal)),
                Asked::Orphaned => return Ok(Some(ORPHANED)),
                // There is no command yet that it could be for.
                Asked::Pass(..) => {}
            }
        }
        Ok(None)
    }

    /// What the whole group has got, or gets just behind this process (timeout(1) signals its
    /// child, then its group). A process that joined the group later is signalled earlier: the
    /// witness has got a signal by the time this process has.
    fn told(&self, infos: &[signalfd_siginfo]) -> SignalMask {
        let got = || self.witness.borrow().as_ref().map(StandIn::got).unwrap_or_default();
        let mut told = self.carried.take().and(got());
        let alone = |info: &signalfd_siginfo| {
            let number = info.ssi_signo.cast_signed();
            let asks = STOP.iter().any(|&signal| signal as i32 == number);
            asks && by_itself(info).is_none() && !told.has(number)
        };
        if self.witness.borrow().is_some() && infos.iter().any(alone) {
            thread::sleep(JUST_BEHIND);
            told = told.and(got());
        }
        let was_told = infos.iter().any(|info| told.has(info.ssi_signo.cast_signed()));
        if was_told {
            self.renew_witness(told);
        }
        told
    }

    /// A witness keeps what it has got, and would not show a second one. What comes during the
    /// change is carried over.
    fn renew_witness(&self, told: SignalMask) {
        let Ok(next) = StandIn::start() else { return self.tell_group_apart() };
        if let Some(before) = self.witness.replace(Some(next)) {
            self.carried.set(before.got().without(told));
        }
    }
}

fn came(info: &signalfd_siginfo, told: SignalMask) -> Option<Came> {
    let number = info.ssi_signo.cast_signed();
    let asked = match Signal::try_from(number) {
        // It has done its work: it has ended a wait.
        Ok(Signal::SIGCHLD) => return None,
        Ok(Signal::SIGTSTP) => Asked::Suspend,
        Ok(signal) if STOP.contains(&signal) => Asked::Stop(signal),
        _ => Asked::Pass(number, (info.ssi_code == SI_QUEUE).then_some(info.ssi_ptr)),
    };
    let by_witness = if told.has(number) { Reached::Group } else { Reached::Us };
    Some(Came { asked, reached: by_itself(info).unwrap_or(by_witness) })
}

/// Which processes have got it, where the signal itself says that.
fn by_itself(info: &signalfd_siginfo) -> Option<Reached> {
    let number = info.ssi_signo.cast_signed();
    let of_terminal = OF_TERMINAL.iter().any(|&signal| signal as i32 == number);
    match info.ssi_code {
        SI_QUEUE if info.ssi_int == TO_ALL => Some(Reached::All),
        // A terminal that hangs up tells only the leader of its session.
        SI_KERNEL if number == Signal::SIGHUP as i32 && leads_session() => Some(Reached::Us),
        SI_KERNEL if of_terminal => Some(Reached::Terminal),
        _ => None,
    }
}

/// Whether this is the first process of its pid namespace, and so the parent of every orphan there.
pub(crate) fn is_init() -> bool {
    std::process::id() == 1
}

fn leads_session() -> bool {
    getsid(None::<Pid>) == Ok(getpid())
}

/// `si_code` of a signal that the kernel sent by itself (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// `si_code` of a signal that was sent with a value.
const SI_QUEUE: i32 = -1;

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.parent.as_ref().map_or(self.fd.as_fd(), Parent::news)
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

/// Ends this process by the signal, so that its parent sees that in the status. Returns in the
/// first process of a pid namespace, which no signal of its own ends.
pub(crate) fn end_by(signal: Signal) {
    // The core to look at is the command's.
    let _ = prctl::set_dumpable(false);
    let _ = raise(signal);
    let _ = SigSet::from(signal).thread_unblock();
}
