//! What was asked for.

use std::env;
use std::path::PathBuf;

use crate::{Res, SECTIONS};

/// The name of a part of the bench.
pub(crate) type Section = &'static str;

const USAGE: &str = "usage: ci/bench [--quick] [--long] [--times N] [--only SECTION]...
  --quick    every entry a few times: proves that all of it runs, measures nothing
  --long     the 100,000th run against the first, too (about four minutes more)
  --times N  all of it N times, and the spread of the targets
  --only S   instructions, cycle, confined, layers, teardown, capture, cli, live, many, pool,
             timeline, top, python or build";

pub(crate) struct Options {
    /// As they were typed.
    pub(crate) words: Vec<String>,
    pub(crate) quick: bool,
    pub(crate) long: bool,
    pub(crate) times: usize,
    only: Vec<String>,
    /// The checkout.
    pub(crate) root: PathBuf,
    /// Where everything is built.
    pub(crate) target: PathBuf,
    /// The command line tool.
    pub(crate) tool: PathBuf,
    /// A Python that has psutil.
    pub(crate) python: PathBuf,
    /// A Python that has our package, and pytest.
    pub(crate) package: PathBuf,
}

impl Options {
    pub(crate) fn parse(words: &[String]) -> Res<Self> {
        let target = path("BENCH_TARGET")?;
        let mut options = Self {
            words: words.to_owned(),
            quick: false,
            long: false,
            times: 1,
            only: Vec::new(),
            root: path("BENCH_ROOT")?,
            tool: path("BENCH_TOOL")?,
            python: target.join("bench-venv/bin/python"),
            package: target.join("bench-venv-package/bin/python"),
            target,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
            match word.as_str() {
                "--quick" => options.quick = true,
                "--long" => options.long = true,
                "--times" => options.times = value()?.parse()?,
                "--only" => options.only.push(section(value()?)?),
                _ => return Err(format!("{word}: no such option\n{USAGE}").into()),
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == section)
    }

    /// So many samples, or a few.
    pub(crate) fn rounds(&self, full: usize) -> usize {
        if self.quick { full.min(2) } else { full }
    }
}

fn section(name: &str) -> Res<String> {
    let known = SECTIONS.iter().any(|(section, _)| *section == name);
    if known { Ok(name.to_owned()) } else { Err(format!("{name}: no such part\n{USAGE}").into()) }
}

fn path(variable: &str) -> Res<PathBuf> {
    let value = env::var_os(variable);
    Ok(value.ok_or_else(|| format!("{variable} is not set: start it by ci/bench"))?.into())
}
