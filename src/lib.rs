//! Runs a command in a fresh cgroup (v2): when it ends, nothing it started is left.
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
//! Where no cgroup can be made a spawn is an error, unless [`Containment::BestEffort`] allows a
//! *keeper*: a process that holds one tree without a cgroup. A *guard* beside the trees kills them
//! if this process dies.
//!
//! What this crate does not do: by default it is no sandbox (a process with the right to write to a
//! `cgroup.procs` outside its tree can leave), and it does not undo what a command asked others to
//! do (systemd, cron, a container engine).
//!
//! # Environment
//! Settings of a [`SupervisorBuilder`] override both variables. `TIDY_PROCESS_PARENT`: the cgroup2
//! directory in which run roots are made ([`base`](SupervisorBuilder::base)), and below which
//! [`list`] and [`sweep`] look, instead of the cgroup of this process. `TIDY_PROCESS_CONTAINMENT`:
//! `cgroup` (the default), `best-effort` or `keeper`
//! ([`containment`](SupervisorBuilder::containment)).
//!
//! # Features
//! All are off by default. `tokio`: `Command::spawn_async`, `run_async`, `output_async` and
//! `AsyncChild`, for tokio's runtimes (in others [`Child`] is `AsFd`, and its
//! [`enforce`](Child::enforce) keeps the timeout). `serde`: reports and what is in them can be
//! serialized. `sandbox`: a command that cannot leave its cgroup nor touch processes outside
//! (`Sandbox`, `Command::sandbox`). `cgroups-rs`: a [`Tree`] as a loaded cgroup of that crate.
//! `cli`: the command-line tool.

// In the order in which a spawn passes through them.
mod command;
mod limits;
mod containment;
mod confinement;
#[cfg(feature = "sandbox")]
mod changes;
#[cfg(feature = "sandbox")]
mod denied;
mod supervisor;
mod exec;
#[cfg_attr(not(feature = "sandbox"), path = "sandbox/absent.rs")]
mod sandbox;
#[cfg_attr(not(feature = "sandbox"), path = "explain/absent.rs")]
mod explain;
mod tree;
mod child;
mod ready;
mod log;
mod report;
mod record;
#[cfg(feature = "sandbox")]
mod overlay;
// Where the stages are put together.
mod inherit;
mod spawn;
mod replace;
mod die_with;
mod pool;
mod recorded;
#[cfg(feature = "tokio")]
mod runtime;
mod no_leaks;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli_support;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
// What every stage stands on.
mod cgroup;
mod keeper;
mod proc;
mod error;
mod sys;
mod bare;

/// Runs the README's code as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "sandbox")]
pub use changes::{Change, ChangeKind, ChangeList, Changes};
pub use child::Child;
pub use child::output::Output;
pub use command::Command;
pub use confinement::{Confined, Level, Property};
pub use containment::{Containment, Mechanism, Placement};
#[cfg(feature = "sandbox")]
pub use denied::{Action, Denied};
pub use error::{Error, Result};
pub use exec::stdio::Stdio;
pub use limits::{IoLimit, Limits};
pub use log::Log;
pub use log::excerpt::Excerpt;
pub use no_leaks::NoLeaks;
pub use pool::Pool;
pub use proc::info::{Gap, ProcessInfo};
pub use proc::port::{ListeningPort, Protocol};
pub use ready::Ready;
pub use ready::steps::Readiness;
pub use record::Recording;
pub use record::timeline::{
    Births, Event, EventKind, Lane, LaneLimits, Omitted, Sample, SeenPort, Source, Span, Timeline,
};
pub use report::{Cause, Metric, Missing, Note, Report, TreeReport, Usage};
#[cfg(feature = "tokio")]
pub use runtime::child::AsyncChild;
#[cfg(feature = "sandbox")]
pub use sandbox::Sandbox;
#[cfg(feature = "sandbox")]
pub use sandbox::plan::{Layer, Plan};
#[cfg(feature = "sandbox")]
pub use sandbox::view::Network;
pub use supervisor::list::{RunRoot, TreeInfo, list};
pub use supervisor::sweep::{StaleRunRoot, sweep};
pub use supervisor::{Supervisor, SupervisorBuilder};
pub use sys::poll::Deadline;
pub use tree::Tree;
pub use tree::watch::Watch;
