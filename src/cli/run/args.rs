//! What may be asked of `tidy-process run`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use tidy_process::{IoLimit, Limits};

use crate::exit::Leaks;
use crate::place::args::GroundArgs;
use crate::values::{cpus, duration, io, memory, number, signal, variable, weight};

const EXIT_STATUS: &str = "\
Exit status:
  CMD's own, or
  123  CMD has succeeded and left something, with --leaks=fail
  124  CMD timed out, or used up its CPU time
  125  tidy-process itself failed
  126  CMD cannot be executed
  127  CMD was not found
  128+N  signal N ended CMD

The first SIGINT, SIGTERM, SIGHUP or SIGQUIT stops CMD (stop signal, grace, kill), and
tidy-process ends by the same signal; a second one kills at once. SIGTSTP freezes the
whole tree, SIGCONT thaws it.

Examples:
  tidy-process run -- make test
  tidy-process run -t 5m -k 10s --leaks=fail -- ./integration-tests
  tidy-process run --stdout out.log --stderr err.log --json report.json -- flask run";

#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct RunArgs {
    /// End it after DUR (500ms, 30s, 1m30s, 2h; a plain number is seconds; 0 and inf are never)
    #[arg(short, long, value_name = "DUR", value_parser = duration, allow_hyphen_values = true)]
    pub(crate) timeout: Option<Duration>,

    /// Time between the stop signal and the kill, for CMD and all that it has started; 0 is at once
    #[arg(short, long, value_name = "DUR", value_parser = duration, default_value = "2s")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) kill_after: Duration,

    /// Stop signal, by name or number
    #[arg(short, long, value_name = "SIG", value_parser = signal, default_value = "TERM")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) signal: i32,

    /// End it when it has used so much CPU time, all its processes together
    #[arg(long, value_name = "DUR", value_parser = duration, allow_hyphen_values = true)]
    pub(crate) cpu_time: Option<Duration>,

    /// Limit its memory (512M, 1.5G, max, 50% of this machine's; M, MB and MiB are 1024 K; a
    /// multiple of 4K); beyond it all its processes are killed
    #[arg(short, long, value_name = "SIZE", value_parser = memory, allow_hyphen_values = true)]
    pub(crate) memory: Option<u64>,

    /// Slow it down above this much memory
    #[arg(long, value_name = "SIZE", value_parser = memory, allow_hyphen_values = true)]
    pub(crate) memory_high: Option<u64>,

    /// Limit its swap [default: 0 with --memory or --memory-high]
    #[arg(long, value_name = "SIZE", value_parser = memory, allow_hyphen_values = true)]
    pub(crate) swap: Option<u64>,

    /// Limit the number of its processes and threads
    #[arg(long, value_name = "N", value_parser = number, allow_hyphen_values = true)]
    pub(crate) pids: Option<u64>,

    /// Limit its CPUs: 0.5 or 50% is half of one, 2 is two
    #[arg(long, value_name = "X", value_parser = cpus, allow_hyphen_values = true)]
    pub(crate) cpus: Option<f64>,

    /// Its share of the CPU under load, 1 to 10000 (others have 100)
    #[arg(long, value_name = "N", value_parser = weight, allow_hyphen_values = true)]
    pub(crate) cpu_weight: Option<u64>,

    /// The CPUs it may use (0-3,8)
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset: Option<String>,

    /// Limit a block device per second: DEVICE:rbps=SIZE,wbps=SIZE,riops=N,wiops=N
    #[arg(long, value_name = "LIMIT", value_parser = io)]
    pub(crate) io: Vec<(PathBuf, IoLimit)>,

    /// What to do with processes that are left when CMD ends
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Leaks::Kill)]
    pub(crate) leaks: Leaks,

    /// How long what CMD has left may go on working by itself before it counts as left; what sleeps
    /// counts at once
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "100ms")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) settle: Duration,

    /// Set an environment variable of CMD
    #[arg(short = 'E', value_name = "K=V", value_parser = bytes(variable))]
    pub(crate) env: Vec<(OsString, OsString)>,

    /// Working directory of CMD
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) chdir: Option<PathBuf>,

    /// Read CMD's standard input from FILE; "-" is tidy-process's own
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,

    /// Write CMD's standard output to FILE; "-" is tidy-process's own. FILE may be that of --stderr
    /// or --json too: nothing is overwritten then
    #[arg(long, value_name = "FILE")]
    pub(crate) stdout: Option<PathBuf>,

    /// Write CMD's standard error to FILE; "-" is tidy-process's own
    #[arg(long, value_name = "FILE")]
    pub(crate) stderr: Option<PathBuf>,

    /// Write CMD's standard output and standard error to FILE; "-" is tidy-process's own standard
    /// output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stdout", "stderr"])]
    pub(crate) output: Option<PathBuf>,

    /// Add to the files of --stdout, --stderr, --output and --json instead of emptying them
    #[arg(long)]
    pub(crate) append: bool,

    /// Write a report to FILE, or to standard output with "-"; see docs/json.md
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Name the tree
    #[arg(long)]
    pub(crate) name: Option<OsString>,

    /// Give CMD a cgroup of its own within the tree, to subdivide with controllers: for what uses
    /// tidy-process or other cgroup tools itself
    #[arg(long)]
    pub(crate) delegate: bool,

    #[command(flatten)]
    pub(crate) ground: GroundArgs,

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
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// A parser of what need not be text.
fn bytes<T: Clone + Send + Sync + 'static>(
    parse: fn(&OsStr) -> Result<T, String>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |word| parse(&word))
}

impl RunArgs {
    /// Whether anything is asked for that needs controllers.
    pub(crate) fn needs_controllers(&self) -> bool {
        let time = self.cpu_time.filter(|time| !time.is_zero());
        self.delegate || self.limits() != time.into_iter().fold(Limits::new(), Limits::cpu_time)
    }

    /// The limits that were asked for.
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = Limits::new();
        limits = self.memory.into_iter().fold(limits, Limits::memory_max);
        limits = self.memory_high.into_iter().fold(limits, Limits::memory_high);
        limits = self.swap.into_iter().fold(limits, Limits::swap_max);
        limits = self.pids.into_iter().fold(limits, Limits::pids_max);
        limits = self.cpu_weight.into_iter().fold(limits, Limits::cpu_weight);
        limits = self.cpus.into_iter().fold(limits, Limits::cpus);
        limits = self.cpuset.iter().fold(limits, Limits::cpuset);
        limits =
            self.cpu_time.filter(|time| !time.is_zero()).into_iter().fold(limits, Limits::cpu_time);
        self.io.iter().fold(limits, |limits, (device, io)| limits.io(device, *io))
    }
}
