//! Many short commands, as many at a time as there are CPUs.

use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::process::{Command as StdCommand, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidy_process::{Command, Pool, Supervisor};

use crate::Res;
use crate::ceiling;
use crate::options::Options;
use crate::raw::Raw;
use crate::sample::{Entry, Rounds, interleave};
use crate::table;
use crate::targets::Targets;

const TOOL: &str = "tidy-process pool -j";
const XARGS: &str = "xargs -P";
const LIMIT: &str = "raw system calls, a thread for each";

/// Commands after which memory is looked at: 10^6 with --long.
const LONG: u64 = 1_000_000;

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    let count = options.rounds(400);
    let jobs = thread::available_parallelism()?.get();
    let supervisor = Supervisor::builder().build()?;
    let raw = Raw::new(supervisor.path().ok_or("no cgroup")?)?;
    let makefile = Makefile::new(count)?;
    let numbers = format!("seq {count} |");
    let tool = options.tool.display();
    let lines = [
        (TOOL, format!("{numbers} {tool} pool -q -j {jobs} -- /bin/true")),
        (XARGS, format!("{numbers} xargs -P {jobs} -n 1 /bin/true")),
        ("make -j", format!("make -s -j {jobs} -f {}", makefile.0)),
        ("GNU parallel -j", format!("{numbers} parallel --will-cite -j {jobs} /bin/true")),
    ];
    let mut entries = vec![
        Entry::partly("Pool of the library", || library(&supervisor, jobs, count)),
        Entry::partly(LIMIT, || {
            let last = AtomicUsize::new(0);
            threads(jobs, count, || {
                let name = format!("raw-{}", last.fetch_add(1, Ordering::Relaxed));
                raw.cycle(&CString::new(name)?, &[c"1"])
            })
        }),
        Entry::partly("std, a thread for each", || {
            threads(jobs, count, || Ok(StdCommand::new("/bin/true").arg("1").status().map(drop)?))
        }),
    ];
    for (name, line) in &lines {
        entries.push(Entry::partly(name, || shell(line, count)));
    }
    interleave(&mut entries, Rounds::tight(options.rounds(10)))?;
    let title = format!("Pool: /bin/true, {jobs} at a time, wall time for each of {count}");
    table::print(&title, &entries, &[XARGS, LIMIT]);
    targets.at_most("a pool over xargs -P", 0.6, "", table::ratio(&entries, TOOL, XARGS));
    targets.at_most("a pool over raw system calls", 1.15, "", table::ratio(&entries, TOOL, LIMIT));
    ceiling::measure(options, supervisor.path().ok_or("no cgroup")?)?;
    if options.long {
        let grown = memory(options, jobs)?;
        targets.at_most("growth of a pool over 10^6 commands", 1024.0, "KiB", grown);
    }
    Ok(())
}

fn library(supervisor: &Supervisor, jobs: usize, count: usize) -> Res<Duration> {
    let start = Instant::now();
    let commands = (0..count).map(|number| {
        let mut command = Command::new("/bin/true");
        command.arg("1").supervisor(supervisor);
        (number, command)
    });
    let failed = AtomicUsize::new(0);
    Pool::new(jobs).run(commands, |_, result| {
        failed.fetch_add(usize::from(!result.is_ok_and(|it| it.success())), Ordering::Relaxed);
    })?;
    match failed.into_inner() {
        0 => Ok(start.elapsed() / u32::try_from(count)?),
        failed => Err(format!("{failed} failed").into()),
    }
}

/// Runs many commands; returns by how many KiB the tool has grown since the first thousandth.
fn memory(options: &Options, jobs: usize) -> Res<f64> {
    let mut command = StdCommand::new(&options.tool);
    command.args(["pool", "-q", "-j", &jobs.to_string(), "--", "/bin/echo", "1"]);
    let mut tool = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (stdin, stdout) = (tool.stdin.take(), tool.stdout.take());
    let (mut stdin, mut stdout) = stdin.zip(stdout).ok_or("no pipe")?;
    let pid = tool.id();
    let start = Instant::now();
    let (first, last) = thread::scope(|scope| -> Res<(f64, f64)> {
        let input = &mut stdin;
        scope.spawn(move || (0..LONG).try_for_each(|_| input.write_all(b"2\n")));
        let mut line = [0; 4];
        let mut first = 0.0;
        for number in 0..LONG {
            stdout.read_exact(&mut line)?;
            if number == LONG / 1000 {
                first = peak(pid)?;
            }
        }
        // Its input is open still, so it lives.
        Ok((first, peak(pid)?))
    })?;
    drop(stdin);
    tool.wait()?;
    let took = start.elapsed().as_secs_f64();
    println!(
        "\n{LONG} commands in {took:.0} s: {first} KiB after a thousandth, {last} at the end."
    );
    Ok(last - first)
}

/// The most memory that a process has had, in KiB.
fn peak(pid: u32) -> Res<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Wall time for each.
fn threads(jobs: usize, count: usize, run: impl Fn() -> Res + Sync) -> Res<Duration> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let work = || -> Result<(), String> {
        while next.fetch_add(1, Ordering::Relaxed) < count {
            run().map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        all.into_iter().try_for_each(|each| each.join().unwrap_or(Err("a panic".to_owned())))
    })?;
    Ok(start.elapsed() / u32::try_from(count)?)
}

fn shell(line: &str, count: usize) -> Res<Duration> {
    let start = Instant::now();
    let status = StdCommand::new("sh").args(["-c", line]).stdin(Stdio::null()).status()?;
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    Ok(start.elapsed() / u32::try_from(count)?)
}

/// A target for each run; removed when dropped.
struct Makefile(String);

impl Makefile {
    fn new(count: usize) -> Res<Self> {
        let path = std::env::temp_dir().join(format!("tidy-bench-{}.mk", std::process::id()));
        let all: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
        let all = all.join(" ");
        fs::write(&path, format!("all: {all}\n.PHONY: all {all}\n{all}:\n\t@/bin/true 1\n"))?;
        Ok(Self(path.display().to_string()))
    }
}

impl Drop for Makefile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
