//! `--file`: servers that no longer fit a line, one table each.
//!
//! Its keys are the options of a server by their long names, and `command`, `env` and `depends`.

use std::ffi::OsString;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use clap::{Arg, ArgAction};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::exit::{Failure, open_failure};
use crate::wait::open::{INPUT, Opener};
use crate::with::servers::{
    Program, Server, ServerOptions, Servers, first_line, name, options, parse, typed,
};

/// Bytes of a file that are read: one with more is none of ours.
const BYTES: u64 = 1 << 20;

type Value<'t> = Spanned<DeValue<'t>>;

/// What is wrong with a file: where, the key, and why.
struct Wrong(Range<usize>, String, String);

/// Puts the servers of this file before those of the command line.
pub(crate) fn add(path: &Path, opener: &Opener<'_>, servers: &mut Servers) -> Result<(), Failure> {
    let failed = |error| open_failure(path, error);
    let mut text = String::new();
    let file = opener.open(path, INPUT)?;
    file.take(BYTES).read_to_string(&mut text).map_err(failed)?;
    let typed = std::mem::take(&mut servers.all);
    let read = read(&text, servers);
    read.map_err(|Wrong(at, key, why)| {
        let line = text.get(..at.start).unwrap_or_default().matches('\n').count() + 1;
        Failure::File { place: format!("{}:{line}", path.display()), key, why }
    })?;
    let number = servers.all.len();
    servers.all.extend(typed.into_iter().map(|server| server.behind(number)));
    servers.check().map_err(|why| {
        let key = String::new();
        Failure::File { place: path.display().to_string(), key, why }
    })
}

fn read(text: &str, servers: &mut Servers) -> Result<(), Wrong> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().unwrap_or(0..0);
        // What is no TOML has no key: the line's own beginning says where.
        let start =
            text.get(..at.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let line = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        Wrong(at, format!("{:.40}", line.trim()), error.message().to_owned())
    })?;
    let mut tables = Vec::new();
    for (key, value) in table.get_ref() {
        let only = "a file has tables [server.NAME] and nothing else";
        let wrong = |why: &str| Wrong(key.span(), key.get_ref().to_string(), why.to_owned());
        match value.get_ref() {
            DeValue::Table(all) if key.get_ref() == "server" => tables.extend(all),
            _ => return Err(wrong(only)),
        }
    }
    // As they stand in the file.
    tables.sort_by_key(|(key, _)| key.span().start);
    let mut depends = Vec::new();
    for (key, value) in tables {
        let path = format!("server.{}", key.get_ref());
        let wrong = |why: &str| Wrong(key.span(), path.clone(), why.to_owned());
        let name = name(key.get_ref()).map_err(|why| wrong(&why))?;
        let DeValue::Table(table) = value.get_ref() else {
            return Err(wrong("a server is a table, with a command at least"));
        };
        let mut reading =
            Reading { path: path.clone(), command: None, depends: &[], words: Vec::new() };
        for (key, value) in table {
            reading.entry(key, value)?;
        }
        let command = reading.command.ok_or_else(|| wrong("it has no command"))?;
        servers
            .add(Some(name), command, &reading.words)
            .map_err(|error| wrong(&first_line(&error)))?;
        depends.push((path.clone(), reading.depends));
    }
    put_in_order(servers, &depends)
}

/// One table, as far as it is read.
struct Reading<'t> {
    path: String,
    command: Option<Program>,
    depends: &'t [Value<'t>],
    /// The options, as they are typed.
    words: Vec<OsString>,
}

impl<'t> Reading<'t> {
    fn entry(&mut self, key: &Spanned<impl AsRef<str>>, value: &'t Value<'t>) -> Result<(), Wrong> {
        let key_text = key.get_ref().as_ref();
        let path = format!("{}.{key_text}", self.path);
        let wrong = |why: &str| Wrong(value.span(), path.clone(), why.to_owned());
        match (key_text, value.get_ref()) {
            ("command", DeValue::String(line)) if !line.trim().is_empty() => {
                self.command = Some(Program::Line(line.to_string().into()));
            }
            ("command", DeValue::Array(words)) if !words.is_empty() => {
                let words: Option<Vec<_>> = words.iter().map(text).collect();
                let words = words.ok_or_else(|| wrong("its words are strings"))?;
                self.command = Some(Program::Words(words));
            }
            ("command", _) => return Err(wrong("give a line for sh, or a list of words")),
            ("depends", DeValue::Array(names)) => self.depends = names,
            ("depends", _) => return Err(wrong("give a list of names")),
            ("env", DeValue::Table(variables)) => {
                for (name, value) in variables {
                    let path = format!("{path}.{}", name.get_ref());
                    let why = "give a string, a number, true or false".to_owned();
                    let text = text(value).ok_or(Wrong(value.span(), path, why))?;
                    self.words.push(format!("-E{}={text}", name.get_ref()).into());
                }
            }
            ("env", _) => return Err(wrong("give a table of variables")),
            _ => self.option(key_text, value).map_err(|why| {
                let at = if why.starts_with("no such key") { key.span() } else { value.span() };
                Wrong(at, path.clone(), why)
            })?,
        }
        Ok(())
    }

    /// Reads what is an option on the command line.
    fn option(&mut self, key: &str, value: &Value<'_>) -> Result<(), String> {
        let options = keys();
        let option = options.iter().find(|option| option.get_long() == Some(key));
        let option = option.ok_or_else(|| {
            let known = options.iter().filter_map(Arg::get_long).collect::<Vec<_>>().join(", ");
            format!("no such key; there are command, env, depends, {known}")
        })?;
        let several = matches!(option.get_action(), ArgAction::Append);
        let values = match value.get_ref() {
            DeValue::Array(all) if several => all.iter().map(text).collect(),
            _ => text(value).map(|text| vec![text]),
        };
        let values = values.ok_or("give a string or a number")?;
        let words: Vec<_> = values.iter().map(|value| typed(option, value.as_ref())).collect();
        parse::<ServerOptions>(&words, false).map_err(|error| first_line(&error))?;
        self.words.extend(words);
        Ok(())
    }
}

/// The options of a server that have a long name; the name of its table is its own.
fn keys() -> Vec<Arg> {
    let long = |option: &Arg| option.get_long().is_some_and(|long| long != "name");
    options::<ServerOptions>().into_iter().filter(long).collect()
}

/// A value that may stand for a word.
fn text(value: &Value<'_>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(is_so) => Some(is_so.to_string()),
        _ => None,
    }
}

/// Puts each server behind those that it depends on, and else where it stands in the file.
fn put_in_order(servers: &mut Servers, depends: &[(String, &[Value<'_>])]) -> Result<(), Wrong> {
    let mut waiting: Vec<(Server, Vec<String>)> = Vec::new();
    let all = std::mem::take(&mut servers.all);
    let names: Vec<String> = all.iter().map(|server| server.name.clone()).collect();
    for (server, (path, depends)) in all.into_iter().zip(depends) {
        let mut needs = Vec::new();
        for value in *depends {
            let path = format!("{path}.depends");
            let wrong = |why: String| Wrong(value.span(), path.clone(), why);
            let name = value.get_ref().as_str().unwrap_or_default();
            if !names.iter().any(|known| known == name) {
                let known = names.join(", ");
                return Err(wrong(format!("there is no server {name:?}; there are {known}")));
            }
            needs.push(name.to_owned());
        }
        waiting.push((server, needs));
    }
    while !waiting.is_empty() {
        let placed: Vec<String> = servers.all.iter().map(|server| server.name.clone()).collect();
        let is_free =
            |(_, needs): &(Server, Vec<String>)| needs.iter().all(|need| placed.contains(need));
        let Some(next) = waiting.iter().position(is_free) else {
            let round: Vec<&str> = waiting.iter().map(|(server, _)| &*server.name).collect();
            let first = depends.iter().find(|(path, _)| path.ends_with(&format!(".{}", round[0])));
            let at = first.and_then(|(_, all)| all.first()).map_or(0..0, Spanned::span);
            let why = format!("these wait for each other: {}", round.join(", "));
            return Err(Wrong(at, format!("server.{}.depends", round[0]), why));
        };
        let (mut server, needs) = waiting.remove(next);
        server.depends =
            needs.iter().filter_map(|need| placed.iter().position(|name| name == need)).collect();
        servers.all.push(server);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The servers in the order of their start, or `LINE: KEY: WHY`.
    fn of(text: &str) -> Result<Vec<Server>, String> {
        let mut servers = Servers::default();
        match read(text, &mut servers) {
            Ok(()) => Ok(servers.all),
            Err(Wrong(at, key, why)) => {
                let line = text[..at.start].matches('\n').count() + 1;
                Err(format!("{line}: {key}: {why}"))
            }
        }
    }

    const FILE: &str = r#"
[server.web]
command = ["./web", "--verbose"]
ready = 8080
depends = ["db", "queue"]
memory = "512M"
cpus = 1.5
env = { A = "1", B = 2 }

[server.db]
command = "./db --port 0"
ready = "tcp"
stdin = "open"
io = ["8:0:rbps=1M", "8:0:wbps=1M"]

[server.queue]
command = "./queue"
depends = ["db"]
"#;

    #[test]
    fn a_table_is_a_server_behind_those_it_depends_on() {
        let servers = of(FILE).unwrap_or_default();
        let names: Vec<&str> = servers.iter().map(|server| &*server.name).collect();
        assert_eq!(names, ["db", "queue", "web"]);
        let depends: Vec<&[usize]> = servers.iter().map(|server| &*server.depends).collect();
        assert_eq!(depends, [&[][..], &[0], &[0, 1]]);
        let web = &servers[2];
        assert!(matches!(&web.command, Program::Words(words) if words[1] == "--verbose"));
        assert_eq!(web.options.ready.as_ref().and_then(|ready| ready.port()), Some(8080));
        assert_eq!(web.options.common.limits.cpus, Some(1.5));
        assert_eq!(web.options.common.setting.env.len(), 2);
        assert_eq!(servers[0].options.common.limits.io.len(), 2);
    }

    #[test]
    fn an_error_names_line_and_key() {
        for (text, error) in [
            ("x = 1", "1: x: a file has tables"),
            ("[server.a]\n", "1: server.a: it has no command"),
            ("[server.a]\ncommand = 3", "2: server.a.command: give a line for sh"),
            ("[server.a]\ncommand = \"x\"\nredy = \"tcp\"", "3: server.a.redy: no such key; there"),
            (
                "[server.a]\ncommand = \"x\"\n\nready = \"no\"",
                "4: server.a.ready: invalid value 'no'",
            ),
            ("[server.a]\ncommand = \"x\"\nmemory = true", "3: server.a.memory: invalid value"),
            ("[server.a]\ncommand = \"x\"\nready = [1]", "3: server.a.ready: give a string"),
            ("[server.a]\ncommand = \"x\"\nenv = { A = [] }", "3: server.a.env.A: give a string"),
            ("[server.a]\ncommand = \"x\"\ndepends = [\"b\"]", "3: server.a.depends: there is no"),
            ("[server.a]\ncommand = \"x\"\ndepends = [\"a\"]", "3: server.a.depends: these wait"),
            ("[server.\"a b\"]\ncommand = \"x\"", "1: server.a b: a name is a letter"),
            ("[server.a]\ncommand = \"x", "2: "),
            ("[server.a]\ncommand = \"x\"\ncommand = \"x\"", "3: command = "),
        ] {
            let said = of(text).err().unwrap_or_default();
            assert!(said.starts_with(error), "{text}: {said}");
        }
    }
}
