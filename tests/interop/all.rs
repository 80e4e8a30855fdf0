//! tidy-process beside other people's crates and programs: what spawns into its trees, what reads
//! the same facts, what runs tests.
//!
//! The stage, the victims and the servers are those of `tests/it`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what it sees, and fails by panicking"
)]

#[path = "../it/server.rs"]
#[expect(dead_code, reason = "tests/it uses the rest")]
mod server;
#[path = "../it/skipped.rs"]
mod skipped;
#[path = "../it/support.rs"]
#[expect(dead_code, unused_imports, reason = "tests/it uses the rest")]
mod support;
#[path = "../it/victim/mod.rs"]
#[expect(dead_code, reason = "tests/it uses the rest")]
mod victim;

mod examples;
mod runners;
mod schema;
mod schema_timeline;
mod spawners;
mod witness;
