//! Command lines that were meant otherwise: what to type instead.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use tidy_process::Error;

use crate::exit::Failure;

/// A longer line is not shown: it is the idea that counts.
const LONGEST: usize = 400;

/// What a shell, and no program, does.
const BUILTINS: &[&str] = &[
    ".", ":", "alias", "bg", "cd", "eval", "exec", "exit", "export", "fg", "hash", "jobs", "read",
    "return", "set", "shift", "times", "trap", "type", "ulimit", "umask", "unalias", "unset",
    "wait",
];

/// The same, in bash alone.
const BASHISMS: &[&str] = &[
    "bind", "builtin", "declare", "dirs", "disown", "enable", "let", "local", "mapfile", "popd",
    "pushd", "readonly", "shopt", "source", "suspend", "typeset",
];

/// Why a command is not what was meant, and the words to put for it.
pub(crate) struct Meant {
    why: &'static str,
    pub(crate) words: Vec<OsString>,
}

/// Adds to a failed spawn what to type instead, where the command looks like a shell's.
pub(crate) fn explain(error: Error, sub: &str, command: &[OsString]) -> Failure {
    let errno = error.raw_os_error().map(Errno::from_raw);
    let nowhere = matches!(errno, Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG));
    let is_exec = error.is_not_found() || error.is_not_executable();
    // A file that is there lacks its interpreter. Looked at last: a file system may not answer.
    let there = || command.first().is_some_and(|program| Path::new(program).exists());
    match meant(sub, command) {
        Some(meant) if is_exec && nowhere && !there() => {
            let argv: Vec<OsString> = std::env::args_os().collect();
            let hint = format!("{}: {}", meant.why, line(&argv, command, &meant.words));
            Failure::Unmeant { error, hint }
        }
        _ => error.into(),
    }
}

/// The line to type: our own words up to the command, then these.
pub(crate) fn line(argv: &[OsString], command: &[OsString], words: &[OsString]) -> String {
    let options = argv.len().saturating_sub(command.len());
    let mut all: Vec<OsString> = vec!["tidy-process".into()];
    let options = argv.get(1..options).unwrap_or_default();
    all.extend(options.iter().filter(|word| *word != "--").chain(words).cloned());
    let all: Vec<String> = all.iter().map(|word| quoted(word)).collect();
    let all = all.join(" ");
    if all.chars().count() > LONGEST { "tidy-process run -- sh -c '...'".to_owned() } else { all }
}

/// What is to be typed for a command that only a shell understands.
pub(crate) fn meant(sub: &str, command: &[OsString]) -> Option<Meant> {
    let (first, rest) = command.split_first()?;
    if let Some(text) = first.to_str()
        && rest.is_empty()
        && text.trim() != text.split_whitespace().next()?
        && text.chars().all(|c| c == ' ' || is_plain(c))
    {
        let words: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
        return Some(meant(sub, &words).unwrap_or_else(|| Meant {
            why: "program and arguments are words of their own",
            words: after_dashes(&words),
        }));
    }
    if is_assignment(first) {
        return Some(assignments(sub, command));
    }
    if first.as_bytes().iter().any(|&byte| steers(byte)) {
        return Some(Meant { why: "that takes a shell", words: shell("sh", command) });
    }
    let word = first.to_str()?;
    let shell_of = |words: &[&str]| words.contains(&word);
    match (shell_of(BUILTINS), shell_of(BASHISMS)) {
        (true, _) if word == "cd" && sub == "run" => Some(Meant {
            why: "only a shell knows this command (-C DIR starts CMD in DIR)",
            words: shell("sh", command),
        }),
        (true, _) => {
            Some(Meant { why: "only a shell knows this command", words: shell("sh", command) })
        }
        (_, true) => {
            Some(Meant { why: "only bash knows this command", words: shell("bash", command) })
        }
        _ => None,
    }
}

/// `FOO=bar cmd`: `run` has an option for that; env(1) does it anywhere.
fn assignments(sub: &str, command: &[OsString]) -> Meant {
    let count = command.iter().take_while(|word| is_assignment(word)).count();
    let (set, rest) = command.split_at(count);
    let cmd = ["CMD".into()];
    let rest = if rest.is_empty() { &cmd } else { rest };
    let words = match sub {
        "run" => {
            let set = set.iter().flat_map(|word| ["-E".into(), word.clone()]);
            set.chain(after_dashes(rest)).collect()
        }
        _ => {
            let env = ["--".into(), "env".into()].into_iter();
            env.chain(set.iter().cloned()).chain(rest.iter().cloned()).collect()
        }
    };
    Meant { why: "only a shell sets variables like that", words }
}

/// A command behind our own options.
pub(crate) fn after_dashes(command: &[OsString]) -> Vec<OsString> {
    [OsString::from("--")].into_iter().chain(command.iter().cloned()).collect()
}

/// One word is a line; of several each is to stay one.
fn shell(shell: &str, command: &[OsString]) -> Vec<OsString> {
    let script = match command {
        [line] => line.clone(),
        [first, rest @ ..] => {
            let mut script = first.clone();
            rest.iter().for_each(|word| script.push(format!(" {}", quoted(word))));
            script
        }
        [] => OsString::new(),
    };
    ["--".into(), shell.into(), "-c".into(), script].into()
}

fn is_assignment(word: &OsStr) -> bool {
    let Some(at) = word.as_bytes().iter().position(|&byte| byte == b'=') else { return false };
    let name = word.as_bytes().get(..at).unwrap_or_default();
    let plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    plain
        && name.first().is_some_and(|byte| !byte.is_ascii_digit())
        && !word.as_bytes().contains(&b' ')
}

/// Whether a shell does something with it.
fn steers(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"|&;<>()$`\\\"'*?[]{}~!#".contains(&byte)
}

/// Whether it needs no quotes.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c)
}

/// A command line, as it is typed in a shell.
pub(crate) fn typed(words: &[OsString]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// As it is typed in a shell.
fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    if !text.is_empty() && text.chars().all(is_plain) {
        text.into_owned()
    } else if text.contains(char::is_control) || word.to_str().is_none() {
        format!("$'{}'", OsStr::as_bytes(word).escape_ascii())
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    /// What to type for `tidy-process SUB -q WORDS`.
    fn instead(sub: &str, words: &[&str]) -> Option<String> {
        let argv = all(&[&["tidy-process", sub, "-q"], words].concat());
        let command = all(words);
        Some(line(&argv, &command, &meant(sub, &command)?.words))
    }

    #[test]
    fn what_a_shell_does_is_met_with_the_line_that_works() {
        let table: &[(&str, &[&str], &str)] = &[
            ("run", &["a | b"], "run -q -- sh -c 'a | b'"),
            ("run", &["echo 'x'"], r"run -q -- sh -c 'echo '\''x'\'''"),
            ("run", &["make -j2 test"], "run -q -- make -j2 test"),
            ("run", &["~/bin/x"], "run -q -- sh -c '~/bin/x'"),
            ("run", &["FOO=bar", "cmd", "a b"], "run -q -E FOO=bar -- cmd 'a b'"),
            ("run", &["FOO=bar cmd"], "run -q -E FOO=bar -- cmd"),
            ("run", &["FOO=bar"], "run -q -E FOO=bar -- CMD"),
            ("with", &["FOO=bar", "cmd"], "with -q -- env FOO=bar cmd"),
            ("run", &["cd", "/tmp"], "run -q -- sh -c 'cd /tmp'"),
            ("run", &["cd /tmp && ls"], "run -q -- sh -c 'cd /tmp && ls'"),
            ("run", &["source", "a b"], r"run -q -- bash -c 'source '\''a b'\'''"),
            ("with", &["curl x | wc"], "with -q -- sh -c 'curl x | wc'"),
            ("run", &["a\nb"], r"run -q -- sh -c $'a\nb'"),
        ];
        for (sub, words, wanted) in table {
            let line = instead(sub, words);
            assert_eq!(line.as_deref(), Some(&*format!("tidy-process {wanted}")), "{words:?}");
        }
    }

    #[test]
    fn a_plain_command_is_what_it_is() {
        for plain in [&["make", "test"][..], &["a-b.c", "x|y"], &["./x=y"], &["=x"], &[]] {
            assert_eq!(instead("run", plain), None, "{plain:?}");
        }
    }
}
