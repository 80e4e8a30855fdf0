//! Where cgroups may be made: the cgroup2 mount and our own place in it.
//!
//! Pure parsers of `/proc/self/mountinfo` ([proc_pid_mountinfo(5)]) and `/proc/self/cgroup`
//! ([cgroups(7)]), and one function that puts them together. Nothing is assumed about where the
//! hierarchy is mounted: hybrid hosts have it beside the v1 ones.
//!
//! [proc_pid_mountinfo(5)]: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
//! [cgroups(7)]: https://man7.org/linux/man-pages/man7/cgroups.7.html

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open as open_file};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use crate::cgroup::beneath::open_dir;
use crate::cgroup::read_all;
use crate::error::{Error, Result, Step};

/// The link to the first cgroup namespace, which has this number in every kernel
/// (`PROC_CGROUP_INIT_INO`).
#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "the command line reads it"))]
pub const FIRST_NAMESPACE: &str = "cgroup:[4026531835]";

/// A cgroup2 directory in which run roots may be made.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) path: PathBuf,
    pub(crate) dir: OwnedFd,
}

/// Opens a directory as a base; an error unless it is on cgroup2.
pub(crate) fn open(path: &Path) -> Result<Base> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let dir = open_dir(&path).map_err(|errno| Error::at(Step::OpenBase, &path, errno))?;
    let kind = fstatfs(&dir).map_err(|errno| Error::at(Step::OpenBase, &path, errno))?;
    if kind.filesystem_type() != CGROUP2_SUPER_MAGIC {
        let subject = format!("{path:?}");
        return Err(Error::invalid(Step::OpenBase, subject, "not on a cgroup2 file system"));
    }
    Ok(Base { path, dir })
}

/// The directory of the cgroup that this process is in.
pub(crate) fn own() -> Result<PathBuf> {
    place_in(&surroundings("self")?)
}

/// The directory of the cgroup that another process is in.
pub(crate) fn place_of(pid: u32) -> Option<PathBuf> {
    surroundings(&pid.to_string()).and_then(|found| place_in(&found)).ok()
}

fn place_in((mounts, own): &(Vec<Mount>, PathBuf)) -> Result<PathBuf> {
    let exists =
        |path: &PathBuf| !matches!(fs::metadata(path), Err(e) if e.kind() == ErrorKind::NotFound);
    let found = candidates(mounts, own).find(exists);
    found.ok_or_else(|| no_hierarchy("no cgroup2 mount shows the cgroup that this process is in"))
}

/// The topmost directory of a mount that shows the cgroup that this process is in.
#[cfg(feature = "cli")]
pub(crate) fn top() -> Result<PathBuf> {
    let own = own()?;
    let (mounts, _) = surroundings("self")?;
    let points = mounts.into_iter().map(|mount| mount.point);
    Ok(points.filter(|point| own.starts_with(point)).max().unwrap_or(own))
}

/// Whether the directory is the root of a cgroup namespace, and of its mount, as engines make them
/// for a container: what is in it is the container's. The kernel takes it for delegated, too
/// (`nsdelegate`).
pub(crate) fn is_containers_own(dir: &Path) -> bool {
    let namespace = fs::read_link("/proc/thread-self/ns/cgroup");
    let is_inner = namespace.is_ok_and(|namespace| namespace != Path::new(FIRST_NAMESPACE));
    let shows = |mount: &Mount| mount.root == Path::new("/") && mount.point == dir;
    is_inner && surroundings("self").is_ok_and(|(mounts, _)| mounts.iter().any(shows))
}

/// Reads the cgroup2 mounts, and the path of a process's cgroup in the hierarchy.
fn surroundings(process: &str) -> Result<(Vec<Mount>, PathBuf)> {
    let (mounts, own) = described(process)?;
    let mounts = cgroup2_mounts(&mounts);
    match own_cgroup(&own) {
        Some(own) if !mounts.is_empty() => Ok((mounts, own)),
        _ => Err(no_hierarchy("no cgroup2 file system is mounted")),
    }
}

/// Reads `mountinfo` and the process's `cgroup`; those of this thread where the main thread has
/// ended, since a zombie has no mounts.
fn described(process: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let file = |of: &str, name| read(&format!("/proc/{of}/{name}"));
    let both = |us: &str, process: &str| -> Result<(Vec<u8>, Vec<u8>)> {
        Ok((file(us, "mountinfo")?, file(process, "cgroup")?))
    };
    match both("self", process) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
            both("thread-self", if process == "self" { "thread-self" } else { process })
        }
        found => found,
    }
}

fn no_hierarchy(why: &'static str) -> Error {
    Error::invalid(Step::FindCgroup2, "in /proc/self/mountinfo", why)
}

fn read(path: &str) -> Result<Vec<u8>> {
    let file = open_file(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    let text = file.and_then(|file| read_all(&file));
    text.map_err(|errno| Error::at(Step::FindCgroup2, Path::new(path), errno))
}

/// One line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "doctor reads it"))]
pub struct Mount {
    /// The directory of the file system that is mounted; of cgroup2, a cgroup's path.
    pub(crate) root: PathBuf,
    /// The directory that it is mounted on.
    pub point: PathBuf,
    /// The type of the file system.
    pub kind: String,
    /// The options of the file system, the same at each of its mounts.
    pub options: String,
}

/// Lists the mounts that this process sees.
///
/// # Errors
/// `/proc/self/mountinfo` cannot be read.
#[cfg(feature = "sandbox")]
#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "doctor reads it"))]
pub fn mounts() -> Result<Vec<Mount>> {
    read("/proc/self/mountinfo").map(|text| parsed(&text).collect())
}

/// The path of this process's cgroup in the cgroup2 hierarchy, as the kernel says it. None where
/// that cannot be read, and where there is no such hierarchy.
#[cfg(feature = "cli")]
#[must_use]
pub fn own_path() -> Option<PathBuf> {
    read("/proc/self/cgroup").ok().and_then(|text| own_cgroup(&text))
}

fn cgroup2_mounts(mountinfo: &[u8]) -> Vec<Mount> {
    parsed(mountinfo).filter(|mount| mount.kind == "cgroup2").collect()
}

pub(crate) fn parsed(mountinfo: &[u8]) -> impl Iterator<Item = Mount> {
    mountinfo.split(|&byte| byte == b'\n').filter_map(mount)
}

/// `31 23 0:28 ROOT POINT rw,relatime shared:1 - cgroup2 cgroup2 rw,nsdelegate`; any number of
/// optional fields stands before the dash, and the source behind the type may be empty.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ').filter(|field| !field.is_empty());
    let root = unescape(fields.by_ref().nth(3)?);
    let point = unescape(fields.next()?);
    fields.by_ref().find(|&field| field == b"-")?;
    let text = |field| String::from_utf8_lossy(field).into_owned();
    let kind = text(fields.next()?);
    Some(Mount { root, point, kind, options: text(fields.next_back()?) })
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) =
            (first, tail)
        {
            out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// The path on the line that starts with `0::`; v1 lines are of no interest.
pub(crate) fn own_cgroup(cgroup: &[u8]) -> Option<PathBuf> {
    let mut lines = cgroup.split(|&byte| byte == b'\n');
    let path = lines.find_map(|line| line.strip_prefix(b"0::"))?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// The directories that may be our own cgroup, likeliest first.
///
/// The kernel appends " (deleted)" to the path of a cgroup that was removed; a live cgroup may have
/// that in its name, hence both are tried. A path that starts with "/.." is outside our cgroup
/// namespace: only a mount with such a root shows it.
pub(crate) fn candidates(mounts: &[Mount], own: &Path) -> impl Iterator<Item = PathBuf> {
    let undeleted = own.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    let paths = [Some(own), undeleted.map(|path| Path::new(OsStr::from_bytes(path)))];
    let seen = paths.into_iter().flatten().flat_map(move |path| {
        mounts.iter().filter_map(move |mount| {
            let below = path.strip_prefix(&mount.root).ok()?;
            let climbs = below.components().any(|part| part.as_os_str() == "..");
            (!climbs).then(|| mount.point.join(below))
        })
    });
    // The root of a mount is "POINT/" after the join.
    seen.map(|path| path.components().collect::<PathBuf>()).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, point: &str) -> Mount {
        let (kind, options) = ("cgroup2".to_owned(), "rw".to_owned());
        Mount { root: root.into(), point: point.into(), kind, options }
    }

    fn places(mounts: &[Mount], own: &str) -> Vec<PathBuf> {
        candidates(mounts, Path::new(own)).collect()
    }

    #[test]
    fn finds_the_cgroup2_mount_of_a_pure_v2_host() {
        let text = b"24 18 0:22 / /proc rw - proc proc rw\n\
            29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec shared:4 - cgroup2 cgroup2 \
            rw,nsdelegate,memory_recursiveprot\n";
        let options = "rw,nsdelegate,memory_recursiveprot".to_owned();
        let expected = Mount { options, ..mount("/", "/sys/fs/cgroup") };
        assert_eq!(cgroup2_mounts(text), [expected]);
    }

    #[test]
    fn finds_it_beside_v1_hierarchies_on_a_hybrid_host() {
        let text = b"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_mounts(text), [mount("/", "/sys/fs/cgroup/unified")]);
    }

    #[test]
    fn reads_any_number_of_optional_fields_and_octal_escapes() {
        let text = b"1 0 0:1 / /a\\040b\\134c rw shared:1 master:2 propagate_from:3 unbindable - \
            cgroup2 none rw\n\
            2 0 0:1 /x\\011y\\012z /plain rw - cgroup2  rw";
        assert_eq!(cgroup2_mounts(text), [mount("/", "/a b\\c"), mount("/x\ty\nz", "/plain")]);
    }

    #[test]
    fn passes_over_lines_that_are_cut_short_or_odd() {
        let text = b"\n1\n1 0 0:1 /\n1 0 0:1 / /p rw\n1 0 0:1 / /p rw -\n\
            1 0 0:1 / /p rw - cgroup2\n1 0 - cgroup2 cgroup2 rw\n\
            1 0 0:1 / /p rw - cgroup2x n rw\n\
            1 0 0:1 / /cgroup2 rw - tmpfs cgroup2 rw\n\xff\xfe\n";
        assert_eq!(cgroup2_mounts(text), []);
    }

    #[test]
    fn a_backslash_that_starts_no_escape_stays() {
        assert_eq!(unescape(b"a\\9\\04\\"), Path::new("a\\9\\04\\"));
        assert_eq!(unescape(b"\\777"), Path::new("\\777"));
    }

    #[test]
    fn reads_the_v2_line_among_v1_lines() {
        let text = b"4:memory:/x\n1:name=systemd:/y\n0::/user.slice/a:b c\n";
        assert_eq!(own_cgroup(text), Some(PathBuf::from("/user.slice/a:b c")));
        assert_eq!(own_cgroup(b"4:memory:/x\n10::/no\n"), None);
        assert_eq!(own_cgroup(b""), None);
    }

    #[test]
    fn joins_the_mount_point_and_our_path() {
        assert_eq!(places(&[mount("/", "/sys/fs/cgroup")], "/"), [Path::new("/sys/fs/cgroup")]);
        assert_eq!(places(&[mount("/", "/cg")], "/a/b"), [Path::new("/cg/a/b")]);
    }

    #[test]
    fn a_bind_mount_of_a_part_shows_only_what_is_below_it() {
        let mounts = [mount("/docker/1", "/sys/fs/cgroup")];
        assert_eq!(places(&mounts, "/docker/1"), [Path::new("/sys/fs/cgroup")]);
        assert_eq!(places(&mounts, "/docker/1/x"), [Path::new("/sys/fs/cgroup/x")]);
        assert_eq!(places(&mounts, "/docker/12"), Vec::<PathBuf>::new());
        assert_eq!(places(&mounts, "/"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_path_outside_our_cgroup_namespace_is_seen_only_through_a_mount_from_there() {
        assert_eq!(places(&[mount("/", "/cg")], "/../other"), Vec::<PathBuf>::new());
        assert_eq!(places(&[mount("/..", "/cg")], "/../other"), [Path::new("/cg/other")]);
        assert_eq!(places(&[mount("/..", "/cg")], "/../../far"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_deleted_cgroup_is_looked_for_under_both_names() {
        let found = places(&[mount("/", "/cg")], "/gone (deleted)");
        assert_eq!(found, [Path::new("/cg/gone (deleted)"), Path::new("/cg/gone")]);
    }
}
