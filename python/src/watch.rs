//! This Python process in a cgroup of its own, where it sees what its code has left.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tidy_process::Watch;

use crate::error::raise;
use crate::home;
use crate::tree::NativeTree;

/// Moves this process into the cgroup when it is made, and back at `close`.
#[pyclass(frozen, name = "Watch", module = "tidy_process._native")]
pub(crate) struct NativeWatch {
    watch: Mutex<Option<Arc<Watch>>>,
    owner: u32,
}

impl NativeWatch {
    fn watch(&self) -> PyResult<Arc<Watch>> {
        let held = self.watch.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let held = held.filter(|_| self.owner == std::process::id());
        held.ok_or_else(|| PyRuntimeError::new_err("this watch is closed, or another process's"))
    }
}

#[pymethods]
impl NativeWatch {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let supervisor = home::supervisor(py)?;
        let watch = py.detach(|| supervisor.watch()).map_err(|error| raise(py, &error))?;
        Ok(Self { watch: Mutex::new(Some(Arc::new(watch))), owner: std::process::id() })
    }

    /// The pids in the cgroup but this one. One read, with the GIL: releasing it costs more.
    fn others(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.watch()?.others().map_err(|error| raise(py, &error))
    }

    /// Moves the others into the tree until this process is alone.
    fn sort_into(&self, py: Python<'_>, tree: &NativeTree) -> PyResult<usize> {
        let (watch, tree) = (self.watch()?, tree.tree()?);
        py.detach(|| watch.sort_into(&tree)).map_err(|error| raise(py, &error))
    }

    /// Moves this process back, and kills what is left in the cgroup.
    fn close(&self, py: Python<'_>) {
        if self.owner == std::process::id() {
            let taken = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
            py.detach(|| drop(taken));
        }
    }
}
