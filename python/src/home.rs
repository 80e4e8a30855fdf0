//! The supervisor of this Python process: made at the first spawn, another one in each fork.
//!
//! The lock is only taken by threads that hold the GIL, and never across a place where that is
//! released: so a fork, which Python makes with the GIL, never copies it locked.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use tidy_process::{Containment, Mechanism, Supervisor};

use crate::error::raise;

struct Made {
    by: u32,
    supervisor: Supervisor,
}

static HOME: Mutex<Option<Made>> = Mutex::new(None);

fn home() -> MutexGuard<'static, Option<Made>> {
    HOME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The supervisor; the containment is asked for when it is made, and is best effort as long as
/// `TIDY_PROCESS_CONTAINMENT` says nothing else.
pub(crate) fn supervisor(py: Python<'_>) -> PyResult<Supervisor> {
    let mut home = home();
    let me = std::process::id();
    if let Some(made) = home.as_ref().filter(|made| made.by == me) {
        return Ok(made.supervisor.clone());
    }
    let mut builder = Supervisor::builder();
    if std::env::var_os("TIDY_PROCESS_CONTAINMENT").is_none() {
        builder = builder.containment(Containment::BestEffort);
    }
    let supervisor = builder.build().map_err(|error| raise(py, &error))?;
    Ok(home.insert(Made { by: me, supervisor }).supervisor.clone())
}

/// Forgets the supervisor of the process that this one was forked from; kills nothing.
#[pyfunction]
pub(crate) fn after_fork() {
    home().take_if(|made| made.by != std::process::id());
}

/// Ends everything that this process has started and not finished, detached trees too. The next
/// spawn makes a new supervisor.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) -> PyResult<()> {
    let taken = home().take().filter(|made| made.by == std::process::id());
    let Some(Made { supervisor, .. }) = taken else { return Ok(()) };
    py.detach(|| supervisor.close()).map_err(|error| raise(py, &error))
}

/// The directory of the run root; None where trees have keepers.
#[pyfunction]
pub(crate) fn run_root(py: Python<'_>) -> PyResult<Option<String>> {
    Ok(supervisor(py)?.path().map(|path| path.to_string_lossy().into_owned()))
}

/// `cgroup` or `keeper`.
#[pyfunction]
pub(crate) fn mechanism(py: Python<'_>) -> PyResult<&'static str> {
    Ok(mechanism_name(supervisor(py)?.mechanism()))
}

pub(crate) fn mechanism_name(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Keeper => "keeper",
        _ => "cgroup",
    }
}
