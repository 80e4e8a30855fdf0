//! The limits, with short times: clients that are slow, silent, many, or do not read.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

/// Longer than anything here takes on a loaded machine.
const SOON: Duration = Duration::from_secs(20);

const SHORT: Limits = Limits {
    most: 2,
    patience: Duration::from_millis(300),
    idle: Duration::from_millis(400),
    interval: Duration::from_millis(50),
};

const PATIENT: Limits = Limits { patience: SOON, idle: SOON, ..SHORT };

/// A server of the host's, and a proxy that leads there.
struct Pair {
    server: TcpListener,
    proxy: SocketAddr,
}

impl Pair {
    fn start(limits: Limits) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Host::parse(&server.local_addr().unwrap().to_string()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = listener.local_addr().unwrap();
        let rules = Arc::new(Rules::new(vec![host]));
        // It ends with the test binary.
        thread::spawn(move || accept(&listener, &rules, limits));
        Self { server, proxy }
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.proxy).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client
    }

    /// Both ends of a way through.
    fn way(&self) -> (TcpStream, TcpStream) {
        let mut client = self.client();
        let to = self.server.local_addr().unwrap();
        write!(client, "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").unwrap();
        let (server, _) = self.server.accept().unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        let mut head = [0; 39];
        client.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 Connection established\r\n\r\n");
        (client, server)
    }
}

/// All that comes until the end; a reset is one.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_request_that_has_no_end_is_given_up() {
    let pair = Pair::start(SHORT);
    let start = Instant::now();
    let said = rest(&mut pair.client());
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("has no end"), "{said}");
    assert!(start.elapsed() >= SHORT.patience);
    // Also where a byte comes each time before it would be given up for silence.
    let mut client = pair.client();
    let mut slow = client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let bytes = b"CONNECT ".iter().chain(std::iter::repeat(&b'x'));
        for byte in bytes.take(400) {
            if slow.write_all(&[*byte]).is_err() {
                return true;
            }
            // Many in the time for a request, and few enough for its length.
            thread::sleep(SHORT.patience / 6);
        }
        false
    });
    let said = rest(&mut client);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
    drop(client);
    assert!(sender.join().unwrap(), "it is still served after 400 bytes");
}

#[test]
fn connections_are_counted_and_given_back() {
    let pair = Pair::start(PATIENT);
    let held = [pair.way(), pair.way()];
    let said = rest(&mut pair.client());
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("too many"), "{said}");
    let [(client, server), _other] = held;
    drop((client, server));
    // Nothing announces that both threads have seen the ends.
    let deadline = Instant::now() + SOON;
    loop {
        let mut client = pair.client();
        write!(client, "GET / HTTP/1.1\r\n\r\n").unwrap();
        let said = rest(&mut client);
        if said.starts_with("HTTP/1.1 405 ") {
            return;
        }
        assert!(Instant::now() < deadline, "{said}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_way_on_which_nothing_comes_is_closed() {
    let pair = Pair::start(SHORT);
    let (mut client, mut server) = pair.way();
    let start = Instant::now();
    assert_eq!((rest(&mut client), rest(&mut server)), (String::new(), String::new()));
    assert!(start.elapsed() >= SHORT.idle, "{:?}", start.elapsed());
}

#[test]
fn one_on_which_something_comes_either_way_is_not() {
    // Far longer than the pauses here, and shorter than all of them.
    let limits = Limits { idle: Duration::from_secs(2), ..SHORT };
    let pair = Pair::start(limits);
    let (mut client, mut server) = pair.way();
    for _ in 0..12 {
        server.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        thread::sleep(limits.idle / 10);
    }
    // The end of one direction is passed on, the other goes on.
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut server), "");
    server.write_all(b"after").unwrap();
    drop(server);
    assert_eq!(rest(&mut client), "after");
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    let pair = Pair::start(SHORT);
    let (client, mut server) = pair.way();
    server.set_write_timeout(Some(SOON)).unwrap();
    let chunk = vec![0; 1 << 16];
    // More than all buffers on the way hold.
    let refused = (0..4096).find_map(|_| server.write_all(&chunk).err());
    let kind = refused.map(|error| error.kind());
    let ended = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    assert!(kind.is_some_and(|kind| ended.contains(&kind)), "{kind:?}");
    drop(client);
}
