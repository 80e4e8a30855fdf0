//! Listening ports: all of the tree's, with owners, and nobody else's.

use std::net::{TcpListener, TcpStream};
use std::thread;

use serial_test::{parallel, serial};
use tidy_process::{Command, ListeningPort, Protocol, Ready, Stdio};

use crate::server::{server, soon};
use crate::support::{Alone, Stage, read_ready};

/// A child that has said that it is ready.
fn ready(mut command: Command) -> tidy_process::Child {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    child
}

fn said(ports: &[ListeningPort]) -> Vec<String> {
    ports.iter().map(|port| format!("{:?} {}", port.protocol, port.address.ip())).collect()
}

#[test]
#[parallel]
fn tcp_and_udp_over_ipv4_and_ipv6_are_listed_with_their_owners() {
    let Some(stage) = Stage::set() else { return };
    let script = "tcp 127.0.0.1:0\ntcp 0.0.0.0:0\ntcp [::1]:0\nudp 127.0.0.1:0\nudp [::]:0\n\
        say ready\nstay";
    let child = ready(server(&stage, script));
    let ports = child.tree().listening_ports().unwrap();
    let mut all = said(&ports);
    all.sort();
    assert_eq!(all, ["Tcp 0.0.0.0", "Tcp 127.0.0.1", "Tcp ::1", "Udp 127.0.0.1", "Udp ::"]);
    assert!(ports.iter().all(|port| port.pid == child.id() && port.name.starts_with("it-")));
    let first = &ports[0];
    let shown = format!("tcp {} ({} {})", first.address, first.pid, first.name);
    assert_eq!(first.to_string(), shown);
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn only_listeners_of_the_tree_are_listed() {
    let Some(stage) = Stage::set() else { return };
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo ready; read x");
    let mut command = stage.command("bash");
    let child = ready({
        command.args(["-c", &script]).stdin(Stdio::piped());
        command
    });
    assert_eq!(child.tree().listening_ports().unwrap(), []);
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_socket_that_workers_share_is_listed_for_each() {
    let Some(stage) = Stage::set() else { return };
    let script = "import os, socket, time
s = socket.create_server(('127.0.0.1', 0))
for _ in range(2):
    if os.fork() == 0:
        time.sleep(30)
print('ready', flush=True)
time.sleep(30)";
    let mut command = stage.command("python3");
    command.args(["-c", script]);
    let child = ready(command);
    let ports = child.tree().listening_ports().unwrap();
    assert_eq!(ports.len(), 3, "{ports:?}");
    assert!(ports.iter().all(|port| port.address == ports[0].address));
    assert!(ports[0].pid < ports[1].pid && ports[1].pid < ports[2].pid);
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_server_without_its_main_thread_is_listed() {
    let Some(stage) = Stage::set() else { return };
    let script = "import ctypes, socket, threading, time
s = socket.create_server(('127.0.0.1', 0))
def serve():
    while '\\nState:\\tZ' not in open('/proc/self/status').read():
        time.sleep(0.001)
    print('ready', flush=True)
    time.sleep(30)
threading.Thread(target=serve).start()
ctypes.CDLL(None).pthread_exit(None)";
    let mut command = stage.command("python3");
    command.args(["-c", script]);
    let child = ready(command);
    assert_eq!(said(&child.tree().listening_ports().unwrap()), ["Tcp 127.0.0.1"]);
    child.wait_ready(Ready::any_tcp(), soon()).unwrap();
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn ports_in_another_network_namespace_are_found() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.command("unshare");
    let script = "tcp 0.0.0.0:7\nudp 0.0.0.0:9\nsay ready\nstay";
    command.arg("-n").arg(crate::victim::exe()).env("TIDY_SERVER", script);
    let child = ready(command);
    let ports = child.tree().listening_ports().unwrap();
    assert_eq!(said(&ports), ["Tcp 0.0.0.0", "Udp 0.0.0.0"]);
    assert_eq!((ports[0].protocol, ports[0].address.port()), (Protocol::Tcp, 7));
    child.wait_ready(Ready::tcp(7), soon()).unwrap();
    drop(child);
    stage.close(Alone::No);
}

#[test]
#[serial]
fn thirty_two_servers_on_port_0_are_found_used_and_gone() {
    let Some(stage) = Stage::set() else { return };
    thread::scope(|scope| {
        let one = || {
            let child = server(&stage, "tcp 127.0.0.1:0\nhttp 200 200\nstay").spawn().unwrap();
            child.wait_ready(Ready::any_tcp(), soon()).unwrap();
            let address = child.tree().listening_ports().unwrap()[0].address;
            let url = format!("http://{address}/health");
            child.wait_ready(Ready::http(&url).unwrap(), soon()).unwrap();
            child.finish().unwrap();
            assert!(TcpStream::connect(address).is_err(), "{address} is still served");
            TcpListener::bind(address).unwrap();
            address.port()
        };
        let threads: Vec<_> = (0..32).map(|_| scope.spawn(one)).collect();
        let ports: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ports.len(), 32);
    });
    stage.close(Alone::Yes);
}
