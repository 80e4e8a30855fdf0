//! Runs a command that writes more than anybody wants to keep, and keeps the first and the last of
//! it. `cargo run --example capture`
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use tidy_process::{Command, Log};

fn main() -> Result<(), tidy_process::Error> {
    // Small outputs: `Command::new("date").output()?.stdout`, as with std.
    let log = Log::bounded(12, 12);
    let report = Command::new("seq").arg("1000000").log(&log).run()?;
    let kept = log.text();
    println!("{kept}");
    println!("{} bytes were not kept; {}", kept.omitted_bytes, report.status);
    Ok(())
}
