//! Runs `/bin/true` as often as the first argument says (default: once), each in a fresh cgroup.

use tidy_process::{Command, Supervisor};

fn main() -> tidy_process::Result<()> {
    let rounds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(1);
    // The guard's start is no part of a cycle.
    let supervisor = Supervisor::builder().guard(false).build()?;
    for _ in 0..rounds {
        Command::new("/bin/true").supervisor(&supervisor).run()?;
    }
    println!("hello");
    Ok(())
}
