//! What a level allows, as far as paths and addresses go.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::denied::Action;
use crate::sandbox::filter::watch::Answers;
use crate::sandbox::view::{Access, Network, Wanted};

/// What is needed to explain the calls of a sandbox's commands.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) answers: Answers,
    pub(crate) scope: Scope,
    /// Whether a profile is to come of it.
    pub(crate) learns: bool,
    /// The caller's home, which is too much to be named.
    pub(crate) home: Option<PathBuf>,
}

/// What paths and addresses a level allows.
#[derive(Debug)]
pub(crate) enum Scope {
    /// All but writing outside of these.
    Fence(Vec<PathBuf>),
    View {
        /// What there is, by path; the longest one counts.
        shown: BTreeMap<PathBuf, Shown>,
        network: Network,
    },
}

/// How a path is in a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The sandbox's own: processes, devices.
    Own,
    ReadOnly,
    ReadWrite,
    /// Its own and empty at first.
    Private,
    Hidden,
    /// A directory on the way to what is shown.
    Way,
    Absent,
}

/// What there is in every view, beside devices.
const OWN: [&str; 10] = [
    "/proc",
    "/dev/pts",
    "/dev/ptmx",
    "/dev/shm",
    "/dev/fd",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
    "/dev/mqueue",
    "/dev/log",
];

impl Scope {
    pub(crate) fn of_view(view: &Wanted, barred: Vec<PathBuf>, devices: &[&str]) -> Self {
        let own = OWN.map(PathBuf::from).into_iter();
        let own = own.chain(devices.iter().map(|name| Path::new("/dev").join(name)));
        let mut shown: BTreeMap<PathBuf, Shown> = own.map(|path| (path, Shown::Own)).collect();
        shown.insert("/tmp".into(), Shown::Private);
        shown.extend(view.system_paths().map(|path| (path, Shown::ReadOnly)));
        let barred = barred.into_iter().filter(|mount| mount != Path::new("/proc"));
        shown.extend(barred.map(|mount| (mount, Shown::Hidden)));
        shown.extend(view.paths.iter().map(|(path, access)| {
            let how = match access {
                Access::ReadOnly => Shown::ReadOnly,
                Access::ReadWrite | Access::Overlay => Shown::ReadWrite,
                Access::Hidden => Shown::Hidden,
                Access::Private => Shown::Private,
            };
            (path.clone(), how)
        }));
        Self::View { shown, network: view.network }
    }

    /// How a path without links is in the view.
    pub(crate) fn shown(&self, path: &Path) -> Shown {
        let Self::View { shown, .. } = self else { return Shown::ReadWrite };
        let found = path.ancestors().find_map(|above| shown.get(above).copied());
        match found {
            Some(how) => how,
            None if path == Path::new("/dev") => Shown::Way,
            None if shown.keys().any(|below| below.starts_with(path)) => Shown::Way,
            None => Shown::Absent,
        }
    }

    /// Whether this is a directory of the sandbox's own itself.
    pub(crate) fn is_private(&self, path: &Path) -> bool {
        matches!(self, Self::View { shown, .. } if shown.get(path) == Some(&Shown::Private))
    }

    /// Whether nothing has to be looked up to see that it is allowed: most of what a program reads
    /// is so.
    pub(crate) fn plainly_allows(&self, path: &Path, action: Action) -> bool {
        let is_plain = !path.components().any(|part| part == Component::ParentDir);
        let shown = self.shown(path);
        match (self, action) {
            (Self::Fence(_), Action::Read) => true,
            (Self::View { .. }, Action::Read) => {
                let system = path.starts_with("/usr") && shown != Shown::Hidden;
                is_plain && (shown == Shown::Own || system)
            }
            _ => false,
        }
    }
}
