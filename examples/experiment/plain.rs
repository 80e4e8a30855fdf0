//! For contrast: the same experiment with the standard library, and what that leaves behind.

use std::fs::File;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Options;
use crate::{Result, client, machine};

/// Ends the child as people do; a `?` or a panic before that line ends nothing at all.
pub(crate) fn experiment(options: &Options) -> Result<()> {
    let mut server = Command::new(&options.server.program)
        .args(&options.server.args)
        .env(machine::MARKER, machine::run_name())
        .stdout(File::create(options.out_log())?)
        .stderr(File::create(options.err_log())?)
        .spawn()?;
    client::wait_until_it_answers(options, |pause| {
        thread::sleep(pause);
        Ok(server.try_wait()?)
    })?;
    client::send_requests(options)?;
    server.kill()?;
    server.wait()?;
    Ok(())
}

/// Names the survivors, then kills them: these only, known by the marker that they inherited.
pub(crate) fn show_what_stays_behind(port: u16) -> Result<()> {
    let survivors = machine::marked();
    println!("\nstill alive: {}", survivors.len());
    let sockets = machine::listening_sockets(port);
    for process in &survivors {
        let note = if process.holds(&sockets) { "   <- holds the port" } else { "" };
        println!("  {process}{note}");
    }
    if let Err(error) = machine::require_free(port) {
        println!("the next run would fail: {error}");
    }
    let pids: Vec<String> = survivors.iter().map(|process| process.pid.to_string()).collect();
    Command::new("sh")
        .args(["-c", r#"[ $# = 0 ] || kill -KILL "$@""#, "sh"])
        .args(&pids)
        .status()?;
    wait_until_clean(port)?;
    println!("cleaned up: killed {}; port {port} is free again", pids.join(" "));
    Ok(())
}

/// They are not our children, so nobody tells us when they are gone, and `kill` does not wait: we
/// look again and again. A process that dies loses its environment before its sockets.
fn wait_until_clean(port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = machine::require_clean(port) {
        if Instant::now() > deadline {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
