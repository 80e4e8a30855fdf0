//! What is torn down, played by this program. Everything is bounded: a victim that nobody ends goes
//! by itself.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Res;
use crate::raw;

/// How long a victim lives at the most.
const LIFE: Duration = Duration::from_secs(60);

/// The command line that plays it: `crowd N`, `daemons N` or `chain`. It writes one byte when it
/// stands.
pub(crate) fn command(what: &[&str]) -> Res<Vec<String>> {
    let me = std::env::current_exe()?.to_string_lossy().into_owned();
    let words = ["victim"].iter().chain(what).map(|&word| word.to_owned());
    Ok([me].into_iter().chain(words).collect())
}

pub(crate) fn play(what: &[&str]) -> Res {
    match what {
        ["crowd", count] => crowd(count.parse()?),
        ["daemons", count] => daemons(count.parse()?),
        ["chain"] => chain(),
        other => Err(format!("no victim is called {other:?}").into()),
    }
}

/// So many processes, this one included.
fn crowd(count: usize) -> Res {
    for _ in 1..count {
        if raw::fork() == 0 {
            sleep(LIFE);
            std::process::exit(0);
        }
    }
    stand()
}

/// Each in a session of its own, without a parent.
fn daemons(count: usize) -> Res {
    for _ in 0..count {
        Command::new("setsid").args(["--fork", "sleep", "60"]).status()?;
    }
    stand()
}

fn stand() -> Res {
    std::io::stdout().write_all(b"!")?;
    std::io::stdout().flush()?;
    // As a program, so that its death looks like one's.
    Err(Command::new("sleep").arg(LIFE.as_secs().to_string()).exec().into())
}

/// Each process lives for no longer than it takes to start the next one.
fn chain() -> Res {
    let start = Instant::now();
    std::io::stdout().write_all(b"!")?;
    std::io::stdout().flush()?;
    while start.elapsed() < Duration::from_secs(2) {
        if raw::fork() != 0 {
            std::process::exit(0);
        }
    }
    Ok(())
}
