//! Runs three commands at once in tokio. `cargo run --example async_tokio --features tokio`
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use tidy_process::{Command, Output, Result};

async fn job(number: u32) -> Result<Output> {
    let script = format!("setsid sleep 60 & echo job {number}");
    Command::new("sh").args(["-c", &script]).output_async().await
}

// With tokio's feature `macros`: `#[tokio::main] async fn main()`.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for job in [1, 2, 3].map(|number| tokio::spawn(job(number))) {
            let Output { stdout, report, .. } = job.await??;
            print!("killed {}: {}", report.leftovers.len(), String::from_utf8_lossy(&stdout));
        }
        Ok(())
    })
}
