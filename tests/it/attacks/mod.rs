//! The promises under attack, each test bounded; one topic, one module.

mod duties;
mod leases;
mod nesting;
