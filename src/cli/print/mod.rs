//! What tidy-process writes: lines for a person, JSON for a program.

pub(crate) mod patient;
pub(crate) mod text;
pub(crate) mod json;
pub(crate) mod ci;
pub(crate) mod case;
pub(crate) mod junit;
pub(crate) mod github;

/// Whether a terminal is to be shown colours.
pub(crate) fn has_colours() -> bool {
    let none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !none && std::env::var_os("TERM").is_some_and(|terminal| terminal != "dumb")
}
