//! Tells a debugger's port from an application's.
//!
//! `node --inspect app.js` listens on 9229 long before the application listens anywhere: a wait for
//! "any port" that took it would begin the tests too early, and with the wrong port. Only a port on
//! the loopback address that the command line gives to a debugger, or node's own, is one.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::proc::port::{ListeningPort, Protocol};
use crate::proc::survey;

/// Node's inspector, and those of its workers: also where `NODE_OPTIONS` asks for it.
const INSPECTORS: RangeInclusive<u16> = 9229..=9238;

/// Programs with node's inspector.
const NODES: [&str; 4] = ["node", "nodejs", "deno", "electron"];

/// Programs whose `--listen` is a debugger's port.
const DEBUGGERS: [&str; 2] = ["debugpy", "dlv"];

/// Those of these sockets, each with the process that holds it, that are a debugger's.
pub(crate) fn among(held: &[(i32, SocketAddr)]) -> BTreeSet<(i32, SocketAddr)> {
    let local = |(_, address): &&(i32, SocketAddr)| address.ip().to_canonical().is_loopback();
    let rest: Vec<_> = held.iter().filter(local).copied().collect();
    let mut found: BTreeSet<_> = rest
        .iter()
        .filter(|(pid, at)| INSPECTORS.contains(&at.port()) && is_node(*pid))
        .copied()
        .collect();
    let pids: BTreeSet<i32> = rest.iter().map(|(pid, _)| *pid).collect();
    let pids: Vec<i32> = pids.into_iter().collect();
    for process in survey::of(&pids).named {
        let its = |(pid, _): &&(i32, SocketAddr)| pid.cast_unsigned() == process.pid;
        let its: Vec<_> = rest.iter().filter(its).copied().collect();
        let ports = ports(&process.command);
        // Whichever is free: while the process listens once, the application does not listen yet.
        let any = ports.contains(&0) && its.len() == 1;
        found.extend(its.iter().filter(|(_, at)| any || ports.contains(&at.port())));
    }
    found
}

/// Whether the process executes a node; its command line may say anything (`npm start`).
fn is_node(pid: i32) -> bool {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    exe.file_name().and_then(|name| name.to_str()).is_some_and(|name| NODES.contains(&name))
}

/// Puts the ports of debuggers behind all others.
pub(crate) fn put_last(ports: &mut [ListeningPort]) {
    let tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let held: Vec<_> = tcp.map(|port| (port.pid.cast_signed(), port.address)).collect();
    let found = among(&held);
    ports.sort_by_key(|port| found.contains(&(port.pid.cast_signed(), port.address)));
}

/// The ports that a command line gives to a debugger; 0 is any.
fn ports(command: &[String]) -> BTreeSet<u16> {
    let is_program = |word: &String| {
        let name = Path::new(word).file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| DEBUGGERS.contains(&name))
    };
    let debugged = command.iter().any(is_program);
    let given = |(place, word): (usize, &String)| match word.split_once('=') {
        Some((key, value)) if key.starts_with("--inspect") => port(value),
        Some((key, _)) if key.contains("jdwp") => {
            let address = word.split("address=").nth(1)?;
            port(address.split(',').next()?)
        }
        Some(("--listen", value)) if debugged => port(value),
        None if debugged && matches!(&**word, "--listen" | "-l") => port(command.get(place + 1)?),
        _ => None,
    };
    command.iter().enumerate().filter_map(given).collect()
}

/// The port of `PORT` or `HOST:PORT`.
fn port(text: &str) -> Option<u16> {
    text.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Vec<u16> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        ports(&words).into_iter().collect()
    }

    #[test]
    fn command_lines_give_ports_to_debuggers() {
        assert_eq!(of("node --inspect-brk=127.0.0.1:5555 app.js 3000"), [5555]);
        assert_eq!(of("node --inspect=0 app.js"), [0]);
        assert_eq!(of("python3 -m debugpy --listen localhost:5678 app.py --listen=x"), [5678]);
        assert_eq!(of("dlv debug --headless --listen=:2345"), [2345]);
        let java =
            "java -agentlib:jdwp=transport=dt_socket,server=y,address=*:5005,suspend=n -jar a";
        assert_eq!(of(java), [5005]);
        for plain in ["node app.js --listen 3000", "python3 -m http.server 5678", "java -jar a", ""]
        {
            assert!(of(plain).is_empty(), "{plain}");
        }
    }
}
