//! The smallest HTTP client: one GET, one status line.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::ready::condition::{Found, Question, Url};

/// A server that takes longer is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn answer(question: &Question, deadline: Option<Instant>) -> Found {
    let Question { address, url } = question;
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let patience = left.unwrap_or(PATIENCE).clamp(Duration::from_millis(1), PATIENCE);
    match get(*address, url, patience) {
        Ok(Some(status)) => {
            let fine = url.status.map_or((200..400).contains(&status), |wanted| wanted == status);
            if fine { Found::It } else { Found::NotYet(Some(format!("last status: {status}"))) }
        }
        Ok(None) => Found::NotYet(Some("last answer: no HTTP".to_owned())),
        Err(error) => Found::NotYet(Some(format!("last answer: {error}"))),
    }
}

fn get(address: SocketAddr, url: &Url, patience: Duration) -> io::Result<Option<u16>> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let Url { host, path, .. } = url;
    // 1.1, though 1.0 would do for us: Chromium refuses that.
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut line = Vec::new();
    (&stream).take(12).read_to_end(&mut line)?;
    drain(stream);
    Ok(status(&line))
}

/// Reads on for a moment: a server whose answer is cut off complains in its log.
fn drain(mut stream: TcpStream) {
    let until = Instant::now() + Duration::from_millis(100);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    let mut buffer = vec![0; 16 * 1024];
    while Instant::now() < until && stream.read(&mut buffer).is_ok_and(|len| len > 0) {}
}

/// `HTTP/1.1 200 OK`
fn status(line: &[u8]) -> Option<u16> {
    let line = line.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(line.get(2..5)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_status_line() {
        assert_eq!(status(b"HTTP/1.0 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.1 503"), Some(503));
        for odd in [&b""[..], b"HTTP/1.1 ", b"HTTP/2 200", b"SSH-2.0-OpenSSH", b"HTTP/1.1 2x0"] {
            assert_eq!(status(odd), None);
        }
    }
}
