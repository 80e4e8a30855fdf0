//! Runs a command that wants all memory in 64 MiB of it. `cargo run --example limits`
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use tidy_process::{Command, Limits};

fn main() -> Result<(), tidy_process::Error> {
    let limits = Limits::new().memory_max(64 << 20).pids_max(100).cpus(0.5);
    match Command::new("tail").arg("/dev/zero").limits(limits).run() {
        Ok(report) => println!("{:?}: {}", report.cause, report.status),
        // Nothing has run: a limit is in force before the first instruction, or the spawn fails.
        Err(error) if error.is_limit() => {
            println!("{error}\nhint: {}", error.hint().unwrap_or("none"));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
