//! A child in a runtime that the library does not know: `AsFd` is the pidfd, which is readable once
//! the main process has ended, and `enforce` keeps the command's timeout.
//!
//! `cargo run --manifest-path tests/interop/Cargo.toml --example async_io`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::error::Error;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::time::Duration;

use async_io::{Async, Timer, block_on};
use futures_lite::future::or;
use tidy_process::{Child, Command};

fn main() -> Result<(), Box<dyn Error>> {
    block_on(async {
        for time in ["0", "0.1", "60"] {
            // A daemon stays behind, and the last child would run too long.
            let mut command = Command::new("sh");
            command.args(["-c", "(setsid sleep 60 &); sleep $0", time]);
            let child = command.timeout(Duration::from_millis(500)).spawn()?;
            let status = wait(&child).await?;
            let report = child.finish()?;
            println!(
                "sleep {time}: {status}, {:?}, had to kill {}",
                report.cause,
                report.leftovers.len()
            );
        }
        Ok(())
    })
}

/// Waits for the main process without keeping the thread.
async fn wait(child: &Child) -> io::Result<ExitStatus> {
    let pidfd = Async::new(child.as_fd().try_clone_to_owned()?)?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        // No thread keeps the timeout: the wait does, whatever comes first.
        match child.enforce() {
            None => pidfd.readable().await?,
            Some(at) => {
                or(pidfd.readable(), async {
                    Timer::at(at).await;
                    Ok(())
                })
                .await?
            }
        }
    }
}
