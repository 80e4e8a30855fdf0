//! Spawning, waiting and collecting in tokio's runtimes; feature `tokio`.

pub(crate) mod child;
pub(crate) mod output;
pub(crate) mod offload;
mod wait;
