//! Which system calls a fence refuses, with which arguments, and for which property.

use std::fmt;

use libc::{EAFNOSUPPORT, ENOSYS, EPERM, O_CREAT};

use crate::confinement::Property;
use crate::sandbox::filter::program::{Check, Half, Is, Rule, Verdict};

/// A call that is refused.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    /// When, in words; always if empty.
    pub(super) when: &'static str,
}

impl Refused {
    pub(super) fn always(name: &'static str, errno: i32) -> Self {
        Self { name, rule: Rule::always(refuse(errno)), when: "" }
    }

    fn when(name: &'static str, errno: i32, when: &'static str, lists: &[&[Check]]) -> Self {
        let lists = lists.iter().map(|list| list.to_vec()).collect();
        Self { name, rule: Rule { lists, then: refuse(errno) }, when }
    }
}

/// `ioctl: TIOCSTI, TIOCLINUX`
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, when, .. } = self;
        if when.is_empty() { write!(f, "{name}") } else { write!(f, "{name}: {when}") }
    }
}

pub(super) fn refuse(errno: i32) -> Verdict {
    Verdict::Refuse(u16::try_from(errno).unwrap_or(u16::MAX))
}

/// Calls that are refused whatever their arguments, by property.
const ALWAYS: &[(Property, &str)] = &[
    // Memory, fds and threads of other processes: what Landlock's domain does not cover, or only
    // by a check that a later kernel may change.
    (
        Property::Apart,
        "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd \
         kcmp migrate_pages move_pages",
    ),
    // Other views of the file system, in which cgroupfs or a process can be reached again; file
    // handles pass by every path.
    (
        Property::Inside,
        "mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig \
         fsmount fspick mount_setattr setns name_to_handle_at open_by_handle_at fanotify_init",
    ),
    // Powers over the machine, and parts of the kernel by which it was broken into most often.
    (
        Property::Unprivileged,
        "acct settimeofday clock_settime clock_settime64 swapon swapoff reboot sethostname \
         setdomainname iopl ioperm modify_ldt create_module init_module delete_module \
         finit_module get_kernel_syms query_module quotactl quotactl_fd nfsservctl lookup_dcookie \
         kexec_load kexec_file_load add_key request_key keyctl perf_event_open bpf userfaultfd \
         io_uring_setup io_uring_enter io_uring_register uselib ustat sysfs vhangup _sysctl",
    ),
];

/// What rests on the refusal of this call.
pub(super) fn property(name: &str) -> Property {
    let has = |names: &str| names.split_ascii_whitespace().any(|each| each == name);
    let always = ALWAYS.iter().find(|(_, names)| has(names)).map(|(property, _)| *property);
    always.unwrap_or_else(|| match name {
        "clone" | "unshare" => Property::Inside,
        "ioctl" | "socket" | "socketpair" => Property::Unprivileged,
        name if name.contains("mod") || name.starts_with("open") || name == "creat" => {
            Property::Unprivileged
        }
        _ => Property::Apart,
    })
}

/// All but `CLONE_NEWTIME`, which this call takes for a part of the signal.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
const CLONE_NEWTIME: u32 = 0x80;

const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;
/// Flags with which open(2) looks at the mode.
const MAKES: u32 = O_CREAT as u32 | 0o20_000_000;

pub(super) const fn low(argument: u8, is: Is) -> Check {
    Check { argument, half: Half::Low, is }
}

pub(super) const fn high(argument: u8, is: Is) -> Check {
    Check { argument, half: Half::High, is }
}

/// The file mode of this argument has a set-id bit.
const fn set_id(argument: u8) -> Check {
    low(argument, Is::Any(SET_ID))
}

/// Every refused call.
pub(super) fn refused() -> Vec<Refused> {
    let always = ALWAYS.iter().flat_map(|(_, names)| names.split_ascii_whitespace());
    let mut all: Vec<Refused> = always.map(|name| Refused::always(name, EPERM)).collect();
    // Their arguments are behind a pointer, and there are older calls that do the same.
    all.extend(["clone3", "openat2"].map(|name| Refused::always(name, ENOSYS)));
    all.extend(namespaces());
    all.extend(others());
    all.extend(modes());
    all.extend(devices());
    all
}

/// A child of the caller's parent would be the supervisor's own, which never reaps it; the init of
/// a sandbox ends only after it.
fn namespaces() -> [Refused; 2] {
    let new = low(0, Is::Any(NEW_NAMESPACES | libc::CLONE_PARENT.cast_unsigned()));
    let any = low(0, Is::Any(NEW_NAMESPACES | CLONE_NEWTIME));
    [
        Refused::when("clone", EPERM, "new namespaces, siblings (CLONE_PARENT)", &[&[new]]),
        Refused::when("unshare", EPERM, "new namespaces", &[&[any]]),
    ]
}

/// What changes a process by its number, which the user's other processes have too: allowed for the
/// calling thread, as 0.
fn others() -> Vec<Refused> {
    let other = low(0, Is::Other(0));
    let when = "another thread or process than 0, the caller";
    let mut all: Vec<Refused> =
        ["sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity"]
            .map(|name| Refused::when(name, EPERM, when, &[&[other]]))
            .into();
    let (new, new_high) = (low(2, Is::Other(0)), high(2, Is::Other(0)));
    let sets: &[&[Check]] = &[&[other, new], &[other, new_high]];
    all.push(Refused::when("prlimit64", EPERM, "sets a limit of another process than 0", sets));
    let by_id = low(1, Is::Other(0));
    let class = |process| low(0, Is::Other(process));
    let when = "anything but the calling thread, as 0";
    all.push(Refused::when("setpriority", EPERM, when, &[&[class(0)], &[by_id]]));
    all.push(Refused::when("ioprio_set", EPERM, when, &[&[class(1)], &[by_id]]));
    all
}

/// A file with a set-id bit would give rights to those outside.
fn modes() -> Vec<Refused> {
    let when = "set-user-id or set-group-id";
    let plain = [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("creat", 1)];
    let made = [("mknod", 1), ("mknodat", 2)];
    let plain = plain.into_iter().chain(made);
    let plain = plain.map(|(name, mode)| Refused::when(name, EPERM, when, &[&[set_id(mode)]]));
    let open = [("open", 1, 2), ("openat", 2, 3)];
    let open = open.map(|(name, flags, mode)| {
        let makes = low(flags, Is::Any(MAKES));
        Refused::when(name, EPERM, when, &[&[makes, set_id(mode)]])
    });
    plain.chain(open).collect()
}

fn devices() -> Vec<Refused> {
    let request = |number: libc::Ioctl| low(1, Is::Equal(u32::try_from(number).unwrap_or(0)));
    let types = [request(libc::TIOCSTI), request(libc::TIOCLINUX)];
    let lists: &[&[Check]] = &[&types[..1], &types[1..]];
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let other = families.map(|family| low(0, Is::Other(family.cast_unsigned())));
    let when = "families but UNIX, INET, INET6, NETLINK";
    vec![
        Refused::when("ioctl", EPERM, "TIOCSTI, TIOCLINUX", lists),
        Refused::when("socket", EAFNOSUPPORT, when, &[&other]),
        Refused::when("socketpair", EAFNOSUPPORT, when, &[&other]),
    ]
}
