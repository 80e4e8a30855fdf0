//! `help`: a subcommand, or a topic that is none's alone.

use std::ffi::OsString;

use clap::Args;
use clap_complete::ArgValueCandidates;
use clap_complete::CompletionCandidate;

/// Each with its text. They say shortly what docs/ says at length.
const TOPICS: [(&str, &str); 4] = [
    ("exit-status", include_str!("exit-status.txt")),
    ("limits", include_str!("limits.txt")),
    ("containers", include_str!("containers.txt")),
    ("topics", include_str!("topics.txt")),
];

/// What may be explained beside topics.
const SUBCOMMANDS: [&str; 8] =
    ["run", "with", "doctor", "ps", "top", "sweep", "kill", "completions"];

#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// A subcommand, or a topic: exit-status, limits, containers
    #[arg(value_name = "SUBCOMMAND|TOPIC", num_args = 0..=1)]
    #[arg(add = ArgValueCandidates::new(candidates))]
    pub(crate) words: Vec<OsString>,
}

fn candidates() -> Vec<CompletionCandidate> {
    let topics = TOPICS.iter().map(|(name, _)| *name);
    SUBCOMMANDS.into_iter().chain(topics).map(CompletionCandidate::new).collect()
}

/// The text of a topic, if these words name one.
pub(crate) fn topic(words: &[OsString]) -> Option<&'static str> {
    let [word] = words else { return None };
    TOPICS.iter().find(|(name, _)| word == name).map(|(_, text)| *text)
}
