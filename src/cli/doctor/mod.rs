//! `doctor`: what works here, tried on the spot, and what to type for what does not.
//!
//! The probes run on a thread: if the kernel does not answer one of them, doctor prints what was
//! found before.

pub(crate) mod attempt;
pub(crate) mod confinement;
mod controllers;
mod finding;
mod host;
mod layers;
pub(crate) mod probe;
mod setup;

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use tidy_process::cli_support::CONTROLLERS;

use crate::doctor::finding::{Finding, State};
use crate::doctor::probe::Site;
use crate::doctor::setup::SetupArgs;
use crate::exit::{Ended, Failure};
use crate::print::json::VERSION;
use crate::print::text::{self, failed, print, print_json};

/// The capabilities of `--require`, in the order of the table; the controllers stand between the
/// two parts.
const BEFORE_CONTROLLERS: [&str; 9] =
    ["cgroup2", "base", "scope", "create", "guard", "kill", "freeze", "clone", "keeper"];
const AFTER_CONTROLLERS: [&str; 5] = ["sweep", "systemd", "manager", "nsdelegate", "kernel"];

fn capabilities() -> impl Iterator<Item = &'static str> {
    let controllers = CONTROLLERS.iter().map(|controller| controller.name);
    let before = BEFORE_CONTROLLERS.into_iter().chain(confinement::NAMES);
    before.chain(controllers).chain(AFTER_CONTROLLERS)
}

/// The time for all probes. They take some tens of milliseconds; the library gives up after 10 s.
const PROBES_WITHIN: Duration = Duration::from_secs(60);

/// The exit status if a required capability is missing.
const UNMET: u8 = 1;

const STATES: &str = "\
Each line is a capability: ok (tried, and it works), no (it does not), or - (for information,
or not tried), and what was found; controllers that lack the same are one line. Below a missing
one stands what to do about it. Doctor tries all on a cgroup and processes of its own, which are
gone when it ends.

Exit status:
  0    all probes have run; with --require: all that is required is there
  1    a required capability is missing: one line for each on standard error
  125  bad usage, or doctor itself failed

Examples:
  tidy-process doctor
  tidy-process doctor --require kill,guard,memory,pids || exit 1
  tidy-process doctor --json | jq -e '.capabilities.memory.state == \"ok\"'
  tidy-process doctor --setup alice            # what root types for an ordinary user
  sudo tidy-process doctor --setup alice --apply";

#[derive(Debug, Args)]
#[command(after_help = STATES)]
pub(crate) struct DoctorArgs {
    /// Write JSON
    #[arg(long)]
    json: bool,

    /// Exit with 1 unless all of these are there
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    #[arg(value_parser = PossibleValuesParser::new(capabilities()))]
    require: Vec<String>,

    /// Look below this cgroup2 directory [default: $TIDY_PROCESS_PARENT, else the own cgroup]
    #[arg(long, value_name = "CGROUP")]
    parent: Option<PathBuf>,

    /// Do not ask systemd for a scope, as `run --no-systemd` does not
    #[arg(long)]
    no_systemd: bool,

    #[command(flatten)]
    setup: SetupArgs,
}

pub(crate) fn doctor(args: &DoctorArgs) -> Ended {
    if let Some(user) = &args.setup.setup {
        return match setup::setup(user, &args.setup, args.parent.as_deref()) {
            Ok(()) => Ended { exit: 0, by_signal: None },
            Err(failure) => failed(&failure),
        };
    }
    let (parent, no_systemd) = (args.parent.clone(), args.no_systemd);
    let (findings, complete) = examine(move || Site::find(parent, no_systemd));
    let printed = if args.json { print_json(&json(&findings)) } else { print(&table(&findings)) };
    if let Err(failure) = printed {
        return failed(&failure);
    }
    if !complete {
        let last = findings.last().map_or("start", |finding| finding.name);
        return failed(&Failure::NoAnswer { after: last, patience: PROBES_WITHIN });
    }
    Ended { exit: unmet(&args.require, &findings), by_signal: None }
}

/// Runs the probes; returns their findings, and whether all came to their end.
fn examine(site: impl FnOnce() -> Site + Send + 'static) -> (Vec<Finding>, bool) {
    let (tell, told) = channel();
    thread::spawn(move || probe(&site(), &tell));
    let deadline = Instant::now() + PROBES_WITHIN;
    let mut findings = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match told.recv_timeout(left) {
            Ok(finding) => findings.push(finding),
            Err(RecvTimeoutError::Disconnected) => return (findings, true),
            Err(RecvTimeoutError::Timeout) => return (findings, false),
        }
    }
}

fn probe(site: &Site, tell: &Sender<Finding>) {
    // The receiver is gone once doctor has given up: then the finding is dropped.
    let tell = |finding| drop(tell.send(finding));
    tell(host::cgroup2());
    tell(site.finding());
    // Before a run root is made: that may sweep the leftovers away.
    let leftovers = probe::leftovers(site);
    let (made, kernel) = probe::make(site, &tell);
    tell(probe::keeper());
    confinement::all(made.as_ref(), &tell);
    let base = made.as_ref().and_then(|made| made.path()?.parent()).or(site.path());
    let handed_down = controllers::HandedDown::note(base);
    controllers::all(base, made.as_ref(), &tell);
    drop(made);
    handed_down.restore();
    tell(leftovers);
    host::all(&tell);
    tell(kernel);
}

fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for alike in findings.chunk_by(are_alike) {
        let Some(Finding { state, found, remedy, gap, .. }) = alike.first() else { continue };
        let names: Vec<&str> = alike.iter().map(|finding| finding.name).collect();
        let found = match gap {
            Some(gap) if alike.len() > 1 => &format!("{gap}; for limits and what reports count"),
            _ => found,
        };
        text += &format!("{:<2}  {:<10}  {found}\n", state.word(), names.join(", "));
        if let Some(remedy) = remedy {
            text += &format!("{:16}-> {remedy}\n", "");
        }
    }
    text + &format!("\n{}\n", verdict(findings))
}

/// Whether two gaps are one: they close together.
fn are_alike(one: &Finding, other: &Finding) -> bool {
    let gap = |finding: &Finding| (finding.state, finding.gap.clone(), finding.remedy.clone());
    one.gap.is_some() && gap(one) == gap(other)
}

fn works(findings: &[Finding]) -> bool {
    ["create", "kill"].iter().all(|name| has(findings, name))
}

fn has(findings: &[Finding], name: &str) -> bool {
    findings.iter().any(|finding| finding.name == name && finding.is_ok())
}

fn verdict(findings: &[Finding]) -> String {
    if !works(findings) {
        return "tidy-process run does not work here: see the first line with \"no\"".to_owned();
    }
    if findings.iter().any(|finding| finding.name == "guard" && finding.state == State::No) {
        return "tidy-process run works here with --no-guard alone: see guard".to_owned();
    }
    let limits = CONTROLLERS.iter().map(|each| each.name).filter(|name| has(findings, name));
    let limits: Vec<&str> = limits.collect();
    let limits = if limits.is_empty() { "none".to_owned() } else { limits.join(", ") };
    format!("tidy-process run works here; limits that need a controller: {limits}")
}

fn json(findings: &[Finding]) -> Value {
    let each = findings.iter().map(|finding| (finding.name.to_owned(), finding.json()));
    let all = Value::Object(each.collect::<Map<_, _>>());
    json!({ "v": VERSION, "works": works(findings), "capabilities": all })
}

/// Prints a line for each requirement that is not met; returns the exit status.
fn unmet(required: &[String], findings: &[Finding]) -> u8 {
    let mut exit = 0;
    for name in required.iter().filter(|name| !has(findings, name)) {
        exit = UNMET;
        let finding = findings.iter().find(|finding| finding.name == *name);
        let found = finding.map_or("not tried", |finding| finding.found.as_str());
        let remedy = finding.and_then(|finding| finding.remedy.as_deref());
        let remedy = remedy.map_or(String::new(), |remedy| format!("; hint: {remedy}"));
        text::line(format_args!("{name} is required: {found}{remedy}"));
    }
    exit
}
