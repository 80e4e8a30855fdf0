//! What it takes to end a tree: daemons, crowds, a chain of forks.

use std::ffi::CStr;
use std::io::Read;
use std::process::{Command as StdCommand, Stdio as StdStdio};
use std::time::{Duration, Instant};

use process_wrap::std::{CommandWrap, ProcessGroup};
use tidy_process::{Child, Command, Containment, Stdio, Supervisor, Tree};

use crate::Res;
use crate::options::Options;
use crate::python::Python;
use crate::raw::{self, Raw};
use crate::sample::{Entry, Rounds, interleave};
use crate::table;
use crate::targets::Targets;
use crate::victim;

const LIMIT: &str = "raw system calls";
const OURS: &str = "tidy-process";
const DROPPED: &str = "tidy-process, dropped";
const KEPT: &str = "tidy-process, by a keeper";

/// Title, victim, samples, bound of the ratio to the limit, and whether a process group reaches
/// everybody.
type Case = (&'static str, &'static [&'static str], usize, f64, bool);

/// With --long: the dead of one sample stay in the table of pids until the machine's first process
/// has reaped them, and the next one waits for that.
const MANY: Case = ("10,000 processes", &["crowd", "10000"], 5, 1.1, false);

const CASES: [Case; 5] = [
    ("child with 2 daemons", &["daemons", "2"], 100, 1.2, false),
    ("10 processes", &["crowd", "10"], 100, 1.2, true),
    ("100 processes", &["crowd", "100"], 40, 1.2, true),
    ("1,000 processes", &["crowd", "1000"], 10, 1.1, true),
    ("fork chain", &["chain"], 40, 1.1, false),
];

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    let supervisor = Supervisor::builder().build()?;
    let keepers = Supervisor::builder().containment(Containment::Keeper).build()?;
    let raw = Raw::new(supervisor.path().unwrap())?;
    let many = options.long.then_some(MANY);
    for case @ (title, what, count, bound, group) in CASES.into_iter().chain(many) {
        let victim = victim::command(what)?;
        let mut entries = vec![
            Entry::partly(LIMIT, || by_hand(&raw, &victim)),
            Entry::partly(OURS, || ours(&supervisor, &victim)),
        ];
        if case != MANY {
            entries.push(Entry::partly(KEPT, || ours(&keepers, &victim)));
        }
        if group {
            let mut python = Python::start(&options.python, &supervisor, 0)?;
            let words: Vec<String> = victim.clone();
            entries.push(Entry::partly("process-wrap (group)", || killpg(&supervisor, &victim)));
            entries.push(Entry::partly("Python: psutil", move || {
                python.ask("teardown", &words.iter().map(String::as_str).collect::<Vec<_>>())
            }));
        }
        if what == ["chain"] {
            // As it ends a command that a panic has cut short: no report says what was left.
            entries.push(Entry::partly(DROPPED, || dropped(&supervisor, &victim)));
        }
        interleave(&mut entries, Rounds::tight(options.rounds(count)))?;
        table::print(&format!("Teardown: {title}"), &entries, &[LIMIT]);
        let ours = if what == ["chain"] { DROPPED } else { OURS };
        let ratio = table::ratio(&entries, ours, LIMIT);
        targets.at_most(&format!("teardown / {LIMIT}, {title}"), bound, "", ratio);
        if what == ["daemons", "2"] {
            let ratio = table::ratio(&entries, KEPT, LIMIT);
            targets.at_most(&format!("teardown by a keeper / {LIMIT}, {title}"), 3.0, "", ratio);
        }
    }
    Ok(())
}

/// The kernel announces one change of `populated` in 10 ms: the spawn's own shall be over, as it is
/// for whatever has run for a while.
fn settle() {
    std::thread::sleep(Duration::from_millis(12));
}

/// Waits until the dead of earlier samples have given their pids back.
fn make_room() -> Res {
    for _ in 0..600 {
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let all = load.split_once('/').and_then(|(_, rest)| rest.split(' ').next());
        if all.and_then(|all| all.parse::<u32>().ok()).ok_or("no number of processes")? < 4000 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("the dead of an earlier sample are still there after a minute".into())
}

fn ours(supervisor: &Supervisor, victim: &[String]) -> Res<Duration> {
    make_room()?;
    let child = standing(supervisor, victim)?;
    let start = Instant::now();
    child.finish()?;
    Ok(start.elapsed())
}

fn dropped(supervisor: &Supervisor, victim: &[String]) -> Res<Duration> {
    let child = standing(supervisor, victim)?;
    let start = Instant::now();
    drop(child);
    Ok(start.elapsed())
}

fn standing(supervisor: &Supervisor, victim: &[String]) -> Res<Child> {
    let [program, args @ ..] = victim else { return Err("no victim".into()) };
    let mut command = Command::new(program);
    // The raw calls give no time to what works on after the main process's end, either.
    command.args(args).supervisor(supervisor).settle(Duration::ZERO);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    child.stdout.take().ok_or("no pipe")?.read_exact(&mut [0])?;
    settle();
    Ok(child)
}

/// cgroup.kill, waitid, rmdir.
fn by_hand(raw: &Raw, victim: &[String]) -> Res<Duration> {
    const NAME: &CStr = c"by-hand";
    make_room()?;
    let cgroup = raw.make(NAME)?;
    let mut command = command(victim)?;
    raw::join_before_exec(&mut command, cgroup.procs_file()?);
    let mut child = command.stdout(StdStdio::piped()).spawn()?;
    child.stdout.take().ok_or("no pipe")?.read_exact(&mut [0])?;
    settle();
    let start = Instant::now();
    cgroup.teardown()?;
    child.wait()?;
    Ok(start.elapsed())
}

/// By the process group: who has left it lives on, until the tree round it all goes.
fn killpg(supervisor: &Supervisor, victim: &[String]) -> Res<Duration> {
    let tree = Tree::within(supervisor, None)?;
    let mut command = command(victim)?;
    tree.enroll(&mut command)?;
    command.stdout(StdStdio::piped());
    let mut child = CommandWrap::from(command).wrap(ProcessGroup::leader()).spawn()?;
    child.stdout().take().ok_or("no pipe")?.read_exact(&mut [0])?;
    settle();
    let start = Instant::now();
    child.start_kill()?;
    child.wait()?;
    tree.wait_empty(Instant::now() + Duration::from_secs(10))?;
    Ok(start.elapsed())
}

fn command(victim: &[String]) -> Res<StdCommand> {
    let [program, args @ ..] = victim else { return Err("no victim".into()) };
    let mut command = StdCommand::new(program);
    command.args(args);
    Ok(command)
}
