//! The client: waits until the server answers, then sends it a handful of requests. HTTP over TCP.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::Result;
use crate::args::{Failure, Options};

/// Python on a busy machine takes seconds to start.
const READY_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The only sign of a server that is ready is its answer; this often we ask for it.
const ASK_EVERY: Duration = Duration::from_millis(20);
const MAX_ANSWER: u64 = 64 * 1024;
/// This many lines of err.log go into an error.
const TAIL: usize = 8;

const PATHS: [&str; 6] =
    ["/", "/square/1", "/square/7", "/square/12", "/square/111", "/square/65535"];

/// Asks until the server answers; an error if it ends before, or takes too long, with the last
/// lines of its err.log. `wait` waits for the server's end, this long at the most.
pub(crate) fn wait_until_it_answers(
    options: &Options,
    mut wait: impl FnMut(Duration) -> Result<Option<ExitStatus>>,
) -> Result<()> {
    let started = Instant::now();
    while let Err(error) = get(options.port, "/") {
        let why = match wait(ASK_EVERY)? {
            Some(status) => format!("the server ended before it answered: {status}"),
            None if started.elapsed() > READY_WITHIN => {
                format!("the server did not answer within {READY_WITHIN:?}: {error}")
            }
            None => continue,
        };
        return Err(format!("{why}\n{}", tail(options)).into());
    }
    println!("ready after {:.0?}", started.elapsed());
    Ok(())
}

fn tail(options: &Options) -> String {
    let path = options.err_log();
    let bytes = std::fs::read(&path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL)..];
    let said = if last.is_empty() { "(it is empty)".into() } else { last.join("\n  ") };
    format!("the end of {}:\n  {said}", path.display())
}

/// Sends the requests and prints each answer as it comes; fails in the middle if asked to.
pub(crate) fn send_requests(options: &Options) -> Result<()> {
    println!("\n{:<20} {:>9}  answer", "request", "ms");
    for (nth, path) in PATHS.iter().enumerate() {
        if nth == PATHS.len() / 2 {
            fail(options.failure)?;
        }
        let started = Instant::now();
        let answer = get(options.port, path).map_err(|error| format!("GET {path}: {error}"))?;
        println!(
            "{:<20} {:>9.2}  {answer}",
            format!("GET {path}"),
            started.elapsed().as_secs_f64() * 1e3
        );
    }
    Ok(())
}

#[expect(clippy::panic, reason = "to panic is what it was asked for")]
fn fail(failure: Option<Failure>) -> Result<()> {
    match failure {
        None => Ok(()),
        Some(Failure::Error) => Err("failed in the middle, as asked for by --error".into()),
        Some(Failure::Panic) => panic!("panicked in the middle, as asked for by --panic"),
    }
}

/// One request; the body of the answer without white space, or an error if the status is not 200.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = connect(port)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.split_whitespace().collect()),
        _ => Err(Error::other(format!(
            "not a good answer: {:?}",
            head.lines().next().unwrap_or_default()
        ))),
    }
}

/// Connects, but not to itself: while nobody listens, Linux may give a socket that very port as its
/// own, and then TCP's simultaneous open makes it talk to itself.
fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN)?;
    if stream.local_addr()? == stream.peer_addr()? {
        Err(ErrorKind::ConnectionRefused.into())
    } else {
        Ok(stream)
    }
}
