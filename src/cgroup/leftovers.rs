//! The processes that are left in a cgroup, described: who has to be killed, by name.

use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::cgroup::names::is_guard;
use crate::error::{Result, Step};
use crate::proc::info::{ProcessInfo, Survey};
use crate::proc::survey;

/// Freezing, for the sake of a list without races, may take this long; then the list is made
/// anyhow.
const FREEZE_PATIENCE: Duration = Duration::from_millis(50);

/// What cannot be listed is on its way out, or is still there after this.
pub(crate) const LISTING_PATIENCE: Duration = Duration::from_secs(1);

/// The processes in it right now.
pub(crate) fn listed(cgroup: &Cgroup) -> Survey {
    survey::of(&cgroup.pids().unwrap_or_default())
}

/// The processes that are left, listed while frozen so that none forks or exits meanwhile. Costs
/// one pread when none is left. The cgroup stays frozen: `teardown` kills frozen processes too.
///
/// What has to be killed is an entry, whatever hinders the list: one that says no more than that
/// should it come to the worst.
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
    if members.is_empty() && !cgroup.wait_empty(Some(Instant::now() + LISTING_PATIENCE)).unwrap_or(false) {
        left.push(unlisted(&why));
    }
    Ok(left)
}

/// Somebody is there, and the kernel lists nobody.
pub(crate) fn unlisted(why: &str) -> ProcessInfo {
    ProcessInfo::unread(0, why)
}

/// What a report says of leftovers.
pub(crate) fn described(pids: &[i32]) -> Survey {
    let mut left = survey::with_ports(pids);
    left.retain(|process| !is_guard(process));
    left
}
