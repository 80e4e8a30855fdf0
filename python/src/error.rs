//! The library's errors as Python exceptions, which the package's `_errors.py` makes.

use std::os::unix::ffi::OsStrExt;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tidy_process::Error;

use crate::report::{process, report};

/// The exception for an error. What is needed to choose its class is said in words.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    make(py, error).unwrap_or_else(|error| error)
}

fn make(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let told = PyDict::new(py);
    told.set_item("text", error.to_string())?;
    told.set_item("errno", error.raw_os_error())?;
    told.set_item("hint", error.hint())?;
    told.set_item("step", error.step())?;
    let path = error.path().map(|path| PyBytes::new(py, path.as_os_str().as_bytes()));
    told.set_item("path", path)?;
    told.set_item("kind", kind(error))?;
    let survivors: Vec<_> = error.survivors().iter().map(|one| process(py, one)).collect();
    told.set_item("survivors", survivors.into_iter().collect::<PyResult<Vec<_>>>()?)?;
    told.set_item("holder", error.holder().map(|one| process(py, one)).transpose()?)?;
    told.set_item("report", error.report().map(|ended| report(py, ended)).transpose()?)?;
    let made = py.import("tidy_process._errors")?.getattr("make")?.call((), Some(&told))?;
    Ok(PyErr::from_value(made))
}

fn kind(error: &Error) -> &'static str {
    if error.is_nul() {
        return "nul";
    }
    if error.is_address_in_use() {
        return "port-taken";
    }
    if error.is_not_ready() {
        return "not-ready";
    }
    if error.is_limit() {
        return "limit";
    }
    if error.is_partner_gone() {
        return "partner-gone";
    }
    if error.is_survivors() {
        return "survivors";
    }
    if error.is_invalid_input() { "value" } else { "other" }
}
