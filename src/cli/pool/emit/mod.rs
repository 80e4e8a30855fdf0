//! `pool --emit`: the same commands as a script for an engine that has many machines. Each is a
//! `tidy-process run` of its own there, which ends with the process that has started it, and whose
//! report lies where `--results` of a pool would have put it.

pub(crate) mod asked;
mod dask;
mod parallel;
mod script;
mod slurm;

use std::env::current_dir;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};

use tidy_process::cli_support::quoted;

use crate::exit::{Failure, open_failure};
use crate::pool::args::PoolArgs;
use crate::pool::emit::asked::Asked;
use crate::pool::emit::script::{Lines, refusal};
use crate::pool::engine::Engine;
use crate::pool::open::Opened;
use crate::pool::template::in_sh;
use crate::print::text::line;
use crate::wait::signals::Signals;

/// What makes a line for sh of a command.
struct Place {
    here: PathBuf,
    results: PathBuf,
    /// For `tidy-process run`.
    options: Vec<OsString>,
    name: Option<OsString>,
    engine: Engine,
}

/// Finds out whether GNU parallel has gone to another machine (`:` is this one). Between sshd and
/// the command is a program of its own there, which looks for sshd once in a while, and never finds
/// out that this was gone before it.
const FAR: &[u8] = b"far=${PARALLEL_SSHLOGIN#:}; ";

/// Writes the script to standard output. Nothing is made or run.
pub(crate) fn emit(
    args: &PoolArgs,
    asked: &Asked,
    opened: Opened,
    signals: &Signals,
) -> Result<(), Failure> {
    if opened.recipe.has_slot() {
        return Err(refusal(
            "{%} is the place of a command among those that run, which only pool knows".to_owned(),
            "leave it out, or use what the engine has, as SLURM_ARRAY_TASK_ID",
        ));
    }
    let place = Place::new(args, asked)?;
    let lines: Lines<'_> = Box::new(|take| {
        opened.each(signals, |recipe, number, args| {
            // There is no slot in it.
            let line = place.line(&recipe.words(args, number, 0), number);
            check_length(asked.engine, &line, number)?;
            take(&line)
        })
    });
    match asked.engine {
        Engine::Slurm => slurm::write(asked, lines)?,
        Engine::Dask => dask::write(args.retries, lines)?,
        Engine::Parallel => parallel::write(asked, lines)?,
    }
    if !args.quiet {
        let results = in_sh(place.results.as_os_str().as_bytes());
        let results = quoted(&String::from_utf8_lossy(&results));
        line(format_args!("when it has run: tidy-process report {results} -o page.html"));
    }
    Ok(())
}

/// An engine that hands a line to a shell does so as one argument, of which the kernel takes 128
/// KiB. GNU parallel gives ssh two hexadecimal digits for each byte, words of its own, and every
/// backslash twice; behind `--sshlogin` it takes no line that would be longer than half of that if
/// it were a third longer. One that it does not take ends it, with all that is still to come.
fn check_length(engine: Engine, line: &[u8], number: u64) -> Result<(), Failure> {
    let (length, most) = match engine {
        Engine::Slurm => return Ok(()),
        Engine::Dask => (line.len(), (128 << 10) - 1),
        Engine::Parallel => {
            let twice = line.iter().filter(|&&byte| byte == b'\\').count();
            (line.len().max((line.len() + twice) / 4 * 3), 45 << 10)
        }
    };
    if length <= most {
        return Ok(());
    }
    Err(refusal(
        format!("command {number} is too long: {length} bytes of shell, of {most}"),
        "put its arguments into a file, or use --emit slurm, whose commands stand in the script",
    ))
}

impl Place {
    fn new(args: &PoolArgs, asked: &Asked) -> Result<Self, Failure> {
        let here = current_dir().map_err(|error| open_failure(Path::new("."), error))?;
        let results = args.results.as_deref().unwrap_or(Path::new("."));
        let results = absolute(results).map_err(|error| open_failure(results, error))?;
        let (options, name) = (asked.options.clone(), args.name.clone());
        Ok(Self { here, results, options, name, engine: asked.engine })
    }

    /// Begins where this process stands, so that names of files mean what they mean here.
    fn line(&self, words: &[OsString], number: u64) -> Vec<u8> {
        let dir = self.results.join(number.to_string());
        let mut line = Vec::new();
        let add = |line: &mut Vec<u8>, text: &str, word: &OsStr| {
            line.extend_from_slice(text.as_bytes());
            line.extend(in_sh(word.as_bytes()));
        };
        let is_far: (&[u8], &[u8]) = match self.engine {
            Engine::Parallel => (FAR, b"${far:+=session}"),
            Engine::Slurm | Engine::Dask => (b"", b""),
        };
        line.extend_from_slice(is_far.0);
        add(&mut line, "cd ", self.here.as_os_str());
        add(&mut line, " && mkdir -p ", dir.as_os_str());
        line.extend_from_slice(b" && exec tidy-process run --die-with-parent");
        line.extend_from_slice(is_far.1);
        self.options.iter().for_each(|option| add(&mut line, " ", option));
        if let Some(name) = &self.name {
            let mut name = name.clone();
            name.push(format!("-{number}"));
            add(&mut line, " --name ", &name);
        }
        line.extend_from_slice(b" --stdin /dev/null");
        add(&mut line, " --stdout ", dir.join("stdout").as_os_str());
        add(&mut line, " --stderr ", dir.join("stderr").as_os_str());
        add(&mut line, " --json ", dir.join("report.json").as_os_str());
        line.extend_from_slice(format!(" -E PARALLEL_SEQ={number} --").as_bytes());
        words.iter().for_each(|word| add(&mut line, " ", word));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_where_this_process_does_and_quotes_every_word() {
        let place = Place {
            here: "/a b".into(),
            results: "/r'".into(),
            options: vec!["--timeout=5m".into(), "-E".into(), "K=$V".into()],
            name: Some("n".into()),
            engine: Engine::Slurm,
        };
        let words = ["echo", "; rm *", ""].map(OsString::from);
        let wanted = r"cd '/a b' && mkdir -p '/r'\''/7' && exec tidy-process run \
            --die-with-parent --timeout=5m -E 'K=$V' --name n-7 --stdin /dev/null \
            --stdout '/r'\''/7/stdout' --stderr '/r'\''/7/stderr' \
            --json '/r'\''/7/report.json' -E PARALLEL_SEQ=7 -- echo '; rm *' ''";
        let wanted: Vec<&str> = wanted.split_whitespace().filter(|word| *word != "\\").collect();
        let line = place.line(&words, 7);
        let line = String::from_utf8_lossy(&line).into_owned();
        assert_eq!(line, wanted.join(" "));
    }
}
