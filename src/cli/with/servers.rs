//! The servers of a command line, each with the options behind its `--server`.
//!
//! The parser gives values with their places. What stands behind one `--server` is put together
//! again as a command line of its own, and so read by the same rules wherever it comes from: a
//! table of a file becomes such a line too.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::options::{LimitArgs, SettingArgs, bytes};
use crate::with::ready::{ReadyArg, ready_word};

/// The servers, in the order of the command line, and what is for the command as well.
#[derive(Debug, Default, Clone)]
pub(crate) struct Servers {
    pub(crate) common: Common,
    pub(crate) all: Vec<Server>,
    /// The options of `common`, as they were given.
    words: Vec<OsString>,
}

// What the command and each server may be given.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) setting: SettingArgs,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) command: Program,
    pub(crate) options: ServerOptions,
    /// The places of those that have to be ready before this one starts, also with `--parallel`.
    pub(crate) depends: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// A line for sh.
    Line(OsString),
    Words(Vec<String>),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServerOptions {
    /// Wait until the server is ready: 8080, HOST:PORT, tcp (any port), http://HOST:PORT/PATH,
    /// http:8080/PATH, http_status:CODE:URL, unix:PATH, log:TEXT or file:PATH
    #[arg(long, value_name = "WHAT", value_parser = bytes(ready_word))]
    pub(crate) ready: Option<ReadyArg>,

    /// Name the server; its port is in TIDY_<NAME>_PORT [default: server1, ...]
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,

    /// Write the server's output to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// The server's standard input: "open" is a pipe that stays open until the server is stopped,
    /// for one that ends with its input; else a file [default: /dev/null]
    #[arg(long, value_name = "FILE", value_parser = bytes(stdin))]
    pub(crate) stdin: Option<InputArg>,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// The value of `--stdin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InputArg {
    Open,
    File(PathBuf),
}

fn stdin(word: &OsStr) -> Result<InputArg, String> {
    match word.to_str() {
        Some("open") => Ok(InputArg::Open),
        Some("-") => Err("CMD has the standard input of tidy-process".to_owned()),
        _ => Ok(InputArg::File(word.into())),
    }
}

pub(crate) fn name(text: &str) -> Result<String, String> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let fine = plain && text.starts_with(|c: char| c.is_ascii_alphabetic());
    fine.then(|| text.to_owned())
        .ok_or_else(|| "a name is a letter, then letters, digits, dashes, dots".to_owned())
}

impl Server {
    /// Its name, as it stands in the names of variables.
    pub(crate) fn variable(&self) -> String {
        self.name.to_ascii_uppercase().replace(['-', '.'], "_")
    }

    /// The same with so many servers before it.
    pub(crate) fn behind(mut self, number: usize) -> Self {
        self.depends.iter_mut().for_each(|place| *place += number);
        self
    }
}

impl Servers {
    /// Adds a server with these options, as they are typed, behind those for all.
    pub(crate) fn add(
        &mut self,
        name: Option<String>,
        command: Program,
        words: &[OsString],
    ) -> Result<(), clap::Error> {
        // Twice the same is an error, but what is for all may be given anew.
        parse::<ServerOptions>(words, false)?;
        let options: ServerOptions = parse(&[&*self.words, words].concat(), true)?;
        let number = self.all.len() + 1;
        let name = name.or_else(|| options.name.clone());
        let name = name.unwrap_or_else(|| format!("server{number}"));
        self.all.push(Server { name, command, options, depends: Vec::new() });
        Ok(())
    }

    /// Says what two of the servers must not share.
    pub(crate) fn check(&self) -> Result<(), String> {
        let names: BTreeSet<_> = self.all.iter().map(Server::variable).collect();
        if names.len() < self.all.len() {
            return Err("two servers have the same name".to_owned());
        }
        let logs: Vec<_> =
            self.all.iter().filter_map(|server| server.options.log.as_ref()).collect();
        if logs.iter().collect::<BTreeSet<_>>().len() < logs.len() {
            return Err("two servers have the same --log: the second would empty it".to_owned());
        }
        Ok(())
    }
}

/// Reads the options of one server.
pub(crate) fn parse<T: Args>(words: &[OsString], may_repeat: bool) -> Result<T, clap::Error> {
    let command = Command::new("server").no_binary_name(true).args_override_self(may_repeat);
    let matches = T::augment_args(command).try_get_matches_from(words)?;
    T::from_arg_matches(&matches)
}

/// The options that a type has, by their ids and the way they are typed.
pub(crate) fn options<T: Args>() -> Vec<Arg> {
    T::augment_args(Command::new("server")).get_arguments().cloned().collect()
}

impl Args for Servers {
    fn augment_args(command: Command) -> Command {
        let help = "Start CMD by sh -c, before the main command; may be given again";
        let server = Arg::new("server").long("server").value_name("CMD").help(help);
        let server = server.action(ArgAction::Append).value_parser(value_parser!(OsString));
        let others = options::<ServerOptions>().into_iter().enumerate();
        command.arg(server).args(others.map(|(place, option)| {
            // Behind --server in the help, too.
            option.action(ArgAction::Append).display_order(place + 1)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Servers {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let starts: Vec<usize> = matches.indices_of("server").into_iter().flatten().collect();
        let mut words = vec![Vec::new(); starts.len() + 1];
        let common: Vec<_> = options::<Common>().iter().map(|arg| arg.get_id().clone()).collect();
        for option in options::<ServerOptions>() {
            let id = option.get_id();
            let values = matches.get_raw(id.as_str()).into_iter().flatten();
            for (index, value) in matches.indices_of(id.as_str()).into_iter().flatten().zip(values)
            {
                let place = starts.partition_point(|&start| start < index);
                if place == 0 && !common.contains(id) {
                    return Err(wrong(&format!("--{id} stands before any --server")));
                }
                words.get_mut(place).into_iter().for_each(|all| all.push(typed(&option, value)));
            }
        }
        let mut words = words.into_iter();
        let before = words.next().unwrap_or_default();
        let common = parse(&before, false)?;
        let mut servers = Self { common, all: Vec::new(), words: before };
        let lines = matches.get_many::<OsString>("server").into_iter().flatten();
        for (line, words) in lines.zip(words) {
            servers.add(None, Program::Line(line.clone()), &words).map_err(|error| {
                let text = first_line(&error);
                wrong(&format!("server {}: {text}", servers.all.len() + 1))
            })?;
        }
        servers.check().map_err(|text| wrong(&text))?;
        Ok(servers)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// An option with its value, in one word, so that no value is taken for an option.
pub(crate) fn typed(option: &Arg, value: &OsStr) -> OsString {
    let mut word = match (option.get_long(), option.get_short()) {
        (Some(long), _) => OsString::from(format!("--{long}=")),
        (None, short) => OsString::from(format!("-{}", short.unwrap_or_default())),
    };
    word.push(value);
    word
}

/// What an error says, without the usage.
pub(crate) fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

pub(crate) fn wrong(text: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ArgumentConflict, format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Servers, String> {
        let command = Servers::augment_args(Command::new("with").no_binary_name(true));
        let matches = command.try_get_matches_from(words).map_err(|error| first_line(&error))?;
        Servers::from_arg_matches(&matches).map_err(|error| first_line(&error))
    }

    #[test]
    fn options_belong_to_the_server_before_them() {
        let words = "-E A=1 --memory 1M -C /x --server a --ready tcp -EA=2 -EB=-b --server b \
            --memory=2M --pids 7 --name db --stdin open -C /y";
        let servers = read(&words.split_whitespace().collect::<Vec<_>>()).unwrap_or_default();
        let env = |setting: &SettingArgs| {
            let pair = |(key, value): &(OsString, OsString)| format!("{key:?}={value:?}");
            setting.env.iter().map(pair).collect::<Vec<_>>().join(" ").replace('"', "")
        };
        assert_eq!(env(&servers.common.setting), "A=1");
        assert_eq!(servers.common.limits.memory, Some(1 << 20));
        let [a, b] = &*servers.all else { unreachable!("{servers:?}") };
        assert_eq!((&*a.name, &*b.name), ("server1", "db"));
        assert_eq!(env(&a.options.common.setting), "A=1 A=2 B=-b");
        assert_eq!(env(&b.options.common.setting), "A=1");
        assert_eq!((&a.options.ready, &b.options.ready), (&Some(ReadyArg::AnyTcp), &None));
        let limits = |server: &Server| server.options.common.limits.clone();
        assert_eq!((limits(a).memory, limits(a).pids), (Some(1 << 20), None));
        assert_eq!((limits(b).memory, limits(b).pids), (Some(2 << 20), Some(7)));
        assert_eq!((&a.options.stdin, &b.options.stdin), (&None, &Some(InputArg::Open)));
        assert_eq!(b.options.common.setting.chdir, Some("/y".into()));
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        for (words, why) in [
            (&["--ready", "tcp", "--server", "a"][..], "--ready stands before any --server"),
            (&["--server", "a", "--log", "x", "--log", "y"], "cannot be used multiple times"),
            (&["--server", "a", "--stdin", "-"], "CMD has the standard input"),
            (&["--server", "a", "--pids", "x"], "a whole number"),
            (&["--server", "a", "--name", "x", "--server", "b", "--name", "X"], "the same name"),
        ] {
            let error = read(words).err().unwrap_or_default();
            assert!(error.contains(why), "{words:?}: {error}");
        }
    }

    #[test]
    fn names_become_parts_of_variables() {
        assert_eq!(name("my-db.1"), Ok("my-db.1".to_owned()));
        for odd in ["", "1a", "a b", "a=b", "-a"] {
            assert!(name(odd).is_err(), "{odd:?} was taken");
        }
    }
}
