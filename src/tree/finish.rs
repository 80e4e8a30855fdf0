//! Tears down a tree, once, and keeps its report.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cgroup::teardown::{Opening, TEARDOWN_PATIENCE};
use crate::cgroup::usage::Counters;
use crate::error::Result;
use crate::proc::info::Survey;
use crate::report::{Note, TreeReport, Usage};
use crate::supervisor::{Supervisor, orphans};
use crate::sys::inmates::Inmates;
use crate::sys::poll::lock;
use crate::tree::Tree;

impl Tree {
    /// Kills what is left, removes the cgroup, and reports what was left. A second call returns the
    /// same report; dropping it then does nothing.
    ///
    /// # Errors
    /// A process outlived SIGKILL for 10 s, or the directory cannot be removed; the error has the
    /// report ([`Error::tree_report`](crate::Error::tree_report)). A second call tries again.
    pub fn finish(&self) -> Result<TreeReport> {
        let mut report = lock(&self.report);
        if let Some(report) = &*report {
            return Ok(report.clone());
        }
        lock(&self.supervisor).as_ref().map(Supervisor::check_ours).transpose()?;
        let leftovers = self.leftovers();
        let (usage, torn) = self.tear_down(Opening::Look, Counters::CpuTime);
        let made = TreeReport {
            notes: Note::of(&usage, None),
            usage,
            wall: self.made.elapsed(),
            leftover_count: leftovers.count,
            leftovers: leftovers.named,
            mechanism: self.mechanism(),
        };
        match torn {
            Ok(()) => Ok(report.insert(made).clone()),
            Err(error) => Err(error.with_tree_report(made)),
        }
    }

    /// The processes that are left; empty if they cannot be listed, which must not stop the
    /// teardown.
    pub(crate) fn leftovers(&self) -> Survey {
        let left = self.container.leftovers().unwrap_or_default();
        lock(&self.supervisor).iter().for_each(|supervisor| supervisor.note_left(&left));
        left
    }

    /// Whether its supervisor wants the names of its leftovers.
    pub(crate) fn remembers(&self) -> bool {
        lock(&self.supervisor).as_ref().is_some_and(Supervisor::remembers)
    }

    /// Tears down, once; a call after a failure tries again. Does nothing in a forked copy of this
    /// process. Returns the usage, also with an error: these counters, or all that are counted.
    pub(crate) fn tear_down(&self, opening: Opening, counters: Counters) -> (Usage, Result<()>) {
        if !self.is_ours() {
            return (Usage::default(), Ok(()));
        }
        let mut used = lock(&self.used);
        if let Some(used) = &*used {
            return (used.clone(), Ok(()));
        }
        self.begin_end();
        let (opening, counters) = match (self.counted.load(Ordering::Relaxed), opening) {
            (false, opening) => (opening, counters),
            // What is removed has no counters.
            (true, Opening::Removal) => (Opening::Look, Counters::All),
            (true, opening) => (opening, Counters::All),
        };
        let all = match self.container.tear_down(TEARDOWN_PATIENCE, opening, counters) {
            Ok(usage) => used.insert(usage).clone(),
            Err(error) => return (self.container.usage(counters), Err(error)),
        };
        self.let_go();
        (all, Ok(()))
    }

    /// Removes its cgroup if that is empty, for a caller that reads no counter; false if it is not,
    /// or is counted all the same. Nothing was done to its processes then.
    pub(crate) fn vanish(&self) -> bool {
        if self.counted.load(Ordering::Relaxed) || !self.is_ours() {
            return false;
        }
        let mut used = lock(&self.used);
        let Some(usage) = self.container.vanish() else { return false };
        self.begin_end();
        *used = Some(usage);
        self.let_go();
        true
    }

    fn begin_end(&self) {
        self.done.store(true, Ordering::Release);
        drop(lock(&self.procs).take());
    }

    /// Lets go of the supervisor: a handle on a finished tree keeps no run root.
    fn let_go(&self) {
        let supervisor = lock(&self.supervisor).take();
        self.container.vacate(supervisor.as_ref());
        self.reap_orphans(supervisor.as_ref());
    }

    /// Notes what has to be reaped at its end: main and init of a sandbox with a view of its own.
    pub(crate) fn inhabit(&mut self, inmates: Arc<Inmates>) {
        let supervisor = lock(&self.supervisor).clone();
        self.container.inhabit(inmates, supervisor.as_ref());
    }

    /// Reaps those that became children of this process, unless the caller may have put its own
    /// children beside them.
    fn reap_orphans(&self, supervisor: Option<&Supervisor>) {
        let main = self.main.load(Ordering::Relaxed);
        if main != 0
            && supervisor.is_some_and(Supervisor::adopts)
            && let Some(path) = self.path()
        {
            orphans::reap_members(path, main);
        }
    }

    /// Leaves the tree to its supervisor, whose close tears it down.
    pub(crate) fn leave_to_supervisor(&self) {
        self.done.store(true, Ordering::Release);
        lock(&self.supervisor).iter().for_each(|supervisor| self.container.leave_to(supervisor));
    }
}
