//! The promises under attack, each test bounded; one topic, one module.

mod duties;
#[cfg(feature = "cli")]
mod guard;
mod leases;
mod nesting;
#[cfg(feature = "cli")]
mod roles;
