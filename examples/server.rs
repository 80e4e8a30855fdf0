//! Starts a server, waits until it can be used, uses it, and ends it. `cargo run --example server`
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::net::TcpStream;
use std::time::{Duration, Instant};
use tidy_process::{Command, Log, Ready};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let log = Log::unnamed()?; // Its last lines are in the error, should it not become ready.
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", "0"]).log(&log);
    let server = command.spawn()?; // Ends with this variable, by `?` and by a panic, too.
    server.wait_ready(Ready::any_tcp(), Instant::now() + Duration::from_secs(30))?;
    let address = server.tree().listening_ports()?[0].address;
    TcpStream::connect(address)?;
    println!("{address} answers");
    server.finish()?;
    println!("refused now: {}", TcpStream::connect(address).is_err());
    Ok(())
}
