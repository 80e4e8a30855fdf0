//! Scripts without `#!`: the kernel does not execute them; shells and env(1) hand them to sh.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use tidy_process::{Child, Command, cli_support};

/// What execvp(3) searches where there is no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// As much of a file as the kernel looks at.
const HEAD: u64 = 256;

/// Spawns the command; if its program is a script that the kernel does not know for one, sh runs
/// it.
pub(crate) fn spawn(command: &mut Command) -> tidy_process::Result<Child> {
    match command.spawn() {
        Err(error) if error.raw_os_error() == Some(Errno::ENOEXEC as i32) => {
            let Some(script) = script(command) else { return Err(error) };
            cli_support::run_by_shell(command, script);
            command.spawn()
        }
        spawned => spawned,
    }
}

/// The file that was found, if it is text.
fn script(command: &Command) -> Option<OsString> {
    let seen_from_here =
        |path: &PathBuf| command.get_current_dir().map_or(path.clone(), |dir| dir.join(path));
    let is_program = |path: &PathBuf| {
        let path = seen_from_here(path);
        path.is_file() && access(&path, AccessFlags::X_OK).is_ok()
    };
    let found = candidates(command).into_iter().find(is_program)?;
    is_text(&seen_from_here(&found)).then(|| found.into_os_string())
}

/// In the order of execvp(3). sh shall not take a name for one of its options, nor look it up.
fn candidates(command: &Command) -> Vec<PathBuf> {
    let program = command.get_program();
    if program.as_bytes().contains(&b'/') {
        return vec![program.into()];
    }
    let set = command.get_envs().find(|(key, _)| *key == "PATH").map(|(_, value)| value);
    let path = set.map_or_else(|| std::env::var_os("PATH"), |set| set.map(OsStr::to_owned));
    let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
    let dirs = path.as_bytes().split(|&byte| byte == b':');
    let dirs = dirs.map(|dir| if dir.is_empty() { b"." } else { dir });
    dirs.map(|dir| Path::new(OsStr::from_bytes(dir)).join(program)).collect()
}

/// As bash decides it: not empty, no program's magic, no NUL in the first line.
fn is_text(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    read.is_ok() && !head.is_empty() && !head.starts_with(b"\x7fELF") && !line.contains(&0)
}
