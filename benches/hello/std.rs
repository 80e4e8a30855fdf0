//! Runs `/bin/true` as often as the first argument says (default: once), with std.

use std::process::Command;

fn main() -> std::io::Result<()> {
    let rounds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(1);
    for _ in 0..rounds {
        Command::new("/bin/true").status()?;
    }
    println!("hello");
    Ok(())
}
