//! The extension module `tidy_process._native`: a thin binding of the Rust library. What Python
//! sees is in the package's Python files; here every wait releases the GIL, and none holds a lock
//! meanwhile that a fork could find locked.

mod child;
mod error;
mod home;
mod interpreter;
mod limits;
mod report;
mod request;
mod tree;
mod values;
mod wait;
mod watch;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::child::NativeChild;
    #[pymodule_export]
    use crate::home::{after_fork, mechanism, run_root, shutdown};
    #[pymodule_export]
    use crate::interpreter::check_interpreter;
    #[pymodule_export]
    use crate::report::Ended;
    #[pymodule_export]
    use crate::request::spawn;
    #[pymodule_export]
    use crate::tree::NativeTree;
    #[pymodule_export]
    use crate::values::{Changes, Log, Sandbox};
    #[pymodule_export]
    use crate::watch::NativeWatch;
}
