//! The Landlock ruleset: signals and abstract sockets stay inside, and nothing is written to the
//! kernel's own file systems.
//!
//! Landlock can only allow: what lies below an allowed directory cannot be excepted. So every
//! directory is allowed that has no such mount below it; of one that has, its entries. In a
//! directory on the way to such a mount (`/`, as a rule) itself nothing can be made therefore.
//! Reading is not handled.
//!
//! Others may have a part in what is allowed here: no symbolic link is followed, and each directory
//! is opened from the one above it.

use std::error::Error as _;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use nix::dir::Dir;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::cgroup::hierarchy::{Mount, mounts};
use crate::confinement::Property;
use crate::error::advice::{Advice, advice};
use crate::error::kind::SCARCE;
use crate::error::{Error, Result, Step, errno_of};
use crate::sandbox::mount_news::MountNews;
use crate::sys::above_two;

/// File systems that are the kernel's, by which it, a process or a cgroup is changed.
const KERNELS: [&str; 15] = [
    "bpf",
    "binfmt_misc",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "efivarfs",
    "fusectl",
    "proc",
    "pstore",
    "resctrl",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// The first one with the scopes: Linux 6.12.
const NEEDED: ABI = ABI::V6;

/// A ruleset, and what it says.
#[derive(Debug)]
pub(crate) struct Writes {
    pub(crate) ruleset: OwnedFd,
    /// The kernel's own mounts, in order.
    pub(crate) refused: Vec<PathBuf>,
    pub(crate) allowed: Vec<PathBuf>,
    /// The kernel says here when a mount has come or gone.
    mounts: MountNews,
}

impl Writes {
    /// Whether a mount has come or gone since: where one of the kernel's own is, nothing may be
    /// allowed. Asked once for each change.
    pub(crate) fn is_stale(&self) -> bool {
        self.mounts.has_come()
    }

    /// Makes the ruleset for the mounts that this process sees now.
    pub(crate) fn make() -> Result<Self> {
        let ruleset = begin().map_err(|error| failed(&error))?;
        let is_kernels = |mount: &Mount| KERNELS.contains(&&*mount.kind);
        // Opened before it is read: a change meanwhile is not missed.
        let (news, mounts) = MountNews::open()
            .map_err(|errno| unknown(&errno.desc()))
            .and_then(|news| Ok((news, mounts().map_err(|error| unknown(&error))?)))?;
        let mounts = mounts.into_iter().filter(is_kernels);
        let mut refused: Vec<PathBuf> = mounts.map(|mount| mount.point).collect();
        refused.sort();
        refused.dedup();
        let mut allowing = Allowing { refused, ruleset, allowed: Vec::new() };
        let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        let allowed = root.map_or(Ok(()), |root| allowing.allow("/".into(), &root));
        allowed.map_err(|error| failed(&error))?;
        let Allowing { refused, ruleset, mut allowed } = allowing;
        allowed.sort();
        Ok(Self { ruleset: fd_of(ruleset)?, refused, allowed, mounts: news })
    }
}

/// A ruleset that keeps signals and abstract sockets inside, and no more, for a view of its own.
///
/// A pid namespace does not keep signals inside: 0 is the process group, and that of a command is
/// its supervisor's, where it is given none of its own.
pub(crate) fn scopes() -> Result<OwnedFd> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::from_all(NEEDED))
        .and_then(Ruleset::create);
    ruleset.map_err(|error| failed(&error)).and_then(fd_of)
}

fn fd_of(ruleset: RulesetCreated) -> Result<OwnedFd> {
    let fd: Option<OwnedFd> = ruleset.into();
    let fd = fd.ok_or_else(|| unsupported(&"it is not there"))?;
    above_two(fd).map_err(|errno| Error::os(Step::Landlock, "ruleset", errno))
}

fn begin() -> std::result::Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(handled())?
        .scope(Scope::from_all(NEEDED))?
        .create()
}

/// What changes files: not what reads or executes them.
fn handled() -> BitFlags<AccessFs> {
    AccessFs::from_write(NEEDED) & !BitFlags::from(AccessFs::IoctlDev)
}

struct Allowing {
    refused: Vec<PathBuf>,
    allowed: Vec<PathBuf>,
    ruleset: RulesetCreated,
}

type Allowed = std::result::Result<(), RulesetError>;

impl Allowing {
    /// Allows what is open at this path, or what is in it where a refused mount is below.
    fn allow(&mut self, path: PathBuf, file: &OwnedFd) -> Allowed {
        if self.refused.contains(&path) {
            return Ok(());
        }
        if !self.refused.iter().any(|mount| mount.starts_with(&path)) {
            self.add(file.as_fd())?;
            self.allowed.push(path);
            return Ok(());
        }
        // What cannot be listed or opened is not allowed.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(listed) = openat(file, ".", flags, Mode::empty()) else { return Ok(()) };
        let Ok(mut listed) = Dir::from_fd(listed) else { return Ok(()) };
        for entry in listed.iter().flatten() {
            let name = entry.file_name();
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            if [c".", c".."].contains(&name) {
                continue;
            }
            if let Ok(found) = openat(file, name, flags, Mode::empty()) {
                self.allow(path.join(OsStr::from_bytes(name.to_bytes())), &found)?;
            }
        }
        Ok(())
    }

    /// Device files are made nowhere; a rule for a symbolic link is none for what it leads to.
    fn add(&mut self, file: BorrowedFd<'_>) -> Allowed {
        let Ok(stat) = fstat(file) else { return Ok(()) };
        let access = handled() & !(AccessFs::MakeChar | AccessFs::MakeBlock);
        let access = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => access,
            SFlag::S_IFLNK => return Ok(()),
            _ => access & AccessFs::from_file(NEEDED),
        };
        (&mut self.ruleset).add_rule(PathBeneath::new(file, access)).map(drop)
    }
}

/// What has run out says nothing about the kernel.
fn failed(error: &RulesetError) -> Error {
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    let errno = causes.find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(errno_of);
    match errno {
        Some(errno) if SCARCE.contains(&errno) => Error::os(Step::Landlock, "ruleset", errno),
        _ => unsupported(error),
    }
}

fn unsupported(why: &dyn std::fmt::Display) -> Error {
    Error::unconfinable(Property::Apart, format!("landlock: {why}"), NEEDS_LANDLOCK)
}

fn unknown(why: &dyn std::fmt::Display) -> Error {
    let why = format!("where cgroups are mounted is not known: {why}");
    Error::unconfinable(Property::Inside, why, NEEDS_PROC)
}

const NEEDS_PROC: Advice = advice!(
    "mount /proc (mount -t proc proc /proc), or do without: ",
    "leave Command::sandbox out",
    "leave --fence out"
);

const NEEDS_LANDLOCK: Advice = advice!(
    "Linux 6.12 or newer with Landlock is needed (CONFIG_SECURITY_LANDLOCK, and landlock in \
     /sys/kernel/security/lsm: lsm=landlock,... on the kernel's command line; a container's \
     seccomp profile must allow landlock_create_ruleset); or do without: ",
    "leave Command::sandbox out",
    "leave --fence or --sandbox out"
);
