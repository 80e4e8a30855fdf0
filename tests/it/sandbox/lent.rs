//! The networks of a template: lent to one command at a time.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serial_test::serial;
use tidy_process::{Command, Sandbox, Stdio, Supervisor};

use super::template::{WARM, warm};
use super::{boxed, open_dir, said, stage};
use crate::support::Alone;

/// A socket that a command has sent out holds its network: the next command is in another one.
#[test]
#[serial]
fn a_network_with_a_socket_in_it_is_lent_to_nobody() {
    let Some(stage) = stage() else { return };
    let python = Path::new("/usr/bin/python3");
    if !python.exists() {
        return crate::support::skip("python3 is missing: apt-get install python3");
    }
    let dir = open_dir("sent");
    let listener = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    fs::set_permissions(dir.join("socket"), PermissionsExt::from_mode(0o777)).unwrap();
    let sandbox = Sandbox::new().system().read_write(&dir);
    warm(&stage, &sandbox);
    let send = format!(
        "readlink /proc/self/ns/net; exec /usr/bin/python3 -c \"
import socket
out = socket.socket(socket.AF_UNIX)
out.connect('{0}/socket')
kept = socket.socket(socket.AF_UNIX)
socket.send_fds(out, [b'x'], [kept.fileno()])
out.recv(1)\"",
        dir.display()
    );
    let mut command = boxed(&stage, &send, &sandbox);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let (stream, _) = listener.accept().unwrap();
    // Kept in the message that nobody reads: the socket lives as long as this does.
    (&stream).write_all(b"x").unwrap();
    let output = child.wait_with_output().unwrap();
    let before = String::from_utf8(output.stdout).unwrap();
    let after = || said(&stage, "readlink /proc/self/ns/net", &sandbox);
    let next = after();
    assert!(before.starts_with("net:") && next != before, "{before} and {next}");
    assert_eq!(after(), next);
    drop((stream, listener, command));
    fs::remove_dir_all(dir).unwrap();
    drop(sandbox);
    stage.close(Alone::Yes);
}

/// As an actor: a forked copy of a process that has a template runs a command beside one of its
/// own.
pub(crate) fn play_fork() {
    let sandbox = Sandbox::new().system();
    let supervised = |supervisor: &Supervisor, script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).supervisor(supervisor).env_remove(crate::actor::ROLE);
        command.sandbox(&sandbox).current_dir("/").stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let supervisor = Supervisor::builder().build().unwrap();
    (0..=WARM).for_each(|_| drop(supervised(&supervisor, "true").finish().unwrap()));
    let (mut ours, theirs) = std::io::pipe().unwrap();
    let Some(copy) = crate::attacks::leases::fork() else {
        let own = Supervisor::builder().build().unwrap();
        let output = supervised(&own, "readlink /proc/self/ns/net").wait_with_output().unwrap();
        (&theirs).write_all(&output.stdout).unwrap();
        own.close().unwrap();
        crate::attacks::leases::end_copy();
    };
    drop(theirs);
    let mut child = supervised(&supervisor, "readlink /proc/self/ns/net; exec sleep 60");
    let (mut line, mut other) = (String::new(), String::new());
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    ours.read_to_string(&mut other).unwrap();
    nix::sys::wait::waitpid(copy, None).unwrap();
    child.finish().unwrap();
    supervisor.close().unwrap();
    assert!(line.starts_with("net:") && other.starts_with("net:"), "{line}, {other}");
    assert_ne!(line, other);
}

#[test]
#[serial]
fn a_fork_shares_no_network() {
    let Some(stage) = stage() else { return };
    crate::attacks::succeeds(&mut crate::actor::actor(&stage, "template-fork"), "a fork");
    stage.close(Alone::Yes);
}
