//! A tree without a command of its own.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tidy_process::{Limits, Tree};

use crate::error::raise;
use crate::home;
use crate::limits::Limited;
use crate::report::{ports, processes, tree_report};

/// A cgroup for processes that other code starts.
#[pyclass(frozen, name = "Tree", module = "tidy_process._native")]
pub(crate) struct NativeTree {
    tree: Mutex<Option<Arc<Tree>>>,
    owner: u32,
}

impl NativeTree {
    pub(crate) fn tree(&self) -> PyResult<Arc<Tree>> {
        let held = self.tree.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let held = held.filter(|_| self.owner == std::process::id());
        held.ok_or_else(|| PyRuntimeError::new_err("this tree is another process's"))
    }
}

#[pymethods]
impl NativeTree {
    #[new]
    #[pyo3(signature = (name, limited))]
    fn new(py: Python<'_>, name: Option<&str>, limited: Option<Limited>) -> PyResult<Self> {
        let limits = limited.map_or_else(|| Ok(Limits::new()), |limited| limited.limits())?;
        let supervisor = home::supervisor(py)?;
        let tree = Tree::limited(&supervisor, name, &limits).map_err(|error| raise(py, &error))?;
        Ok(Self { tree: Mutex::new(Some(Arc::new(tree))), owner: std::process::id() })
    }

    /// Moves a running process into it.
    fn add(&self, py: Python<'_>, pid: u32) -> PyResult<()> {
        self.tree()?.add(pid).map_err(|error| raise(py, &error))
    }

    /// Its directory.
    fn path(&self) -> PyResult<Option<String>> {
        Ok(self.tree()?.path().map(|path| path.to_string_lossy().into_owned()))
    }

    fn signal(&self, py: Python<'_>, signal: i32) -> PyResult<usize> {
        self.tree()?.signal(signal).map_err(|error| raise(py, &error))
    }

    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        let tree = self.tree()?;
        py.detach(|| tree.kill()).map_err(|error| raise(py, &error))
    }

    fn processes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let tree = self.tree()?;
        let all = py.detach(|| tree.processes());
        processes(py, &all)
    }

    fn ports(&self, py: Python<'_>) -> PyResult<Vec<(String, String, u16, u32)>> {
        let tree = self.tree()?;
        let all = py.detach(|| tree.listening_ports()).map_err(|error| raise(py, &error))?;
        Ok(ports(&all))
    }

    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let tree = self.tree()?;
        let ended = py.detach(|| tree.finish()).map_err(|error| raise(py, &error))?;
        tree_report(py, &ended)
    }
}
