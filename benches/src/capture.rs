//! `sh -c 'sleep 3 & echo hi'` with its output collected: who waits for the grandchild?

use std::process::Command as StdCommand;
use std::thread;
use std::time::{Duration, Instant};

use tidy_process::{Command, Supervisor};

use crate::Res;
use crate::options::Options;
use crate::peers::runtime;
use crate::python::Python;
use crate::sample::percentile;
use crate::table::{self, table};
use crate::targets::Targets;

const SCRIPT: [&str; 2] = ["-c", "sleep 3 & echo hi"];

type Capture = (&'static str, fn() -> Res<Vec<u8>>);

const PEERS: [Capture; 6] = [
    ("std", || Ok(StdCommand::new("sh").args(SCRIPT).output()?.stdout)),
    ("tokio", || {
        let output = async { tokio::process::Command::new("sh").args(SCRIPT).output().await };
        Ok(runtime()?.block_on(output)?.stdout)
    }),
    ("duct", || Ok(duct::cmd("sh", SCRIPT).stdout_capture().run()?.stdout)),
    ("subprocess", || Ok(subprocess::Exec::cmd("sh").args(SCRIPT).capture()?.stdout)),
    ("async-process", || {
        let output = async { async_process::Command::new("sh").args(SCRIPT).output().await };
        Ok(futures_lite::future::block_on(output)?.stdout)
    }),
    ("processkit", || {
        let output = async { processkit::Command::new("sh").args(SCRIPT).output_bytes().await };
        Ok(runtime()?.block_on(output)?.stdout().clone())
    }),
];

/// The peers sleep most of the time: all at once, and once each.
pub(crate) fn measure(options: &Options, _: &mut Targets) -> Res {
    let supervisor = Supervisor::builder().build()?;
    let mut ours = Vec::new();
    for _ in 0..options.rounds(50) {
        let start = Instant::now();
        let output = Command::new("sh").args(SCRIPT).supervisor(&supervisor).output()?;
        ours.push(start.elapsed());
        assert_eq!(output.stdout, b"hi\n");
    }
    let ours = percentile(&ours, 50);
    let mut rows = vec![row("tidy-process", ours, ours)];
    for (name, took) in all_at_once(options, &supervisor)? {
        rows.push(row(&name, took, ours));
    }
    println!("\n## Output of sh -c 'sleep 3 & echo hi'\n");
    println!("{}", table(&["", "time", "/ tidy-process"], &rows));
    Ok(())
}

fn row(name: &str, took: Duration, ours: Duration) -> Vec<String> {
    let ratio = took.as_secs_f64() / ours.as_secs_f64();
    vec![name.to_owned(), table::time(took), format!("{ratio:.0}")]
}

fn all_at_once(options: &Options, supervisor: &Supervisor) -> Res<Vec<(String, Duration)>> {
    let mut python = Python::start(&options.python, supervisor, 0)?;
    let running: Vec<_> = PEERS.into_iter().map(|(name, run)| (name, start(run))).collect();
    let [first, second] = SCRIPT;
    let recipe = python.ask("output", &["sh", first, second])?;
    let mut all = Vec::new();
    for (name, thread) in running {
        let took = thread.join().map_err(|_| format!("{name} panicked"))?;
        all.push((name.to_owned(), took.map_err(|error| format!("{name}: {error}"))?));
    }
    all.push(("Python: subprocess.run".to_owned(), recipe));
    Ok(all)
}

fn start(run: fn() -> Res<Vec<u8>>) -> thread::JoinHandle<Result<Duration, String>> {
    thread::spawn(move || {
        let start = Instant::now();
        match run() {
            Ok(said) if said == b"hi\n" => Ok(start.elapsed()),
            Ok(said) => Err(format!("it said {said:?}")),
            Err(error) => Err(error.to_string()),
        }
    })
}
