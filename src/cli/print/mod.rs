//! What tidy-process writes: lines for a person, JSON for a program.

pub(crate) mod patient;
pub(crate) mod text;
pub(crate) mod json;
