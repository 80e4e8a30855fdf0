//! Describes the processes that are left in a cgroup, before they are killed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::cgroup::names::{is_guard, is_stand_in};
use crate::error::{Result, Step};
use crate::proc::info::{ProcessInfo, Survey};
use crate::proc::survey;

/// Waits so long for the freeze that keeps the list free of races; then lists all the same.
const FREEZE_PATIENCE: Duration = Duration::from_millis(50);

/// Waits so long for the exit of a process that `cgroup.procs` no longer lists.
pub(crate) const LISTING_PATIENCE: Duration = Duration::from_secs(1);

/// The processes in it right now.
pub(crate) fn listed(cgroup: &Cgroup) -> Survey {
    survey::of(&cgroup.pids().unwrap_or_default())
}

/// The processes that are left, listed while frozen so that none forks or exits meanwhile. Costs
/// one pread when none is left. The cgroup stays frozen: `teardown` kills frozen processes too.
///
/// Every process that has to be killed gets an entry, one without details if it cannot be listed.
pub(crate) fn leftovers(cgroup: &Cgroup) -> Result<Survey> {
    let failed = |errno| cgroup.error(Step::Freeze, errno);
    if !cgroup.populated().map_err(failed)? {
        return Ok(Survey::default());
    }
    // A list with races is better than none.
    let _ = cgroup.freeze(Instant::now() + FREEZE_PATIENCE);
    let (members, why) = match cgroup.members() {
        Ok(members) => (members, "it is in another pid namespace".to_owned()),
        Err(errno) => (Vec::new(), format!("{errno:?} while the cgroup was listed")),
    };
    let seen = members.partition_point(|&pid| pid <= 0);
    let (hidden, pids) = members.split_at(seen);
    let mut left = described(pids);
    hidden.iter().for_each(|_| left.push(ProcessInfo::unread(0, &why)));
    if members.is_empty()
        && !cgroup.wait_empty(Some(Instant::now() + LISTING_PATIENCE)).unwrap_or(false)
    {
        left.push(unlisted(&why));
    }
    Ok(left)
}

/// The entry of a process that the kernel counts but does not list.
pub(crate) fn unlisted(why: &str) -> ProcessInfo {
    ProcessInfo::unread(0, why)
}

/// Leaves out the stand-ins of a nested tidy-process, which die with it. Their name is no proof: so
/// only where the parent is named, by which the tree is known not to be empty.
pub(crate) fn without_stand_ins(all: &mut Survey) {
    let named: BTreeSet<u32> = all.named.iter().map(|process| process.pid).collect();
    all.retain(|process| !is_stand_in(process) || !named.contains(&process.ppid));
}

/// Describes leftovers for a report, without guards.
pub(crate) fn described(pids: &[i32]) -> Survey {
    let mut left = survey::with_ports(pids);
    left.retain(|process| !is_guard(process));
    without_stand_ins(&mut left);
    left
}
