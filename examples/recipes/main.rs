//! Servers that are known for what they leave behind, each started, waited for, used and ended:
//!
//! `cargo run --example recipes -- NAME [PORT [DIR [END]]]`
//!
//! NAME is flask, gunicorn, npm, postgres, redis or chromium.
//! DIR is made with mode 0700, or is one of yours that nobody else may write to; `-` or none is a
//! fresh one, which is removed again after success.
//! END is `finish`, `panic`, or `stay`: then kill this program with SIGKILL, and see that nothing
//! is left. `TIDY_PYTHON` names a Python that has Flask and gunicorn.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

mod place;
mod servers;

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use tidy_process::{Child, Log};

use crate::place::Place;

type Any = Box<dyn Error>;

fn main() -> Result<(), Any> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize| words.get(at).map(String::as_str);
    let recipe = servers::find(word(0).unwrap_or_default()).ok_or("which recipe? see the top")?;
    let port = word(1).unwrap_or("8300").parse()?;
    let place = Place::make(port, word(2).filter(|dir| *dir != "-"))?;

    let log = Log::create(place.dir.join("log"))?;
    let started = Instant::now();
    let server: Child = (recipe.start)(&place, &log)?;
    server.wait_ready((recipe.ready)(&place)?, Duration::from_secs(60))?;
    println!("ready after {:.1?}", started.elapsed());
    (recipe.request)(&place)?;
    for process in server.tree().processes() {
        println!("  {process}");
    }
    for port in server.tree().listening_ports()? {
        println!("  {port}");
    }

    // Whichever way this goes on, nothing of the server is left.
    match word(3) {
        Some("panic") => std::panic::resume_unwind(Box::new("on purpose")),
        Some("stay") => {
            println!("ready");
            std::thread::sleep(Duration::from_secs(60));
        }
        _ => {}
    }
    // Databases like to be asked first; what does not care is not waited for.
    let stopping = Instant::now();
    server.stop(Duration::from_secs(10))?;
    server.finish()?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("stopped in {:.1?}, port {port} is free", stopping.elapsed());
    place.done()
}
