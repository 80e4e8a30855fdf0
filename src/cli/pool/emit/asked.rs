//! What of the command line a script has: options of `run` are handed on as they were given, some
//! others have their like in the engine. What has none is refused, not dropped.

use std::ffi::OsString;
use std::path::absolute;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command};

use crate::exit::{Failure, open_failure};
use crate::pool::args::PoolArgs;
use crate::pool::emit::script::refusal;
use crate::pool::engine::Engine;
use crate::pool::values::{How, Jobs, What};
use crate::run::args::RunArgs;

/// What the input is made of, and what the script has in a way of its own.
const READ: &[&str] = &[
    "arg_file",
    "null",
    "delimiter",
    "max_args",
    "replace",
    "shell",
    "results",
    "name",
    "file",
    "command",
    "emit",
    "quiet",
    "die_with_parent",
];

/// Options of `run` that each command has in a way of its own.
const SET: &[&str] =
    &["json", "junit", "github", "progress", "name", "command", "die_with_parent", "plan"];

/// Where what runs everything else makes its cgroups.
const GROUND: &[&str] = &["parent", "no_systemd", "containment", "no_guard"];

pub(crate) struct Asked {
    pub(crate) engine: Engine,
    /// For `tidy-process run`.
    pub(crate) options: Vec<OsString>,
    /// For what runs the engine itself, or several commands.
    pub(crate) ground: Vec<OsString>,
    /// For GNU parallel.
    pub(crate) parallel: Vec<OsString>,
    /// At a time, for Slurm.
    pub(crate) at_a_time: Option<usize>,
}

impl Asked {
    pub(crate) fn read(args: &PoolArgs, engine: Engine) -> Result<Self, Failure> {
        let pool = PoolArgs::augment_args(Command::new("pool"));
        let options: Vec<Arg> = pool.get_arguments().cloned().collect();
        // They were parsed before.
        let matches = pool.get_matches_from(std::env::args_os().skip(1));
        let run = RunArgs::augment_args(Command::new("run"));
        let of_run: Vec<&str> =
            run.get_arguments().map(|option| option.get_id().as_str()).collect();
        let (mut handed_on, mut ground) = (Vec::new(), Vec::new());
        for option in options.iter().filter(|option| is_given(&matches, option)) {
            let id = option.get_id().as_str();
            if of_run.contains(&id) && !SET.contains(&id) {
                let words = words(&matches, option);
                if GROUND.contains(&id) {
                    ground.extend(words.iter().cloned());
                }
                handed_on.extend(words);
            } else if !READ.contains(&id) && !has(engine, id, args) {
                let shown = option.get_long().unwrap_or(id);
                return Err(refusal(
                    format!("--emit {engine} has nothing for --{shown}"),
                    "leave that to options of the engine, or to --emit parallel, which has most",
                ));
            }
        }
        let at_a_time = match args.jobs {
            Some(Jobs::Number(number)) => Some(number),
            _ => None,
        };
        let parallel = parallel(args, &matches)?;
        Ok(Self { engine, options: handed_on, ground, parallel, at_a_time })
    }
}

fn is_given(matches: &ArgMatches, option: &Arg) -> bool {
    matches.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// An option as it is typed.
fn words(matches: &ArgMatches, option: &Arg) -> Vec<OsString> {
    let id = option.get_id().as_str();
    let name = match (option.get_long(), option.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => return Vec::new(),
    };
    if !option.get_action().takes_values() {
        return vec![name.into()];
    }
    let values = matches.get_raw(id).into_iter().flatten();
    // In one word: a value by itself that begins with - would be an option.
    let begin = if option.get_long().is_some() { format!("{name}=") } else { name };
    let typed = values.map(|value| {
        let mut word = OsString::from(&begin);
        word.push(value);
        word
    });
    typed.collect()
}

/// Whether an engine has an option like this.
fn has(engine: Engine, id: &str, args: &PoolArgs) -> bool {
    let number = matches!(args.jobs, Some(Jobs::Number(_)));
    match engine {
        Engine::Slurm => id == "jobs" && number,
        Engine::Dask => id == "retries",
        Engine::Parallel => [
            "jobs",
            "load",
            "mem_free",
            "delay",
            "retries",
            "halt",
            "joblog",
            "resume",
            "resume_failed",
        ]
        .contains(&id),
    }
}

/// The options of GNU parallel that mean the same.
fn parallel(args: &PoolArgs, matches: &ArgMatches) -> Result<Vec<OsString>, Failure> {
    let mut all: Vec<OsString> = Vec::new();
    let raw = |id: &str| matches.get_raw(id).and_then(|mut values| values.next());
    for (id, name) in [("jobs", "--jobs"), ("load", "--load")] {
        if let Some(value) = raw(id) {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            all.push(word);
        }
    }
    let free = args.mem_free.map(|bytes| format!("--memfree={bytes}"));
    let delay = args.delay.map(|time| format!("--delay={}", time.as_secs_f64()));
    let retries = (args.retries > 1).then(|| format!("--retries={}", args.retries));
    all.extend([free, delay, retries].into_iter().flatten().map(Into::into));
    let what = match args.halt.what {
        What::Fail => "fail",
        What::Success => "success",
        What::Done => "done",
    };
    let number = args.halt.number;
    match args.halt.how {
        How::Never => {}
        How::Soon => all.push(format!("--halt=soon,{what}={number}").into()),
        How::Now => all.push(format!("--halt=now,{what}={number}").into()),
    }
    if let Some(joblog) = &args.joblog {
        let mut word = OsString::from("--joblog=");
        word.push(absolute(joblog).map_err(|error| open_failure(joblog, error))?);
        all.push(word);
    }
    let flags = [(args.resume, "--resume"), (args.resume_failed, "--resume-failed")];
    all.extend(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| flag.into()));
    Ok(all)
}
