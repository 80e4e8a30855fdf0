//! The arguments of `tidy-process with`: `--server`, and the options that belong to the server
//! before them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, value_parser};
use tidy_process::Ready;

use crate::place::args::GroundArgs;
use crate::values::{duration, signal};

const WITH: &str = "\
--ready, --name and --log belong to the --server before them. The servers start one after the
other, each when the one before it is ready, and learn of those before them as CMD does: from
TIDY_SERVERS (their names), TIDY_<NAME>_PORT (the port they were waited for, else the first
one they listen on) and TIDY_<NAME>_PID. When CMD ends they are stopped, the last one first.
A server that ends earlier ends CMD.

Exit status: CMD's own; 128+N if signal N ended it; 124 if it timed out; 125 if a server was
not ready in time, or ended early; 126 and 127 if CMD cannot be executed or was not found.

Examples:
  tidy-process with --server 'flask run -p 8080' --ready tcp:8080 -- pytest
  tidy-process with --server './db --port 0' --ready tcp --name db \\
                    --server './api' --ready http://localhost:8080/health -- ./tests";

#[derive(Debug, Args)]
#[command(after_help = WITH)]
pub(crate) struct WithArgs {
    #[command(flatten)]
    pub(crate) servers: Servers,

    /// How long each server may take until it is ready
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "30s")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) ready_timeout: Duration,

    /// End CMD after DUR (500ms, 30s, 1m30s, 2h; a plain number is seconds; 0 and inf are never)
    #[arg(short, long, value_name = "DUR", value_parser = duration, allow_hyphen_values = true)]
    pub(crate) timeout: Option<Duration>,

    /// Time between the stop signal and the kill, for each server and CMD
    #[arg(short, long, value_name = "DUR", value_parser = duration, default_value = "2s")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) kill_after: Duration,

    /// How long what CMD has left may go on working by itself before it is killed
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "100ms")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) settle: Duration,

    /// Stop signal, by name or number
    #[arg(short, long, value_name = "SIG", value_parser = signal, default_value = "TERM")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) signal: i32,

    #[command(flatten)]
    pub(crate) ground: GroundArgs,

    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say what the servers write, and how the command ended
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// The servers, in the order of the command line.
#[derive(Debug, Default)]
pub(crate) struct Servers(pub(crate) Vec<ServerArgs>);

#[derive(Debug)]
pub(crate) struct ServerArgs {
    pub(crate) command: OsString,
    pub(crate) ready: Option<ReadyArg>,
    pub(crate) name: Option<String>,
    pub(crate) log: Option<PathBuf>,
}

/// The value of `--ready`: what a server has done when it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadyArg {
    Tcp(Option<u16>),
    Http(String),
    Unix(PathBuf),
    Log(String),
    File(PathBuf),
}

impl ReadyArg {
    pub(crate) fn ready(&self) -> tidy_process::Result<Ready<'static>> {
        Ok(match self {
            Self::Tcp(Some(port)) => Ready::tcp(*port),
            Self::Tcp(None) => Ready::any_tcp(),
            Self::Http(url) => return Ready::http(url),
            Self::Unix(path) => Ready::unix(path),
            Self::Log(text) => Ready::log(text),
            Self::File(path) => Ready::file(path),
        })
    }

    /// The port that the value names.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(port) => *port,
            Self::Http(url) => {
                let authority = url.strip_prefix("http://")?.split('/').next()?;
                let port = authority.rsplit_once(':').map(|(_, port)| port.parse());
                Some(port.and_then(Result::ok).unwrap_or(80))
            }
            _ => None,
        }
    }
}

/// Parses `--ready`; a path in it need not be UTF-8.
pub(crate) fn ready_word(word: &OsStr) -> Result<ReadyArg, String> {
    let path = |kind: &[u8]| {
        let path = word.as_bytes().strip_prefix(kind).filter(|path| !path.is_empty());
        path.map(|path| PathBuf::from(OsStr::from_bytes(path)))
    };
    match word.to_str() {
        Some(text) => ready_arg(text),
        None => path(b"file:")
            .map(ReadyArg::File)
            .or_else(|| path(b"unix:").map(ReadyArg::Unix))
            .ok_or_else(|| "only the path of file: and unix: may be other than UTF-8".to_owned()),
    }
}

fn ready_arg(text: &str) -> Result<ReadyArg, String> {
    if text.starts_with("http://") {
        return Ready::http(text)
            .map_err(|error| error.to_string())
            .map(|_| ReadyArg::Http(text.into()));
    }
    match text.split_once(':') {
        None if text == "tcp" => Ok(ReadyArg::Tcp(None)),
        Some(("tcp", port)) => match port.parse() {
            Ok(port) if port != 0 => Ok(ReadyArg::Tcp(Some(port))),
            _ => Err("a port is a number from 1 to 65535".to_owned()),
        },
        Some(("unix", path)) if !path.is_empty() => Ok(ReadyArg::Unix(path.into())),
        Some(("file", path)) if !path.is_empty() => Ok(ReadyArg::File(path.into())),
        Some(("log", line)) if !line.is_empty() => Ok(ReadyArg::Log(line.into())),
        _ => {
            Err("give it as tcp:PORT, tcp, http://HOST:PORT/PATH, unix:PATH, log:TEXT or file:PATH"
                .to_owned())
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let fine = plain && text.starts_with(|c: char| c.is_ascii_alphabetic());
    fine.then(|| text.to_owned())
        .ok_or_else(|| "a name is a letter, then letters, digits, dashes, dots".to_owned())
}

fn option(id: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).value_name(value).help(help).action(ArgAction::Append)
}

impl Args for Servers {
    fn augment_args(command: clap::Command) -> clap::Command {
        let server = "Start CMD by sh -c, before the main command; may be given again";
        let ready = "Wait until the server is ready: tcp:PORT, tcp (any port), \
            http://HOST:PORT/PATH, unix:PATH, log:TEXT or file:PATH";
        let name_help = "Name the server; its port is in TIDY_<NAME>_PORT [default: server1, ...]";
        let log = "Write the server's output to FILE";
        command
            .arg(option("server", "CMD", server).value_parser(value_parser!(OsString)))
            .arg(
                option("ready", "WHAT", ready)
                    .value_parser(OsStringValueParser::new().try_map(|word| ready_word(&word))),
            )
            .arg(option("name", "NAME", name_help).value_parser(name))
            .arg(option("log", "FILE", log).value_parser(value_parser!(PathBuf)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Servers {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut servers = Vec::new();
        let starts: Vec<usize> = matches.indices_of("server").into_iter().flatten().collect();
        for command in matches.get_many::<OsString>("server").into_iter().flatten() {
            let command = command.clone();
            servers.push(ServerArgs { command, ready: None, name: None, log: None });
        }
        each(matches, "ready", &starts, &mut servers, |server| &mut server.ready)?;
        each(matches, "name", &starts, &mut servers, |server| &mut server.name)?;
        each(matches, "log", &starts, &mut servers, |server| &mut server.log)?;
        for (number, server) in servers.iter_mut().enumerate() {
            server.name.get_or_insert_with(|| format!("server{}", number + 1));
        }
        let mut names: Vec<String> = servers.iter().map(ServerArgs::variable).collect();
        names.sort();
        names.dedup();
        if names.len() < servers.len() {
            return Err(wrong("two servers have the same name"));
        }
        let mut logs: Vec<_> = servers.iter().filter_map(|server| server.log.clone()).collect();
        let count = logs.len();
        logs.sort();
        logs.dedup();
        if logs.len() < count {
            return Err(wrong("two servers have the same --log: the second would empty it"));
        }
        Ok(Self(servers))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl ServerArgs {
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Its name, as it stands in the names of variables.
    pub(crate) fn variable(&self) -> String {
        self.name().to_ascii_uppercase().replace(['-', '.'], "_")
    }
}

/// Gives each value to the last server that was named before it.
fn each<T: Clone + Send + Sync + 'static>(
    matches: &ArgMatches,
    id: &str,
    starts: &[usize],
    servers: &mut [ServerArgs],
    place: impl Fn(&mut ServerArgs) -> &mut Option<T>,
) -> Result<(), clap::Error> {
    let values = matches.get_many::<T>(id).into_iter().flatten();
    for (index, value) in matches.indices_of(id).into_iter().flatten().zip(values) {
        let before = starts.partition_point(|&start| start < index);
        let server = before.checked_sub(1).and_then(|number| servers.get_mut(number));
        let server = server.ok_or_else(|| wrong(&format!("--{id} stands before any --server")))?;
        if place(server).replace(value.clone()).is_some() {
            return Err(wrong(&format!("one server has two --{id}")));
        }
    }
    Ok(())
}

fn wrong(text: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ArgumentConflict, format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_has_six_forms() {
        assert_eq!(ready_arg("tcp"), Ok(ReadyArg::Tcp(None)));
        assert_eq!(ready_arg("tcp:80"), Ok(ReadyArg::Tcp(Some(80))));
        assert_eq!(ready_arg("log:a:b"), Ok(ReadyArg::Log("a:b".to_owned())));
        assert_eq!(ready_arg("unix:/run/x"), Ok(ReadyArg::Unix("/run/x".into())));
        assert_eq!(ready_arg("file:x"), Ok(ReadyArg::File("x".into())));
        let http = ReadyArg::Http("http://localhost:81/x".to_owned());
        assert_eq!((http.port(), ready_arg("http://localhost:81/x")), (Some(81), Ok(http)));
        assert_eq!(ReadyArg::Http("http://a/".to_owned()).port(), Some(80));
        for odd in ["", "tcp:", "tcp:0", "tcp:x", "unix:", "log:", "https://a/", "http://"] {
            assert!(ready_arg(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn a_path_to_wait_for_need_not_be_text() {
        let path = PathBuf::from(OsStr::from_bytes(b"/x\xff"));
        assert_eq!(ready_word(OsStr::from_bytes(b"file:/x\xff")), Ok(ReadyArg::File(path.clone())));
        assert_eq!(ready_word(OsStr::from_bytes(b"unix:/x\xff")), Ok(ReadyArg::Unix(path)));
        assert!(ready_word(OsStr::from_bytes(b"tcp:\xff")).is_err());
        assert!(ready_word(OsStr::from_bytes(b"file")).is_err());
    }

    #[test]
    fn names_become_parts_of_variables() {
        assert_eq!(name("my-db.1"), Ok("my-db.1".to_owned()));
        for odd in ["", "1a", "a b", "a=b", "-a"] {
            assert!(name(odd).is_err(), "{odd:?} was taken");
        }
    }
}
