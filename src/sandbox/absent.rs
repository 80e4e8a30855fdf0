//! Without the feature `sandbox` there is none: types of which there is no value, so that the rest
//! of the library need not ask.

use std::ffi::c_int;
use std::sync::Arc;

use crate::confinement::Confined;
use crate::error::{Result, Step};

#[derive(Debug, Clone)]
pub(crate) enum Sandbox {}

impl Sandbox {
    pub(crate) fn prepare(&self) -> Result<Arc<Prepared>> {
        match *self {}
    }
}

#[derive(Debug)]
pub(crate) enum Prepared {}

impl Prepared {
    pub(crate) fn confinement<'a>(
        &'a self,
        _: Option<std::os::fd::BorrowedFd<'a>>,
    ) -> Option<Confinement<'a>> {
        match *self {}
    }

    pub(crate) fn confined(&self) -> Confined {
        match *self {}
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Confinement<'a> {
    #[expect(dead_code, reason = "it only holds the lifetime")]
    Never(std::convert::Infallible, &'a ()),
}

impl Confinement<'_> {
    pub(crate) fn enter(&self) -> Result<(), (Step, c_int)> {
        match *self {
            Self::Never(never, _) => match never {},
        }
    }

    pub(crate) fn needs(&self) -> std::option::IntoIter<std::os::fd::RawFd> {
        match *self {
            Self::Never(never, _) => match never {},
        }
    }
}
