//! How many instructions of its own one cycle takes, counted one by one ([ptrace(2)]): the figure
//! is the same under any load, so it guards the path that every run takes. What the kernel executes
//! is not in it.
//!
//! [ptrace(2)]: https://man7.org/linux/man-pages/man2/ptrace.2.html

use std::process::{Command as StdCommand, Stdio};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tidy_process::{Command, Supervisor};

use crate::Res;
use crate::options::Options;
use crate::raw::Raw;
use crate::table::table;
use crate::targets::Targets;

const LIMIT: &str = "raw system calls";
const OURS: &str = "tidy-process";
const THREADED: &str = "tidy-process, beside a thread";
const STD: &str = "std";

/// A tenth above what was measured when this was set: more is a step backwards, and fails.
const MOST: u64 = 19_000;

/// Beside a thread the environment is copied.
const MOST_THREADED: u64 = 58_000;

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    let mut rows = Vec::new();
    for way in [LIMIT, OURS, THREADED, STD] {
        let mut counts: Vec<u64> =
            (0..options.rounds(5)).map(|_| count(way)).collect::<Res<_>>()?;
        counts.sort_unstable();
        let median = counts[counts.len() / 2];
        rows.push(vec![way.to_owned(), median.to_string()]);
        judge(way, median, targets)?;
    }
    println!("\n## Instructions of the caller's own in one cycle of /bin/true");
    println!("\n{}", table(&["", "instructions"], &rows));
    Ok(())
}

fn judge(way: &str, count: u64, targets: &mut Targets) -> Res {
    let most = match way {
        OURS => MOST,
        THREADED => MOST_THREADED,
        _ => return Ok(()),
    };
    if count > most {
        return Err(format!("{way}: {count} instructions a cycle, {most} were allowed").into());
    }
    let what = format!("thousand instructions in a cycle, {way}");
    targets.at_most(&what, most as f64 / 1e3, "", count as f64 / 1e3);
    Ok(())
}

/// In this process, which another one steps through: between SIGSTOP and SIGUSR1 lies one cycle.
pub(crate) fn play(words: &[&str]) -> Res {
    let supervisor = Supervisor::builder().guard(false).build()?;
    let raw = Raw::new(supervisor.path().unwrap())?;
    let cycle = || -> Res {
        match words {
            [LIMIT] => raw.cycle(c"raw", &[])?,
            [OURS | THREADED] => drop(Command::new("/bin/true").supervisor(&supervisor).run()?),
            [STD] => drop(StdCommand::new("/bin/true").status()?),
            other => return Err(format!("no way is called {other:?}").into()),
        }
        Ok(())
    };
    if words == [THREADED] {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    // The first ones look up symbols and fill the heap.
    for _ in 0..3 {
        cycle()?;
    }
    ptrace::traceme()?;
    raise(Signal::SIGSTOP)?;
    cycle()?;
    raise(Signal::SIGUSR1)?;
    Ok(())
}

fn count(way: &str) -> Res<u64> {
    let mut command = StdCommand::new(std::env::current_exe()?);
    command.args(["instructions", way]).stdin(Stdio::null()).env_clear();
    // An environment of a common size, and the same everywhere.
    command.envs((0..30).map(|number| (format!("VARIABLE_{number:02}"), "value".repeat(8))));
    let child = command.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut count = 0;
    loop {
        match waitpid(pid, None)? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => ptrace::step(pid, None)?,
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                count += 1;
                ptrace::step(pid, None)?;
            }
            WaitStatus::Stopped(_, Signal::SIGUSR1) => break,
            WaitStatus::Stopped(_, other) => ptrace::step(pid, other)?,
            other => return Err(format!("{way}: it was to be stepped through: {other:?}").into()),
        }
    }
    ptrace::detach(pid, None)?;
    match waitpid(pid, None)? {
        WaitStatus::Exited(_, 0) => Ok(count),
        other => Err(format!("{way}: {other:?}").into()),
    }
}
