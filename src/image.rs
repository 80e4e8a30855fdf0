//! All that exec needs, prepared: every allocation, look-up and NUL check happens here, before the
//! child exists.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use crate::error::{Error, Result, Step};
use crate::program::Program;

/// What execvp(3) searches where there is no `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// A list of strings, and the null-ended list of pointers to them that exec wants. They stand one
/// behind the other: an environment has dozens.
#[derive(Debug)]
pub(crate) struct Strings {
    pointers: Vec<*const c_char>,
    _bytes: Vec<u8>,
}

impl Strings {
    /// Each string comes in pieces.
    fn new<'a, const N: usize>(
        what: &str,
        strings: impl Iterator<Item = [&'a [u8]; N]>,
    ) -> Result<Self> {
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for pieces in strings {
            let start = bytes.len();
            pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
            let string = bytes.get(start..).unwrap_or_default();
            if string.contains(&0) {
                return Err(has_nul(what, string));
            }
            bytes.push(0);
            starts.push(start);
        }
        // Only now: they do not move any more.
        let places = starts.iter().filter_map(|&start| bytes.get(start..));
        let pointers = places.map(|string| string.as_ptr().cast()).chain([ptr::null()]).collect();
        Ok(Self { pointers, _bytes: bytes })
    }

    pub(crate) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    /// The pointers without the null at the end.
    pub(crate) fn each(&self) -> &[*const c_char] {
        self.pointers.split_last().map_or(&[], |(_, each)| each)
    }
}

/// Program, arguments, environment and directory of one exec.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) candidates: Strings,
    pub(crate) argv: Strings,
    /// `["/bin/sh", PATH, arguments.., null]` for a file that turns out to be no program; PATH is
    /// filled in by the child.
    pub(crate) shell_argv: Vec<*const c_char>,
    pub(crate) envp: Strings,
    pub(crate) cwd: Option<CString>,
    pub(crate) groups: Option<Vec<libc::gid_t>>,
}

impl Image {
    pub(crate) fn new(command: &Program) -> Result<Self> {
        let program = command.program.as_bytes();
        if program.contains(&0) {
            return Err(has_nul("program", program));
        }
        let env = environment(command);
        let path = env.iter().find(|(key, _)| key == "PATH").map(|(_, path)| path.as_bytes());
        let candidates = candidates(program, path.unwrap_or(DEFAULT_PATH));
        let candidates = candidates.iter().map(|path| [path.as_slice()]);
        let first = command.arg0.as_ref().unwrap_or(&command.program);
        let args = [first].into_iter().chain(&command.args).map(|arg| [arg.as_bytes()]);
        let argv = Strings::new("argument", args)?;
        let arguments = argv.pointers.iter().copied().skip(1);
        let shell_argv = [c"/bin/sh".as_ptr(), ptr::null()].into_iter().chain(arguments);
        let cwd = command.cwd.as_ref();
        Ok(Self {
            shell_argv: shell_argv.collect(),
            candidates: Strings::new("program", candidates)?,
            argv,
            envp: env_strings(&env)?,
            cwd: cwd.map(|dir| directory(dir)).transpose()?,
            groups: groups(command),
        })
    }
}

fn directory(dir: &Path) -> Result<CString> {
    let bytes = dir.as_os_str().as_bytes();
    CString::new(bytes).map_err(|_| has_nul("directory", bytes))
}

fn has_nul(what: &str, bytes: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(bytes);
    Error::invalid(Step::Prepare, format!("{what} {shown:?}"), "it contains a NUL byte")
}

/// What the child's environment will be. A snapshot: another thread may set variables while the
/// child is born.
fn environment(command: &Program) -> Vec<(OsString, OsString)> {
    let inherited = (!command.env_clear).then(std::env::vars_os).into_iter().flatten();
    if command.env.is_empty() {
        return inherited.collect();
    }
    let mut env: BTreeMap<OsString, OsString> = inherited.collect();
    for (key, value) in &command.env {
        match value {
            Some(value) => env.insert(key.clone(), value.clone()),
            None => env.remove(key),
        };
    }
    env.into_iter().collect()
}

fn env_strings(env: &[(OsString, OsString)]) -> Result<Strings> {
    // An equals sign may open a name (as in "=C:"), but not stand later in it.
    let is_odd =
        |key: &OsStr| key.is_empty() || key.as_bytes().iter().skip(1).any(|&byte| byte == b'=');
    if let Some((key, _)) = env.iter().find(|(key, _)| is_odd(key)) {
        let subject = format!("environment variable {key:?}");
        return Err(Error::invalid(Step::Prepare, subject, "not a name"));
    }
    let strings = env.iter().map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()]);
    Strings::new("environment variable", strings)
}

/// Where execvp(3) would look, in order. An empty place in PATH is the current directory; an empty
/// program is nowhere.
fn candidates(program: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let in_dir = |dir: &[u8]| match dir {
        [] => program.to_vec(),
        dir => [dir, b"/", program].concat(),
    };
    path.split(|&byte| byte == b':').map(in_dir).collect()
}

/// As std has it: whoever drops root's uid drops root's groups too.
fn groups(command: &Program) -> Option<Vec<libc::gid_t>> {
    let drops_root = command.uid.is_some() && nix::unistd::geteuid().is_root();
    command.groups.clone().or_else(|| drops_root.then(Vec::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &str, path: &str) -> Vec<String> {
        let all = candidates(program.as_bytes(), path.as_bytes());
        all.into_iter().map(|each| String::from_utf8_lossy(&each).into_owned()).collect()
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
}
