//! The command line of the pool.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, stdin};
use std::time::Duration;

use tidy_process::Limits;

pub(crate) const HELP: &str = "\
Runs many short commands, so many at a time, each in a cgroup of its own; what one leaves running
is killed and counted.

Usage: pool [OPTIONS] [--] [CMD ARGS...]

  CMD ARGS...     what to run (default /bin/true); {} in an argument becomes the number of the run
  -n, --count N   how often (default 10000)
  -i, --stdin     run each line of standard input instead, by sh -c
  -P, --jobs N    at a time (default: as many as there are CPUs)
  -t, --timeout S end a run that takes longer, in seconds
  --memory BYTES  memory that one run may use   (where the memory controller is delegated;
  --pids N        processes that one run may be  otherwise it is said, and the pool goes on)

Ctrl-C ends what runs now and starts nothing more; a second one leaves it all to the guard.
Exit status: 0 all runs succeeded; 1 some did not; 2 wrong usage; 128+N ended by signal N.
";

pub(crate) enum Request {
    Help,
    Run(Box<Options>),
}

pub(crate) struct Options {
    pub(crate) program: Vec<OsString>,
    pub(crate) count: u64,
    pub(crate) stdin: bool,
    pub(crate) at_a_time: usize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: Vec::new(),
            count: 10_000,
            stdin: false,
            at_a_time: std::thread::available_parallelism().map_or(1, usize::from),
            timeout: None,
            limits: Limits::new(),
        }
    }
}

pub(crate) fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Request, String> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let flag = arg.to_str().unwrap_or_default();
        let mut value = || number(flag, args.next());
        match flag {
            "-h" | "--help" => return Ok(Request::Help),
            "-n" | "--count" => options.count = whole(flag, value()?)?,
            "-i" | "--stdin" => options.stdin = true,
            "-P" | "--jobs" => {
                let number = whole(flag, value()?)?.clamp(1, 1024);
                options.at_a_time = usize::try_from(number).unwrap_or(1);
            }
            "-t" | "--timeout" => {
                options.timeout = Some(Duration::try_from_secs_f64(value()?).unwrap_or_default());
            }
            "--memory" => options.limits = options.limits.memory_max(whole(flag, value()?)?),
            "--pids" => options.limits = options.limits.pids_max(whole(flag, value()?)?),
            "--" => options.program.extend(args.by_ref()),
            _ if flag.starts_with('-') => return Err(format!("unknown option {arg:?}")),
            _ => options.program.extend([arg].into_iter().chain(args.by_ref())),
        }
    }
    if options.program.is_empty() {
        options.program.push("/bin/true".into());
    } else if options.stdin {
        return Err("--stdin and a command exclude each other".to_owned());
    }
    Ok(Request::Run(Box::new(options)))
}

fn number(flag: &str, value: Option<OsString>) -> Result<f64, String> {
    let value = value.unwrap_or_default();
    let number = value.to_str().and_then(|text| text.parse().ok());
    number
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| format!("{flag} needs a number, not {value:?}"))
}

fn whole(flag: &str, number: f64) -> Result<u64, String> {
    format!("{number}").parse().map_err(|_| format!("{flag} needs a whole number, not {number}"))
}

impl Options {
    /// How many runs there will be, if that is known.
    pub(crate) fn count(&self) -> Option<u64> {
        (!self.stdin).then_some(self.count)
    }

    /// One command line after the other; standard input is read as they are wanted.
    pub(crate) fn jobs_from(&self) -> Box<dyn Iterator<Item = Vec<OsString>> + Send + '_> {
        if self.stdin {
            let lines = BufReader::new(stdin()).lines().map_while(Result::ok);
            return Box::new(lines.map(|line| vec!["sh".into(), "-c".into(), line.into()]));
        }
        Box::new((0..self.count).map(|run| self.program.iter().map(|arg| fill(arg, run)).collect()))
    }
}

fn fill(arg: &OsString, run: u64) -> OsString {
    match arg.to_str() {
        Some(text) if text.contains("{}") => text.replace("{}", &run.to_string()).into(),
        _ => arg.clone(),
    }
}
