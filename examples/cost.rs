//! What a fresh cgroup costs: spawn + wait + teardown of `/bin/true`, side by side with std, in a
//! small process and in one with 1 GiB touched; and the teardown of a child with two daemons. The
//! same by a keeper, which may do where no cgroup can be made.
//!
//! `cargo run --release --example cost`. Samples are interleaved (A B A B); medians and ratios are
//! printed.

#![expect(clippy::print_stdout, reason = "an example says what it measured")]

use std::error::Error;
use std::io::Read;
use std::process::Command as StdCommand;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tidy_process::{Command, Containment, Stdio, Supervisor};

const SAMPLES: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let supervisor = Supervisor::builder().build()?;
    let keepers = Supervisor::builder().containment(Containment::Keeper).build()?;
    pair("/bin/true, small caller", &supervisor, SAMPLES)?;
    pair("the same by a keeper", &keepers, SAMPLES)?;
    let mut ballast = vec![0u8; 1 << 30];
    ballast.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    pair("/bin/true, caller with 1 GiB", &supervisor, SAMPLES)?;
    pair("the same by a keeper", &keepers, SAMPLES / 10)?;
    drop(ballast);
    teardown("teardown, child and 2 daemons", &supervisor)?;
    teardown("the same by a keeper", &keepers)
}

/// std's spawn + wait against our spawn + wait + teardown.
fn pair(what: &str, supervisor: &Supervisor, samples: usize) -> Result<(), Box<dyn Error>> {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        let start = Instant::now();
        StdCommand::new("/bin/true").status()?;
        theirs.push(start.elapsed());
        let start = Instant::now();
        Command::new("/bin/true").supervisor(supervisor).run()?;
        ours.push(start.elapsed());
    }
    let (theirs, ours) = (median(theirs), median(ours));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!("{what:<30} std {theirs:>9.1?}  tidy-process {ours:>9.1?}  ratio {ratio:.2}");
    Ok(())
}

fn teardown(what: &str, supervisor: &Supervisor) -> Result<(), Box<dyn Error>> {
    let script = "(setsid sleep 20 &); (setsid sleep 20 &); echo; exec sleep 20";
    let mut times = Vec::new();
    for _ in 0..SAMPLES / 5 {
        let mut command = Command::new("sh");
        command.args(["-c", script]).supervisor(supervisor).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdout.take().ok_or("no pipe")?.read_exact(&mut [0])?;
        // The kernel announces one change of `populated` in 10 ms: let the spawn's own be over.
        sleep(Duration::from_millis(12));
        let start = Instant::now();
        child.finish()?;
        times.push(start.elapsed());
    }
    println!("{what:<30} {:>9.1?}", median(times));
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
