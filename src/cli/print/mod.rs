//! What tidy-process writes: lines for a person, JSON for a program.

pub(crate) mod patient;
pub(crate) mod text;
pub(crate) mod json;
pub(crate) mod ci;
pub(crate) mod case;
pub(crate) mod junit;
pub(crate) mod github;
pub(crate) mod progress;
