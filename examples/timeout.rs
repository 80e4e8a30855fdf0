//! Gives a command half a second, and ends it with all that it started. `cargo run --example
//! timeout`
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::time::Duration;
use tidy_process::{Cause, Command};

fn main() -> Result<(), tidy_process::Error> {
    let mut command = Command::new("sh");
    command.args(["-c", "setsid sleep 60 & sleep 60"]).timeout(Duration::from_millis(500));
    let report = command.grace(Duration::from_secs(2)).run()?; // SIGTERM, then SIGKILL
    if report.cause == Cause::TimedOut {
        println!("out of time after {:.1?}: {}", report.wall, report.status);
    }
    Ok(())
}
