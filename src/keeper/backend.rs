//! The keepers of one supervisor, which hold its trees instead of cgroups.

use std::sync::{Arc, Mutex, Weak};

use crate::cgroup::teardown::TEARDOWN_PATIENCE;
use crate::error::{Error, Result};
use crate::keeper::ground::Ground;
use crate::keeper::handle::Kept;
use crate::limits::Limits;
use crate::sys::poll::lock;

#[derive(Debug)]
pub(crate) struct Keepers {
    /// The error for which there is no cgroup, where one was wanted.
    pub(crate) why: Option<Error>,
    pub(crate) ground: Arc<Ground>,
    /// Trees that were left to the supervisor.
    left: Mutex<Vec<Arc<Kept>>>,
    /// All that have handles.
    held: Mutex<Vec<Weak<Kept>>>,
}

impl Keepers {
    pub(crate) fn new(limits: &Limits, why: Option<Error>) -> Result<Self> {
        refuse(limits)?;
        Ok(Self {
            why,
            ground: Arc::new(Ground::new()?),
            left: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// Keeps a tree alive until [`tear_down`](Self::tear_down). Reaps those that have ended
    /// meanwhile.
    pub(crate) fn take_over(&self, kept: &Arc<Kept>) {
        let mut left = lock(&self.left);
        left.retain(|kept| {
            let over = kept.has_ended();
            if over {
                kept.reap_keeper();
            }
            !over
        });
        left.push(Arc::clone(kept));
    }

    /// Notes a new tree, for [`tear_down`](Self::tear_down).
    pub(crate) fn note(&self, kept: Kept) -> Arc<Kept> {
        let kept = Arc::new(kept);
        let mut held = lock(&self.held);
        held.retain(|kept| kept.strong_count() > 0);
        held.push(Arc::downgrade(&kept));
        kept
    }

    /// Tears down all trees; returns the first error after trying all. The next call tries again
    /// what left survivors.
    pub(crate) fn tear_down(&self) -> Result<()> {
        let mut all: Vec<_> = lock(&self.left).drain(..).collect();
        all.extend(lock(&self.held).drain(..).filter_map(|kept| kept.upgrade()));
        let mut first = Ok(());
        for kept in all {
            if let Err(error) = kept.tear_down(TEARDOWN_PATIENCE) {
                if error.is_survivors() {
                    lock(&self.left).push(kept);
                }
                first = first.and(Err(error));
            }
        }
        first
    }
}

/// Refuses limits: only a timeout needs no cgroup.
pub(crate) fn refuse(limits: &Limits) -> Result<()> {
    let settings = limits.settings().unwrap_or_else(|(setting, _)| vec![setting]);
    if let Some(first) = settings.first() {
        let what = format!("limit {}: {} {}", first.controller, first.file, first.value);
        return Err(Error::unsupported(what, true));
    }
    match limits.cpu_time {
        None => Ok(()),
        Some(time) => Err(Error::unsupported(format!("limit cpu time: {time:?}"), true)),
    }
}
