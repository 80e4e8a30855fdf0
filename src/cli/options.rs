//! What may be asked of a command, whether it is run alone, as a server or beside servers: limits,
//! variables, a directory.
//!
//! The structs have no doc comments of their own: those would become the help of the subcommand.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use tidy_process::{Command, IoLimit, Limits, Supervisor};

use crate::values::{cpus, duration, io, memory, number, variable, weight};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LimitArgs {
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
}

impl LimitArgs {
    /// Whether any of them needs a controller.
    pub(crate) fn need_controllers(&self) -> bool {
        let time = self.cpu_time.filter(|time| !time.is_zero());
        self.limits() != time.into_iter().fold(Limits::new(), Limits::cpu_time)
    }

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

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SettingArgs {
    /// Set an environment variable of CMD
    #[arg(short = 'E', value_name = "K=V", value_parser = bytes(variable))]
    pub(crate) env: Vec<(OsString, OsString)>,

    /// Working directory of CMD
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) chdir: Option<PathBuf>,
}

impl SettingArgs {
    pub(crate) fn apply(&self, command: &mut Command) {
        if let Some(dir) = &self.chdir {
            command.current_dir(dir);
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
    }
}

/// The command that these words are.
pub(crate) fn command_of(words: &[OsString], supervisor: &Supervisor) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or("".as_ref(), |program| program.as_os_str()));
    command.args(words).supervisor(supervisor);
    command
}

/// A parser of what need not be text.
pub(crate) fn bytes<T: Clone + Send + Sync + 'static>(
    parse: fn(&OsStr) -> Result<T, String>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |word| parse(&word))
}
