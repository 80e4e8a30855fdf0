//! What a timeline costs the command that is drawn: a build with `make -j4`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Res;
use crate::options::Options;
use crate::sample::{Entry, Rounds, interleave};
use crate::table;
use crate::targets::Targets;

const PLAIN: &str = "tidy-process run -- make -j4";
const DRAWN: &str = "the same with --timeline FILE.html";

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    // Compilers that take a while, as most builds have them; and one process after the other, of
    // which none does anything: each is born, executes and ends for the recording alone.
    let compile = Job::compile(if options.quick { 2 } else { 12 })?;
    let ratio = compare(options, &compile, "twelve C files", options.rounds(20))?;
    targets.at_most("make -j4 with a timeline over without", 1.01, "", ratio);
    let brief = Job::brief(if options.quick { 20 } else { 2000 })?;
    compare(options, &brief, "2,000 processes of no duration", options.rounds(20))?;
    Ok(())
}

fn compare(options: &Options, job: &Job, what: &str, rounds: usize) -> Res<f64> {
    let page = job.0.join("page.html").display().to_string();
    let mut entries = vec![
        Entry::partly(PLAIN, || job.make(options, &[])),
        Entry::partly(DRAWN, || job.make(options, &["--timeline", &page])),
    ];
    interleave(&mut entries, Rounds::tight(rounds))?;
    table::print(&format!("Timeline: {what}, wall time"), &entries, &[PLAIN]);
    Ok(table::ratio(&entries, DRAWN, PLAIN))
}

/// A directory with a Makefile; removed when dropped.
struct Job(PathBuf);

impl Job {
    fn new(name: &str, makefile: &str) -> Res<Self> {
        let dir = std::env::temp_dir().join(format!("tidy-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let job = Self(dir);
        fs::write(job.0.join("Makefile"), makefile)?;
        Ok(job)
    }

    fn compile(count: usize) -> Res<Self> {
        let all: Vec<String> = (0..count).map(|number| format!("m{number}.o")).collect();
        let all = all.join(" ");
        // Nothing is up to date: each run does the same.
        let rule = format!("all: {all}\n.PHONY: all {all}\n{all}: %.o: %.c\n");
        let job = Self::new("compile", &(rule + "\tcc -O1 -c -o $@ $<\n"))?;
        for number in 0..count {
            let function = |each: usize| {
                format!(
                    "double f{number}_{each}(double x) {{ for (int i = 0; i < {each}; i++) \
                     x = sin(x) * {each}.5 + i; return x; }}\n"
                )
            };
            let text: String = (0..200).map(function).collect();
            let text = format!("#include <math.h>\n{text}");
            fs::write(job.0.join(format!("m{number}.c")), text)?;
        }
        Ok(job)
    }

    fn brief(count: usize) -> Res<Self> {
        let all: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
        let all = all.join(" ");
        Self::new("brief", &format!("all: {all}\n.PHONY: all {all}\n{all}:\n\t@/bin/true\n"))
    }

    fn make(&self, options: &Options, more: &[&str]) -> Res<Duration> {
        let mut command = Command::new(&options.tool);
        command.args(["run", "-q"]).args(more).arg("-C").arg(&self.0);
        command.args(["--", "make", "-s", "-j4"]).stdin(Stdio::null()).stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        let took = start.elapsed();
        if status.success() { Ok(took) } else { Err(format!("it ended with {status}").into()) }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
