//! A command line that tidy-process does not understand, and where a `run` was forgotten.

use std::ffi::{OsStr, OsString};

use clap::{CommandFactory, Parser};

use crate::args::{Cli, What};
use crate::words::{after_dashes, line, meant};

/// The line to type for one that names no subcommand, if that is what is wrong with it.
pub(crate) fn forgotten_run(argv: &[OsString]) -> Option<String> {
    let first = argv.get(1)?;
    if is_subcommand(first) {
        return None;
    }
    let (tool, rest) = argv.split_first()?;
    let argv: Vec<OsString> =
        [tool.clone(), "run".into()].into_iter().chain(rest.iter().cloned()).collect();
    let Ok(Cli { what: What::Run(run) }) = Cli::try_parse_from(&argv) else { return None };
    let command = run.0.command.as_slice();
    // `tidy-process -t 5 run make`
    let command = match command.split_first() {
        Some((word, rest)) if word == "run" && !rest.is_empty() => rest,
        _ => command,
    };
    let words = meant("run", command).map_or_else(|| after_dashes(command), |meant| meant.words);
    Some(line(&argv, run.0.command.as_slice(), &words))
}

fn is_subcommand(word: &OsStr) -> bool {
    word == "help" || Cli::command().get_subcommands().any(|sub| sub.get_name() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_forgotten_run_is_met_with_the_line_that_works() {
        let table: &[(&[&str], Option<&str>)] = &[
            (&["make", "test"], Some("run -- make test")),
            (&["-t", "5", "make"], Some("run -t 5 -- make")),
            (&["-t", "5", "run", "make"], Some("run -t 5 -- make")),
            (&["--", "make"], Some("run -- make")),
            (&["a | b"], Some("run -- sh -c 'a | b'")),
            (&["FOO=bar", "cmd"], Some("run -E FOO=bar -- cmd")),
            (&["run", "--bogus", "make"], None),
            (&["--bogus", "make"], None),
            (&["doctor", "--bogus"], None),
            (&[], None),
        ];
        for (words, wanted) in table {
            let line = forgotten_run(&all(&[&["tidy-process"], *words].concat()));
            let wanted = wanted.map(|wanted| format!("tidy-process {wanted}"));
            assert_eq!(line, wanted, "{words:?}");
        }
    }
}
