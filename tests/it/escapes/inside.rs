//! Out of the cgroup, and into those of others.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use super::attacker::{Prey, call, clone3};
use super::scene::{Outcome, Scene, arg, cgroup_of, ended_by};
use super::{Row, Who, done, row};

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

pub(super) const ROWS: &[Row] = &[
    row("procs-of-the-supervisor", Who::Anyone, procs_of_root, has_left),
    row("procs-of-a-sibling", Who::Anyone, |prey| write(&prey.dir, "cgroup.procs", "0"), has_left),
    row("threads-of-the-supervisor", Who::Anyone, threads_of_root, has_left),
    row("procs-by-an-inherited-fd", Who::Anyone, inherited_procs, has_left),
    row("clone-by-a-directory", Who::Anyone, |prey| clone_by(prey, OFlag::O_RDONLY), child_out),
    row("clone-by-a-path", Who::Anyone, |prey| clone_by(prey, OFlag::O_PATH), child_out),
    row("clone-by-an-inherited-fd", Who::Anyone, inherited_clone, child_out),
    row("clone-by-any-inherited-fd", Who::Anyone, any_inherited_clone, child_out),
    row("kill-a-sibling", Who::Anyone, |prey| write(&prey.dir, "cgroup.kill", "1"), prey_dead),
    row("freeze-a-sibling", Who::Anyone, |prey| write(&prey.dir, "cgroup.freeze", "1"), frozen),
    row("limit-a-sibling", Who::Anyone, limit, limited),
    row("make-a-cgroup-in-a-sibling", Who::Anyone, |prey| mkdir(&prey.dir), made_there),
    row("make-a-cgroup-in-its-own", Who::Anyone, mkdir_own, done),
    row("remove-a-cgroup-of-a-sibling", Who::Anyone, rmdir, removed),
    row("mount-cgroup2-in-new-namespaces", Who::Anyone, mount_cgroup2, done),
    row("setns", Who::Root, setns, done),
    row("chroot", Who::Root, |_| nix::unistd::chroot("/").map(|()| String::new()), done),
    row("fsopen", Who::Root, |_| fsopen(), done),
    row("open_tree", Who::Root, |_| open_tree(), done),
    row("open_by_handle_at", Who::Root, |prey| by_handle(&prey.root), done),
    row("write-to-core_pattern", Who::Root, |_| writable("/proc/sys/kernel/core_pattern"), done),
    Row {
        unless: Some(|| !Path::new("/proc/sysrq-trigger").exists()),
        ..row("write-to-sysrq-trigger", Who::Root, |_| writable("/proc/sysrq-trigger"), done)
    },
    row("write-to-sys", Who::Root, |_| writable("/sys/kernel/mm/ksm/run"), done),
];

fn has_left(_: &Scene, outcome: &Outcome) -> bool {
    // The kernel has moved it by the time that it says so.
    !outcome.is_inside()
}

fn child_out(scene: &Scene, outcome: &Outcome) -> bool {
    let root = scene.prey.root.file_name().unwrap().to_str().unwrap();
    cgroup_of(outcome.pid()).ends_with(root)
}

fn prey_dead(scene: &Scene, _: &Outcome) -> bool {
    ended_by(&scene.prey_child) == Some(libc::SIGKILL)
}

fn frozen(scene: &Scene, _: &Outcome) -> bool {
    let freeze = fs::read_to_string(scene.prey.dir.join("cgroup.freeze")).unwrap();
    freeze.trim() == "1"
}

fn limited(scene: &Scene, _: &Outcome) -> bool {
    fs::read_to_string(scene.prey.dir.join("cgroup.max.depth")).unwrap().trim() == "5"
}

fn made_there(scene: &Scene, _: &Outcome) -> bool {
    scene.prey.dir.join("made").exists()
}

fn removed(scene: &Scene, _: &Outcome) -> bool {
    !scene.prey.dir.join("empty").exists()
}

fn io(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn write(dir: &Path, file: &str, text: &str) -> Result<String, Errno> {
    fs::write(dir.join(file), text).map(|()| String::new()).map_err(|error| io(&error))
}

fn procs_of_root(prey: &Prey) -> Result<String, Errno> {
    write(&prey.root, "cgroup.procs", "0")
}

/// Moving the only thread needs a threaded cgroup, so the process is moved by its own number too.
fn threads_of_root(prey: &Prey) -> Result<String, Errno> {
    write(&prey.root, "cgroup.procs", &std::process::id().to_string())
}

fn inherited_procs(prey: &Prey) -> Result<String, Errno> {
    let written = call(libc::SYS_write, [arg(prey.procs_fd), c"0".as_ptr() as usize, 1, 0, 0]);
    written.map(|_| String::new())
}

fn clone_by(prey: &Prey, flags: OFlag) -> Result<String, Errno> {
    let dir = open(&prey.root, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    clone3(CLONE_INTO_CGROUP, dir.as_raw_fd())
}

fn inherited_clone(prey: &Prey) -> Result<String, Errno> {
    clone3(CLONE_INTO_CGROUP, prey.root_fd)
}

/// Tries every number there is.
fn any_inherited_clone(_: &Prey) -> Result<String, Errno> {
    let tried = (3..1024 as RawFd).map(|fd| clone3(CLONE_INTO_CGROUP, fd));
    tried.into_iter().find(Result::is_ok).unwrap_or(Err(Errno::EBADF))
}

fn limit(prey: &Prey) -> Result<String, Errno> {
    write(&prey.dir, "cgroup.max.depth", "5")
}

fn mkdir(dir: &Path) -> Result<String, Errno> {
    fs::create_dir(dir.join("made")).map(|()| String::new()).map_err(|error| io(&error))
}

fn mkdir_own(prey: &Prey) -> Result<String, Errno> {
    let own = cgroup_of(std::process::id().cast_signed());
    let leaf = Path::new(&own).file_name().unwrap_or_default();
    let made = prey.root.join(leaf).join("made");
    fs::create_dir(&made).map_err(|error| io(&error))?;
    fs::remove_dir(&made).map(|()| String::new()).map_err(|error| io(&error))
}

fn rmdir(prey: &Prey) -> Result<String, Errno> {
    fs::remove_dir(prey.dir.join("empty")).map(|()| String::new()).map_err(|error| io(&error))
}

fn mount_cgroup2(prey: &Prey) -> Result<String, Errno> {
    let root = nix::unistd::geteuid().is_root();
    let user = if root { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
    unshare(user | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
    // MS_REC, MS_PRIVATE
    let (none, all) = (c"none".as_ptr() as usize, 1 << 14 | 1 << 18);
    call(libc::SYS_mount, [none, c"/".as_ptr() as usize, 0, all, 0])?;
    let point = CString::new(prey.scratch.as_os_str().as_encoded_bytes()).unwrap();
    let kind = c"cgroup2".as_ptr() as usize;
    call(libc::SYS_mount, [none, point.as_ptr() as usize, kind, 0, 0]).map(|_| String::new())
}

fn setns(prey: &Prey) -> Result<String, Errno> {
    let other = open(&prey.proc("ns/uts"), OFlag::O_RDONLY, Mode::empty());
    // In a fence it cannot be opened either: its own will do.
    let own = || open("/proc/self/ns/uts", OFlag::O_RDONLY, Mode::empty());
    let space = other.or_else(|_| own())?;
    nix::sched::setns(space, CloneFlags::CLONE_NEWUTS).map(|()| String::new())
}

fn fsopen() -> Result<String, Errno> {
    call(libc::SYS_fsopen, [c"tmpfs".as_ptr() as usize, 0, 0, 0, 0]).map(|_| String::new())
}

fn open_tree() -> Result<String, Errno> {
    let here = arg(libc::AT_FDCWD);
    call(libc::SYS_open_tree, [here, c"/".as_ptr() as usize, 1, 0, 0]).map(|_| String::new())
}

/// `struct file_handle`, with room.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

fn by_handle(path: &Path) -> Result<String, Errno> {
    let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount: i32 = 0;
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let place = &raw mut handle as usize;
    let number = &raw mut mount as usize;
    let here = arg(libc::AT_FDCWD);
    call(libc::SYS_name_to_handle_at, [here, name.as_ptr() as usize, place, number, 0])?;
    let dir = open(path, OFlag::O_RDONLY, Mode::empty())?;
    let dir = arg(dir.as_raw_fd());
    call(libc::SYS_open_by_handle_at, [dir, place, libc::O_RDONLY as usize, 0, 0])
        .map(|_| String::new())
}

/// Opened and left alone: what is written there is the whole machine's.
fn writable(path: &str) -> Result<String, Errno> {
    let opened = fs::OpenOptions::new().write(true).open(path);
    opened.map_err(|error| io(&error)).map(|mut file| {
        let _ = file.flush();
        String::new()
    })
}
