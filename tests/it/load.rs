//! Programs that use a known amount of something; the test binary plays them when `TIDY_LOAD` says
//! how.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use tidy_process::{Command, Supervisor};

use crate::support::Stage;
use crate::{environment, victim};

pub(crate) const WISH: &str = "TIDY_LOAD";

#[ctor::ctor]
fn enter() {
    let Ok(wish) = std::env::var(WISH) else { return };
    let words: Vec<&str> = wish.split(' ').collect();
    match words.as_slice() {
        ["memory", mib] => memory(mib.parse().unwrap()),
        ["child-memory", mib] => child_memory(mib),
        ["forks", count] => forks(count.parse().unwrap()),
        ["swap"] => swap(),
        ["exec"] => exec(),
        ["exec-closing"] => exec_closing(),
        ["environments", "forked"] => environment::fork_meets_setenv(),
        ["environments"] => environment::play(),
        ["runs", count] => runs(count.parse().unwrap()),
        ["statuses", count] => statuses(count.parse().unwrap()),
        ["burn", ms] => burn(Duration::from_millis(ms.parse().unwrap())),
        ["burn-for", ms, count] => burn_for(ms.parse().unwrap(), count.parse().unwrap()),
        ["family", ms] => family(Duration::from_millis(ms.parse().unwrap())),
        ["write", path, mib] => write(path, mib.parse().unwrap()),
        other => panic!("no load is called {other:?}"),
    }
    std::process::exit(0);
}

/// A command that plays a load.
pub(crate) fn load(stage: &Stage, what: &str) -> Command {
    let mut command = stage.command(victim::exe().to_str().unwrap());
    command.env(WISH, what);
    command
}

/// Hands its own streams to a child, crosswise.
fn swap() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo out; echo err >&2"]).env_remove(WISH);
    let crosswise = command.stdout(std::io::stderr()).stderr(std::io::stdout());
    assert!(crosswise.run().unwrap().success());
}

/// Becomes a shell.
fn exec() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ in $PWD with $A; exit 7"]).env_remove(WISH);
    panic!("{}", command.env("A", "1").current_dir("/").exec());
}

/// Becomes a shell that says how many fds that stay open over an exec it has above its streams.
fn exec_closing() {
    let supervisor = Supervisor::builder().guard(false).close_fds(true).build().unwrap();
    let open = std::fs::File::open("/etc/passwd").unwrap();
    // Its copy is not closed by an exec.
    let kept = nix::unistd::dup(&open).unwrap();
    let script = format!("test -e /proc/$$/fd/{}; echo $((! $?))", kept.as_raw_fd());
    let mut command = Command::new("sh");
    panic!("{}", command.args(["-c", &script]).supervisor(&supervisor).exec());
}

/// Touches so much memory, and says so.
fn memory(mib: usize) {
    let mut held = vec![0u8; mib << 20];
    for page in held.chunks_mut(4096) {
        page[0] = 1;
    }
    println!("{}", held.iter().map(|&byte| usize::from(byte)).sum::<usize>());
}

/// A child touches it; this process waits for the child, and survives it if it may.
fn child_memory(mib: &str) {
    let mut child = std::process::Command::new(victim::exe());
    let status = child.env(WISH, format!("memory {mib}")).status().unwrap();
    println!("child: {status}");
}

/// Tries so many children at once; says how many it got.
fn forks(count: usize) {
    let sleep = || std::process::Command::new("sleep").arg("20").spawn();
    let got: Vec<_> = (0..count).map_while(|_| sleep().ok()).collect();
    println!("{}", got.len());
    for mut child in got {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Runs `/bin/true` so many times, each in a fresh cgroup.
fn runs(count: usize) {
    let supervisor = Supervisor::builder().guard(false).build().unwrap();
    for _ in 0..count {
        Command::new("/bin/true").supervisor(&supervisor).run().unwrap();
    }
}

fn statuses(count: usize) {
    let supervisor = Supervisor::builder().guard(false).build().unwrap();
    for _ in 0..count {
        assert!(Command::new("/bin/true").supervisor(&supervisor).status().unwrap().success());
    }
}

fn own_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = |t: nix::sys::time::TimeVal| {
        let seconds = u64::try_from(t.tv_sec()).unwrap();
        Duration::new(seconds, u32::try_from(t.tv_usec()).unwrap() * 1000)
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Burns until its own clock says so, and says how much it was in the end.
fn burn(time: Duration) {
    while own_cpu() < time {
        std::hint::black_box((0..1000).sum::<u64>());
    }
    println!("{}", own_cpu().as_micros());
}

/// So many processes burn for so much of wall time.
fn burn_for(ms: u64, count: u64) {
    let children: Vec<_> = (1..count)
        .map(|_| {
            let mut child = std::process::Command::new(victim::exe());
            child.env(WISH, format!("burn-for {ms} 1")).spawn().unwrap()
        })
        .collect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(ms) {
        std::hint::black_box((0..1000).sum::<u64>());
    }
    for mut child in children {
        child.wait().unwrap();
    }
}

/// Eight descendants burn, half of them daemons that nobody waits for. Each says what it burnt, and
/// this process what it and what it waited for did.
fn family(each: Duration) {
    let (mut reads, writes) = std::io::pipe().unwrap();
    let mut children = Vec::new();
    for number in 0..8 {
        let burn = format!("burn {}", each.as_millis());
        let mut child = std::process::Command::new(if number % 2 == 0 { "setsid" } else { "env" });
        if number % 2 == 0 {
            child.arg("--fork");
        }
        child.arg(victim::exe()).env(WISH, burn).stdout(writes.try_clone().unwrap());
        children.push(child.spawn().unwrap());
    }
    drop(writes);
    for mut child in children {
        child.wait().unwrap();
    }
    // Ends when the last daemon has.
    let mut said = String::new();
    std::io::Read::read_to_string(&mut reads, &mut said).unwrap();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let waited = usage.user_time() + usage.system_time();
    let waited = waited.tv_sec() * 1_000_000 + waited.tv_usec();
    println!("{said}own {}\nwaited {waited}", own_cpu().as_micros());
}

/// Writes so much, past the page cache's memory: on return the device has it.
fn write(path: &str, mib: usize) {
    let mut file = std::fs::File::create(path).unwrap();
    for _ in 0..mib {
        file.write_all(&[7; 1 << 20]).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    std::fs::remove_file(path).unwrap();
}
