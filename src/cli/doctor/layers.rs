//! Tries what is added to a sandbox: an overlay, and the way to named hosts.

use std::ffi::OsStr;
use std::fs;
use std::io::{Error, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tidy_process::{Changes, Network, Stdio, Supervisor};

use crate::doctor::attempt::{Attempt, attempting, boxed, broken, interfaces};
use crate::doctor::finding::Finding;
use crate::proxy::PORT;

/// What the process writes in its overlay, and what it is sent by the port.
const WORD: &[u8] = b"tidy";
const FILE: &str = "written";

/// For a process to start and connect.
const PATIENCE: u16 = 5000;

/// A new directory of this user's own, removed with all that is in it.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self> {
        // An overlay is named by a path without symbolic links.
        let template = std::env::temp_dir().canonicalize()?.join("tidy-doctor-XXXXXX");
        let made = nix::unistd::mkdtemp(&template)?;
        Ok(Self(made))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn overlay(name: &'static str, holds: &str, supervisor: &Supervisor) -> Finding {
    let scratch = match Scratch::make() {
        Ok(scratch) => scratch,
        Err(error) => return Finding::blank(name, format!("not tried: make a directory: {error}")),
    };
    let (mut command, sandbox) = boxed(supervisor);
    let sandbox = sandbox.overlay(&scratch.0);
    attempting(&mut command, Attempt::Overlay).current_dir(&scratch.0).sandbox(&sandbox);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return Finding::error(name, &error),
    };
    if !output.status.success() {
        return broken(name, &String::from_utf8_lossy(&output.stderr));
    }
    match output.report.changes.first().map(|changes| held_back(changes, &scratch.0)) {
        Some(Ok(true)) => Finding::ok(name, format!("for --overlay: {holds}")),
        Some(Err(error)) => Finding::error(name, &error),
        _ => broken(name, "it wrote to the host's directory, or its changes were lost"),
    }
}

/// Whether the file comes to the host by the commit, and not before.
fn held_back(changes: &Changes, dir: &Path) -> tidy_process::Result<bool> {
    let file = dir.join(FILE);
    let before = fs::exists(&file).unwrap_or(true);
    let count = changes.commit()?.count;
    Ok(!before && count == 1 && fs::read(&file).is_ok_and(|text| text == WORD))
}

pub(crate) fn hosts(name: &'static str, holds: &str, supervisor: &Supervisor) -> Finding {
    let (mut command, sandbox) = boxed(supervisor);
    attempting(&mut command, Attempt::Hosts).sandbox(&sandbox.network(Network::Forward(PORT)));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let served = child.and_then(|mut child| {
        if let Some(listener) = child.forwarded.take() {
            // What fails here is seen inside: nothing comes.
            let _ = serve(&listener);
        }
        child.wait_with_output()
    });
    match served {
        Ok(output) if output.status.success() => {
            Finding::ok(name, format!("for --allow-host: {holds}"))
        }
        Ok(output) => broken(name, &String::from_utf8_lossy(&output.stderr)),
        Err(error) => Finding::error(name, &error),
    }
}

/// Sends the word to the one that connects.
fn serve(listener: &TcpListener) -> Result<()> {
    let mut news = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if poll(&mut news, PollTimeout::from(PATIENCE))? == 0 {
        return Err(Error::from(std::io::ErrorKind::TimedOut));
    }
    let (mut client, _) = listener.accept()?;
    client.write_all(WORD)
}

/// Inside an overlay, which is the working directory.
pub(crate) fn write_there() -> Vec<String> {
    let written = fs::write(FILE, WORD);
    let failed = |error| format!("its overlay could not be written to: {error}");
    written.err().map(failed).into_iter().collect()
}

/// Inside the network that has a port.
pub(crate) fn connect() -> Vec<String> {
    let mut broken = interfaces();
    let mut said = Vec::new();
    let connected = TcpStream::connect(("127.0.0.1", PORT)).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_millis(PATIENCE.into())))?;
        stream.read_to_end(&mut said)
    });
    match connected {
        Ok(_) if said == WORD => {}
        Ok(_) => broken.push(format!("its port said {}", OsStr::from_bytes(&said).display())),
        Err(error) => broken.push(format!("its port did not answer: {error}")),
    }
    broken
}
