//! Workloads that attack what is to end them.

#[cfg(feature = "cli")]
mod guard;
#[cfg(feature = "cli")]
mod roles;
