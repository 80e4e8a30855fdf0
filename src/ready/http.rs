//! The smallest HTTP client: one GET, one status line.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::ready::condition::{Found, Question};
use crate::ready::url::Url;

/// How long a server may take to answer before it is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Bytes that are read for a status line and all provisional answers before it.
const HEADS: usize = 64 * 1024;

pub(crate) fn answer(question: &Question, deadline: Option<Instant>) -> Found {
    let Question { address, url } = question;
    let now = Instant::now();
    let latest = now + ANSWER_WITHIN;
    let until = deadline.unwrap_or(latest).clamp(now + Duration::from_millis(1), latest);
    match get(*address, url, until) {
        Ok(Some(status)) => {
            let fine = url.status.map_or((200..400).contains(&status), |wanted| wanted == status);
            if fine { Found::It } else { Found::NotYet(Some(format!("last status: {status}"))) }
        }
        Ok(None) => Found::NotYet(Some("last answer: no HTTP".to_owned())),
        // Cut by the deadline of the wait: what the server said before tells more.
        Err(_) if until < latest && Instant::now() >= until => Found::NotYet(None),
        Err(error) => Found::NotYet(Some(format!("last answer: {error}"))),
    }
}

/// Sends the GET and reads the status, all of it until then: a server that sends a byte now and
/// then does not prolong the wait.
fn get(address: SocketAddr, url: &Url, until: Instant) -> io::Result<Option<u16>> {
    let mut stream = TcpStream::connect_timeout(&address, left(until)?)?;
    let Url { host, path, .. } = url;
    // 1.1, though 1.0 would suffice: Chromium refuses that.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut rest = request.as_bytes();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        let written = stream.write(rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    let mut heads = Vec::new();
    let status = loop {
        match status(&heads) {
            Status::Final(status) => break Some(status),
            Status::Unread if heads.len() < HEADS => {}
            Status::Unread | Status::None => break None,
        }
        stream.set_read_timeout(Some(left(until)?))?;
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer)? {
            0 => break None,
            len => heads.extend_from_slice(buffer.get(..len).unwrap_or_default()),
        }
    };
    drain(stream, until);
    Ok(status)
}

/// Returns what is left of the time; if none is, the error that a silent server causes.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Reads on for 100 ms at the most: a server whose answer is cut off complains in its log.
fn drain(mut stream: TcpStream, until: Instant) {
    let until = until.min(Instant::now() + Duration::from_millis(100));
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(left) = left(until) {
        let patience = Some(left.min(Duration::from_millis(50)));
        let heard = stream.set_read_timeout(patience).and_then(|()| stream.read(&mut buffer));
        if !heard.is_ok_and(|len| len > 0) {
            break;
        }
    }
}

/// What the bytes of an answer say so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Final(u16),
    /// It is in what was not read yet.
    Unread,
    /// This is no HTTP.
    None,
}

/// Bytes of `HTTP/1.1 200`.
const STATUS_LINE: usize = 12;

/// Parses the status of `HTTP/1.1 200 OK`. Provisional answers (100, 103 Early Hints) may come
/// before it.
pub(crate) fn status(mut heads: &[u8]) -> Status {
    while heads.len() >= STATUS_LINE {
        let parsed = heads.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
        let parsed = parsed.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        match parsed {
            None => return Status::None,
            Some(100 | 102..=199) => {}
            Some(status) => return Status::Final(status),
        }
        let Some(end) = heads.windows(4).position(|four| four == b"\r\n\r\n") else { break };
        heads = heads.get(end + 4..).unwrap_or_default();
    }
    Status::Unread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_status_line() {
        assert_eq!(status(b"HTTP/1.0 200 OK\r\n"), Status::Final(200));
        assert_eq!(status(b"HTTP/1.1 503"), Status::Final(503));
        assert_eq!(status(b"HTTP/1.1 101 Switching"), Status::Final(101));
        for odd in [&b"HTTP/2 200  "[..], b"SSH-2.0-OpenSSH", b"HTTP/1.1 2x0"] {
            assert_eq!(status(odd), Status::None);
        }
        for short in [&b""[..], b"HTTP/1.1 ", b"HTTP/1.1 20"] {
            assert_eq!(status(short), Status::Unread);
        }
    }

    #[test]
    fn a_provisional_answer_is_not_the_status() {
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        assert_eq!(status(hints), Status::Unread);
        assert_eq!(status(hints.get(..40).unwrap_or_default()), Status::Unread);
        assert_eq!(status(&[&hints[..], b"HTTP/1.1 404 X"].concat()), Status::Final(404));
        let many = [&hints[..], &hints[..], b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 X"];
        assert_eq!(status(&many.concat()), Status::Final(204));
    }
}
