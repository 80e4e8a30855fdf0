//! The experiment: start an API server, wait until it answers, send it requests, and leave nothing
//! behind.
//!
//! The server is of the kind that is hard to stop: the process that we start only watches, and its
//! child does the serving (Flask's debug mode is like that). Kill the process that you know, and
//! the port stays taken by one that you do not.
//!
//! ```text
//! cargo run --example experiment              # the example plays the server itself
//! cargo run --example experiment -- --panic   # fails in the middle; nothing stays either
//! cargo run --example experiment -- --plain   # the same with std::process: what stays?
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it does")]

use std::fs::File;
use std::panic::{self, UnwindSafe};
use std::process::ExitCode;

use tidy_process::{Command, Report, Tree};

use crate::args::{Options, Request};

mod args;
mod client;
mod machine;
mod plain;
mod server;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Starts the server, talks to it, ends it. From `spawn` on, every way out of this function, be it
/// the last line, a `?` or a panic, ends the server *and everything that it started* first.
fn experiment(options: &Options) -> Result<Report> {
    let server = Command::new(&options.server.program)
        .args(&options.server.args)
        .env(machine::MARKER, machine::run_name())
        .stdout(File::create(options.out_log())?)
        .stderr(File::create(options.err_log())?)
        .spawn()?;

    // It may also end before it ever answers: so between two attempts it is the server that we wait
    // for, not the clock.
    client::wait_until_it_answers(options, |pause| Ok(server.wait_timeout(pause)?))?;
    show(server.tree());

    // With `--error` or `--panic` this is where it ends, in the middle: `server` is dropped, and
    // Drop does what `finish` does.
    client::send_requests(options)?;

    // `finish` is a Drop that says how it went. Once it has returned, the processes are gone, and
    // with them their hold on the port.
    Ok(server.finish()?)
}

/// The one that we started, and those that we did not.
fn show(tree: &Tree) {
    for process in tree.processes() {
        println!("  {process}   <- child of {}", process.ppid);
    }
}

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Request::Help) => {
            print!("{}", args::HELP);
            ExitCode::SUCCESS
        }
        Ok(Request::ServeReloader(port)) => end_with(server::watch(port)),
        Ok(Request::Serve(port)) => end_with(server::serve(port)),
        Ok(Request::Run(options)) => end_with(run(&options)),
        Err(wrong) => {
            eprintln!("error: {wrong}\nTry --help.");
            ExitCode::from(2)
        }
    }
}

fn end_with(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    machine::require_free(options.port)?;
    std::fs::create_dir_all(&options.dir)
        .map_err(|error| format!("cannot create {}: {error}", options.dir.display()))?;
    println!("server  {}", options.server);
    println!("logs    {} and err.log\n", options.out_log().display());
    if options.plain {
        return and_at_once(
            || plain::experiment(options),
            || plain::show_what_stays_behind(options.port),
        );
    }
    let report = and_at_once(|| experiment(options), || check_that_nothing_stays(options.port))?;
    println!("the server was {:?} after {:.0?}", report.cause, report.wall);
    Ok(())
}

/// Does `after` as soon as `job` has ended, even by a panic; that goes on afterwards.
fn and_at_once<T>(
    job: impl FnOnce() -> Result<T> + UnwindSafe,
    after: impl FnOnce() -> Result<()>,
) -> Result<T> {
    let ended = panic::catch_unwind(job);
    let checked = after();
    match (ended.unwrap_or_else(|payload| panic::resume_unwind(payload)), checked) {
        (Err(error), Err(worse)) => Err(format!("{error}; and then: {worse}").into()),
        (outcome, checked) => checked.and(outcome),
    }
}

/// The claim of this library, checked at the moment when the teardown has returned: no retry, no
/// sleep.
fn check_that_nothing_stays(port: u16) -> Result<()> {
    machine::require_clean(port)?;
    println!("\nport {port} is free again, no process is left");
    Ok(())
}
