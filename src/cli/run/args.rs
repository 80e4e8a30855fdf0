//! What may be asked of `tidy-process run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use clap_complete::ArgValueCompleter;

use crate::candidates;
use crate::confine::ConfineArgs;
use crate::ending::{EndingArgs, ForwardArgs, says};
use crate::options::{LimitArgs, SettingArgs};
use crate::place::args::GroundArgs;
use crate::print::ci::CiArgs;
use crate::progress::ProgressArgs;
use crate::timeline::TimelineArgs;

const EXIT_STATUS: &str = "\
Exit status:
  CMD's own, or
  122  not started: the parent had ended, with --die-with-parent
  123  CMD has succeeded and left something, with --leaks=fail
  124  CMD timed out, or used up its CPU time
  125  tidy-process itself failed
  126  CMD cannot be executed
  127  CMD was not found
  128+N  signal N ended CMD

The first SIGINT, SIGTERM, SIGHUP or SIGQUIT is sent on to CMD and what it has started; when
the grace is over they are killed, and tidy-process ends by the same signal. A second one after
0.2 s kills at once. Ctrl-C is for CMD to handle: tidy-process ends as CMD does; the third within
2 s kills. SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM and their like go through to CMD. SIGTSTP freezes
the whole tree, SIGCONT thaws it.

Examples:
  tidy-process run -- make test
  tidy-process run -t 5m -k 10s --leaks=fail -- ./integration-tests
  tidy-process run --stdout out.log --stderr err.log --json report.json -- flask run";

const SIGNAL: &str =
    "Stop signal, by name or number [default: TERM at a timeout, else the one received]";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("files").multiple(true))]
#[command(mut_arg("signal", says(SIGNAL)), after_help = EXIT_STATUS)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) ending: EndingArgs,
    #[command(flatten)]
    pub(crate) forward: ForwardArgs,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    #[command(flatten)]
    pub(crate) setting: SettingArgs,

    /// Read CMD's standard input from FILE; "-" is tidy-process's own
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,

    /// Write CMD's standard output to FILE; "-" is tidy-process's own. FILE may be that of --stderr
    /// or --json too: nothing is overwritten then
    #[arg(long, value_name = "FILE", group = "files")]
    pub(crate) stdout: Option<PathBuf>,

    /// Write CMD's standard error to FILE; "-" is tidy-process's own
    #[arg(long, value_name = "FILE", group = "files")]
    pub(crate) stderr: Option<PathBuf>,

    /// Write CMD's standard output and standard error to FILE; "-" is tidy-process's own standard
    /// output
    #[arg(long, value_name = "FILE", group = "files")]
    #[arg(conflicts_with_all = ["stdout", "stderr"])]
    pub(crate) output: Option<PathBuf>,

    /// Add to the files of --stdout, --stderr, --output and --json instead of emptying them
    #[arg(long, requires = "files")]
    pub(crate) append: bool,

    /// Write a report to FILE, or to standard output with "-"; see docs/json.md
    #[arg(long, value_name = "FILE", group = "files")]
    pub(crate) json: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) ci: CiArgs,
    #[command(flatten)]
    pub(crate) timeline: TimelineArgs,

    /// Name the tree
    #[arg(long)]
    pub(crate) name: Option<OsString>,

    /// Give CMD a cgroup of its own within the tree, to subdivide with controllers: for what uses
    /// tidy-process or other cgroup tools itself
    #[arg(long)]
    pub(crate) delegate: bool,

    #[command(flatten)]
    pub(crate) confine: ConfineArgs,

    #[command(flatten)]
    pub(crate) ground: GroundArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    /// Fork and join instead of being born in the cgroup; for tests of that path
    #[arg(long, hide = true)]
    pub(crate) force_join: bool,

    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say how it ended
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// The command and its arguments; the first word that is no option starts it
    #[arg(required_unless_present = "plan", trailing_var_arg = true, value_name = "CMD")]
    #[arg(add = ArgValueCompleter::new(candidates::CommandLine))]
    pub(crate) command: Vec<OsString>,
}

impl RunArgs {
    /// Whether anything is asked for that needs controllers.
    pub(crate) fn needs_controllers(&self) -> bool {
        self.delegate || self.limits.need_controllers()
    }
}
