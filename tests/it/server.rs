//! Servers: the test binary plays them when `TIDY_SERVER` has a script, one step on each line.

use std::io::{BufRead, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::process::{Command as StdCommand, exit};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tidy_process::Command;

use crate::support::{SOON, Stage};
use crate::victim;

const SCRIPT: &str = "TIDY_SERVER";

/// However a test fails, its servers end by themselves.
const LIFE: Duration = Duration::from_secs(60);

/// A server of this stage, that will do this.
pub(crate) fn server(stage: &Stage, script: &str) -> Command {
    let mut command = stage.command(victim::exe().to_str().unwrap());
    command.env(SCRIPT, script);
    command
}

/// The same without the library: a stranger.
pub(crate) fn stranger(stage: &Stage, script: &str) -> StdCommand {
    let mut command = StdCommand::new(victim::exe());
    stage.mark_std(command.env(SCRIPT, script));
    command
}

pub(crate) fn soon() -> Instant {
    Instant::now() + SOON
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The clock that all processes share.
pub(crate) fn clock() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

#[ctor::ctor]
fn enter() {
    if let Ok(script) = std::env::var(SCRIPT) {
        let mut held = Held::default();
        for step in script.lines() {
            held.perform(step);
        }
        exit(0);
    }
}

/// What a server must not drop.
#[derive(Default)]
struct Held {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    unix: Vec<UnixListener>,
}

impl Held {
    fn perform(&mut self, step: &str) {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "tcp" => self.tcp.push(TcpListener::bind(rest).unwrap()),
            "udp" => self.udp.push(UdpSocket::bind(rest).unwrap()),
            "unix" => self.unix.push(UnixListener::bind(rest).unwrap()),
            "chdir" => std::env::set_current_dir(rest).unwrap(),
            "say" => print(&format!("{rest}\n")),
            "mutter" => print(rest),
            "when" => print(&format!("{}\n", clock().as_nanos())),
            "write" => std::fs::write(rest, "x").unwrap(),
            "read" => drop(std::io::stdin().read(&mut [0]).unwrap()),
            "sleep" => std::thread::sleep(Duration::from_millis(rest.parse().unwrap())),
            "stay" => std::thread::sleep(LIFE),
            "exit" => exit(rest.parse().unwrap()),
            // Each word is the status of one answer.
            "http" => rest.split(' ').for_each(|status| self.answer(status)),
            // The same behind a provisional answer.
            "early" => {
                self.answer(&format!("103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 {rest}"))
            }
            // The rest of the script is another process's.
            "daemon" => daemon(&rest.replace(';', "\n")),
            other => panic!("no step is called {other:?}"),
        }
    }

    fn answer(&self, status: &str) {
        let (mut stream, _) = self.tcp[0].accept().unwrap();
        let request = request(&stream);
        assert!(request.starts_with("GET /health HTTP/1.1"), "{request}");
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

fn request(stream: &TcpStream) -> String {
    let lines = std::io::BufReader::new(stream).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

fn print(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

/// In a session of its own, below nobody.
fn daemon(script: &str) {
    let mut command = StdCommand::new("setsid");
    command.arg("-f").arg(victim::exe()).env(SCRIPT, script);
    assert!(command.status().unwrap().success());
}
