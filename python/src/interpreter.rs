//! Refuses subinterpreters, legacy ones too: what is shared here (the supervisor, exceptions,
//! objects) is of the interpreter that has imported it first.
//!
//! # Safety
//! One of the two files with `unsafe` in them: two calls of the stable ABI, with the GIL held.
#![expect(unsafe_code, reason = "no safe call tells the interpreter")]

use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

static FIRST: OnceLock<i64> = OnceLock::new();

/// Raises ImportError in any interpreter but the first one that calls it.
#[pyfunction]
pub(crate) fn check_interpreter() -> PyResult<()> {
    // SAFETY: the GIL is held.
    let state = unsafe { pyo3::ffi::PyInterpreterState_Get() };
    // SAFETY: it is the current one, which lives.
    let own = unsafe { pyo3::ffi::PyInterpreterState_GetID(state) };
    if *FIRST.get_or_init(|| own) == own {
        return Ok(());
    }
    Err(PyImportError::new_err("tidy_process does not work in subinterpreters"))
}
