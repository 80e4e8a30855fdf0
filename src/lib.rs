//! Run a command in a fresh cgroup (v2): when it ends, nothing it started is left.
//!
//! Every spawned process goes into a cgroup of its own; teardown kills the whole cgroup, so every
//! descendant dies, also one that called setsid, forked twice and became a daemon. Linux 5.14 or
//! newer.
//!
//! ```
//! use tidy_process::Command;
//!
//! // Milliseconds, not 30 s.
//! let output = Command::new("sh").args(["-c", "sleep 30 & echo hi"]).output()?;
//! assert_eq!(output.stdout, b"hi\n");
//! println!("killed: {:?}", output.report.leftovers);
//! # Ok::<(), tidy_process::Error>(())
//! ```
//!
//! Where no cgroup can be made a spawn is an error; [`Containment`] says what there is instead.
//!
//! What this crate does not do: it is no sandbox (a process with the right to write to a
//! `cgroup.procs` outside its tree can leave), and it does not undo what a command asked others to
//! do (systemd, cron, a container engine).
//!
//! # Features
//! All are off by default. `tokio`: `Command::spawn_async` and `AsyncChild`, for tokio's runtimes
//! (in others [`Child`] is `AsFd`, and its [`next_deadline`](Child::next_deadline) keeps the
//! timeout). `cgroups-rs`: a [`Tree`] as a loaded cgroup of that crate. `cli`: the command-line
//! tool.

// In the order in which a spawn passes through them.
mod command;
mod program;
mod limits;
mod stdio;
mod capture;
mod pump;
mod memory;
mod hierarchy;
mod place;
mod containment;
mod supervisor;
mod run_root;
mod keepers;
mod guard;
mod sweep;
mod census;
mod tree;
mod image;
mod launch;
mod born;
mod hire;
mod keeper;
mod kept;
mod lineage;
mod maps;
mod child;
mod ending;
mod finish;
mod wait;
mod ready;
mod look;
mod goal;
mod ports;
mod teardown;
mod hold;
mod report;
// Where the stages are put together.
mod spawn;
mod output;
#[cfg(feature = "tokio")]
mod async_child;
#[cfg(feature = "tokio")]
mod async_output;
#[cfg(feature = "cgroups-rs")]
mod interop;
mod leaks;
// What every stage stands on.
mod cgroup;
mod delegation;
mod controllers;
mod usage;
mod process;
mod diag;
mod http;
mod pace;
#[cfg(feature = "tokio")]
mod aside;
mod sys;
mod error;
mod step;
mod names;
mod port;
mod roster;
mod hint;

/// The README's code is run, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "tokio")]
pub use async_child::AsyncChild;
pub use capture::Log;
pub use census::{RunRoot, TreeInfo, census};
pub use child::Child;
pub use command::Command;
pub use containment::{Containment, Mechanism};
pub use error::{Error, Result};
#[doc(hidden)]
pub use launch::clone_refused;
pub use leaks::NoLeaks;
pub use limits::{IoLimit, Limits};
pub use memory::Excerpt;
pub use output::Output;
#[doc(hidden)]
pub use place::{Place, place, top};
pub use port::{ListeningPort, Protocol};
pub use process::ProcessInfo;
pub use ready::Ready;
pub use report::{Cause, Note, Placement, Report};
pub use stdio::Stdio;
pub use supervisor::{Supervisor, SupervisorBuilder};
#[doc(hidden)]
pub use sweep::sweep_briefly;
pub use sweep::{Stale, sweep};
#[doc(hidden)]
pub use sys::{ignores, reset_sigchld};
pub use tree::Tree;
pub use usage::{Missing, Usage};
