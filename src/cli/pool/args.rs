//! What may be asked of `tidy-process pool`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::confine::ConfineArgs;
use crate::ending::{EndingArgs, says};
use crate::options::{LimitArgs, SettingArgs};
use crate::place::args::GroundArgs;
use crate::pool::engine::Engine;
use crate::pool::values::{Busy, Halt, Jobs, count, delimiter, halt, jobs, load, tries};
use crate::print::ci::CiArgs;
use crate::progress::ProgressArgs;
use crate::values::{duration, memory};

const POOL: &str = "\
Without CMD each line of FILE, or of standard input, is a command for sh. With CMD each line is an
argument: {} in CMD becomes it, without {} it is added at the end; no shell sees it (--shell). What
follows ::: are arguments too; several of ::: and -a make every combination, {1} {2} ... name them.
{.} {/} {//} {/.} are the argument without extension, without directory, its directory, both; {#}
is the number of the command, {%} its place among those that run. docs/pool.md has the flags of
xargs and parallel, and what to type here.

Output of a command is printed when it has ended, never mixed with others'. Standard input is
/dev/null. Each command has a tree of its own; what it leaves running is killed (--leaks).

Ctrl-C, SIGTERM, SIGHUP, SIGQUIT: once, no more commands are started, and those that run go on to
their end; twice, all die. tidy-process ends by the signal.

Exit status:
  0    all commands have succeeded
  1    some have not
  122  not started: the parent had ended, with --die-with-parent
  123  all have succeeded and some left something, with --leaks=fail
  125  tidy-process itself failed
  128+N  ended by signal N
  that of the command that ended it all, with --halt

Examples:
  tidy-process pool -j 8 commands.txt
  find . -name '*.log' -print0 | tidy-process pool -0 -- gzip -9 {}
  tidy-process pool -t 5m --retries 3 --joblog jobs.log --resume -- ./fetch {} ::: a b c";

const TIMEOUT: &str = "End a command after DUR (500ms, 30s, 1m30s, 2h; a plain number is seconds; \
     0 and inf are never)";
const KILL_AFTER: &str = "Time between the stop signal and the kill, for a command and all that it \
     has started; 0 is at once";
const LEAKS: &str = "What to do with processes that are left when a command ends";
const SETTLE: &str = "How long what a command has left may go on working by itself before it \
     counts as left; what sleeps counts at once";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("logs").multiple(true))]
#[command(mut_arg("timeout", says(TIMEOUT)), mut_arg("kill_after", says(KILL_AFTER)))]
#[command(mut_arg("leaks", says(LEAKS)), mut_arg("settle", says(SETTLE)), after_help = POOL)]
pub(crate) struct PoolArgs {
    /// Run N at a time: a number, 50% of the CPUs, +2 or -1 more or less than those, 0 for as many
    /// as possible [default: the CPUs that may be used]
    #[arg(short, long, short_alias = 'P', alias = "max-procs", value_name = "N")]
    #[arg(value_parser = jobs, allow_hyphen_values = true)]
    pub(crate) jobs: Option<Jobs>,

    /// Read arguments, or commands, from FILE; several make every combination
    #[arg(short, long, value_name = "FILE")]
    pub(crate) arg_file: Vec<PathBuf>,

    /// They end with a NUL byte instead of a line's end
    #[arg(short = '0', long)]
    pub(crate) null: bool,

    /// They end with this character (\n, \t, \0, \xHH)
    #[arg(short, long, value_name = "D", value_parser = delimiter, conflicts_with = "null")]
    pub(crate) delimiter: Option<u8>,

    /// Give each command so many arguments
    #[arg(short = 'n', long, value_name = "N", value_parser = count, default_value = "1")]
    pub(crate) max_args: usize,

    /// What stands for the argument, in place of {}
    #[arg(short = 'I', long, value_name = "STR", default_value = "{}", hide_default_value = true)]
    pub(crate) replace: String,

    /// CMD is a line for sh, in which arguments are quoted
    #[arg(long)]
    pub(crate) shell: bool,

    /// Start none while so many processes run on this machine: a number, or 80% of the CPUs
    #[arg(long, value_name = "N", value_parser = load)]
    pub(crate) load: Option<Busy>,

    /// Start none while less than SIZE of memory (or 10% of it) is free, or processes wait for it
    #[arg(long, alias = "memfree", value_name = "SIZE", value_parser = memory)]
    pub(crate) mem_free: Option<u64>,

    /// Let so much time pass between two starts
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) delay: Option<Duration>,

    /// Try a command that fails so many times in all
    #[arg(long, value_name = "N", value_parser = tries, default_value = "1")]
    pub(crate) retries: u32,

    /// When commands fail: never end for that, start no more (soon), or stop what runs too (now);
    /// after the first one, or as in now,fail=3 or soon,success=1 or now,done=10
    #[arg(long, value_name = "WHEN", value_parser = halt, default_value = "never")]
    pub(crate) halt: Halt,

    /// Note each command in FILE, as GNU parallel does
    #[arg(long, value_name = "FILE", group = "logs")]
    pub(crate) joblog: Option<PathBuf>,

    /// Leave out the commands that the --joblog, which is added to, has already
    #[arg(long, requires = "joblog")]
    pub(crate) resume: bool,

    /// The same for those that have succeeded
    #[arg(long, requires = "joblog")]
    pub(crate) resume_failed: bool,

    /// Keep the output in files, instead of printing it: DIR/NUMBER/stdout and stderr, with a
    /// report.json beside them
    #[arg(long, value_name = "DIR")]
    pub(crate) results: Option<PathBuf>,

    /// Begin each line of output with the command's arguments
    #[arg(long, conflicts_with = "results")]
    pub(crate) tag: bool,

    /// Print the output in the order of the commands
    #[arg(long, conflicts_with = "results")]
    pub(crate) keep_order: bool,

    /// Let commands write as they like, all at the same time
    #[arg(short, long, conflicts_with_all = ["tag", "keep_order", "results"])]
    pub(crate) ungroup: bool,

    /// Print the commands, and run none
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print a script that has an engine with many machines run them, and run none; reports and
    /// output will be in the directory of --results, for tidy-process report
    #[arg(long, value_name = "ENGINE", value_enum, requires = "results")]
    #[arg(conflicts_with = "dry_run")]
    pub(crate) emit: Option<Engine>,

    /// Write a line for each start and each end to FILE, or to standard output with "-"; see
    /// docs/json.md
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) ci: CiArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) ending: EndingArgs,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    #[command(flatten)]
    pub(crate) setting: SettingArgs,

    /// Name the trees: NAME-1, NAME-2, ...
    #[arg(long)]
    pub(crate) name: Option<OsString>,

    #[command(flatten)]
    pub(crate) confine: ConfineArgs,

    #[command(flatten)]
    pub(crate) ground: GroundArgs,

    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say at the end what became of the commands
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Commands, or the arguments for CMD, one a line; "-" is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// The command for each argument
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

impl PoolArgs {
    /// Whether it only prints.
    pub(crate) fn runs_none(&self) -> bool {
        self.dry_run || self.emit.is_some()
    }

    /// Whether what a command has used is told anywhere.
    pub(crate) fn is_accounted(&self) -> bool {
        self.verbose || self.json.is_some() || self.results.is_some()
    }

    /// What ends each record of the input.
    pub(crate) fn delimiter(&self) -> u8 {
        if self.null { 0 } else { self.delimiter.unwrap_or(b'\n') }
    }
}
