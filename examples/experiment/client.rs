//! The client: sends the server a handful of requests. HTTP over TCP.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::Result;
use crate::args::{Failure, Options};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const MAX_ANSWER: u64 = 64 * 1024;
const PATHS: [&str; 6] =
    ["/", "/square/1", "/square/7", "/square/12", "/square/111", "/square/65535"];

/// Sends the requests and prints each answer as it comes; fails in the middle if asked to.
pub(crate) fn send_requests(options: &Options) -> Result<()> {
    say!("\n{:<20} {:>9}  answer", "request", "ms");
    for (nth, path) in PATHS.iter().enumerate() {
        if nth == PATHS.len() / 2 {
            fail(options.failure)?;
        }
        let started = Instant::now();
        let answer = get(options.port, path).map_err(|error| format!("GET {path}: {error}"))?;
        say!(
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
pub(crate) fn get(port: u16, path: &str) -> std::io::Result<String> {
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

/// Connects, but not to itself: while no server listens, Linux may give a socket that very port as
/// its own, and then TCP's simultaneous open makes it talk to itself.
fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN)?;
    if stream.local_addr()? == stream.peer_addr()? {
        Err(ErrorKind::ConnectionRefused.into())
    } else {
        Ok(stream)
    }
}
