//! What may stand in a place of a command line, for completing it: trees, programs, files.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use clap_complete::PathCompleter;
use clap_complete::engine::{CompletionCandidate, ValueCompleter};
use nix::unistd::geteuid;
use tidy_process::cli_support::{Lookout, SeenTree, is_plain};

use crate::place::scope::everywhere;

/// The most words that are offered: more cannot be read.
const MOST: usize = 500;

/// Names of this user's trees, and OWNER/NAME once an owner has been typed. Others chose the names
/// and the shell takes what it is offered as it is: a name with anything in it that a shell obeys
/// is not offered.
pub(crate) fn trees(current: &OsStr) -> Vec<CompletionCandidate> {
    let Ok(lookout) = Lookout::over(everywhere(None).as_deref()) else { return Vec::new() };
    let me = geteuid().as_raw();
    let trees = lookout.trees().0.into_iter().filter(|tree| tree.uid == me);
    let by_owner = current.as_encoded_bytes().contains(&b'/');
    let word = |tree: SeenTree| match by_owner {
        true => format!("{}/{}", tree.owner, tree.name),
        false => tree.name,
    };
    let words: BTreeSet<OsString> = trees.map(word).map(OsString::from).collect();
    matching(words, current)
}

fn matching(words: BTreeSet<OsString>, current: &OsStr) -> Vec<CompletionCandidate> {
    let begins = |word: &OsString| word.as_encoded_bytes().starts_with(current.as_encoded_bytes());
    let words = words.into_iter().filter(|word| is_plain(word) && begins(word));
    words.take(MOST).map(CompletionCandidate::new).collect()
}

/// A program of `PATH`, then files.
pub(crate) struct CommandLine;

impl ValueCompleter for CommandLine {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        self.complete_at(0, current)
    }

    fn complete_at(&self, index: usize, current: &OsStr) -> Vec<CompletionCandidate> {
        let program = index == 0 && !current.as_encoded_bytes().contains(&b'/');
        if program { programs(current) } else { PathCompleter::any().complete(current) }
    }
}

fn programs(current: &OsStr) -> Vec<CompletionCandidate> {
    let path = env::var_os("PATH").unwrap_or_default();
    let entries = env::split_paths(&path).filter_map(|dir| fs::read_dir(dir).ok()).flatten();
    let begins = |name: &OsStr| name.as_encoded_bytes().starts_with(current.as_encoded_bytes());
    let entries = entries.flatten().filter(|entry| begins(&entry.file_name()));
    // Of the link's target: most programs of some systems are links.
    let runs = |entry: &fs::DirEntry| {
        let meta = fs::metadata(entry.path());
        meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    matching(entries.filter(runs).map(|entry| entry.file_name()).collect(), current)
}
