//! The server built in: one process that watches, and its child that serves. Standard library only.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::Result;

/// It ends by itself: an experiment that went wrong must not leave a server for ever.
const LIFE: Duration = Duration::from_secs(120);
/// A client that says nothing must not stop the others.
const PATIENCE: Duration = Duration::from_secs(5);
/// No request of ours is longer.
const MAX_REQUEST: u64 = 4096;

/// What a reloader does between two reloads: starts the real server and waits for it.
pub(crate) fn watch(port: u16) -> Result<()> {
    let status =
        Command::new(std::env::current_exe()?).args(["serve", &port.to_string()]).status()?;
    if status.success() { Ok(()) } else { Err(format!("the server ended: {status}").into()) }
}

/// The real server: one request for each connection, one connection after the other.
pub(crate) fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| format!("cannot listen on port {port}: {error}"))?;
    say!("serving on http://127.0.0.1:{port}, process {}", std::process::id());
    thread::spawn(|| {
        thread::sleep(LIFE);
        std::process::exit(0)
    });
    for stream in listener.incoming() {
        if let Err(error) = stream.and_then(answer) {
            eprintln!("a request failed: {error}");
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new((&stream).take(MAX_REQUEST)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest is read too: closing a socket that holds unread bytes resets it, and the client may
    // lose our answer.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = route(request.split(' ').nth(1).unwrap_or_default());
    eprintln!("{request} -> {status}");
    write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The same API as `examples/flask/app.py`.
fn route(path: &str) -> (&'static str, String) {
    let number = path.strip_prefix("/square/").and_then(|n| n.parse::<u32>().ok()).map(u64::from);
    match (path, number) {
        ("/", _) => ("200 OK", "ok".into()),
        (_, Some(n)) => (
            "200 OK",
            format!(r#"{{"n": {n}, "pid": {}, "square": {}}}"#, std::process::id(), n * n),
        ),
        _ => ("404 Not Found", "not found".into()),
    }
}
