//! For contrast: the same experiment with the standard library, and what that leaves behind.

use std::fs::OpenOptions;
use std::io::PipeReader;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::args::Options;
use crate::logs::Logs;
use crate::machine::Line;
use crate::{READY_WITHIN, Result, client, machine};

pub(crate) fn start(options: &Options, logs: &Logs, stdin: PipeReader) -> Result<Child> {
    let path = logs.file();
    let log = OpenOptions::new().append(true).create_new(true).open(&path);
    let log = log.map_err(|error| format!("cannot create {}: {error}", path.display()))?;
    let server = Command::new(&options.server.program)
        .args(&options.server.args)
        .stdin(stdin)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    server.map_err(|error| format!("cannot start {}: {error}", options.server).into())
}

/// Ends the child as people do; a `?` or a panic before that line ends nothing at all.
pub(crate) fn experiment(options: &Options, mut server: Child) -> Result<()> {
    wait_until_it_answers(options, &mut server)?;
    client::send_requests(options)?;
    server.kill()?;
    server.wait()?;
    Ok(())
}

/// By hand: ask, see whether the server has ended, sleep, ask again. An answer may as well come
/// from another server.
fn wait_until_it_answers(options: &Options, server: &mut Child) -> Result<()> {
    let started = Instant::now();
    while let Err(error) = client::get(options.port, "/") {
        if let Some(status) = server.try_wait()? {
            return Err(format!("the server ended before it answered: {status}").into());
        }
        if started.elapsed() > READY_WITHIN {
            return Err(format!("no answer within {READY_WITHIN:?}: {error}").into());
        }
        // Nothing announces a server that is ready.
        thread::sleep(Duration::from_millis(20));
    }
    say!("ready after {:.0?}", started.elapsed());
    Ok(())
}

/// Names the survivors, then kills them: these only, known by the pipe that they inherited.
pub(crate) fn show_what_stays_behind(port: u16, mut line: Line) -> Result<()> {
    let survivors = line.holders()?;
    say!("\nstill alive: {}", survivors.len());
    let sockets = machine::listening_sockets(port);
    for process in &survivors {
        let note = if process.holds(&sockets) { "   <- holds the port" } else { "" };
        say!("  {process}{note}");
    }
    if let Err(error) = machine::require_free(port) {
        say!("the next run would fail: {error}");
    }
    let pids: Vec<String> = survivors.iter().map(|process| process.pid.to_string()).collect();
    for process in &survivors {
        // One that has ended meanwhile needs no signal.
        let _ = kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGKILL);
    }
    wait_until_clean(port, &mut line)?;
    say!("cleaned up: killed {}; port {port} is free again", pids.join(" "));
    Ok(())
}

/// The survivors are not our children, so no event tells when they are gone, and `kill` does not
/// wait: hence the loop.
fn wait_until_clean(port: u16, line: &mut Line) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = line.require_clean(port) {
        if Instant::now() > deadline {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
