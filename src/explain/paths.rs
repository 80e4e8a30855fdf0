//! Whether a level denies what is done with a path, and what would allow it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

use crate::denied::Action;
use crate::explain::calls::{PathUse, There};
use crate::explain::needs::Needs;
use crate::explain::walk::Walked;
use crate::proc::quote::quoted;
use crate::sandbox::scope::{Scope, Shown};

/// What comes of one path or address.
pub(super) struct Finding {
    pub(super) action: Action,
    pub(super) target: String,
    pub(super) remedy: Option<String>,
    pub(super) remark: Option<String>,
}

impl Finding {
    fn of(path: &PathUse, action: Action, remedy: Option<String>, remark: Option<String>) -> Self {
        Self { action, target: path.path.to_string_lossy().into_owned(), remedy, remark }
    }

    fn allowed_by(path: &PathUse, action: Action, option: String) -> Self {
        Self::of(path, action, Some(option), None)
    }

    fn for_good(path: &PathUse, action: Action, why: impl Into<String>) -> Self {
        Self::of(path, action, None, Some(why.into()))
    }
}

/// What is done with a path, where that leads, and what the command has made above it in a
/// directory of its own.
pub(super) struct Deed<'a> {
    pub(super) path: &'a PathUse,
    pub(super) walked: &'a Walked,
    pub(super) made: &'a [PathBuf],
    pub(super) home: Option<&'a Path>,
}

/// What a path needs, and how it is denied.
pub(super) fn judged(scope: &Scope, deed: &Deed<'_>) -> (Needs, Option<Finding>) {
    let mut needs = Needs::default();
    let Deed { path, walked, .. } = deed;
    if let Scope::Fence(allowed) = scope {
        let denied = !allowed.iter().any(|dir| walked.real.starts_with(dir));
        let denied = denied && !deed.fails_anyway() && may_write(walked);
        let finding = denied.then(|| Finding::for_good(path, Action::Write, IN_A_FENCE));
        return (needs, finding);
    }
    if scope.shown(&path.path) == Shown::Own {
        return (needs, None);
    }
    let mut finding = None;
    for link in walked.links.iter().filter(|link| deed.lacks(scope, link)) {
        let dir = link.parent().unwrap_or(link);
        needs.read.insert(dir.to_owned());
        let of_link = || Finding::allowed_by(path, Action::Read, option("read", dir));
        finding.get_or_insert_with(of_link);
    }
    if deed.fails_anyway() {
        // What a missing name is looked for in need not be seen.
        return (needs, finding.filter(|_| walked.exists));
    }
    let own = match (path.action, scope.shown(&walked.real)) {
        (action, Shown::Hidden) => Some(Finding::for_good(path, action, "it is hidden")),
        (Action::Write, _) if deed.is_refused(scope) => Some(write(deed, &mut needs)),
        (Action::Read, _) if deed.lacks(scope, &walked.real) => read(deed, &mut needs),
        _ => None,
    };
    (needs, finding.or(own))
}

impl Deed<'_> {
    /// Whether it comes to nothing, whatever is allowed.
    fn fails_anyway(&self) -> bool {
        let Walked { exists, has_parent, .. } = *self.walked;
        match self.path.how.there {
            There::Something => !exists,
            There::Nothing => exists || !has_parent,
            There::Either => !has_parent,
        }
    }

    /// Whether what the host has at a path is not in the view.
    fn lacks(&self, scope: &Scope, path: &Path) -> bool {
        match scope.shown(path) {
            Shown::Absent | Shown::Hidden => true,
            Shown::Private => !scope.is_private(path) && self.made.is_empty(),
            _ => false,
        }
    }

    /// Whether nothing can be written there. In a directory of its own it is made at the top, or
    /// below what was made there.
    fn is_refused(&self, scope: &Scope) -> bool {
        let real = &self.walked.real;
        match scope.shown(real) {
            Shown::ReadOnly | Shown::Way | Shown::Absent => true,
            Shown::Private => {
                self.made.is_empty() && !real.parent().is_some_and(|dir| scope.is_private(dir))
            }
            _ => false,
        }
    }

    /// What is to be named for writing: the directory, as a rule.
    fn directory(&self) -> PathBuf {
        let Walked { real, exists, is_dir, .. } = self.walked;
        let parent = real.parent().unwrap_or(real);
        let changes_it = self.path.how.follows && *exists;
        match changes_it && (*is_dir || is_broad(parent, self.home)) {
            true => real.clone(),
            false => parent.to_owned(),
        }
    }
}

fn write(deed: &Deed<'_>, needs: &mut Needs) -> Finding {
    let (path, dir, real) = (deed.path, deed.directory(), &deed.walked.real);
    if dir == Path::new("/") {
        return Finding::for_good(path, Action::Write, IN_ROOT);
    }
    if dir.starts_with("/dev") {
        needs.read.insert(real.clone());
        return Finding::allowed_by(path, Action::Write, option("read", real));
    }
    if !may_write(deed.walked) {
        let why = format!("user {} may not do that without a sandbox either", geteuid());
        return Finding::for_good(path, Action::Write, why);
    }
    let (remedy, remark) = (option("write", &dir), lacks_modes(&dir));
    needs.write.insert(dir);
    Finding::of(path, Action::Write, Some(remedy), remark)
}

fn read(deed: &Deed<'_>, needs: &mut Needs) -> Option<Finding> {
    let Walked { real, is_dir, .. } = deed.walked;
    if real == Path::new("/run") {
        // Where libc asks for the name of a user that it does not know: no program needs that.
        return None;
    }
    let place = near(real, *is_dir, deed.home);
    let remedy = option("read", &place);
    match *is_dir && is_broad(real, deed.home) {
        true => needs.looked.insert(place),
        false => needs.read.insert(place),
    };
    Some(Finding::allowed_by(deed.path, Action::Read, remedy))
}

const IN_A_FENCE: &str = "a fence keeps writing out of the kernel's file systems, and of the \
                          directories on the way to them";
const IN_ROOT: &str = "nothing can be made in the root of a sandbox";

/// What is to be named for reading: the directory that a file is in, unless that holds much else.
pub(super) fn near(path: &Path, is_dir: bool, home: Option<&Path>) -> PathBuf {
    match path.parent() {
        Some(parent) if !is_dir && !is_broad(parent, home) => parent.to_owned(),
        _ => path.to_owned(),
    }
}

/// Whether a directory holds many things that have nothing to do with each other.
fn is_broad(dir: &Path, home: Option<&Path>) -> bool {
    const BROAD: [&str; 12] = [
        "/", "/home", "/root", "/tmp", "/var", "/var/tmp", "/run", "/dev", "/mnt", "/media",
        "/opt", "/srv",
    ];
    let is_home = dir.parent() == Some(Path::new("/home"));
    is_home || home == Some(dir) || BROAD.iter().any(|broad| dir == Path::new(broad))
}

/// Whether the caller could do it without a sandbox.
fn may_write(walked: &Walked) -> bool {
    let parent = walked.real.parent().unwrap_or(&walked.real);
    let place = if walked.exists { &walked.real } else { parent };
    access(place, AccessFlags::W_OK).is_ok()
}

/// A command of root's is another user in a sandbox.
fn lacks_modes(dir: &Path) -> Option<String> {
    let found = std::fs::metadata(dir).ok().filter(|_| geteuid().is_root())?;
    let by_all = found.mode() & 0o002 != 0;
    (!by_all && found.uid() == 0).then(|| {
        "and let another user than root write there (chown): root's command is another one"
            .to_owned()
    })
}

/// An option with a path, as a shell takes it.
fn option(name: &str, path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+@:,=%".contains(c);
    match text.chars().all(plain) {
        true => format!("--{name} {text}"),
        false => format!("--{name} '{}'", quoted(&text).replace('\'', "'\\''")),
    }
}
