//! Serves connections: reads a request, connects, and hands bytes over. The command chose all that
//! comes in: each request is bounded in length and time, and connections in number.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidy_process::cli_support::{quoted, shortened};

use crate::print::text;
use crate::proxy::rules::{Host, Rules};

/// What a client may take up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at one time, each with two threads.
    most: usize,
    /// For the whole request.
    patience: Duration,
    /// A connection on which nothing comes either way is closed.
    idle: Duration,
    /// How often it is looked at.
    interval: Duration,
}

pub(super) const LIMITS: Limits = Limits {
    most: 128,
    patience: Duration::from_secs(10),
    idle: Duration::from_secs(600),
    interval: Duration::from_secs(10),
};

/// Bytes of a request, up to the empty line.
const HEAD: usize = 8 << 10;
const HEADERS: usize = 64;
/// For one address of a host.
const CONNECT: Duration = Duration::from_secs(10);
/// Addresses of a host that are tried.
const ADDRESSES: usize = 4;
/// Refusals that are said on standard error.
const SAID: usize = 10;

static REFUSALS: AtomicUsize = AtomicUsize::new(0);

pub(super) fn accept(listener: &TcpListener, rules: &Arc<Rules>, limits: Limits) {
    let open = Arc::new(());
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            // The client has gone, or fds have run out: those of others are closed some time.
            Err(_) => {
                thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        if Arc::strong_count(&open) > limits.most {
            let _ = answer(&client, limits, "503 Service Unavailable", "too many connections");
            continue;
        }
        let (rules, counted) = (Arc::clone(rules), Arc::clone(&open));
        let served = move || {
            let _counted = counted;
            let _ = serve(&client, &rules, limits);
        };
        // Without a thread the connection is closed.
        let _ = thread::Builder::new().spawn(served);
    }
}

fn serve(client: &TcpStream, rules: &Rules, limits: Limits) -> io::Result<()> {
    let (host, rest) = match request(client, limits.patience) {
        Ok(found) => found,
        Err(Refusal(status, why)) => return answer(client, limits, status, &why),
    };
    match connect(&host, rules) {
        Ok(server) => {
            client.set_write_timeout(Some(limits.idle))?;
            (&mut &*client).write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            (&mut &server).write_all(&rest)?;
            join(client, &server, limits)
        }
        Err(Refusal(status, why)) => {
            if REFUSALS.fetch_add(1, Ordering::Relaxed) < SAID {
                let name = shortened(host.name(), 100);
                text::line(format_args!("no way to {}: {why}", quoted(&name)));
            }
            answer(client, limits, status, &why)
        }
    }
}

/// A status, and what is said with it.
struct Refusal(&'static str, String);

const BAD: &str = "400 Bad Request";
const FORBIDDEN: &str = "403 Forbidden";

/// Reads a request: the host, and what came behind it.
fn request(client: &TcpStream, patience: Duration) -> Result<(Host, Vec<u8>), Refusal> {
    let bad = |why: &str| Refusal(BAD, why.to_owned());
    let (mut head, until) = (Vec::new(), Instant::now() + patience);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(length)) => {
                let host = target(&request)?;
                return Ok((host, head.get(length..).unwrap_or_default().to_vec()));
            }
            Ok(httparse::Status::Partial) if head.len() < HEAD => {}
            Ok(httparse::Status::Partial) => return Err(bad("the request is too long")),
            Err(error) => return Err(bad(&error.to_string())),
        }
        let left = until.saturating_duration_since(Instant::now());
        let mut chunk = [0; 1 << 10];
        // A timeout of 0 would be none.
        let timely = !left.is_zero() && client.set_read_timeout(Some(left)).is_ok();
        match timely.then(|| (&mut &*client).read(&mut chunk)) {
            Some(Ok(count @ 1..)) => head.extend(chunk.get(..count).unwrap_or_default()),
            _ => return Err(bad("the request has no end")),
        }
    }
}

fn target(request: &httparse::Request<'_, '_>) -> Result<Host, Refusal> {
    if request.method != Some("CONNECT") {
        let why = "this proxy only knows CONNECT (https)".to_owned();
        return Err(Refusal("405 Method Not Allowed", why));
    }
    let target = request.path.unwrap_or_default();
    // A request has a port; without one a bare name would get the default.
    match Host::parse(target).ok().filter(|_| target.rsplit(':').next() != Some(target)) {
        Some(host) => Ok(host),
        None => Err(Refusal(BAD, "CONNECT takes HOST:PORT".to_owned())),
    }
}

/// Connects to an address that the host has now: it is looked up once, so another answer later
/// leads nowhere.
fn connect(host: &Host, rules: &Rules) -> Result<TcpStream, Refusal> {
    let (name, port) = (host.name(), host.port());
    if !rules.allow(host) {
        return Err(Refusal(FORBIDDEN, format!("allow it with --allow-host {host}")));
    }
    let failed = |error: io::Error| Refusal("502 Bad Gateway", error.to_string());
    let found: Vec<SocketAddr> = (name, port).to_socket_addrs().map_err(failed)?.collect();
    let allowed = found.iter().filter(|found| rules.allow_address(host, found.ip()));
    let mut last = match found.first() {
        Some(first) => {
            let first = first.ip();
            let why = format!("it is {first}, which is private: name that with --allow-host too");
            Refusal(FORBIDDEN, why)
        }
        None => Refusal("502 Bad Gateway", "it has no address".to_owned()),
    };
    for address in allowed.take(ADDRESSES) {
        match TcpStream::connect_timeout(address, CONNECT) {
            Ok(server) => return Ok(server),
            Err(error) => last = failed(error),
        }
    }
    Err(last)
}

fn answer(client: &TcpStream, limits: Limits, status: &str, why: &str) -> io::Result<()> {
    client.set_write_timeout(Some(limits.patience))?;
    let length = why.len() + 1;
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    (&mut &*client).write_all(format!("{head}{why}\n").as_bytes())?;
    client.shutdown(Shutdown::Write)
}

/// Hands over what comes, both ways, until both have ended.
fn join(client: &TcpStream, server: &TcpStream, limits: Limits) -> io::Result<()> {
    let seen = Seen { start: Instant::now(), last: AtomicU64::new(0), idle: limits.idle };
    for stream in [client, server] {
        stream.set_read_timeout(Some(limits.interval))?;
        stream.set_write_timeout(Some(limits.idle))?;
    }
    thread::scope(|scope| {
        let back = thread::Builder::new().spawn_scoped(scope, || pass(server, client, &seen));
        if back.is_ok() {
            pass(client, server, &seen);
        }
    });
    Ok(())
}

/// When a byte was seen last, either way.
struct Seen {
    start: Instant,
    /// Milliseconds from the start on.
    last: AtomicU64,
    idle: Duration,
}

impl Seen {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        let silent = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
        u128::from(silent) > self.idle.as_millis()
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, seen: &Seen) {
    let mut chunk = vec![0; 16 << 10];
    loop {
        match from.read(&mut chunk) {
            Ok(count @ 1..) => {
                seen.note();
                if to.write_all(chunk.get(..count).unwrap_or_default()).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if seen.is_idle() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Its end is passed on; the other direction may go on.
            Ok(_) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Err(_) => break,
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests;
