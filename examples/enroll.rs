//! Lets std, or any library that builds on its `Command`, do the spawning. `cargo run --example
//! enroll`
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::process::Command;
use tidy_process::Tree;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tree = Tree::new()?;
    let mut command = Command::new("sh");
    tree.enroll(command.args(["-c", "setsid sleep 60 & echo started"]))?;
    let status = command.status()?;
    let report = tree.finish()?; // Dropping it would do the same, and say nothing.
    println!("{status}; {} processes had to be killed", report.leftovers.len());
    Ok(())
}
