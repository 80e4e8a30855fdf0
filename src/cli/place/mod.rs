//! Where the cgroups are made: what the arguments say of it, and whether to move to a scope.

pub(crate) mod args;
pub(crate) mod scope;
