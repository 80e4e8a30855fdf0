//! The command line of the experiment.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Starts an API server whose real server is a child of its child, sends it requests, and leaves
nothing behind.

Usage: experiment [OPTIONS]

  --port N        where the server listens (default 5055)
  --dir DIR       makes the directory of its log in DIR and keeps it (default: in the system's
                  directory for temporary files, and removed again unless something fails)
  --flask         a real Flask application in debug mode, instead of the server built in
  --python PATH   the Python that has Flask (default python3); this makes one, V/bin/python:
                  python3 -m venv V && V/bin/pip install flask
  --error         fails in the middle: returns an error, exit status 1
  --panic         fails in the middle: panics, exit status 101
  --plain         does it with std::process::Command and kill(), shows what stays behind, cleans up
  --help          this text

Exit status: 0 done; 1 failed, or something stayed behind; 2 wrong usage; 101 panicked.
";

const DEFAULT_PORT: u16 = 5055;

/// What this process is to be.
pub(crate) enum Request {
    Help,
    Run(Options),
    /// The server's parent, like Flask's reloader.
    ServeReloader(u16),
    Serve(u16),
}

pub(crate) struct Options {
    pub(crate) port: u16,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) server: Server,
    pub(crate) failure: Option<Failure>,
    pub(crate) plain: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Failure {
    Error,
    Panic,
}

/// A command line that starts a server.
pub(crate) struct Server {
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", arg.display()))
    }
}

/// The flags as given, before the defaults that hang on other flags.
#[derive(Default)]
struct Flags {
    port: Option<u16>,
    dir: Option<PathBuf>,
    python: Option<OsString>,
    flask: bool,
    failure: Option<Failure>,
    plain: bool,
}

/// Reads the arguments after the program's name; an error says which one is wrong.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Request, String> {
    let mut args = args;
    let mut flags = Flags::default();
    while let Some(arg) = args.next() {
        match arg.to_str().unwrap_or_default() {
            "--help" | "-h" => return Ok(Request::Help),
            "serve-reloader" => return Ok(Request::ServeReloader(port(args.next())?)),
            "serve" => return Ok(Request::Serve(port(args.next())?)),
            "--port" => flags.port = Some(port(args.next())?),
            "--dir" => flags.dir = Some(args.next().ok_or("--dir needs a directory")?.into()),
            "--python" => flags.python = Some(args.next().ok_or("--python needs a path")?),
            "--flask" => flags.flask = true,
            "--error" => flags.failure = Some(Failure::Error),
            "--panic" => flags.failure = Some(Failure::Panic),
            "--plain" => flags.plain = true,
            _ => return Err(format!("unknown argument {arg:?}")),
        }
    }
    flags.complete().map(Request::Run)
}

fn port(value: Option<OsString>) -> Result<u16, String> {
    let value = value.ok_or("a port is missing")?;
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(port) if port > 0 => Ok(port),
        _ => Err(format!("not a port: {value:?} (1 to 65535)")),
    }
}

impl Flags {
    fn complete(self) -> Result<Options, String> {
        if self.python.is_some() && !self.flask {
            return Err("--python goes with --flask".into());
        }
        let port = self.port.unwrap_or(DEFAULT_PORT);
        let server = if self.flask { flask(self.python, port) } else { built_in(port)? };
        Ok(Options { port, dir: self.dir, server, failure: self.failure, plain: self.plain })
    }
}

fn flask(python: Option<OsString>, port: u16) -> Server {
    let app = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/flask/app.py");
    Server {
        program: python.unwrap_or_else(|| "python3".into()),
        args: vec![app.into(), port.to_string().into()],
    }
}

fn built_in(port: u16) -> Result<Server, String> {
    let myself = std::env::current_exe()
        .map_err(|error| format!("cannot find this program's own file: {error}"))?;
    Ok(Server {
        program: myself.into(),
        args: vec!["serve-reloader".into(), port.to_string().into()],
    })
}
