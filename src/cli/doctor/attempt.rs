//! The processes on which the properties of fence and sandbox are tried.

use std::fs;

use clap::ValueEnum;
use tidy_process::{Command, Sandbox, Stdio, Supervisor};

use crate::doctor::finding::Finding;
use crate::doctor::probe::own_program;

/// The property that is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attempt {
    Inside,
    Apart,
    Unprivileged,
    Writes,
    View,
    Network,
    Processes,
    Overlay,
    Hosts,
}

pub(crate) fn level_of(name: &str) -> &str {
    name.split('-').next().unwrap_or_default()
}

/// This program in a sandbox that shows it, and nothing else beside the system.
pub(crate) fn boxed(supervisor: &Supervisor) -> (Command, Sandbox) {
    let sandbox = Sandbox::new().system();
    match std::env::current_exe() {
        Ok(own) => {
            let mut command = Command::new(&own);
            command.supervisor(supervisor).current_dir("/");
            (command, sandbox.read_only(own))
        }
        Err(_) => (own_program(supervisor), sandbox),
    }
}

pub(crate) fn attempting(command: &mut Command, attempt: Attempt) -> &mut Command {
    let word = attempt.to_possible_value().map(|value| value.get_name().to_owned());
    command.arg("attempt").arg(word.unwrap_or_default()).stdin(Stdio::null())
}

pub(crate) fn broken(name: &'static str, said: &str) -> Finding {
    let level = level_of(name);
    let found = format!("in a {level} a process did what it must not: {}", said.trim());
    Finding::no(name, found).remedy(format!("do not rely on --{level} here, and report this"))
}

/// Network interfaces that are not a loopback of its own.
pub(crate) fn interfaces() -> Vec<String> {
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = interfaces.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    names.filter(|name| *name != "lo").map(|name| format!("{name} was there")).collect()
}
