//! Many short commands, as many at a time as there are CPUs.

use std::fs;
use std::process::{Command as StdCommand, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use tidy_process::{Command, Supervisor};

use crate::Res;
use crate::options::Options;
use crate::sample::{Entry, Rounds, interleave};
use crate::table;
use crate::targets::Targets;

pub(crate) fn measure(options: &Options, _: &mut Targets) -> Res {
    let count = options.rounds(400);
    let jobs = thread::available_parallelism()?.get();
    let supervisor = Supervisor::builder().build()?;
    let makefile = Makefile::new(count)?;
    let numbers = format!("seq {count} |");
    let lines = [
        ("xargs -P", format!("{numbers} xargs -P {jobs} -n 1 /bin/true")),
        ("make -j", format!("make -s -j {jobs} -f {}", makefile.0)),
        ("GNU parallel -j", format!("{numbers} parallel --will-cite -j {jobs} /bin/true")),
    ];
    let mut entries = vec![
        Entry::partly("tidy-process, a thread for each", || {
            threads(jobs, count, || {
                Command::new("/bin/true")
                    .supervisor(&supervisor)
                    .run()
                    .map(drop)
                    .map_err(Into::into)
            })
        }),
        Entry::partly("std, a thread for each", || {
            threads(jobs, count, || Ok(StdCommand::new("/bin/true").status().map(drop)?))
        }),
    ];
    for (name, line) in &lines {
        entries.push(Entry::partly(name, || shell(line, count)));
    }
    interleave(&mut entries, Rounds::tight(options.rounds(10)))?;
    let title = format!("Pool: /bin/true, {jobs} at a time, wall time for each of {count}");
    table::print(&title, &entries, &["xargs -P"]);
    Ok(())
}

/// Wall time for each.
fn threads(jobs: usize, count: usize, run: impl Fn() -> Res + Sync) -> Res<std::time::Duration> {
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

fn shell(line: &str, count: usize) -> Res<std::time::Duration> {
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
        fs::write(&path, format!("all: {all}\n.PHONY: all {all}\n{all}:\n\t@/bin/true\n"))?;
        Ok(Self(path.display().to_string()))
    }
}

impl Drop for Makefile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
