//! What holds a tree together, a cgroup or a keeper: the one place where that makes a difference.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::cgroup::Cgroup;
use crate::cgroup::usage::cpu_time;
use crate::cgroup::{leftovers, teardown};
use crate::containment::Mechanism;
use crate::error::{Error, Result, Step};
use crate::keeper::handle::Kept;
use crate::proc::info::ProcessInfo;
use crate::report::Usage;

#[derive(Debug)]
pub(crate) enum Hold {
    Cgroup(Cgroup),
    Keeper(Arc<Kept>),
}

impl Hold {
    pub(crate) fn mechanism(&self) -> Mechanism {
        match self {
            Self::Cgroup(_) => Mechanism::Cgroup,
            Self::Keeper(_) => Mechanism::Keeper,
        }
    }

    /// The cgroup, for what only a cgroup can do.
    pub(crate) fn cgroup(&self, what: &str) -> Result<&Cgroup> {
        match self {
            Self::Cgroup(cgroup) => Ok(cgroup),
            Self::Keeper(_) => Err(Error::unsupported(what, false)),
        }
    }

    pub(crate) fn kept(&self) -> Option<&Arc<Kept>> {
        match self {
            Self::Cgroup(_) => None,
            Self::Keeper(kept) => Some(kept),
        }
    }

    /// Empty for a keeper's.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Cgroup(cgroup) => cgroup.path(),
            Self::Keeper(_) => Path::new(""),
        }
    }

    /// Who is in it, in the order of their pids.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        match self {
            Self::Cgroup(cgroup) => cgroup.pids().map_err(|e| cgroup.error(Step::Look, e)),
            Self::Keeper(kept) => Ok(kept.pids()),
        }
    }

    pub(crate) fn signal(&self, signal: i32, is_meant: &dyn Fn(i32) -> bool) -> Result<usize> {
        match self {
            Self::Cgroup(cgroup) => {
                let reached = teardown::signal_all(&|| cgroup.pids(), signal, is_meant);
                reached.map_err(|e| cgroup.error(Step::Signal, e))
            }
            Self::Keeper(kept) => {
                let reached = teardown::signal_all(&|| Ok(kept.pids()), signal, is_meant);
                reached.map_err(|e| kept.error(Step::Signal, e))
            }
        }
    }

    /// Kills all; returns when nobody is left.
    pub(crate) fn kill(&self, patience: Duration) -> Result<()> {
        match self {
            Self::Cgroup(cgroup) => teardown::kill(cgroup, patience),
            Self::Keeper(kept) => kept.kill(patience),
        }
    }

    /// The same, for who cannot wait: whoever survives it is left.
    #[cfg(feature = "tokio")]
    pub(crate) fn kill_at_once(&self) {
        match self {
            Self::Cgroup(cgroup) => drop(cgroup.kill()),
            Self::Keeper(kept) => kept.ask_to_kill(),
        }
    }

    pub(crate) fn wait_empty(&self, deadline: Option<Instant>) -> Result<bool> {
        match self {
            Self::Cgroup(cgroup) => {
                cgroup.wait_empty(deadline).map_err(|e| cgroup.error(Step::Wait, e))
            }
            Self::Keeper(kept) => kept.wait_empty(deadline),
        }
    }

    /// What to poll for news of its being empty.
    pub(crate) fn end(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Self::Cgroup(cgroup) => (cgroup.events_fd(), PollFlags::POLLPRI),
            Self::Keeper(kept) => (kept.end_fd(), PollFlags::POLLIN),
        }
    }

    /// Who is left when the main process has ended.
    pub(crate) fn leftovers(&self) -> Result<Vec<ProcessInfo>> {
        match self {
            Self::Cgroup(cgroup) => leftovers::leftovers(cgroup),
            Self::Keeper(kept) => Ok(match kept.wait_empty(Some(Instant::now()))? {
                true => Vec::new(),
                false => leftovers::described(&kept.pids()),
            }),
        }
    }

    /// CPU time so far, where somebody counts it.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        match self {
            Self::Cgroup(cgroup) => cpu_time(cgroup),
            Self::Keeper(_) => None,
        }
    }

    pub(crate) fn usage(&self, all: bool) -> Usage {
        match self {
            Self::Cgroup(cgroup) => Usage::of(cgroup, all),
            Self::Keeper(_) => Usage::uncounted(),
        }
    }

    /// Kills what is left, and removes what held it; says what was used.
    pub(crate) fn tear_down(&self, patience: Duration, all: bool) -> Result<Usage> {
        match self {
            Self::Cgroup(cgroup) => {
                teardown::teardown_after(cgroup, patience, || Usage::of(cgroup, all))
            }
            Self::Keeper(kept) => kept.end(patience).map(|()| Usage::uncounted()),
        }
    }
}
