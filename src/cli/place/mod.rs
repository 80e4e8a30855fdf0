//! Decides where the cgroups are made: the options on that, and whether to move to a scope.

pub(crate) mod args;
pub(crate) mod scope;
