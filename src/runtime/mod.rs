//! The same ends of a command for tokio's runtimes; feature `tokio`.

pub(crate) mod child;
pub(crate) mod output;
pub(crate) mod offload;
mod wait;
