//! A port inside that is served from outside, and the tool's proxy on it: the only way out.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(feature = "cli")]
use std::thread::JoinHandle;
#[cfg(feature = "cli")]
use std::time::Duration;

use serial_test::serial;
use tidy_process::{Network, Sandbox, Stdio};

use super::{boxed, stage};
#[cfg(feature = "cli")]
use crate::support::Stage;
use crate::support::{Alone, SOON, until};

const PORT: u16 = 8117;

fn forwarding() -> Sandbox {
    Sandbox::new().system().network(Network::Forward(PORT))
}

/// Accepts within the time.
fn accepted(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut found = None;
    assert!(until(SOON, || {
        found = listener.accept().ok();
        found.is_some()
    }));
    let (stream, _) = found.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

#[test]
#[serial]
fn a_port_inside_is_served_from_outside() {
    let Some(stage) = stage() else { return };
    let script = "/usr/bin/python3 -c '
import socket
with socket.create_connection((\"127.0.0.1\", 8117), 20) as s:
    s.sendall(b\"question\"); s.shutdown(1); print(s.makefile().read())
'";
    for join in [false, true] {
        let mut command = boxed(&stage, script, &forwarding());
        let mut child = command.force_join(join).stdout(Stdio::piped()).spawn().unwrap();
        let listener = child.forwarded.take().unwrap();
        assert_eq!(listener.local_addr().unwrap(), SocketAddr::from(([127, 0, 0, 1], PORT)));
        // It listens in a network that is not this one.
        assert!(TcpStream::connect(listener.local_addr().unwrap()).is_err());
        let (mut stream, mut text) = (accepted(&listener), String::new());
        stream.read_to_string(&mut text).unwrap();
        stream.write_all(b"answer").unwrap();
        drop((stream, listener));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((text.as_str(), said.as_str()), ("question", "answer\n"));
    }
    stage.close(Alone::Yes);
}

#[cfg(feature = "tokio")]
#[test]
#[serial]
fn so_it_is_in_a_runtime() {
    let Some(stage) = stage() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let script = "/usr/bin/python3 -c 'import socket
socket.create_connection((\"127.0.0.1\", 8117), 20)'";
    runtime.block_on(async {
        let mut child = boxed(&stage, script, &forwarding()).spawn_async().unwrap();
        let listener = child.forwarded.take().unwrap();
        tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
        assert!(child.wait().await.unwrap().success());
        child.finish().await.unwrap();
    });
    drop(runtime);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn without_the_socket_outside_there_is_no_way_out() {
    let Some(stage) = stage() else { return };
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let script = format!(
        "/usr/bin/python3 -c '
import socket
for port in (8117, {}):
    try: socket.create_connection((\"127.0.0.1\", port), 5); print(\"reached\")
    except OSError as error: print(type(error).__name__)
print(sorted(name for _, name in socket.if_nameindex()))
' 2>&1; ls -l /proc/self/fd | grep -c socket",
        host.local_addr().unwrap().port(),
    );
    let mut command = boxed(&stage, &format!("read line; {script}"), &forwarding());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.forwarded.take());
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "ConnectionRefusedError\nConnectionRefusedError\n['lo']\n0\n");
    assert!(host.accept().is_err());
    // No other network has one.
    for network in [Network::None, Network::Loopback, Network::Host] {
        let sandbox = Sandbox::new().system().network(network);
        let child = boxed(&stage, "true", &sandbox).spawn().unwrap();
        assert!(child.forwarded.is_none());
    }
    let error = boxed(&stage, "true", &Sandbox::new().network(Network::Forward(0))).run();
    assert!(error.unwrap_err().is_invalid_input());
    let named = forwarding().fail_at(19);
    let error = boxed(&stage, "true", &named).run().unwrap_err();
    assert!(error.to_string().starts_with("confine (port of its network, listen)"), "{error}");
    drop((named, command, host));
    stage.close(Alone::Yes);
}

/// Sends a request from inside, through the proxy; what comes back.
#[cfg(feature = "cli")]
const ASK: &str = "import os, socket, sys
proxy = os.environ['HTTPS_PROXY']; assert proxy == os.environ['https_proxy']
host, port = proxy.removeprefix('http://').rsplit(':', 1)
with socket.create_connection((host, int(port)), 20) as s:
    s.sendall(sys.argv[1].encode().decode('unicode_escape').encode('latin1'))
    sys.stdout.write(s.makefile(newline='').read())";

#[cfg(feature = "cli")]
fn asked(stage: &Stage, hosts: &[&str], request: &str) -> (String, String) {
    let mut args = vec!["run", "--sandbox", "-C", "/"];
    hosts.iter().for_each(|host| args.extend(["--allow-host", host]));
    args.extend(["--", "/usr/bin/python3", "-c", ASK, request]);
    let output = stage.tool(&args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// A server of the host's that answers each connection with what it has read.
#[cfg(feature = "cli")]
struct Echo {
    port: u16,
    thread: Option<JoinHandle<()>>,
}

#[cfg(feature = "cli")]
impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut bytes = [0; 64];
                let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
                let count = (&stream).read(&mut bytes).unwrap_or(0);
                if &bytes[..count] == b"end" {
                    return;
                }
                let _ = (&stream).write_all(&[b"echo ", &bytes[..count]].concat());
            }
        });
        Self { port, thread: Some(thread) }
    }
}

#[cfg(feature = "cli")]
impl Drop for Echo {
    fn drop(&mut self) {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap().write_all(b"end").unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

#[cfg(feature = "cli")]
#[test]
#[serial]
fn the_proxy_leads_to_what_is_named_and_nowhere_else() {
    let Some(stage) = stage() else { return };
    let echo = Echo::start();
    let port = echo.port;
    let named = format!("127.0.0.1:{port}");
    let connect = |to: &str| format!("CONNECT {to} HTTP/1.1\\r\\nHost: {to}\\r\\n\\r\\nhello");
    let (said, errors) = asked(&stage, &[&named, "example.org"], &connect(&named));
    assert_eq!(said, "HTTP/1.1 200 Connection established\r\n\r\necho hello", "{errors}");
    // By its name, which leads to the same address: only if that is named.
    let name = format!("localhost:{port}");
    assert!(asked(&stage, &[&name], &connect(&name)).0.ends_with("echo hello"));
    // getaddrinfo(3) takes these for 127.0.0.1.
    for odd in ["127.1", "2130706433", "0x7f.1"].map(|name| format!("{name}:{port}")) {
        let (said, errors) = asked(&stage, &[&odd], &connect(&odd));
        assert!(said.starts_with("HTTP/1.1 403 Forbidden"), "{odd}: {said}");
        assert!(errors.contains("127.0.0.1, which is private"), "{errors}");
        assert!(asked(&stage, &[&odd, &named], &connect(&odd)).0.ends_with("echo hello"));
    }
    for (to, status) in [
        (named.as_str(), "403"),
        ("example.org:80", "403"),
        ("sub.example.org:443", "403"),
        ("example.org", "400"),
        ("example.org:", "400"),
        ("[::1]:443", "403"),
        ("user@example.org:443", "400"),
    ] {
        let (said, errors) = asked(&stage, &["example.org"], &connect(to));
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{to}: {said}");
        let hint = format!("allow it with --allow-host {to}");
        assert!(status != "403" || said.contains(&hint) && errors.contains(&hint), "{errors}");
    }
    drop(echo);
    stage.close(Alone::Yes);
}

/// Several at a time, each in a network of its own.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn one_proxy_leads_all_commands_of_a_pool() {
    let Some(stage) = stage() else { return };
    let echo = Echo::start();
    let named = format!("127.0.0.1:{}", echo.port);
    let connect = |to: &str| format!("CONNECT {to} HTTP/1.1\\r\\nHost: {to}\\r\\n\\r\\nhello");
    let mut args = vec!["pool", "-q", "-j3", "--keep-order", "--sandbox", "-C", "/"];
    args.extend(["--allow-host", &named, "--", "/usr/bin/python3", "-c", ASK, "{}", ":::"]);
    let (allowed, refused) = (connect(&named), connect("example.org:443"));
    args.extend([&allowed, &refused, &allowed, &refused, &allowed, &allowed].map(|it| &**it));
    let output = stage.tool(&args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let answers: Vec<&str> = said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(answers, ["200", "403", "200", "403", "200", "200"], "{said}");
    assert_eq!(said.matches("echo hello").count(), 4, "{said}");
    assert_eq!(errors.matches("allow it with --allow-host example.org:443").count(), 2, "{errors}");
    drop(echo);
    stage.close(Alone::Yes);
}

#[cfg(feature = "cli")]
#[test]
#[serial]
fn requests_are_bounded_and_only_connect_is_known() {
    let Some(stage) = stage() else { return };
    let long = format!("CONNECT a.b:443 HTTP/1.1\\r\\nX: {}\\r\\n\\r\\n", "x".repeat(9000));
    let many = format!("CONNECT a.b:443 HTTP/1.1\\r\\n{}\\r\\n", "X: y\\r\\n".repeat(100));
    for (request, status) in [
        ("GET http://a.b/ HTTP/1.1\\r\\n\\r\\n", "405"),
        ("CONNECT a.b:443 HTTP/1.1\\r\\nbroken\\r\\n\\r\\n", "400"),
        ("\\0\\0\\0", "400"),
        ("\\x1b[2J CONNECT", "400"),
        (&long, "400"),
        (&many, "400"),
    ] {
        let (said, errors) = asked(&stage, &["a.b"], request);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {said}{errors}");
    }
    let conflict = ["run", "--sandbox", "--allow-host", "a.b", "--net", "host", "--", "true"];
    assert_eq!(stage.tool(&conflict).output().unwrap().status.code(), Some(125));
    let plan = ["run", "--sandbox", "--allow-host", "a.b", "--plan"];
    let plan = String::from_utf8(stage.tool(&plan).output().unwrap().stdout).unwrap();
    assert!(plan.contains("its own loopback, its port 3128 served from outside"), "{plan}");
    assert!(plan.contains("allow host a.b:443"), "{plan}");
    stage.close(Alone::Yes);
}
