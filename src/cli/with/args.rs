//! The arguments of `tidy-process with`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::candidates;
use crate::confine::ConfineArgs;
use crate::ending::{EndingArgs, ForwardArgs, says};
use crate::place::args::GroundArgs;
use crate::print::ci::CiArgs;
use crate::progress::ProgressArgs;
use crate::timeline::TimelineArgs;
use crate::values::duration;
use crate::with::servers::Servers;

const WITH: &str = "\
--ready, --name, --log, --stdin, -E, -C and limits belong to the --server before them; -E, -C and
limits before the first --server are for CMD and each server. The servers start one after the
other, each when the one before it is ready (with --parallel all at the same time), and learn of
those before them as CMD learns of all: from TIDY_SERVERS (their names), TIDY_<NAME>_PORT (the
port they were waited for, else the first one they listen on) and TIDY_<NAME>_PID. When CMD ends
they are stopped, the last one first. A server that ends earlier ends CMD. Ctrl-C is
for CMD to handle, and does not reach the servers; while they are being stopped a signal kills at
once.

A file for --file has a table for each server; docs/with.md lists the keys:
  [server.db]
  command = \"./db --port 0\"
  ready = \"tcp\"
  [server.api]
  command = [\"./api\", \"--verbose\"]
  ready = \"http:8080/health\"
  depends = [\"db\"]

Exit status: CMD's own; 128+N if signal N ended it; 123 if it succeeded and left something, with
--leaks=fail; 124 if it timed out; 125 if a server was not ready in time, or ended early; 126 and
127 if CMD cannot be executed or was not found.

Examples:
  tidy-process with --server 'flask run -p 8080' --ready 8080 -- pytest
  tidy-process with --server './db --port 0' --ready tcp --name db \\
                    --server './api' --ready http:8080/health -- ./tests
  tidy-process with --file tidy.toml --parallel -- ./tests";

const KILL_AFTER: &str =
    "Time between the stop signal and the kill, for each server and CMD; 0 is at once";
const SIGNAL: &str = "Stop signal, by name or number [default: TERM, and for CMD the one received]";
const LEAKS: &str = "What to do with processes of CMD that are left when it ends";

#[derive(Debug, Args)]
#[command(mut_arg("kill_after", says(KILL_AFTER)), mut_arg("signal", says(SIGNAL)))]
#[command(mut_arg("leaks", says(LEAKS)), after_help = WITH)]
pub(crate) struct WithArgs {
    #[command(flatten)]
    pub(crate) servers: Servers,

    /// Take servers from FILE too; they come before those of the command line
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Start the servers at the same time; what one of a file depends on is ready before
    #[arg(long)]
    pub(crate) parallel: bool,

    /// How long each server may take until it is ready
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "30s")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) ready_timeout: Duration,

    #[command(flatten)]
    pub(crate) ending: EndingArgs,
    #[command(flatten)]
    pub(crate) forward: ForwardArgs,

    /// When CMD fails, show so many last lines of each server [default: 10; with -q or -v: 0]
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<usize>,

    /// Write a report to FILE, or to standard output with "-"; see docs/json.md
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) ci: CiArgs,
    #[command(flatten)]
    pub(crate) timeline: TimelineArgs,

    #[command(flatten)]
    pub(crate) confine: ConfineArgs,

    #[command(flatten)]
    pub(crate) ground: GroundArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say what the servers write, and how the command ended
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// The command and its arguments
    #[arg(required_unless_present = "plan", trailing_var_arg = true, value_name = "CMD")]
    #[arg(add = ArgValueCompleter::new(candidates::CommandLine))]
    pub(crate) command: Vec<OsString>,
}

impl WithArgs {
    /// How many last lines of each server are shown when CMD has failed.
    pub(crate) fn tail(&self) -> usize {
        // With -v they were shown as they came.
        self.tail.unwrap_or(if self.quiet || self.verbose { 0 } else { 10 })
    }
}
