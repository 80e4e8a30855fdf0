//! Without the feature `sandbox` no command has a view of its own: a type of which there is no
//! value.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use crate::containment::Placement;
use crate::exec::launch::{Enter, Failed, Launch};
use crate::sys::Newborn;
use crate::sys::inmates::AtEnd;

pub(crate) enum Entry<'a> {
    #[expect(dead_code, reason = "it only holds the lifetime")]
    Never(Infallible, PhantomData<&'a ()>),
}

impl Enter for Entry<'_> {
    fn enter(&self, _: &mut Launch<'_>) -> Result<(Newborn, Placement), Failed> {
        match self {
            Self::Never(never, _) => match *never {},
        }
    }
}

impl Entry<'_> {
    pub(crate) fn take_init(&mut self) -> Option<(Newborn, AtEnd)> {
        match self {
            Self::Never(never, _) => match *never {},
        }
    }

    pub(crate) fn take_notices(&self) -> Option<OwnedFd> {
        match self {
            Self::Never(never, _) => match *never {},
        }
    }
}
