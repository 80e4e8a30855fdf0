//! Reads the surroundings: mounts, service manager, container, namespace. Makes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Uid, geteuid};
use tidy_process::cli_support::{FIRST_NAMESPACE, mounts, quoted};

use crate::doctor::finding::Finding;

pub(crate) fn all(tell: &dyn Fn(Finding)) {
    tell(systemd());
    tell(manager());
    tell(container());
    tell(namespace());
    tell(nsdelegate());
    tell(favordynmods());
}

/// Finds the cgroup2 hierarchy.
pub(crate) fn cgroup2() -> Finding {
    let mounts = match mounts() {
        Ok(mounts) => mounts,
        Err(error) => return Finding::error("cgroup2", &error),
    };
    let hybrid = mounts.iter().any(|mount| mount.kind == "cgroup");
    let beside = if hybrid { "beside v1 hierarchies (a hybrid host)" } else { "no v1 beside it" };
    let Some(first) = mounts.iter().find(|mount| mount.kind == "cgroup2") else {
        let found = if hybrid { "not mounted, v1 hierarchies are" } else { "not mounted" };
        return Finding::no("cgroup2", found).remedy(
            "mount -t cgroup2 none /sys/fs/cgroup, beside v1 ones: mkdir /sys/fs/cgroup/unified && \
             mount -t cgroup2 none /sys/fs/cgroup/unified; in a container: start it with a \
             cgroup namespace",
        );
    };
    let flags = statvfs(&first.point).map(|stat| stat.flags());
    let read_only = flags.is_ok_and(|flags| flags.contains(FsFlags::ST_RDONLY));
    let access = if read_only { "read-only" } else { "read-write" };
    let point = first.point.to_string_lossy();
    Finding::ok("cgroup2", format!("{}, mounted {access}, {beside}", quoted(&point)))
        .fact("mount", point)
        .fact("read_only", read_only)
        .fact("hybrid", hybrid)
}

/// Whether systemd runs here, as sd_booted(3) tells.
pub(crate) fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn systemd() -> Finding {
    let first = fs::read_to_string("/proc/1/comm").unwrap_or_else(|_| "unreadable".to_owned());
    let first = first.trim();
    if is_systemd() {
        Finding::ok("systemd", format!("runs (pid 1 is {first}, /run/systemd/system is there)"))
    } else {
        Finding::blank("systemd", format!("does not run here (pid 1 is {first})"))
    }
}

/// Finds the systemd manager that would make a scope, by its bus: root's is the system's own
/// manager.
fn manager() -> Finding {
    if !is_systemd() {
        return Finding::blank("manager", "no systemd, so no manager that could give a cgroup");
    }
    let uid = geteuid();
    if uid.is_root() {
        let answer = answers("the system's bus", Path::new("/run/dbus/system_bus_socket"));
        return answer.unwrap_or_else(|no| {
            no.remedy("apt install dbus (or your system's package of it), systemctl start dbus")
        });
    }
    answers("this user's bus", &runtime_dir(uid).join("bus")).unwrap_or_else(|no| {
        no.remedy(format!(
            "log in (ssh, a terminal, machinectl shell) instead of su; or as root: loginctl \
             enable-linger {uid}; where /run/user/{uid} is there: apt install dbus-user-session"
        ))
    })
}

/// Finds this user's runtime directory: the environment may be another user's, as after su.
fn runtime_dir(uid: Uid) -> PathBuf {
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let is_ours = |dir: &PathBuf| fs::metadata(dir).is_ok_and(|meta| meta.uid() == uid.as_raw());
    named.filter(is_ours).unwrap_or_else(|| format!("/run/user/{uid}").into())
}

/// Whether a process listens on the socket: it takes a connection. A thread of its own tries that,
/// since a stuck listener must not hold doctor up.
fn answers(who: &str, socket: &Path) -> Result<Finding, Finding> {
    let (tell, told) = channel();
    let path = socket.to_owned();
    thread::spawn(move || drop(tell.send(UnixStream::connect(path).map(drop))));
    let shown = socket.display();
    match told.recv_timeout(Duration::from_secs(2)) {
        Ok(Ok(())) => Ok(Finding::ok("manager", format!("{who} answers at {shown}"))),
        Ok(Err(error)) => {
            Err(Finding::no("manager", format!("{who} is not there: {shown}: {error}")))
        }
        Err(_) => Err(Finding::no("manager", format!("{who} does not answer: {shown}"))),
    }
}

/// Finds the container's kind by the marks that engines leave, the surest first.
fn container() -> Finding {
    let finding = |kind: &str, mark: &str| {
        let found = format!("{kind}, by the sign of {mark}");
        Finding::blank("container", found).fact("kind", kind)
    };
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return finding("kubernetes", "KUBERNETES_SERVICE_HOST");
    }
    for (mark, kind) in [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")] {
        if Path::new(mark).exists() {
            return finding(kind, mark);
        }
    }
    if let Ok(kind) = fs::read_to_string("/run/systemd/container") {
        return finding(kind.trim(), "/run/systemd/container");
    }
    if let Some(kind) = variable_of_first("container") {
        return finding(&kind, "the variable container of pid 1");
    }
    if Path::new("/proc/sys/fs/binfmt_misc/WSLInterop").exists() || Path::new("/run/WSL").exists() {
        return finding("wsl", "WSLInterop");
    }
    Finding::blank("container", "no sign of one")
}

/// Reads a variable of pid 1, which only root may do.
fn variable_of_first(name: &str) -> Option<String> {
    let environ = fs::read("/proc/1/environ").ok()?;
    let text = String::from_utf8_lossy(&environ).into_owned();
    let prefix = format!("{name}=");
    text.split('\0').find_map(|pair| pair.strip_prefix(&prefix)).map(str::to_owned)
}

fn namespace() -> Finding {
    let link = fs::read_link("/proc/self/ns/cgroup").map(|link| link.display().to_string());
    match link {
        Err(error) => Finding::blank("namespace", format!("cannot be told: {error}")),
        Ok(link) if link == FIRST_NAMESPACE => {
            Finding::blank("namespace", "the machine's own cgroup namespace").fact("first", true)
        }
        Ok(link) => Finding::blank("namespace", format!("a cgroup namespace of its own, {link}"))
            .fact("first", false),
    }
}

/// Finds `nsdelegate`, an option of the file system and so the same at every mount.
fn nsdelegate() -> Finding {
    let mounts = mounts().unwrap_or_default();
    let Some(mount) = mounts.iter().find(|mount| mount.kind == "cgroup2") else {
        return Finding::blank("nsdelegate", "no cgroup2 is mounted");
    };
    if mount.options.split(',').any(|option| option == "nsdelegate") {
        return Finding::ok(
            "nsdelegate",
            "a process in a cgroup namespace of its own cannot leave it",
        );
    }
    let found = "not set: a process of your uid can leave its tree through a cgroup.procs above";
    Finding::no("nsdelegate", found).remedy(format!(
        "as root, on the machine itself: mount -o remount,nsdelegate {:?}",
        mount.point
    ))
}

/// Finds `favordynmods`, which is the same at every mount too.
fn favordynmods() -> Finding {
    let mounts = mounts().unwrap_or_default();
    let Some(mount) = mounts.iter().find(|mount| mount.kind == "cgroup2") else {
        return Finding::blank("favordynmods", "no cgroup2 is mounted");
    };
    if mount.options.split(',').any(|option| option == "favordynmods") {
        return Finding::ok("favordynmods", "a process joins a cgroup at once");
    }
    let found = "not set: a process that joins a cgroup (Tree::enroll) waits some 10 ms for a \
                 lock; one that is born in it (run, with, pool) does not";
    Finding::blank("favordynmods", found).remedy(format!(
        "where that matters, as root, since Linux 6.0: mount -o remount,favordynmods {:?}",
        mount.point
    ))
}

/// The kernel's release, for information.
pub(crate) fn release() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| "?".to_owned(), |name| name.release().to_string_lossy().into_owned())
}
