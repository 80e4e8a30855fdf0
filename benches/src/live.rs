//! Many trees at a time: what each of them holds, and whether the next one costs more. And many
//! trees one after the other. Each figure comes from a process of its own.

use std::ffi::CString;
use std::fs;
use std::process::Command as StdCommand;
use std::time::{Duration, Instant};

use tidy_process::{Child, Command, Supervisor};

use crate::Res;
use crate::options::Options;
use crate::raw::{self, Raw};
use crate::sample::percentile;
use crate::table::{self, table};
use crate::targets::Targets;

/// Spawns at each end that are compared.
const END: usize = 100;

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    let counts: &[usize] = if options.quick { &[10, 100] } else { &[10, 100, 1_000, 10_000] };
    let mut rows = Vec::new();
    for &count in counts {
        for who in ["tidy-process", CLOSING, "raw system calls"] {
            let figures = Figures::of("many", who, count)?;
            rows.push(figures.row(&format!("{count} trees, {who}")));
            if count == *counts.last().unwrap_or(&0) {
                match who {
                    "tidy-process" => figures.judge(targets, count),
                    CLOSING => figures.judge_growth(targets, who, count, 1.1),
                    _ => {}
                }
            }
        }
    }
    println!("\n## Live trees (each a sleeping /bin/sleep)\n");
    println!("{}", table(&HEADER, &rows));
    if options.long {
        one_after_the_other(targets)?;
    }
    Ok(())
}

/// Commands that get none of the caller's files.
const CLOSING: &str = "close_fds";

const HEADER: [&str; 8] = [
    "",
    "first spawns",
    "last spawns",
    "last / first",
    "teardown, each",
    "memory, each",
    "fds, each",
    "threads, all",
];

/// As one process says them, separated by blanks.
struct Figures {
    first: Duration,
    last: Duration,
    teardown: Duration,
    memory: f64,
    fds: f64,
    threads: f64,
}

impl Figures {
    fn of(how: &str, who: &str, count: usize) -> Res<Self> {
        let me = std::env::current_exe()?;
        let output = StdCommand::new(me).args(["live", how, who, &count.to_string()]).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers: Vec<f64> = said.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        let [first, last, teardown, memory, fds, threads] = numbers[..] else {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(format!("live {how} {who} {count}: {said}{error}").into());
        };
        let [first, last, teardown] = [first, last, teardown].map(Duration::from_secs_f64);
        Ok(Self { first, last, teardown, memory, fds, threads })
    }

    fn ratio(&self) -> f64 {
        self.last.as_secs_f64() / self.first.as_secs_f64()
    }

    fn row(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            table::time(self.first),
            table::time(self.last),
            format!("{:.2}", self.ratio()),
            table::time(self.teardown),
            format!("{:.2} KiB", self.memory),
            format!("{:.2}", self.fds),
            format!("{}", self.threads),
        ]
    }

    fn judge(&self, targets: &mut Targets, count: usize) {
        targets.at_most("fds for each live tree", 3.0, "", self.fds);
        targets.at_most("memory for each live tree", 2.0, "KiB", self.memory);
        targets.at_most("threads besides the caller's", 0.0, "", self.threads);
        self.judge_growth(targets, "as std", count, 1.3);
    }

    fn judge_growth(&self, targets: &mut Targets, who: &str, count: usize, most: f64) {
        let what = format!("the spawn with {count} live trees / the first ones, {who}");
        targets.at_most(&what, most, "", self.ratio());
    }
}

fn one_after_the_other(targets: &mut Targets) -> Res {
    let count = 100_000;
    let mut rows = Vec::new();
    for who in ["tidy-process", "raw system calls"] {
        let figures = Figures::of("series", who, count)?;
        rows.push(vec![
            who.to_owned(),
            table::time(figures.first),
            table::time(figures.last),
            format!("{:.2}", figures.ratio()),
            format!("{:.3} KiB", figures.memory),
        ]);
        if who == "tidy-process" {
            targets.at_most("the 100,000th run / the first", 1.1, "", figures.ratio());
        }
    }
    let header = ["", "first 1,000", "last 1,000", "last / first", "memory gained, each"];
    println!("\n## {count} runs of /bin/true, one after the other\n\n{}", table(&header, &rows));
    Ok(())
}

pub(crate) fn play(words: &[&str]) -> Res {
    let [how, who, count] = words else { return Err("live: many|series WHO COUNT".into()) };
    let count: usize = count.parse()?;
    let supervisor = Supervisor::builder().close_fds(*who == CLOSING).build()?;
    let raw = Raw::new(supervisor.path().unwrap())?;
    match (*how, *who) {
        ("many", "tidy-process" | CLOSING) => many(count, || {
            Ok(Command::new("/bin/sleep").arg("600").supervisor(&supervisor).spawn()?)
        }),
        ("many", _) => {
            let names = (0..=count).map(|number| CString::new(format!("raw-{number}")));
            let names: Vec<CString> = names.collect::<Result<_, _>>()?;
            let mut next = names.iter();
            many(count, || {
                let cgroup = raw.make(next.next().ok_or("no name is left")?)?;
                let pid = cgroup.spawn(c"/bin/sleep", &[c"600"])?;
                Ok(ByHand(cgroup, pid))
            })
        }
        (_, "tidy-process") => series(count, || {
            Command::new("/bin/true").supervisor(&supervisor).run()?;
            Ok(())
        }),
        _ => series(count, || raw.cycle(c"raw", &[])),
    }
}

struct ByHand<'a>(raw::RawCgroup<'a>, i32);

/// What ends a tree.
trait End {
    fn end(self) -> Res;
    /// It lives on without a handle, until the supervisor ends.
    fn leave(self);
}

impl End for Child {
    fn end(self) -> Res {
        self.finish()?;
        Ok(())
    }

    fn leave(self) {
        self.detach();
    }
}

impl End for ByHand<'_> {
    fn end(self) -> Res {
        self.0.teardown()?;
        raw::reap(self.1)
    }

    fn leave(self) {}
}

/// Where there may not be enough open files for all, the first ones are let go: they live on.
fn many<T: End>(count: usize, mut spawn: impl FnMut() -> Res<T>) -> Res {
    // The first one loads what all need.
    spawn()?.end()?;
    let files = usize::try_from(raw::raise_files(count as u64 * 4 + 100))?;
    let kept = count.min(files.saturating_sub(100) / 4);
    let mut trees = Vec::with_capacity(kept);
    let mut took = Vec::with_capacity(count);
    for _ in kept..count {
        let start = Instant::now();
        let tree = spawn()?;
        took.push(start.elapsed());
        tree.leave();
    }
    let before = Held::now();
    for _ in 0..kept {
        let start = Instant::now();
        trees.push(spawn()?);
        took.push(start.elapsed());
    }
    let held = Held::now().since(&before, kept);
    let start = Instant::now();
    trees.into_iter().try_for_each(End::end)?;
    let each = start.elapsed() / u32::try_from(kept)?;
    say(&took, END, each, held);
    Ok(())
}

fn series(count: usize, mut run: impl FnMut() -> Res) -> Res {
    // The first ones load what all need, and warm what all use.
    (0..200).try_for_each(|_| run())?;
    let mut took = Vec::with_capacity(count);
    let before = Held::now();
    for _ in 0..count {
        let start = Instant::now();
        run()?;
        took.push(start.elapsed());
    }
    let held = Held::now().since(&before, count);
    say(&took, 1_000, Duration::ZERO, held);
    Ok(())
}

fn say(took: &[Duration], end: usize, teardown: Duration, held: Held) {
    let end = end.min(took.len() / 2).max(1);
    let (first, last) = (took.get(..end), took.get(took.len() - end..));
    let median = |part: Option<&[Duration]>| percentile(part.unwrap_or_default(), 50).as_secs_f64();
    let [first, last, teardown] = [median(first), median(last), teardown.as_secs_f64()];
    println!("{first} {last} {teardown} {} {} {}", held.memory, held.fds, held.threads);
}

/// What this process holds.
struct Held {
    /// KiB of its own.
    memory: f64,
    fds: f64,
    threads: f64,
}

impl Held {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
        };
        let fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self { memory: number("RssAnon:"), fds: fds as f64, threads: number("Threads:") }
    }

    fn since(&self, before: &Self, count: usize) -> Self {
        let each = |now: f64, then: f64| (now - then) / count as f64;
        Self {
            memory: each(self.memory, before.memory),
            fds: each(self.fds, before.fds),
            threads: self.threads - before.threads,
        }
    }
}
