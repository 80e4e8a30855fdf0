//! The processes that are left in a cgroup, described: who has to be killed, by name.

use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::cgroup::names::is_guard;
use crate::error::{Result, Step};
use crate::proc::info::ProcessInfo;
use crate::proc::read;
use crate::proc::sockets;

/// Freezing, for the sake of a list without races, may take this long; then the list is made
/// anyhow.
const FREEZE: Duration = Duration::from_millis(50);

/// Who is in it right now.
pub(crate) fn listed(cgroup: &Cgroup) -> Vec<ProcessInfo> {
    read::read_all(&cgroup.pids().unwrap_or_default(), true)
}

/// Who is left, listed while frozen so that nobody forks or exits meanwhile. Costs one pread when
/// nobody is left. The cgroup stays frozen: `teardown` kills frozen processes too.
pub(crate) fn leftovers(cgroup: &Cgroup) -> Result<Vec<ProcessInfo>> {
    let failed = |errno| cgroup.error(Step::Freeze, errno);
    if !cgroup.populated().map_err(failed)? {
        return Ok(Vec::new());
    }
    cgroup.freeze(Instant::now() + FREEZE).map_err(failed)?;
    Ok(described(&cgroup.pids().unwrap_or_default()))
}

/// What a report says of leftovers.
pub(crate) fn described(pids: &[i32]) -> Vec<ProcessInfo> {
    let mut left = read::read_all(pids, true);
    left.retain(|process| !is_guard(process));
    sockets::find_ports(&mut left);
    left
}
