//! Many trees in one look, and many run roots without an owner in one sweep: by the command line.

use std::fs;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};
use std::time::{Duration, Instant};

use tidy_process::Supervisor;

use crate::Res;
use crate::options::Options;
use crate::sample::percentile;
use crate::table::{self, table};
use crate::targets::Targets;

const LOOKS: usize = 5;

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    let count = if options.quick { 100 } else { 10_000 };
    let supervisor = Supervisor::builder().guard(false).build()?;
    let root = supervisor.path().ok_or("no cgroup")?;
    let look = || timed(options, "ps", root);
    let trees = Made::below(root, count, |number| number.to_string())?;
    let looks = (0..LOOKS).map(|_| look()).collect::<Res<Vec<Duration>>>()?;
    drop(trees);
    let stale = Made::below(root, count, |number| format!("tidy-process-4194303-{number:08x}"))?;
    let sweep = timed(options, "sweep", root)?;
    let left = fs::read_dir(root)?.flatten().filter(|entry| entry.path().is_dir()).count();
    drop(stale);
    if left > 0 {
        return Err(format!("{left} of {count} stale run roots are left").into());
    }
    let look = percentile(&looks, 50);
    println!("\n## {count} in one call\n");
    let rows = [
        vec!["ps, of as many empty trees".to_owned(), table::time(look)],
        vec!["sweep, of as many stale run roots".to_owned(), table::time(sweep)],
    ];
    println!("{}", table(&["", ""], &rows));
    targets.at_most(&format!("ps of {count} trees"), 300.0, "ms", look.as_secs_f64() * 1e3);
    targets.at_most(&format!("sweep of {count} stale"), 3000.0, "ms", sweep.as_secs_f64() * 1e3);
    Ok(())
}

fn timed(options: &Options, what: &str, below: &Path) -> Res<Duration> {
    let mut command = StdCommand::new(&options.tool);
    command.arg(what).arg("--parent").arg(below).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let took = start.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{what}: {status}").into()) }
}

/// Cgroups, until dropped.
struct Made<'a> {
    root: &'a Path,
    names: Vec<String>,
}

impl<'a> Made<'a> {
    fn below(root: &'a Path, count: usize, name: fn(usize) -> String) -> Res<Self> {
        let mut made = Self { root, names: Vec::new() };
        for name in (0..count).map(name) {
            fs::create_dir(root.join(&name))?;
            made.names.push(name);
        }
        Ok(made)
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = fs::remove_dir(self.root.join(name));
        }
    }
}
