//! The names of our own directories and processes.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::Utf8Chunk;

use crate::error::{Error, Result, Step};
use crate::proc::info::ProcessInfo;
use crate::sys::STAND_IN;

/// The prefix of a run root's name; the owner's pid, a dash and eight hex digits follow.
pub(crate) const PREFIX: &str = "tidy-process-";

/// The extended attribute of a run root that identifies its owner.
pub(crate) const RECORD: &CStr = c"user.tidy-process";

/// The extended attribute of a tree that the command line tool was asked to kill.
#[cfg(feature = "cli")]
pub(crate) const KILLED: &CStr = c"user.tidy-process.killed";

/// The extended attribute of a tree that was asked to end.
pub(crate) const STOPPING: &CStr = c"user.tidy-process.stopping";

/// The leaf into which a supervisor moves itself, so that its delegated cgroup holds no process.
pub(crate) const ASIDE: &str = "tidy-process-supervisor";

/// The cgroup in a tree that is its command's own.
pub(crate) const INNER: &str = "delegated";

/// The guard's executable, which identifies a guard. Empty where it could not be linked.
pub(crate) const GUARD_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guard"));

/// Whether this is a name of a systemd unit that holds processes.
pub(crate) fn is_unit(name: &OsStr) -> bool {
    let name = name.as_bytes();
    [".service", ".scope", ".slice"].iter().any(|kind| name.ends_with(kind.as_bytes()))
}

/// The owner's pid in a run root's name: 4711 in `tidy-process-4711-89abcdef`.
pub(crate) fn owner(name: &OsStr) -> Option<u32> {
    let rest = name.as_bytes().strip_prefix(PREFIX.as_bytes())?;
    let (pid, random) = std::str::from_utf8(rest).ok()?.split_once('-')?;
    let hex = random.len() == 8 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    // As it is written, or it is another name: no sign, no zero in front.
    pid.parse().ok().filter(|number: &u32| hex && number.to_string() == pid)
}

/// Checks a name that becomes part of a directory's name.
pub(crate) fn checked(name: &OsStr) -> Result<&OsStr> {
    let no = |why| Err(Error::invalid(Step::Prepare, format!("name {name:?}"), why));
    if name.is_empty() || name.len() > 200 {
        return no("a name has 1 to 200 bytes");
    }
    // In bytes that are no UTF-8 only those below 32 and 127 are control characters.
    let controls =
        |chunk: Utf8Chunk<'_>| chunk.valid().contains(|c: char| c == '/' || c.is_control());
    if name.as_bytes().utf8_chunks().any(controls) {
        return no("a name has no slash and no control character");
    }
    Ok(name)
}

/// Whether a process is a guard, which is no leftover. Its name is a hint, its executable the
/// proof: only a guard executes exactly those bytes.
pub(crate) fn is_guard(process: &ProcessInfo) -> bool {
    let exe = PathBuf::from(format!("/proc/{}/exe", process.pid));
    // Only a memfd is opened: an open of another file may block.
    let is_named = || std::fs::read_link(&exe).is_ok_and(|to| to == *GUARD_EXE);
    process.name == "tidy-guard" && is_named() && has_guard_program(&exe)
}

/// Whether a process has the name of a stand-in.
pub(crate) fn is_stand_in(process: &ProcessInfo) -> bool {
    STAND_IN.to_str().is_ok_and(|name| process.name == name)
}

const GUARD_EXE: &str = "/memfd:tidy-guard (deleted)";

fn has_guard_program(exe: &Path) -> bool {
    let mut found = Vec::new();
    let most = GUARD_PROGRAM.len() as u64 + 1;
    let read = File::open(exe).and_then(|file| file.take(most).read_to_end(&mut found));
    read.is_ok() && !found.is_empty() && found == GUARD_PROGRAM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bytes_without_slashes_and_controls() {
        for fine in [&b"a"[..], b"a b", b"\xff\x80", "\u{e9}".as_bytes(), &[b'x'; 200]] {
            assert!(checked(OsStr::from_bytes(fine)).is_ok(), "{fine:?}");
        }
        let controls = [&b""[..], b"a/b", b"\n", b"\xff\x1b", b"\x7f", "\u{85}".as_bytes()];
        for odd in controls.into_iter().chain([&[b'x'; 201][..]]) {
            assert!(checked(OsStr::from_bytes(odd)).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn only_a_run_roots_name_has_an_owner() {
        assert_eq!(owner("tidy-process-4711-89abcdef".as_ref()), Some(4711));
        for other in [
            "tidy-process-4711",
            "tidy-process-4711-89abcde",
            "tidy-process-4711-89abcdeg",
            "tidy-process--89abcdef",
            "tidy-process-x-89abcdef",
            "tidy-process-4711-89abcdef0",
            "system.slice",
            "tidy-process-scratch",
            "tidy-process-+4711-89abcdef",
            "tidy-process-04711-89abcdef",
        ] {
            assert_eq!(owner(other.as_ref()), None, "{other}");
        }
    }
}
