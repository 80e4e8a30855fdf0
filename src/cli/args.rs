//! The command line: what may be asked for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::signal::Signal;
use tidy_process::{IoLimit, Limits};

use crate::doctor::DoctorArgs;
use crate::ground::GroundArgs;
use crate::late::Late;
use crate::servers::WithArgs;

/// Run a command in a fresh cgroup: when it ends, nothing it started is left.
#[derive(Debug, Parser)]
#[command(name = "tidy-process", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) what: What,
}

#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Run CMD; when it ends nothing it started is left
    Run(Late<Box<RunArgs>>),
    /// Start servers, wait until they are ready, run CMD, end the servers
    With(Late<Box<WithArgs>>),
    /// Say what works here, and what to type for what does not
    Doctor(Late<DoctorArgs>),
    /// List the trees that are supervised below a cgroup
    Ps(Late<PsArgs>),
    /// Kill and remove what supervisors that are gone have left
    Sweep(Late<SweepArgs>),
    /// Kill everything in the trees of this name
    Kill(Late<KillArgs>),
    /// Read standard input to its end, for doctor to try things on
    #[command(hide = true)]
    Idle,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Look below this cgroup2 directory [default: $TIDY_PROCESS_PARENT, else the own cgroup; under
    /// systemd the whole hierarchy]
    #[arg(long, value_name = "CGROUP")]
    pub(crate) parent: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) ps: PsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The name given by --name, a tree's number if only one has it, or its directory
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) name: String,

    /// Look below this cgroup2 directory [default: $TIDY_PROCESS_PARENT, else the own cgroup; under
    /// systemd the whole hierarchy]
    #[arg(long, value_name = "CGROUP")]
    pub(crate) parent: Option<PathBuf>,
}

const EXIT_STATUS: &str = "\
Exit status:
  CMD's own, or
  123  something was left, with --leaks=fail
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
    /// End it after DUR (500ms, 30s, 5m, 2h; a plain number is seconds; 0 is never)
    #[arg(short, long, value_name = "DUR", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// Time between the stop signal and the kill
    #[arg(short, long, value_name = "DUR", value_parser = duration, default_value = "2s")]
    pub(crate) kill_after: Duration,

    /// Stop signal, by name or number
    #[arg(short, long, value_name = "SIG", value_parser = signal, default_value = "TERM")]
    pub(crate) signal: i32,

    /// End it when it has used so much CPU time, all its processes together
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) cpu_time: Option<Duration>,

    /// Limit its memory (512M, 1G, max; a multiple of 4K); beyond it all its processes are killed
    #[arg(short, long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,

    /// Slow it down above this much memory
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory_high: Option<u64>,

    /// Limit its swap [default: 0 with --memory or --memory-high]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) swap: Option<u64>,

    /// Limit the number of its processes and threads
    #[arg(long, value_name = "N")]
    pub(crate) pids: Option<u64>,

    /// Limit its CPUs: 0.5 is half of one, 2 is two
    #[arg(long, value_name = "X")]
    pub(crate) cpus: Option<f64>,

    /// Its share of the CPU under load, 1 to 10000 (others have 100)
    #[arg(long, value_name = "N")]
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

    /// Set an environment variable of CMD
    #[arg(short = 'E', value_name = "K=V", value_parser = variable)]
    pub(crate) env: Vec<(OsString, OsString)>,

    /// Working directory of CMD
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) chdir: Option<PathBuf>,

    /// Read CMD's standard input from FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,

    /// Write CMD's standard output to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) stdout: Option<PathBuf>,

    /// Write CMD's standard error to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) stderr: Option<PathBuf>,

    /// Write a report to FILE, or to standard output with "-"
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Name the tree
    #[arg(long)]
    pub(crate) name: Option<String>,

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

/// What to do with processes that are left when CMD ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Leaks {
    /// Kill them and name them in one line
    Kill,
    /// Kill them and say more of each
    Report,
    /// Wait until they end by themselves (--timeout bounds it)
    Wait,
    /// Kill them, name them and exit with 123
    Fail,
}

/// `500ms`, `30s`, `5m`, `2h`, `1d`; a plain number is seconds, as in timeout(1).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err("the units are us, ms, s, m, h and d".to_owned()),
    };
    let seconds: f64 =
        number.parse().map_err(|_| "a duration is a number and a unit, as in 30s")?;
    Duration::try_from_secs_f64(seconds * unit)
        .map_err(|_| "a duration is not negative and not endless".to_owned())
}

/// `TERM`, `SIGTERM` or `15`; numbers reach the real-time signals too.
pub(crate) fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>() {
        let valid = (1..=64).contains(&number);
        return valid
            .then_some(number)
            .ok_or_else(|| "a signal has a number from 1 to 64".to_owned());
    }
    let name = text.to_ascii_uppercase();
    let full = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    Signal::from_str(&full).map(|signal| signal as i32).map_err(|_| "no such signal".to_owned())
}

/// `512M`, `1G`, `4096`, `max`: powers of 1024, as in systemd.
fn size(text: &str) -> Result<u64, String> {
    if text == "max" {
        return Ok(u64::MAX);
    }
    let (number, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = number.parse().map_err(|_| "a size is a number and K, M, G or T, or max")?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than any machine has".to_owned())
}

/// `/dev/vda:wbps=1M,riops=100`, `254:0:rbps=1M`.
fn io(text: &str) -> Result<(PathBuf, IoLimit), String> {
    let (device, rates) = text.rsplit_once(':').ok_or("give it as DEVICE:rbps=SIZE,...")?;
    let mut limit = IoLimit::default();
    for rate in rates.split(',') {
        let (key, value) = rate.split_once('=').ok_or("give it as DEVICE:rbps=SIZE,...")?;
        let place = match key {
            "rbps" => &mut limit.read_bytes,
            "wbps" => &mut limit.write_bytes,
            "riops" => &mut limit.read_ops,
            "wiops" => &mut limit.write_ops,
            _ => return Err("the rates are rbps, wbps, riops and wiops".to_owned()),
        };
        *place = Some(size(value)?);
    }
    Ok((device.into(), limit))
}

fn variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("give it as NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_number_is_seconds() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
    }

    #[test]
    fn odd_durations_are_refused() {
        for odd in ["", "s", "-1", "5 parsecs", "5x", "nan", "inf", "1e400"] {
            assert!(duration(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(
            (size("512M"), size("1G"), size("4096")),
            (Ok(512 << 20), Ok(1 << 30), Ok(4096))
        );
        assert_eq!(size("max"), Ok(u64::MAX));
        for odd in ["", "M", "-1", "1.5G", "1X", "99999999T"] {
            assert!(size(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn rates_belong_to_a_device() {
        let (device, limit) = io("/dev/vda:wbps=1M,riops=100").unwrap_or_default();
        assert_eq!(device, PathBuf::from("/dev/vda"));
        assert_eq!((limit.write_bytes, limit.read_ops), (Some(1 << 20), Some(100)));
        assert_eq!(io("254:0:rbps=1").unwrap_or_default().0, PathBuf::from("254:0"));
        for odd in ["", "/dev/vda", "/dev/vda:x=1", "/dev/vda:rbps", "/dev/vda:rbps=x"] {
            assert!(io(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal("TERM"), Ok(15));
        assert_eq!(signal("sigint"), Ok(2));
        assert_eq!(signal("34"), Ok(34));
        for odd in ["", "0", "65", "-9", "SIGNOPE", "SIG"] {
            assert!(signal(odd).is_err(), "{odd:?} was taken");
        }
    }
}
