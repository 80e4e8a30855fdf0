//! All integration tests, on the real kernel: real cgroups, real processes.
//!
//! The binary is also its own victim: with `TIDY_VICTIM` set it plays the named one (see `victim`),
//! with `TIDY_ACTOR` a supervisor that is about to be killed (see `actor`), with `TIDY_PRESSURE`
//! one that is short of something (see `pressure`), with `TIDY_SERVER` a server (see `server`),
//! with `TIDY_EARS` one that says which signals it hears (see `ears`).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what it sees, and fails by panicking"
)]

mod actor;
mod attacks;
#[cfg(feature = "cli")]
mod ears;
mod load;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(feature = "cli")]
mod screen;
mod server;
mod skipped;
mod support;
mod victim;

#[cfg(feature = "tokio")]
mod async_child;
#[cfg(feature = "tokio")]
mod async_drop;
#[cfg(feature = "tokio")]
mod async_kept;
#[cfg(feature = "cli")]
mod bytes;
#[cfg(feature = "cli")]
mod cli;
mod birth;
mod calls;
mod capture;
#[cfg(feature = "cli")]
mod containers;
mod command;
mod communicate;
#[cfg(feature = "cli")]
mod conduct;
#[cfg(feature = "cli")]
mod conduct_stopping;
#[cfg(feature = "cli")]
mod conduct_with;
#[cfg(feature = "cli")]
mod containment;
mod crowded;
mod crowds;
#[cfg(feature = "cli")]
mod doctor;
mod delegate;
mod die_with;
#[cfg(feature = "cli")]
mod die_with_parent;
mod environment;
mod errors;
#[cfg(feature = "sandbox")]
mod escapes;
mod examples;
mod experiment;
#[cfg(feature = "cli")]
mod faults;
#[cfg(feature = "cli")]
mod fence;
mod finish;
mod guard;
mod honest;
mod inherit;
mod keeper;
mod kept;
#[cfg(feature = "cli")]
mod keys;
mod late;
mod leaks;
#[cfg(feature = "sandbox")]
mod levels;
mod limits;
mod mischief;
mod model;
#[cfg(feature = "cli")]
mod named;
#[cfg(feature = "cli")]
mod packages;
mod pool;
mod ports;
mod pressure;
#[cfg(feature = "cli")]
mod progress;
mod readiness;
mod ready;
mod ready_places;
mod recipes;
mod settle;
#[cfg(feature = "cli")]
mod setup;
#[cfg(feature = "cli")]
mod shells;
#[cfg(feature = "cli")]
mod signals;
#[cfg(feature = "cli")]
mod slurm;
mod soak;
mod stopping;
#[cfg(feature = "cli")]
mod streams;
mod supervisor;
mod stuck;
mod sweep;
mod teardown;
#[cfg(feature = "cli")]
mod terminal;
mod tidy;
#[cfg(feature = "cli")]
mod top;
#[cfg(feature = "cli")]
mod top_keys;
#[cfg(feature = "cli")]
mod top_terminal;
#[cfg(feature = "cli")]
mod timeline;
mod tree;
mod usage;
mod victims;
mod wait;
mod watch;
#[cfg(feature = "cgroups-rs")]
mod witness;
#[cfg(feature = "cli")]
mod with;
#[cfg(feature = "cli")]
mod with_servers;
#[cfg(feature = "cli")]
mod with_signals;
