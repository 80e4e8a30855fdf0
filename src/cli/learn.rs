//! `--learn FILE`: runs the command where it can reach everything and changes nothing, and writes
//! down as a profile what it would have needed.
//!
//! "Everything" is the host's file system: to be read, and as overlays wherever one is possible.
//! The network, the environment and the system calls are as they were asked for: those have
//! effects outside of any overlay.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use tidy_process::cli_support::{Mount, Needs, mounts, steers};
use tidy_process::{Report, Sandbox};

use crate::exit::{Failure, open_failure};
use crate::print::text::line;
use crate::profile;
use crate::whole::WholeFile;

/// Overlays, at the most; a sandbox takes so many.
const OVERLAYS: usize = 16;

/// What every sandbox has of its own, or what is no place for files.
const LEFT_OUT: [&str; 5] = ["/proc", "/dev", "/sys", "/run", "/lost+found"];

/// File systems of which an overlay can be made.
const PLAIN: [&str; 9] =
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay", "zfs"];

/// Directories in one that are named by it, where there are so many.
const SIBLINGS: usize = 3;

/// What was asked for, by keys of a profile.
pub(crate) struct Asked<'a> {
    pub(crate) command: String,
    pub(crate) lists: Vec<(&'static str, Vec<String>)>,
    pub(crate) net: Option<&'a str>,
}

/// Refuses a file that is there and is no profile: it would be lost.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(open_failure(path, error)),
        Ok(found) if found.is_file() && found.len() == 0 => Ok(()),
        // A FIFO would be waited for.
        Ok(found) if found.is_file() => profile::read(path).map(drop).map_err(|_| no_profile(path)),
        Ok(_) => Err(no_profile(path)),
    }
}

fn no_profile(path: &Path) -> Failure {
    Failure::File {
        place: path.display().to_string(),
        key: String::new(),
        why: "it is there and is no profile: --learn overwrites nothing else".to_owned(),
    }
}

/// The same sandbox, from which everything is reached; `named` stays as it is.
pub(crate) fn widened(narrow: &Sandbox, here: &Path, named: &BTreeSet<PathBuf>) -> Sandbox {
    let mounts = mounts().unwrap_or_default();
    let mut wide = narrow.clone().learn_for(narrow);
    let (mut overlays, mut count) = (BTreeSet::<PathBuf>::new(), named.len());
    for dir in candidates(here, &mounts) {
        if named.contains(&dir) || overlays.iter().any(|above| dir.starts_with(above)) {
            continue;
        }
        if access(&dir, AccessFlags::R_OK | AccessFlags::X_OK).is_err() {
            continue;
        }
        if count < OVERLAYS && is_plain(&dir, &mounts) && !has_mounts_below(&dir, &mounts) {
            wide = wide.overlay(&dir);
            overlays.insert(dir);
            count += 1;
        } else {
            wide = wide.read_only(&dir);
        }
    }
    for dir in ["/sys", "/run"].map(Path::new) {
        if dir.is_dir() && !named.contains(dir) {
            wide = wide.read_only(dir);
        }
    }
    wide
}

/// Directories to be shown, the most important first, and what is above before what is below.
fn candidates(here: &Path, mounts: &[Mount]) -> Vec<PathBuf> {
    let mut tops: Vec<PathBuf> = below(Path::new("/"));
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let first = |dir: &PathBuf| {
        let important = [Some(here.to_owned()), home.clone()];
        !important.iter().flatten().any(|it| it.starts_with(dir))
    };
    tops.sort_by_key(first);
    let mut all = Vec::new();
    for top in tops {
        let split = has_mounts_below(&top, mounts);
        all.push(top.clone());
        if split {
            let mut inner = below(&top);
            inner.sort_by_key(first);
            all.extend(inner);
        }
    }
    all
}

/// The directories in one.
fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let paths = dirs.map(|entry| entry.path());
    let mut all: Vec<PathBuf> =
        paths.filter(|path| !LEFT_OUT.iter().any(|out| path == Path::new(out))).collect();
    all.sort();
    all
}

fn has_mounts_below(dir: &Path, mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| mount.point != dir && mount.point.starts_with(dir))
}

fn is_plain(dir: &Path, mounts: &[Mount]) -> bool {
    let over = mounts.iter().filter(|mount| dir.starts_with(&mount.point));
    let over = over.max_by_key(|mount| mount.point.components().count());
    over.is_some_and(|mount| PLAIN.contains(&&*mount.kind))
}

/// Writes the profile, and says so.
pub(crate) fn write(
    place: &WholeFile,
    asked: &Asked<'_>,
    needs: &Needs,
    report: &Report,
    quiet: bool,
) -> Result<(), Failure> {
    let write = fewest(&needs.write, &BTreeSet::new());
    let read = fewest(&needs.read, &write);
    let text = text(asked, needs, (&read, &write));
    let path = place.path();
    place.put(&text).map_err(|error| open_failure(path, error))?;
    if !quiet {
        let (reads, writes) = (read.len(), write.len());
        line(format_args!("learned {path:?}: {reads} paths to read, {writes} to write"));
        if !report.success() {
            line("CMD has not succeeded: the profile holds what it has come to");
        }
    }
    Ok(())
}

/// The same places by fewer names: what is below another one is, and several in one directory are
/// that, unless it holds much else.
fn fewest(all: &BTreeSet<PathBuf>, others: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut all = all.clone();
    loop {
        let is_covered = |path: &PathBuf| {
            let mut above = path.ancestors().skip(1);
            above.any(|above| all.contains(above)) || path.ancestors().any(|it| others.contains(it))
        };
        let kept: BTreeSet<PathBuf> =
            all.iter().filter(|path| !is_covered(path)).cloned().collect();
        let parents: BTreeSet<&Path> = kept.iter().filter_map(|path| path.parent()).collect();
        let crowded = parents.into_iter().find(|parent| {
            // A home directory, or one at the top, is not opened for what is in it.
            let deep = parent.components().count() > 3;
            deep && kept.iter().filter(|path| path.parent() == Some(*parent)).count() >= SIBLINGS
        });
        match crowded.map(Path::to_owned) {
            None => return kept,
            Some(parent) => {
                all = kept;
                all.insert(parent);
            }
        }
    }
}

fn text(
    asked: &Asked<'_>,
    needs: &Needs,
    (read, write): (&BTreeSet<PathBuf>, &BTreeSet<PathBuf>),
) -> String {
    let mut text = "# Learned by tidy-process run --learn. Read it before you use it: the command \
                    chose what is in it.\n"
        .to_owned();
    let _ = writeln!(text, "# {}", plain(&asked.command));
    text += "level = \"sandbox\"\n";
    for (key, paths) in [("read", read), ("write", write)] {
        let named = asked.lists.iter().find(|(name, _)| *name == key);
        let named = named.into_iter().flat_map(|(_, list)| list.iter().cloned());
        let (texts, others): (Vec<_>, Vec<_>) =
            paths.iter().partition(|path| path.to_str().is_some());
        let mut list: BTreeSet<String> = named.collect();
        list.extend(texts.iter().filter_map(|path| path.to_str()).map(str::to_owned));
        array(&mut text, key, list.iter());
        for path in others {
            let _ = writeln!(
                text,
                "# {key} {}: no text, so it cannot be named here",
                plain(&path.to_string_lossy())
            );
        }
    }
    for dir in &needs.looked {
        let dir = plain(&dir.to_string_lossy());
        let _ =
            writeln!(text, "# It has looked at {dir}: name that only if it has to see all of it");
    }
    for (key, list) in asked.lists.iter().filter(|(key, _)| !["read", "write"].contains(key)) {
        array(&mut text, key, list.iter());
    }
    if let Some(net) = asked.net {
        let _ = writeln!(text, "net = {}", string(net));
    } else if needs.loopback {
        text += "# It has used 127.0.0.1, in vain: learn it again with --net loopback, or\n\
                 # net = \"loopback\"\n";
    }
    if asked.net != Some("host") {
        for address in needs.addresses.iter().take(10) {
            let _ =
                writeln!(text, "# It has tried to reach {address}: --allow-host, or --net host");
        }
    }
    for (call, property) in &needs.calls {
        let why = property.map_or_else(String::new, |it| format!("; without, it {it}"));
        let _ = writeln!(text, "# It was refused {call}: allow-syscall = [\"{call}\"]{why}");
    }
    text
}

fn array<'a>(text: &mut String, key: &str, list: impl Iterator<Item = &'a String>) {
    let list: Vec<String> = list.map(|word| format!("    {},\n", string(word))).collect();
    if !list.is_empty() {
        let _ = writeln!(text, "{key} = [\n{}]", list.concat());
    }
}

/// A string of TOML.
fn string(word: &str) -> String {
    let mut text = "\"".to_owned();
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if steers(c) => drop(write!(text, "\\U{:08x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text + "\""
}

/// In a comment.
fn plain(word: &str) -> String {
    word.chars().map(|c| if steers(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_by_as_few_names_as_possible() {
        let of = |all: &[&str]| all.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        let none = BTreeSet::new();
        assert_eq!(fewest(&of(&["/a/b", "/a/b/c", "/d"]), &none), of(&["/a/b", "/d"]));
        let many = of(&["/opt/x/lib/a", "/opt/x/lib/b", "/opt/x/lib/c"]);
        assert_eq!(fewest(&many, &none), of(&["/opt/x/lib"]));
        assert_eq!(fewest(&many, &of(&["/opt/x"])), none);
        let homes = of(&["/home/a", "/home/b", "/home/c"]);
        assert_eq!(fewest(&homes, &none), homes);
    }

    #[test]
    fn what_a_command_has_named_cannot_leave_its_string() {
        assert_eq!(
            string("/a\"b\\c\n\x7f\u{e0041}"),
            "\"/a\\\"b\\\\c\\U0000000a\\U0000007f\\U000e0041\""
        );
        assert_eq!(plain("a\nallow-syscall = 1"), "a?allow-syscall = 1");
    }
}
