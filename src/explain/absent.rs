//! Without the feature `sandbox` nothing is explained: types of which there is no value.

use std::os::fd::OwnedFd;

use crate::error::Result;
use crate::sandbox::{Confinement, Prepared};

#[derive(Debug)]
pub(crate) enum Line {}

impl Line {
    pub(crate) fn of(_: Option<&Prepared>) -> Result<Option<Self>> {
        Ok(None)
    }

    pub(crate) fn refuse(_: Option<&Prepared>) -> Result<()> {
        Ok(())
    }

    pub(crate) fn confinement<'a>(
        prepared: Option<&'a Prepared>,
        _: Option<&'a Self>,
    ) -> Option<Confinement<'a>> {
        prepared.and_then(|made| made.confinement(None))
    }
}

#[derive(Debug)]
pub(crate) enum Explainer {}

impl Explainer {
    pub(crate) fn of(
        _: Option<&Prepared>,
        _: Option<OwnedFd>,
        _: Option<Line>,
    ) -> Result<Option<Self>> {
        Ok(None)
    }
}
