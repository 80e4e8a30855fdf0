//! `--profile`: a sandbox in a file, for what no longer fits a line. Its keys are the options by
//! their long names; see docs/sandbox.md.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf, absolute};

use tidy_process::{Network, Sandbox};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::exit::{Failure, open_failure};
use crate::proxy::rules::Host;

/// Bytes that a profile may have.
const BYTES: u64 = 1 << 20;

const KEYS: &str = "level, read, write, hide, tmpfs, overlay, net, allow-host, keep-env, \
                    allow-syscall, deny-syscall";

/// The keys whose values are paths.
const PATHS: [&str; 5] = ["read", "write", "hide", "tmpfs", "overlay"];

/// What is wrong: the place in the text, and why.
type Wrong = (usize, String);

/// A sandbox, and the hosts that its proxy allows.
pub(crate) struct Profile {
    pub(crate) sandbox: Sandbox,
    pub(crate) hosts: Vec<Host>,
}

/// Reads a profile. Relative paths are meant from its own directory.
pub(crate) fn read(path: &Path) -> Result<Profile, Failure> {
    let failed = |error| open_failure(path, error);
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    // One more: what is cut off could have been a rule.
    file.take(BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > BYTES {
        let why = format!("a profile has {BYTES} bytes at most");
        return Err(Failure::File { place: path.display().to_string(), key: String::new(), why });
    }
    let dir = absolute(path).map_err(failed)?;
    let dir = dir.parent().unwrap_or(Path::new("/"));
    parse(&text, dir).map_err(|(at, why)| {
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        Failure::File { place: format!("{}:{line}", path.display()), key: String::new(), why }
    })
}

fn parse(text: &str, dir: &Path) -> Result<Profile, Wrong> {
    let table = DeTable::parse(text)
        .map_err(|error| (error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
    let table = table.get_ref();
    let mut sandbox = match table.get("level") {
        None => Sandbox::new().system(),
        Some(level) => match level.get_ref().as_str() {
            Some("sandbox") => Sandbox::new().system(),
            Some("fence") => Sandbox::fence(),
            _ => return Err((level.span().start, "level: \"fence\" or \"sandbox\"".to_owned())),
        },
    };
    let mut hosts = Vec::new();
    for (key, value) in table {
        let name: &str = key.get_ref();
        let words = words(value).map_err(|why| (value.span().start, format!("{name}: {why}")))?;
        let wrong = |why: String| (value.span().start, why);
        if PATHS.contains(&name) && words.iter().any(String::is_empty) {
            return Err(wrong(format!("{name}: a path is empty; \".\" is the file's directory")));
        }
        let paths = || words.iter().map(|path| place(dir, path));
        sandbox = match name {
            "level" => sandbox,
            "read" => paths().fold(sandbox, Sandbox::read_only),
            "write" => paths().fold(sandbox, Sandbox::read_write),
            "hide" => paths().fold(sandbox, Sandbox::hide),
            "tmpfs" => paths().fold(sandbox, Sandbox::private),
            "overlay" => paths().fold(sandbox, Sandbox::overlay),
            "keep-env" => sandbox.keep_env(&words),
            "allow-host" => {
                let parsed: Result<Vec<_>, _> =
                    words.iter().map(|word| Host::parse(word)).collect();
                hosts = parsed.map_err(|why| wrong(format!("allow-host: {why}")))?;
                sandbox
            }
            "allow-syscall" => words.into_iter().fold(sandbox, Sandbox::allow_syscall),
            "deny-syscall" => words.into_iter().fold(sandbox, Sandbox::deny_syscall),
            "net" => match value.get_ref().as_str().and_then(network) {
                Some(network) => sandbox.network(network),
                None => return Err(wrong("net: \"none\", \"loopback\" or \"host\"".to_owned())),
            },
            _ => {
                let why = format!("{name}: no such key; there are {KEYS}");
                return Err((key.span().start, why));
            }
        };
    }
    if let Some((key, _)) = table.get_key_value("net").filter(|_| !hosts.is_empty()) {
        let why = "net: allow-host has a network of its own: leave one of them out";
        return Err((key.span().start, why.to_owned()));
    }
    Ok(Profile { sandbox, hosts })
}

/// The network of this name.
pub(crate) fn network(name: &str) -> Option<Network> {
    match name {
        "none" => Some(Network::None),
        "loopback" => Some(Network::Loopback),
        "host" => Some(Network::Host),
        _ => None,
    }
}

/// A path as it is meant; `.` is the directory itself.
pub(crate) fn place(dir: &Path, path: impl AsRef<Path>) -> PathBuf {
    dir.join(path.as_ref()).components().collect()
}

/// One string, or a list of them.
fn words(value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, &'static str> {
    let word = |value: &DeValue<'_>| value.as_str().map(ToOwned::to_owned);
    let all = match value.get_ref() {
        DeValue::Array(all) => all.iter().map(|value| word(value.get_ref())).collect(),
        one => word(one).map(|word| vec![word]),
    };
    all.ok_or("give a string, or a list of strings")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidy_process::Level;

    fn wrong(text: &str) -> String {
        let (at, why) = parse(text, Path::new("/dir")).err().unwrap_or_default();
        format!("{}: {why}", text[..at].matches('\n').count() + 1)
    }

    #[test]
    fn a_profile_is_the_options_by_their_names() {
        let text = "read = ['/opt', 'data']\nwrite = '.'\nhide = ['data/x']\ntmpfs = '/var/tmp'\n\
                    overlay = 'scratch'\n\
                    net = 'loopback'\nkeep-env = ['A', 'B']\ndeny-syscall = 'personality'";
        let sandbox = parse(text, Path::new("/dir")).map_err(|(_, why)| why).ok();
        let Some(Ok(plan)) = sandbox.map(|made| made.sandbox.plan()) else { return };
        let plan = plan.to_string();
        for piece in [
            "read-only \"/opt\"",
            "read-only \"/dir/data\"",
            "read-write \"/dir\"",
            "hidden \"/dir/data/x\"",
            "private \"/var/tmp\"",
            "overlay \"/dir/scratch\"",
            "its own loopback",
            "keep B",
            "refuse personality",
        ] {
            assert!(plan.contains(piece), "{piece} is not in {plan}");
        }
    }

    #[test]
    fn the_level_may_be_a_fence() {
        let level = |text| parse(text, Path::new("/")).ok().map(|made| made.sandbox.level());
        assert_eq!(level("level = 'fence'"), Some(Level::Fence));
        assert_eq!(level(""), Some(Level::Sandbox));
    }

    #[test]
    fn an_error_names_line_and_key() {
        assert!(wrong("read = 1").starts_with("1: read: give a string"));
        assert!(wrong("\nreed = '/x'").starts_with("2: reed: no such key; there are level"));
        assert!(wrong("net = 'all'").starts_with("1: net: \"none\""));
        assert!(wrong("net = ['none', 'host']").starts_with("1: net: \"none\""));
        assert!(wrong("net = []").starts_with("1: net: \"none\""));
        for key in PATHS {
            let text = wrong(&format!("{key} = ['/x', '']"));
            assert!(text.starts_with(&format!("1: {key}: a path is empty")), "{text}");
        }
        assert!(wrong("allow-host = 'https://a'").starts_with("1: allow-host: give NAME"));
        assert!(wrong("net = 'host'\nallow-host = 'a'").starts_with("1: net: allow-host has"));
        assert!(wrong("level = 'cage'").starts_with("1: level: \"fence\""));
        assert!(wrong("read = [").starts_with("1: "));
    }

    #[test]
    fn a_profile_that_is_too_long_is_not_cut() {
        let path = std::env::temp_dir().join(format!("tidy-profile-{}.toml", std::process::id()));
        let rule = "hide = '/usr/share'\n";
        let length = usize::try_from(BYTES).unwrap_or(0);
        let filled = |more| "#".repeat(length + more - 1 - rule.len()) + "\n" + rule;
        let tried = |text: String| std::fs::write(&path, text).map(|()| read(&path).is_ok());
        let (fits, exceeds) = (tried(filled(0)), tried(filled(1)));
        let _ = std::fs::remove_file(&path);
        assert_eq!((fits.ok(), exceeds.ok()), (Some(true), Some(false)));
    }
}
