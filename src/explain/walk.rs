//! Follows a path on the host as the kernel would, and notes the links on the way.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Links that are followed, as the kernel has it.
const MOST_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// Without links, as far as it could be followed.
    pub(super) real: PathBuf,
    pub(super) exists: bool,
    pub(super) is_dir: bool,
    /// Whether the directory that it is in exists.
    pub(super) has_parent: bool,
    /// The symbolic links that were followed.
    pub(super) links: Vec<PathBuf>,
}

/// None for a path through an open file of a process: that is another one here.
pub(super) fn walk(path: &Path, follows: bool) -> Option<Walked> {
    let mut rest: Vec<PathBuf> = parts(path);
    let mut walked = Walked { real: "/".into(), exists: true, is_dir: true, ..Walked::default() };
    while let Some(part) = rest.pop() {
        if part == Path::new("..") {
            walked.real.pop();
            continue;
        }
        walked.has_parent = walked.exists && walked.is_dir;
        walked.real.push(part);
        let found = fs::symlink_metadata(&walked.real);
        walked.exists = walked.has_parent && found.is_ok();
        walked.is_dir = found.as_ref().is_ok_and(fs::Metadata::is_dir);
        let is_link = found.is_ok_and(|found| found.is_symlink());
        if !is_link || rest.is_empty() && !follows {
            continue;
        }
        if walked.real.starts_with("/proc") && walked.real.components().count() > 4 {
            return None;
        }
        walked.links.push(walked.real.clone());
        if walked.links.len() > MOST_LINKS {
            return None;
        }
        let target = fs::read_link(&walked.real).ok()?;
        walked.real.pop();
        if target.is_absolute() {
            walked.real = "/".into();
        }
        (walked.exists, walked.is_dir) = (true, true);
        rest.extend(parts(&target));
    }
    Some(walked)
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let named = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut all: Vec<PathBuf> = named.map(|part| PathBuf::from(part.as_os_str())).collect();
    all.reverse();
    all
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        let dir = std::env::temp_dir().join(format!("tidy-walk-{}", std::process::id()));
        fs::create_dir_all(dir.join("a/b")).unwrap();
        let dir = dir.canonicalize().unwrap();
        fs::write(dir.join("a/b/file"), "").unwrap();
        symlink("a/b", dir.join("link")).unwrap();
        symlink("round", dir.join("round")).unwrap();
        let to = |path: &str, follows| walk(&dir.join(path), follows);
        let found = to("link/../b/./file", true).unwrap();
        assert_eq!((found.real, found.exists), (dir.join("a/b/file"), true));
        assert_eq!(found.links, [dir.join("link")]);
        let missing = to("link/none", true).unwrap();
        assert_eq!((missing.exists, missing.has_parent), (false, true));
        assert_eq!(missing.real, dir.join("a/b/none"));
        let lost = to("none/none", true).unwrap();
        assert_eq!((lost.exists, lost.has_parent), (false, false));
        assert_eq!(to("link", false).unwrap().real, dir.join("link"));
        assert_eq!(to("round", true), None);
        assert_eq!(walk(Path::new("/proc/self/fd/1"), true), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
