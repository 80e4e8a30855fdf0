//! What a run of the command line tool takes.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::SOON;

/// What became of a run of the command line tool, and what it took.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
    /// KiB of memory at the most.
    pub(crate) peak: u64,
}

/// Runs it; `status` is none for one that had to be killed.
pub(crate) fn measured(mut command: Command) -> Measured {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (out, err) = (thread::spawn(|| all(out)), thread::spawn(|| all(err)));
    let (mut status, mut peak) = (None, 0);
    while status.is_none() && start.elapsed() < SOON {
        peak = peak_of(child.id()).max(peak);
        status = child.try_wait().unwrap();
        // Nothing announces that it needs more memory.
        thread::sleep(Duration::from_millis(2));
    }
    let took = start.elapsed();
    let _ = child.kill();
    let _ = child.wait();
    Measured { status, stdout: out.join().unwrap(), stderr: err.join().unwrap(), took, peak }
}

fn all(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn peak_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
