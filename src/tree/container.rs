//! What holds a tree together, a cgroup or a keeper: the one place of the library where a running
//! tree's mechanism makes a difference. (The spawn decides which of the two it gets.)

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
#[cfg(feature = "cli")]
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::cgroup::Cgroup;
use crate::cgroup::names::STOPPING;
use crate::cgroup::teardown::Opening;
use crate::cgroup::usage::{Counters, cpu_demand, cpu_time};
use crate::cgroup::{leftovers, teardown};
use crate::containment::Mechanism;
use crate::error::{Error, Result, Step};
use crate::keeper::handle::Kept;
use crate::proc::activity::{self, Activity};
use crate::proc::info::Survey;
#[cfg(feature = "cli")]
use crate::proc::read;
use crate::record::handle::Holder;
use crate::report::Usage;
use crate::supervisor::Supervisor;
use crate::sys;
use crate::sys::inmates::Inmates;
use crate::sys::poll;

/// A stop signal, and what makes a stopped process act on it; as timeout(1) does.
pub(crate) fn stop_signals(signal: i32) -> Vec<i32> {
    let alone = matches!(signal, 0 | libc::SIGKILL | libc::SIGCONT);
    if alone { vec![signal] } else { vec![signal, libc::SIGCONT] }
}

#[derive(Debug)]
pub(crate) enum Container {
    /// With a sandbox's own view of things, its main process and init.
    Cgroup(Cgroup, Option<Arc<Inmates>>),
    Keeper(Arc<Kept>),
}

impl Container {
    pub(crate) fn mechanism(&self) -> Mechanism {
        match self {
            Self::Cgroup(..) => Mechanism::Cgroup,
            Self::Keeper(_) => Mechanism::Keeper,
        }
    }

    /// Lets its supervisor forget the processes that have lived in it.
    pub(crate) fn vacate(&self, supervisor: Option<&Supervisor>) {
        if let (Self::Cgroup(_, Some(inmates)), Some(supervisor)) = (self, supervisor) {
            supervisor.ground("a sandbox").into_iter().for_each(|root| root.vacate(inmates));
        }
    }

    /// The cgroup; for a keeper an error that `what` is unsupported.
    pub(crate) fn cgroup(&self, what: &str) -> Result<&Cgroup> {
        match self {
            Self::Cgroup(cgroup, _) => Ok(cgroup),
            Self::Keeper(_) => Err(Error::unsupported(what, false)),
        }
    }

    /// The cgroup's directory; None for a keeper.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Cgroup(cgroup, _) => Some(cgroup.path()),
            Self::Keeper(_) => None,
        }
    }

    /// What a recording looks at; with the init of a sandbox, which is not of what was started.
    pub(crate) fn looked_at(&self) -> (Holder, Option<i32>) {
        match self {
            Self::Cgroup(cgroup, inmates) => {
                (Holder::Cgroup(cgroup.view()), inmates.as_ref().map(|all| all.init()))
            }
            Self::Keeper(kept) => (Holder::Keeper(Arc::downgrade(kept)), None),
        }
    }

    /// Closes an fd that the tree no longer needs once its main process is born: fds may be scarce.
    pub(crate) fn slim(&mut self) {
        if let Self::Cgroup(cgroup, _) = self {
            cgroup.close_dir();
        }
    }

    /// Leaves the tree to the supervisor.
    pub(crate) fn leave_to(&self, supervisor: &Supervisor) {
        if let (Self::Keeper(kept), Some(keepers)) = (self, supervisor.keepers()) {
            keepers.take_over(kept);
        }
    }

    /// Whether this is the pid of a sandbox's init, which is part of the sandbox and not of what
    /// was started.
    fn is_init(&self, pid: i32) -> bool {
        matches!(self, Self::Cgroup(_, Some(inmates)) if inmates.is_init(pid))
    }

    /// Notes the processes that live in it, in a sandbox.
    pub(crate) fn inhabit(&mut self, all: Arc<Inmates>, supervisor: Option<&Supervisor>) {
        let root = supervisor.and_then(|supervisor| supervisor.ground("a sandbox").ok());
        root.into_iter().for_each(|root| root.inhabit(&all));
        if let Self::Cgroup(_, inmates) = self {
            *inmates = Some(all);
        }
    }

    /// Waits until the main process's status can be taken; false at the deadline, and when its
    /// partner has ended. A keeper reports the status of its child.
    pub(crate) fn main_ended(
        &self,
        main: BorrowedFd<'_>,
        partner: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> Result<bool, Errno> {
        match self {
            Self::Cgroup(..) => poll::ended_beside(main, partner, until),
            Self::Keeper(kept) => kept.main_ended(main, partner, until),
        }
    }

    /// Takes the main process's status, if it has ended.
    pub(crate) fn reap(&self, main: BorrowedFd<'_>, pid: u32) -> Result<Option<ExitStatus>> {
        match self {
            Self::Cgroup(_, inmates) => {
                let failed = |errno| Error::os(Step::Wait, format!("process {pid}"), errno);
                let reaped =
                    inmates.as_ref().map_or_else(|| sys::reap(main), |all| all.reap_main());
                reaped.map_err(failed)
            }
            Self::Keeper(kept) => kept.take_status(main),
        }
    }

    /// Waits for the main process's end and takes its status, in one call; None after a signal, and
    /// where it takes more than that. For the sole holder of the child.
    pub(crate) fn await_main(&self, main: BorrowedFd<'_>) -> Result<Option<ExitStatus>, Errno> {
        match self {
            Self::Cgroup(_, None) => sys::await_end(main),
            Self::Cgroup(_, Some(_)) | Self::Keeper(_) => Ok(None),
        }
    }

    /// Continues a stopped keeper, so that it reports how the main process ended.
    pub(crate) fn wake(&self) {
        if let Self::Keeper(kept) = self {
            kept.wake();
        }
    }

    /// The pids in it, in order.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        match self {
            Self::Cgroup(cgroup, _) => {
                let mut pids = cgroup.pids().map_err(|e| cgroup.error(Step::Look, e))?;
                pids.retain(|&pid| !self.is_init(pid));
                Ok(pids)
            }
            Self::Keeper(kept) => Ok(kept.pids()),
        }
    }

    /// Sends a signal to those members that are meant; returns how many were reached. An invalid
    /// signal is an error even without members.
    pub(crate) fn signal(&self, signal: i32, is_meant: &dyn Fn(i32) -> bool) -> Result<usize> {
        self.signal_each(&[signal], is_meant)
    }

    /// Sends these signals to each member that is meant, one after the other.
    pub(crate) fn signal_each(
        &self,
        signals: &[i32],
        is_meant: &dyn Fn(i32) -> bool,
    ) -> Result<usize> {
        let valid = signals.iter().all(|&signal| sys::is_signal(signal));
        let is_meant = |pid: i32| !self.is_init(pid) && is_meant(pid);
        let reach = |list: &dyn Fn() -> Result<Vec<i32>, Errno>| match valid {
            true => teardown::signal_all(list, signals, &is_meant),
            false => Err(Errno::EINVAL),
        };
        match self {
            Self::Cgroup(cgroup, _) => {
                reach(&|| cgroup.pids()).map_err(|e| cgroup.error(Step::Signal, e))
            }
            Self::Keeper(kept) => {
                reach(&|| Ok(kept.pids())).map_err(|e| kept.error(Step::Signal, e))
            }
        }
    }

    /// Kills all; returns when no process is left.
    pub(crate) fn kill_until_empty(&self, patience: Duration) -> Result<()> {
        match self {
            Self::Cgroup(cgroup, inmates) => {
                teardown::kill_until_empty(cgroup, patience, &reaping(inmates.as_deref()))
            }
            Self::Keeper(kept) => kept.kill_until_empty(patience),
        }
    }

    /// Sends one kill and does not wait; some processes may survive it.
    #[cfg(feature = "tokio")]
    pub(crate) fn kill_at_once(&self) {
        match self {
            Self::Cgroup(cgroup, _) => drop(cgroup.write_kill()),
            Self::Keeper(kept) => kept.ask_to_kill(),
        }
    }

    pub(crate) fn wait_empty(&self, deadline: Option<Instant>) -> Result<bool> {
        match self {
            Self::Cgroup(cgroup, inmates) => {
                let ended = inmates.as_ref().map_or(Ok(true), |all| all.have_ended(deadline));
                let empty = ended.and_then(|ended| Ok(ended && cgroup.wait_empty(deadline)?));
                empty.map_err(|e| cgroup.error(Step::Wait, e))
            }
            Self::Keeper(kept) => kept.wait_empty(deadline),
        }
    }

    /// Freezes every process in it, and waits for that, 1 s at the most; `false` thaws them.
    /// Without a cgroup it uses SIGSTOP and SIGCONT.
    #[cfg(feature = "cli")]
    pub(crate) fn set_still(&self, still: bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(1);
        match (self, still) {
            (Self::Cgroup(cgroup, _), true) => {
                cgroup.freeze(deadline).map(drop).map_err(|e| cgroup.error(Step::Freeze, e))
            }
            (Self::Cgroup(cgroup, _), false) => {
                cgroup.set_frozen(false).map_err(|e| cgroup.error(Step::Freeze, e))
            }
            (Self::Keeper(_), false) => self.signal(libc::SIGCONT, &|_| true).map(drop),
            (Self::Keeper(kept), true) => {
                self.signal(libc::SIGSTOP, &|_| true)?;
                let runs =
                    |pid: &i32| read::state(*pid).is_some_and(|state| !"TtZX".contains(state));
                let any = || kept.pids().iter().any(runs);
                // A process still reading from the terminal would take what is typed to the shell
                // next. Polls: nothing announces that a keeper's child has stopped.
                while any() && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
        }
    }

    /// The fd and events to poll for its becoming empty, this time. The news of a cgroup come up to
    /// 10 ms late; an init has ended at once.
    pub(crate) fn empty_news(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Self::Cgroup(cgroup, inmates) => {
                let init = inmates.as_ref().and_then(|all| all.running_init());
                init.map_or((cgroup.events_fd(), PollFlags::POLLPRI), |init| {
                    (init, PollFlags::POLLIN)
                })
            }
            Self::Keeper(kept) => (kept.end_fd(), PollFlags::POLLIN),
        }
    }

    /// The fd to poll for its becoming empty, for as long as it lives.
    pub(crate) fn empty_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Cgroup(cgroup, _) => cgroup.events_fd(),
            Self::Keeper(kept) => kept.end_fd(),
        }
    }

    /// Notes in its directory that it was asked to end, for `top` to show.
    pub(crate) fn note_stopping(&self) {
        if let Self::Cgroup(cgroup, _) = self {
            cgroup.note(STOPPING);
        }
    }

    /// Lets it run on where it was frozen: itself, what is below it, and what is above it up to
    /// `top`. Ignores failures. A keeper's tree is never frozen.
    pub(crate) fn thaw(&self, top: Option<&Cgroup>) {
        if let Self::Cgroup(cgroup, _) = self {
            cgroup.thaw_below();
            top.into_iter().for_each(|top| cgroup.thaw_up_to(top));
        }
    }

    /// What the processes in it are doing.
    pub(crate) fn activity(&self) -> Activity {
        match self {
            Self::Cgroup(cgroup, inmates) => match cgroup.pids() {
                // It ends now that nothing else is left.
                Ok(all) if inmates.is_some() && all.iter().all(|&pid| self.is_init(pid)) => {
                    Activity::Works
                }
                all => all.map_or(Activity::Unseen, |all| activity::of(&all)),
            },
            Self::Keeper(kept) => activity::of(&kept.pids()),
        }
    }

    /// Describes the processes left after the main process has ended.
    pub(crate) fn leftovers(&self) -> Result<Survey> {
        match self {
            Self::Cgroup(cgroup, _) => {
                let mut left = leftovers::leftovers(cgroup)?;
                left.retain(|process| !self.is_init(process.pid.cast_signed()));
                Ok(left)
            }
            Self::Keeper(kept) => kept_leftovers(kept),
        }
    }

    /// CPU time so far; None for a keeper, which does not count it.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        match self {
            Self::Cgroup(cgroup, _) => cpu_time(cgroup),
            Self::Keeper(_) => None,
        }
    }

    /// CPU time so far, and the time in which one waited for a CPU.
    pub(crate) fn cpu_demand(&self) -> Option<Duration> {
        match self {
            Self::Cgroup(cgroup, _) => cpu_demand(cgroup),
            Self::Keeper(_) => None,
        }
    }

    pub(crate) fn usage(&self, counters: Counters) -> Usage {
        match self {
            Self::Cgroup(cgroup, _) => Usage::of(cgroup, counters),
            Self::Keeper(_) => Usage::uncounted(),
        }
    }

    /// Removes an empty cgroup, and returns a usage that was not read; None where there may be
    /// processes.
    pub(crate) fn vanish(&self) -> Option<Usage> {
        match self {
            Self::Cgroup(cgroup, None) => {
                cgroup.remove_alone().is_ok().then(|| Usage::of(cgroup, Counters::Unread))
            }
            // A sandbox's init ends after the main process.
            Self::Cgroup(_, Some(_)) | Self::Keeper(_) => None,
        }
    }

    /// Kills what is left, removes the cgroup or ends the keeper; returns the usage.
    pub(crate) fn tear_down(
        &self,
        patience: Duration,
        opening: Opening,
        counters: Counters,
    ) -> Result<Usage> {
        match self {
            Self::Cgroup(cgroup, inmates) => {
                let reap = reaping(inmates.as_deref());
                let read = || Usage::of(cgroup, counters);
                let usage = teardown::teardown_after(cgroup, patience, opening, &reap, read)?;
                inmates.iter().for_each(|all| all.reap());
                Ok(usage)
            }
            Self::Keeper(kept) => kept.tear_down(patience).map(|()| Usage::uncounted()),
        }
    }
}

/// What a kill does between its rounds: it reaps main, for which a sandbox's init may wait.
fn reaping(inmates: Option<&Inmates>) -> impl Fn() {
    move || inmates.into_iter().for_each(|inmates| inmates.collect_main())
}

/// The processes that a keeper holds. One that `/proc` does not list is about to end, or has forked
/// meanwhile: they are listed again, and what is there after a second has an entry all the same.
fn kept_leftovers(kept: &Kept) -> Result<Survey> {
    let until = Instant::now() + leftovers::LISTING_PATIENCE;
    let mut pause = Duration::ZERO;
    while !kept.wait_empty(Some(until.min(Instant::now() + pause)))? {
        let mut left = leftovers::described(&kept.pids());
        if left.is_empty() && Instant::now() >= until {
            left.push(leftovers::unlisted("its keeper holds it, and /proc lists nothing"));
        }
        if !left.is_empty() {
            return Ok(left);
        }
        pause = (pause * 2).clamp(Duration::from_micros(100), Duration::from_millis(50));
    }
    Ok(Survey::default())
}
