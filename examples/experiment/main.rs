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
#![expect(clippy::print_stderr, reason = "it shows what it does")]

use std::error::Error;
use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tidy_process::{Child, Command, Containment, Log, Ready, Report, Supervisor, Tree};

/// A line for a reader who may have seen enough (`head`): that is no reason to panic in the middle.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

use crate::args::{Options, Request};
use crate::logs::Logs;
use crate::machine::Line;

mod args;
mod client;
mod logs;
mod machine;
mod plain;
mod server;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Python on a busy machine takes seconds to start.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Starts the server. From here on every way out, be it the last line, a `?` or a panic, ends the
/// server *and everything that it started*.
fn start(
    options: &Options,
    logs: &Logs,
    supervisor: &Supervisor,
    stdin: PipeReader,
) -> Result<Child> {
    let log = Log::create(logs.file())?;
    let mut command = Command::new(&options.server.program);
    command.args(&options.server.args).stdin(OwnedFd::from(stdin)).log(&log);
    Ok(command.supervisor(supervisor).spawn()?)
}

/// Talks to the server, and ends it.
fn experiment(options: &Options, server: Child) -> Result<Report> {
    // A process of *this* server answers: one that an earlier run has left does not count, and one
    // that ends instead is an error at once, with the last lines of its log.
    let started = Instant::now();
    let answers = Ready::http(&format!("http://127.0.0.1:{}/", options.port))?;
    server.wait_ready(answers, started + READY_WITHIN)?;
    say!("ready after {:.0?}", started.elapsed());
    show(server.tree());

    // With `--error` or `--panic` this is where it ends, in the middle: `server` is dropped, and
    // Drop does what `finish` does.
    client::send_requests(options)?;

    // `finish` is a Drop that says how it went. Once it has returned, the processes are gone, and
    // with them their hold on the port.
    Ok(server.finish()?)
}

/// The process that we started, and those that we did not.
fn show(tree: &Tree) {
    for process in tree.processes() {
        say!("  {process}   <- child of {}", process.ppid);
    }
}

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Request::Help) => {
            say!("{}", args::HELP.trim_end());
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
            tell(&*error);
            ExitCode::FAILURE
        }
    }
}

/// The error and, where it is the library's, what to do about it.
fn tell(error: &(dyn Error + 'static)) {
    eprintln!("error: {error}");
    if let Some(hint) = error.downcast_ref().and_then(tidy_process::Error::hint) {
        eprintln!("hint: {hint}");
    }
}

fn run(options: &Options) -> Result<()> {
    let _claim = machine::claim(options.port)?;
    machine::require_free(options.port)?;
    let logs = Logs::make(options.dir.as_deref())?;
    say!("server  {}\nlog     {}\n", options.server, logs.file().display());
    if options.plain {
        run_plain(options, &logs)?
    } else {
        run_tidy(options, &logs)?
    }
    logs.done();
    Ok(())
}

fn run_tidy(options: &Options, logs: &Logs) -> Result<()> {
    let supervisor = supervisor()?;
    let (line, stdin) = machine::line()?;
    let server = start(options, logs, &supervisor, stdin)?;
    let report = and_at_once(
        || experiment(options, server),
        || {
            // Its guard ends with it.
            drop(supervisor);
            check_that_nothing_stays(options.port, line)
        },
    )?;
    say!("the server was {:?} after {:.0?}", report.cause, report.wall);
    Ok(())
}

fn run_plain(options: &Options, logs: &Logs) -> Result<()> {
    let (line, stdin) = machine::line()?;
    let server = plain::start(options, logs, stdin)?;
    and_at_once(
        || plain::experiment(options, server),
        || plain::show_what_stays_behind(options.port, line),
    )
}

/// Cgroups where they can be made; in a default container, or for a user without a delegated
/// cgroup, a keeper.
fn supervisor() -> Result<Supervisor> {
    let supervisor = Supervisor::builder().containment(Containment::BestEffort).build()?;
    if let Some(why) = supervisor.why_no_cgroup() {
        say!("best effort: a keeper process holds the server, for want of a cgroup: {why}\n");
    }
    Ok(supervisor)
}

/// Does `after` as soon as `job` has ended, even by a panic; that goes on afterwards.
fn and_at_once<T>(
    job: impl FnOnce() -> Result<T>,
    after: impl FnOnce() -> Result<()>,
) -> Result<T> {
    let ended = panic::catch_unwind(AssertUnwindSafe(job));
    let checked = after();
    match (ended.unwrap_or_else(|payload| panic::resume_unwind(payload)), checked) {
        (Err(error), Err(worse)) => {
            tell(&*error);
            Err(worse)
        }
        (outcome, checked) => checked.and(outcome),
    }
}

/// The claim of this library, checked at the moment when the teardown has returned: no retry, no
/// sleep.
fn check_that_nothing_stays(port: u16, mut line: Line) -> Result<()> {
    line.require_clean(port)?;
    say!("\nport {port} is free again, no process is left");
    Ok(())
}
