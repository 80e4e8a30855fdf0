//! What a sandbox shows: from what is named to the pieces that the set-up program puts together.
//!
//! Everything else is not there: no path is denied, it does not exist. Pieces stand in the order in
//! which they are made, what is above before what is below it.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use crate::cgroup::hierarchy::{Mount, mounts};
use crate::error::{Error, Result, Step};
use crate::sandbox::layout::{op, stage};
use crate::sandbox::overlays;

/// How the network of a sandbox looks; see [`Sandbox::network`](crate::Sandbox::network).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Network {
    /// No interface at all: the default.
    #[default]
    None,
    /// A loopback interface of its own, for servers and clients that are both inside.
    Loopback,
    /// The host's network, with its loopback and whatever listens there. Abstract sockets of other
    /// processes stay out of reach.
    Host,
    /// A loopback interface of its own, on which this port is served from outside: the listening
    /// socket of 127.0.0.1 is [`Child::forwarded`](crate::Child::forwarded). There is no other way
    /// out.
    Forward(u16),
}

/// `no network`
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward(port) => {
                return write!(f, "its own loopback, its port {port} served from outside");
            }
            Self::None => "no network",
            Self::Loopback => "its own loopback",
            Self::Host => "the host's network",
        })
    }
}

/// What becomes of a path that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
    Hidden,
    Private,
    Overlay,
}

/// The view that is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) system: bool,
    /// The last word on a path counts.
    pub(crate) paths: BTreeMap<PathBuf, Access>,
    pub(crate) network: Network,
}

/// One piece of the view.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) kind: u32,
    /// `MOUNT_ATTR_*`.
    pub(crate) attributes: u32,
    pub(crate) from: CString,
    /// The path in the view, without the slash in front.
    pub(crate) to: CString,
    /// When it is made; see [`stage`].
    pub(crate) stage: u32,
}

const READ_ONLY: u32 = 1;
const NO_SET_ID: u32 = 2;
const NO_DEVICES: u32 = 4;
const NO_EXEC: u32 = 8;

/// The links or directories into `/usr`, as the distribution has them.
const SYSTEM_LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const SYSTEM: [&str; 2] = ["usr", "etc"];
pub(crate) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What it always has of its own.
const OWN: [&str; 5] = ["/proc", "/tmp", "/dev", "/dev/shm", "/dev/pts"];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

impl Wanted {
    /// Lists the pieces.
    pub(crate) fn pieces(&self) -> Result<Vec<Piece>> {
        let mut all = Vec::new();
        if self.system {
            system(&mut all)?;
        }
        devices(&mut all)?;
        all.push(Piece::new(op::TMPFS, 0, "1777", Path::new("tmp"))?);
        all.push(Piece::new(op::PROC, 0, "", Path::new("proc"))?);
        if self.network == Network::Forward(0) {
            let why = "name the port: it is the same for the command and outside";
            return Err(Error::invalid(Step::Prepare, "port 0 of a sandbox", why));
        }
        let mounts = mounts()?;
        let barred = barred(&mounts);
        let overlays = self.paths.iter().filter(|(_, access)| **access == Access::Overlay);
        overlays::check(overlays.map(|(path, _)| &**path), &mounts)?;
        let mut paths = self.paths.clone();
        for (path, access) in &self.paths {
            check(path, *access, &barred)?;
            // The run root's lease is there, and the files of every cgroup and process.
            let below = barred.iter().filter(|mount| mount.starts_with(path));
            below.filter(|_| shown(Some(access))).for_each(|mount| {
                paths.insert(mount.clone(), Access::Hidden);
            });
        }
        hold(&mut paths);
        // What is always shown is left out; there is nothing to cover then.
        all.retain(|piece| match paths.get(&piece.path()) {
            Some(Access::Hidden) => paths.remove(&piece.path()).is_none(),
            _ => true,
        });
        for (path, access) in &paths {
            if *access != Access::Hidden || self.shows_above(path) {
                all.push(Piece::named(path, *access)?);
            }
        }
        Ok(all)
    }

    /// What `system` shows.
    pub(crate) fn system_paths(&self) -> impl Iterator<Item = PathBuf> {
        let all = SYSTEM.iter().chain(&SYSTEM_LINKS).filter(|_| self.system);
        all.map(|name| Path::new("/").join(name))
    }

    /// Whether a path above this one is shown, so that there may be something to hide.
    fn shows_above(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|above| {
            let named = self.paths.get(above);
            let system = self.system
                && above.strip_prefix("/").is_ok_and(|name| {
                    SYSTEM.iter().chain(&SYSTEM_LINKS).any(|shown| name == Path::new(shown))
                });
            let always = above == Path::new("/proc") || above == Path::new("/dev");
            system || always || shown(named)
        })
    }
}

fn system(all: &mut Vec<Piece>) -> Result<()> {
    for name in SYSTEM_LINKS {
        let place = Path::new("/").join(name);
        match fs::read_link(&place) {
            Ok(target) => all.push(Piece::new(op::LINK, 0, &target, Path::new(name))?),
            Err(_) if place.is_dir() => all.push(Piece::named(&place, Access::ReadOnly)?),
            Err(_) => {}
        }
    }
    for name in SYSTEM {
        all.push(Piece::named(&Path::new("/").join(name), Access::ReadOnly)?);
    }
    Ok(())
}

fn devices(all: &mut Vec<Piece>) -> Result<()> {
    let dev = Path::new("dev");
    all.push(Piece::new(op::DIRECTORY, 0, "", dev)?);
    for name in DEVICES {
        let (from, attributes) = (Path::new("/dev").join(name), NO_SET_ID | NO_EXEC);
        all.push(Piece::new(op::BIND, attributes, &from, &dev.join(name))?);
    }
    all.push(Piece::new(op::DEVPTS, 0, "", &dev.join("pts"))?);
    for (target, name) in DEVICE_LINKS {
        all.push(Piece::new(op::LINK, 0, target, &dev.join(name))?);
    }
    all.push(Piece::new(op::TMPFS, 0, "1777", &dev.join("shm"))?);
    Ok(())
}

/// Whether something of the host's is there.
fn shown(access: Option<&Access>) -> bool {
    matches!(access, Some(Access::ReadOnly | Access::ReadWrite | Access::Overlay))
}

/// Where file systems are mounted by which cgroups and processes outside are reached.
fn barred(mounts: &[Mount]) -> Vec<PathBuf> {
    let barred = mounts.iter().filter(|mount| BARRED.contains(&&*mount.kind));
    barred.map(|mount| mount.point.clone()).collect()
}

/// The same, of the mounts that there are now.
pub(crate) fn barred_now() -> Result<Vec<PathBuf>> {
    Ok(barred(&mounts()?))
}

const BARRED: [&str; 3] = ["cgroup", "cgroup2", "proc"];

/// Shows each directory between a path that may be written to and one below it that may not once
/// more, in its place: what is a mount point cannot be renamed. Else another directory could take
/// its name, with a path in it that nothing covers.
fn hold(paths: &mut BTreeMap<PathBuf, Access>) {
    let mut between = Vec::new();
    for path in paths.iter().filter(|(_, access)| **access != Access::ReadWrite).map(|(p, _)| p) {
        let named = |above: &Path| paths.get(above).copied();
        let Some(nearest) = path.ancestors().skip(1).find(|above| named(above).is_some()) else {
            continue;
        };
        if named(nearest) == Some(Access::ReadWrite) {
            let above = path.ancestors().skip(1).take_while(|above| *above != nearest);
            between.extend(above.map(Path::to_owned));
        }
    }
    paths.extend(between.into_iter().map(|path| (path, Access::ReadWrite)));
}

/// Refuses what would break a promise of the level, and what is no plain path.
fn check(path: &Path, access: Access, barred: &[PathBuf]) -> Result<()> {
    let no = |why| Err(Error::invalid(Step::Prepare, format!("{path:?} in a sandbox"), why));
    if !path.is_absolute() {
        return no("name an absolute path");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return no("a path has no \"..\" in it");
    }
    if path == Path::new("/") {
        return no("this would be everything: name what is needed");
    }
    if access == Access::Hidden {
        return match OWN.iter().any(|own| path == Path::new(own)) {
            true => no("a sandbox has its own, with nothing of the host's in it: leave it out"),
            false => Ok(()),
        };
    }
    let own = ["/proc", "/dev/shm", "/dev/pts", "/dev/ptmx", "/dev/mqueue"];
    if path == Path::new("/dev") || own.iter().any(|own| path.starts_with(own)) {
        return no("a sandbox has its own; of /dev single devices may be named");
    }
    if barred.iter().any(|mount| path.starts_with(mount)) {
        return no("cgroup file systems and those of processes (proc) stay outside");
    }
    Ok(())
}

impl Piece {
    fn new(kind: u32, attributes: u32, from: impl Into<OsString>, to: &Path) -> Result<Self> {
        let (from, to) = (text(&from.into())?, text(to.as_os_str())?);
        Ok(Self { kind, attributes, from, to, stage: stage::FIXED })
    }

    /// The piece of a path that is the same on both sides.
    fn named(path: &Path, access: Access) -> Result<Self> {
        // Devices work where single ones are named.
        let devices = if path.starts_with("/dev") { 0 } else { NO_DEVICES };
        // Without doubled or trailing slashes.
        let path: PathBuf = path.components().collect();
        let to = path.strip_prefix("/").unwrap_or(&path).to_owned();
        match access {
            Access::ReadOnly => Self::new(op::BIND, READ_ONLY | NO_SET_ID | devices, path, &to),
            Access::ReadWrite => Self::new(op::BIND, NO_SET_ID | devices, path, &to),
            Access::Hidden => Self::new(op::HIDE, 0, "", &to),
            Access::Private => Self::new(op::TMPFS, 0, "700", &to),
            Access::Overlay => Self::new(op::OVERLAY, 0, path, &to),
        }
    }

    /// Where it is in the view; what the host has at this path it shows or hides.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/").join(OsStr::from_bytes(self.to.to_bytes()))
    }

    /// The error where the kernel has no file system of this kind.
    pub(crate) fn lacks(&self, errno: Errno) -> Option<Error> {
        let is_overlay = self.kind == op::OVERLAY && errno == Errno::ENODEV;
        is_overlay.then(|| overlays::lacking(&self.from))
    }

    /// Whether the host's side of it was named, by the caller or by `system`.
    pub(crate) fn is_named(&self) -> bool {
        matches!(self.kind, op::BIND | op::HIDE | op::OVERLAY) || self.from.as_bytes() == b"700"
    }
}

fn text(text: &OsStr) -> Result<CString> {
    let has_nul = |_| {
        Error::invalid(Step::Prepare, format!("{text:?} in a sandbox"), "it contains a NUL byte")
    };
    CString::new(text.as_bytes()).map_err(has_nul)
}

/// `read-only "/usr"`
impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            op::DIRECTORY => "directory",
            op::LINK => "link",
            op::BIND if self.attributes & READ_ONLY != 0 => "read-only",
            op::BIND if self.attributes & NO_DEVICES == 0 => "device",
            op::BIND => "read-write",
            op::TMPFS => "private",
            op::HIDE => "hidden",
            op::OVERLAY => "overlay",
            op::DEVPTS => "own terminals",
            _ => "own processes",
        };
        write!(f, "{what} {:?}", format!("/{}", self.to.to_string_lossy()))?;
        match self.kind {
            op::LINK => write!(f, " to {:?}", self.from.to_string_lossy()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn pieces(paths: &[(&str, Access)]) -> Result<Vec<String>> {
        let paths = paths.iter().map(|(path, access)| (PathBuf::from(path), *access)).collect();
        let wanted = Wanted { paths, ..Wanted::default() };
        Ok(wanted.pieces()?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_above_comes_before_what_is_below() {
        let named =
            [("/a/b", Access::Private), ("/a", Access::ReadOnly), ("/a/b/c", Access::ReadWrite)];
        let all = pieces(&named).unwrap();
        let tail = &all[all.len() - 3..];
        assert_eq!(tail, ["read-only \"/a\"", "private \"/a/b\"", "read-write \"/a/b/c\""]);
    }

    #[test]
    fn what_is_not_shown_needs_no_cover() {
        assert!(!pieces(&[("/a/b", Access::Hidden)]).unwrap().iter().any(|p| p.contains("hidden")));
        let all = pieces(&[("/a", Access::ReadOnly), ("/a/b", Access::Hidden)]).unwrap();
        assert_eq!(all.last().unwrap(), "hidden \"/a/b\"");
    }

    #[test]
    fn a_path_that_would_break_a_promise_is_refused() {
        for path in ["/", "/proc", "/proc/1", "/dev", "/dev/shm", "/dev/pts/1", "a", "/a/../b"] {
            let error = pieces(&[(path, Access::ReadWrite)]).unwrap_err();
            assert!(error.is_invalid_input(), "{path}: {error}");
        }
    }

    #[test]
    fn cgroups_and_processes_below_a_named_path_are_covered() {
        for mount in barred(&mounts().unwrap()) {
            let above = mount.parent().unwrap().to_str().unwrap().to_owned();
            if above != "/" && !above.starts_with("/proc") {
                let all = pieces(&[(&above, Access::ReadOnly)]).unwrap();
                assert!(all.contains(&format!("hidden {mount:?}")), "{all:?}");
            }
            assert!(pieces(&[(mount.to_str().unwrap(), Access::ReadOnly)]).is_err());
        }
        assert!(barred(&mounts().unwrap()).contains(&PathBuf::from("/proc")));
    }

    #[test]
    fn what_stands_between_a_writable_path_and_a_covered_one_is_a_mount_point() {
        let tail = |named: &[(&str, Access)], count: usize| {
            let all = pieces(named).unwrap();
            all[all.len() - count..].to_vec()
        };
        let (rw, ro) = (Access::ReadWrite, Access::ReadOnly);
        for (access, word) in [(ro, "read-only"), (Access::Hidden, "hidden")] {
            let all = tail(&[("/a", rw), ("/a/b/c/d", access)], 4);
            let held = ["read-write \"/a\"", "read-write \"/a/b\"", "read-write \"/a/b/c\""];
            assert_eq!(all[..3], held);
            assert_eq!(all[3], format!("{word} \"/a/b/c/d\""));
        }
        // What is above is not writable, or is named itself.
        assert_eq!(tail(&[("/a", ro), ("/a/b/c", Access::Hidden)], 2)[0], "read-only \"/a\"");
        let all = tail(&[("/a", rw), ("/a/b", ro), ("/a/b/c/d", Access::Hidden)], 3);
        assert_eq!(all[1..], ["read-only \"/a/b\"", "hidden \"/a/b/c/d\""]);
    }
}
