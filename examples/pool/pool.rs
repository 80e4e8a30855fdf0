//! Runs many short commands, so many at a time, each in a tree of its own.
//!
//! `cargo run --release --manifest-path tests/interop/Cargo.toml --example pool -- --help`. What a
//! program like this needs: as many threads as commands at a time and nothing that grows with the
//! list; a signal that ends what runs now and nothing but that; a table at the end.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program says what it does")]

mod args;
mod signals;
mod table;
mod work;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use tidy_process::{Error, Limits, Supervisor, Tree};

use crate::args::{HELP, Options, Request};
use crate::signals::Stop;
use crate::table::Table;
use crate::work::{Jobs, Pool};

fn main() -> ExitCode {
    let options = match args::parse(std::env::args_os().skip(1)) {
        Ok(Request::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Request::Run(options)) => *options,
        Err(wrong) => {
            eprintln!("pool: {wrong} (--help tells more)");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pool: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut options: Options) -> Result<ExitCode, Error> {
    let supervisor = Supervisor::builder().build()?;
    options.limits = possible(options.limits, &supervisor)?;
    let bar = bar(&options);
    let start = Instant::now();
    let jobs = Jobs::new(options.jobs_from());
    // Before any thread is there: all of them have to block the signals.
    let stop = Stop::collect(options.at_a_time);
    let pool = Pool { options: &options, supervisor: &supervisor, jobs, bar: &bar };
    let tables = thread::scope(|scope| {
        let workers = stop.slots().iter().map(|slot| {
            let (pool, stop) = (&pool, &stop);
            scope.spawn(move || pool.work(slot, stop))
        });
        let workers: Vec<_> = workers.collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    bar.finish_and_clear();
    let mut table = Table::default();
    for part in tables {
        table.add(part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
    print!("{}", table.text(start.elapsed()));
    Ok(match stop.signal() {
        Some(signal) => ExitCode::from(128 + signal),
        None if table.all_well() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

/// The limits that can be had here. What cannot is said, and done without.
fn possible(limits: Limits, supervisor: &Supervisor) -> Result<Limits, Error> {
    match Tree::limited(supervisor, None, &limits) {
        Ok(_) => Ok(limits),
        Err(error) if error.is_limit() => {
            eprintln!("pool: goes on without --memory and --pids: {error:?}");
            Ok(Limits::new())
        }
        Err(error) => Err(error),
    }
}

/// On stderr, if that is a terminal.
fn bar(options: &Options) -> ProgressBar {
    let bar = options.count().map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let style = "{bar:40} {pos}/{len} {per_sec} {msg}";
    bar.with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
