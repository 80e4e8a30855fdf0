//! Readiness where it is easily seen too early: at another address, at a debugger's port, at a
//! provisional answer; and what is said where a line never comes.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serial_test::parallel;
use tidy_process::{Child, Log, Ready, Stdio};

use crate::server::{free_port, server, soon};
use crate::support::{Alone, SOON, Stage, skip};

fn shortly() -> Instant {
    Instant::now() + Duration::from_millis(150)
}

fn refused(child: &Child, ready: Ready<'_>) -> String {
    let error = child.wait_ready(ready, shortly()).unwrap_err();
    assert!(error.is_not_ready() && !error.is_address_in_use(), "{error}");
    error.to_string()
}

#[test]
#[parallel]
fn a_server_is_not_ready_at_an_address_where_it_does_not_listen() {
    let Some(stage) = Stage::set() else { return };
    for (listens, at, not) in [
        ("[::1]", "localhost", "127.0.0.1"),
        ("127.0.0.1", "localhost", "[::1]"),
        ("0.0.0.0", "127.0.0.1", "::1"),
        ("127.0.0.2", "127.0.0.2", "localhost"),
    ] {
        let port = free_port();
        let script = format!("tcp {listens}:{port}\nsay up\nhttp 200\nstay");
        let child = server(&stage, &script).log(&Log::bounded(0, 99)).spawn().unwrap();
        child.wait_ready(Ready::log("up"), soon()).unwrap();
        let said = refused(&child, Ready::tcp_at(not, port));
        assert!(said.contains(&format!("tcp port {port} at {not:?}: not yet")), "{said}");
        assert!(said.contains(&format!("listening on: tcp {listens}:{port}")), "{said}");
        let not = if not == "::1" { "[::1]" } else { not };
        refused(&child, Ready::http(&format!("http://{not}:{port}/health")).unwrap());
        child.wait_ready(Ready::tcp_at(at, port), soon()).unwrap();
        child.wait_ready(Ready::tcp_at("a.name", port), soon()).unwrap();
        let url = format!("http://{at}:{port}/health");
        child.wait_ready(Ready::http(&url).unwrap(), soon()).unwrap();
    }
    stage.close(Alone::No);
}

/// `[::]` takes what comes by IPv4 too, unless it was told not to.
#[test]
#[parallel]
fn a_socket_for_ipv6_alone_is_not_ready_for_ipv4() {
    let Some(stage) = Stage::set() else { return };
    for v6_only in [0, 1] {
        let port = free_port();
        let script = format!(
            "import socket, time; s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, {v6_only})
s.bind(('::', {port})); s.listen(); time.sleep(30)"
        );
        let child = stage.command("python3").args(["-c", &script]).spawn().unwrap();
        child.wait_ready(Ready::tcp_at("::1", port), soon()).unwrap();
        if v6_only == 1 {
            refused(&child, Ready::tcp_at("127.0.0.1", port));
        } else {
            child.wait_ready(Ready::tcp_at("127.0.0.1", port), soon()).unwrap();
        }
    }
    stage.close(Alone::No);
}

/// The debugger listens at once, the application when it is told to.
/// Whose port it is tells, not its number.
#[test]
#[parallel]
fn a_server_may_have_the_port_that_node_gives_its_debugger() {
    let Some(stage) = Stage::set() else { return };
    let script = "import http.server as h
for port in range(9229, 9239):
    try: server = h.HTTPServer(('127.0.0.1', port), h.BaseHTTPRequestHandler)
    except OSError: continue
    server.serve_forever()";
    let child = stage.command("python3").args(["-c", script]).spawn().unwrap();
    child.wait_ready(Ready::any_tcp(), soon()).unwrap();
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_debuggers_port_is_not_any_port() {
    let Some(stage) = Stage::set() else { return };
    if std::process::Command::new("node").arg("-v").output().is_err() {
        return skip("node is missing: install the package nodejs");
    }
    let debugger = free_port();
    let app = "process.stdin.once('data', () => require('http').createServer()
        .listen(0, '127.0.0.1', () => console.log('app up')))";
    for inspect in [format!("--inspect=127.0.0.1:{debugger}"), "--inspect=0".to_owned()] {
        let log = Log::bounded(0, 999);
        let mut command = stage.command("node");
        command.args([&*inspect, "-e", app]).stdin(Stdio::piped()).log(&log);
        let mut child = command.spawn().unwrap();
        child.wait_ready(Ready::log("Debugger listening"), soon()).unwrap();
        let debugger = child.tree().listening_ports().unwrap()[0].address.port();
        let said = refused(&child, Ready::any_tcp());
        assert!(said.contains(&format!("port {debugger} is a debugger's")), "{said}");
        // It counts where it is meant.
        child.wait_ready(Ready::tcp(debugger), soon()).unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
        child.wait_ready(Ready::any_tcp(), soon()).unwrap();
        let ports = child.tree().listening_ports().unwrap();
        assert_eq!(ports.len(), 2, "{ports:?}");
        if inspect != "--inspect=0" {
            assert_ne!(ports[0].address.port(), debugger, "{ports:?}");
        }
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_provisional_answer_is_not_the_servers() {
    let Some(stage) = Stage::set() else { return };
    let port = free_port();
    let url = format!("http://localhost:{port}/health");
    let script = format!("tcp 127.0.0.1:{port}\nearly 503\nearly 204\nhttp 500\nstay");
    let child = server(&stage, &script).spawn().unwrap();
    let start = Instant::now();
    child.wait_ready(Ready::http(&url).unwrap(), soon()).unwrap();
    let error = child.wait_ready(Ready::http(&url).unwrap(), shortly()).unwrap_err();
    assert!(error.to_string().contains("last status: 500"), "{error}");
    assert!(start.elapsed() < SOON / 2);
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn an_empty_log_is_met_with_a_hint_at_buffering() {
    let Some(stage) = Stage::set() else { return };
    let log = Log::bounded(0, 99);
    // Python holds back what it prints to a pipe.
    let script = "import time; print('READY'); time.sleep(30)";
    let mut command = stage.command("python3");
    let child =
        command.args(["-c", script]).env_remove("PYTHONUNBUFFERED").log(&log).spawn().unwrap();
    let error = child.wait_ready(Ready::log("READY"), shortly()).unwrap_err();
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("PYTHONUNBUFFERED=1") && hint.contains("stdbuf"), "{error:#}");
    drop((command, child));
    let child = stage.sh("echo other; exec sleep 30").log(&log).spawn().unwrap();
    child.wait_ready(Ready::log("other"), soon()).unwrap();
    assert_eq!(child.wait_ready(Ready::log("READY"), shortly()).unwrap_err().hint(), None);
    drop(child);
    stage.close(Alone::No);
}

#[test]
fn https_is_refused_in_words() {
    let error = Ready::http("https://localhost/").unwrap_err();
    assert!(error.is_invalid_input() && error.to_string().contains("https is not spoken"));
}

/// A process outside that has the very port, at another address than the tree's.
#[test]
#[parallel]
fn a_stranger_at_that_address_is_named() {
    let Some(stage) = Stage::set() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let log = Log::bounded(0, 99);
    let script = format!("tcp [::1]:{port}\nsay up\nstay");
    let child = server(&stage, &script).log(&log).spawn().unwrap();
    child.wait_ready(Ready::log("up"), soon()).unwrap();
    let error = child.wait_ready(Ready::tcp_at("127.0.0.1", port), soon()).unwrap_err();
    assert_eq!(error.holder().map(|holder| holder.pid), Some(std::process::id()), "{error}");
    child.wait_ready(Ready::tcp_at("::1", port), soon()).unwrap();
    drop((child, listener));
    stage.close(Alone::No);
}
