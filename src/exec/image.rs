//! Prepares all that exec needs: each allocation, environment look-up and NUL check happens here,
//! before the child exists.

use std::collections::{BTreeMap, TryReserveError};
use std::ffi::{CString, OsStr, OsString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::errno::Errno;

#[cfg(feature = "sandbox")]
use crate::error::errno_of;
use crate::error::kind::HAS_NUL;
use crate::error::{Error, Result, Step};
use crate::exec::program::Program;
use crate::exec::set_up::SetUp;
use crate::sys::environ::{self, Lent};

/// What execvp(3) searches where there is no `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// A list of strings in one buffer (an environment has dozens), and the null-ended list of pointers
/// to them that exec wants.
#[derive(Debug)]
pub(crate) struct Strings {
    pointers: Vec<*const c_char>,
    _bytes: Vec<u8>,
}

/// [`Strings`] while they grow. Where memory has run out a push is an error: a caller may have some
/// to free.
#[derive(Default)]
struct Growing {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Growing {
    /// Reserves room for this many strings: growing piece by piece costs more than all the rest.
    fn new(count: usize, bytes: usize) -> Result<Self> {
        let mut new = Self::default();
        new.reserve(count, bytes)?;
        Ok(new)
    }

    fn reserve(&mut self, count: usize, bytes: usize) -> Result<()> {
        let reserved = self.starts.try_reserve(count).and_then(|()| self.bytes.try_reserve(bytes));
        reserved.map_err(no_memory)
    }

    /// Appends one string, made of these pieces, none of which has a NUL in it.
    fn push(&mut self, pieces: &[&[u8]]) -> Result<()> {
        self.reserve(1, pieces.iter().map(|piece| piece.len()).sum::<usize>() + 1)?;
        self.starts.push(self.bytes.len());
        pieces.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        self.bytes.push(0);
        Ok(())
    }

    /// Appends a string that a caller has given; a NUL in it is an error.
    fn push_checked(&mut self, what: &str, pieces: &[&[u8]]) -> Result<()> {
        if pieces.iter().any(|piece| piece.contains(&0)) {
            return Err(has_nul(what, &pieces.concat()));
        }
        self.push(pieces)
    }

    fn done(self) -> Result<Strings> {
        // Only now do the strings stop moving.
        let places = self.starts.iter().filter_map(|&start| self.bytes.get(start..));
        let mut pointers = Vec::new();
        pointers.try_reserve_exact(self.starts.len() + 1).map_err(no_memory)?;
        pointers.extend(places.map(|string| string.as_ptr().cast()));
        pointers.push(ptr::null());
        Ok(Strings { pointers, _bytes: self.bytes })
    }
}

fn no_memory(_: TryReserveError) -> Error {
    Error::os(Step::Prepare, "arguments and environment", Errno::ENOMEM)
}

impl Strings {
    pub(crate) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    /// Returns the pointers without the null at the end.
    pub(crate) fn each(&self) -> &[*const c_char] {
        self.pointers.split_last().map_or(&[], |(_, each)| each)
    }
}

/// An environment: laid out for this exec, or the caller's as it is.
#[derive(Debug)]
enum Environment {
    Own(Strings),
    Lent(Lent),
}

/// Program, arguments, environment and directory of one exec.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) candidates: Strings,
    pub(crate) argv: Strings,
    envp: Environment,
    pub(crate) cwd: Option<CString>,
    pub(crate) groups: Option<Vec<libc::gid_t>>,
    /// What is executed instead, to bring the child.
    pub(crate) set_up: Option<SetUp>,
}

impl Image {
    /// `closures`: code of the caller's runs before the exec, and may change the environment.
    pub(crate) fn new(command: &Program, closures: bool) -> Result<Self> {
        let changed = !command.env.is_empty() || command.env_clear || command.inherited.is_some();
        if !(changed || closures)
            && let Some(lent) = environ::lent()
        {
            return Self::of(command, (Environment::Lent(lent), std::env::var_os("PATH")));
        }
        let (envp, path) = environment(command)?;
        Self::of(command, (Environment::Own(envp), path))
    }

    /// Copies an environment that is lent, before a fork: the handlers of one
    /// (pthread_atfork(3)) are code of the caller's, and may change it.
    pub(crate) fn keep_environment(&mut self) -> Result<()> {
        if matches!(self.envp, Environment::Lent(_)) {
            let (envp, _) = inherited(None)?;
            self.envp = Environment::Own(envp);
        }
        Ok(())
    }

    pub(crate) fn envp(&self) -> *const *const c_char {
        match &self.envp {
            Environment::Own(strings) => strings.as_ptr(),
            Environment::Lent(lent) => lent.as_ptr(),
        }
    }

    /// With those of the caller's variables alone that are kept. The directory is this process's
    /// own unless another one is asked for; a home that is not known is `/tmp`.
    #[cfg(feature = "sandbox")]
    pub(crate) fn confined(command: &Program, keeps: &dyn Fn(&OsStr) -> bool) -> Result<Self> {
        let mut env = changed(command, keeps);
        if !command.env.contains_key(OsStr::new("HOME")) {
            env.entry("HOME".into()).or_insert_with(|| "/tmp".into());
        }
        let (envp, path) = checked(env)?;
        let mut image = Self::of(command, (Environment::Own(envp), path))?;
        let failed =
            |error| Error::os(Step::Chdir, "this process's own directory", errno_of(&error));
        let here = || std::env::current_dir().map_err(failed);
        let cwd = match &command.cwd {
            Some(dir) if dir.is_absolute() => dir.clone(),
            Some(dir) => here()?.join(dir),
            None => here()?,
        };
        image.cwd = Some(directory(&cwd)?);
        Ok(image)
    }

    fn of(command: &Program, environment: (Environment, Option<OsString>)) -> Result<Self> {
        let program = command.program.as_bytes();
        if program.contains(&0) {
            return Err(has_nul("program", program));
        }
        let (envp, path) = environment;
        let path = path.as_ref().map_or(DEFAULT_PATH, |path| path.as_bytes());
        let cwd = command.cwd.as_ref();
        Ok(Self {
            candidates: candidates(program, path)?,
            argv: arguments(command)?,
            envp,
            cwd: cwd.map(|dir| directory(dir)).transpose()?,
            groups: groups(command),
            set_up: None,
        })
    }
}

fn directory(dir: &Path) -> Result<CString> {
    let bytes = dir.as_os_str().as_bytes();
    CString::new(bytes).map_err(|_| has_nul("directory", bytes))
}

fn has_nul(what: &str, bytes: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(bytes);
    Error::invalid(Step::Prepare, format!("{what} {shown:?}"), HAS_NUL)
}

fn arguments(command: &Program) -> Result<Strings> {
    let mut argv = Growing::new(command.args.len() + 1, 256)?;
    let first = command.arg0.as_ref().unwrap_or(&command.program);
    for arg in [first].into_iter().chain(&command.args) {
        argv.push_checked("argument", &[arg.as_bytes()])?;
    }
    argv.done()
}

/// Builds the child's environment, and returns the `PATH` in it. A snapshot: another thread may set
/// variables while the child is born.
fn environment(command: &Program) -> Result<(Strings, Option<OsString>)> {
    if command.env.is_empty() && !command.env_clear {
        return inherited(command.inherited.as_deref());
    }
    checked(changed(command, &|_| true))
}

/// Lays out what was taken over, or the environment of this process, which needs no check.
fn inherited(taken: Option<&[(OsString, OsString)]>) -> Result<(Strings, Option<OsString>)> {
    let mut path = None;
    let mut envp = Growing::new(64, 4096)?;
    let mut push = |key: &OsStr, value: &OsStr| {
        if path.is_none() && key == "PATH" {
            path = Some(value.to_owned());
        }
        envp.push(&[key.as_bytes(), b"=", value.as_bytes()])
    };
    match taken {
        Some(taken) => taken.iter().try_for_each(|(key, value)| push(key, value))?,
        None => std::env::vars_os().try_for_each(|(key, value)| push(&key, &value))?,
    }
    Ok((envp.done()?, path))
}

/// Lays out these variables, if each can be one; returns the `PATH` among them too.
fn checked(mut env: BTreeMap<OsString, OsString>) -> Result<(Strings, Option<OsString>)> {
    let mut envp = Growing::new(64, 4096)?;
    for (key, value) in &env {
        if is_odd(key) {
            let subject = format!("environment variable {key:?}");
            return Err(Error::invalid(Step::Prepare, subject, "not a name"));
        }
        let pieces = [key.as_bytes(), b"=", value.as_bytes()];
        envp.push_checked("environment variable", &pieces)?;
    }
    Ok((envp.done()?, env.remove(OsStr::new("PATH"))))
}

fn changed(command: &Program, keeps: &dyn Fn(&OsStr) -> bool) -> BTreeMap<OsString, OsString> {
    let kept = |(key, _): &(OsString, OsString)| keeps(key);
    let mut env: BTreeMap<OsString, OsString> = match &command.inherited {
        _ if command.env_clear => BTreeMap::new(),
        Some(taken) => taken.iter().filter(|one| kept(one)).cloned().collect(),
        None => std::env::vars_os().filter(kept).collect(),
    };
    for (key, value) in &command.env {
        match value {
            Some(value) => env.insert(key.clone(), value.clone()),
            None => env.remove(key),
        };
    }
    env
}

/// Whether this is no variable's name: it is empty, or has an equals sign behind its first byte.
fn is_odd(key: &OsStr) -> bool {
    key.is_empty() || key.as_bytes().iter().skip(1).any(|&byte| byte == b'=')
}

/// Lists the paths that execvp(3) would try, in order. An empty place in PATH is the current
/// directory; an empty program has no path. Both arguments have been checked for NULs.
fn candidates(program: &[u8], path: &[u8]) -> Result<Strings> {
    let mut all = Growing::new(8, 256)?;
    if program.contains(&b'/') {
        all.push(&[program])?;
    } else if !program.is_empty() {
        for dir in path.split(|&byte| byte == b':') {
            let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
            all.push(&[dir, slash, program])?;
        }
    }
    all.done()
}

/// The supplementary groups to set: as with std, a change from root to a uid drops root's groups
/// too.
fn groups(command: &Program) -> Option<Vec<libc::gid_t>> {
    let drops_root = command.uid.is_some() && nix::unistd::geteuid().is_root();
    command.groups.clone().or_else(|| drops_root.then(Vec::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &str, path: &str) -> Vec<String> {
        let Ok(all) = candidates(program.as_bytes(), path.as_bytes()) else { return Vec::new() };
        let strings = all._bytes.split(|&byte| byte == 0);
        strings.take(all.each().len()).map(|s| String::from_utf8_lossy(s).into_owned()).collect()
    }

    #[test]
    fn a_name_is_looked_for_in_each_directory_of_the_path() {
        assert_eq!(found("ls", "/bin:/usr/bin"), ["/bin/ls", "/usr/bin/ls"]);
    }

    #[test]
    fn an_empty_place_in_the_path_is_the_current_directory() {
        assert_eq!(found("ls", ":/bin:"), ["ls", "/bin/ls", "ls"]);
        assert_eq!(found("ls", ""), ["ls"]);
    }

    #[test]
    fn a_name_with_a_slash_is_a_path() {
        assert_eq!(found("./ls", "/bin"), ["./ls"]);
        assert_eq!(found("dir/ls", "/bin"), ["dir/ls"]);
    }

    #[test]
    fn an_empty_name_is_nowhere() {
        assert_eq!(found("", "/bin"), Vec::<String>::new());
    }

    #[test]
    fn what_was_taken_over_is_changed_and_filtered_as_the_callers_own_is() {
        let mut command = Program::new(OsStr::new("env"));
        command.inherited = Some(vec![("A".into(), "1".into()), ("PATH".into(), "/x".into())]);
        let laid_out = |command: &Program| {
            let Ok((envp, path)) = environment(command) else { return Default::default() };
            (String::from_utf8_lossy(&envp._bytes).into_owned(), path)
        };
        assert_eq!(laid_out(&command), ("A=1\0PATH=/x\0".to_owned(), Some("/x".into())));
        command.env.insert("B".into(), Some("2".into()));
        assert_eq!(laid_out(&command).0, "A=1\0B=2\0PATH=/x\0");
        let kept: Vec<_> = changed(&command, &|key| key == "A").into_keys().collect();
        assert_eq!(kept, ["A", "B"]);
        command.env_clear = true;
        assert_eq!(laid_out(&command), ("B=2\0".to_owned(), None));
    }
}
