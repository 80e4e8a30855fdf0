//! To more rights than it was given.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::attacker::{Prey, call, clone};
use super::scene::{Outcome, SET_ID, Scene, arg, ended_by, line_of};
use super::{Row, Who, done, row};

pub(super) const ROWS: &[Row] = &[
    row("user-namespace", Who::Anyone, |_| namespace(CloneFlags::CLONE_NEWUSER), done),
    row("mount-namespace", Who::Root, |_| namespace(CloneFlags::CLONE_NEWNS), done),
    row("pid-namespace", Who::Root, |_| namespace(CloneFlags::CLONE_NEWPID), done),
    row("clone-user-namespace", Who::Anyone, |_| clone(libc::CLONE_NEWUSER), done),
    row("clone-cgroup-namespace", Who::Root, |_| clone(libc::CLONE_NEWCGROUP), done),
    row("set-user-id-program", Who::User, set_id_program, |_, outcome| outcome.answer == "done 0"),
    row("set-user-id-file-by-chmod", Who::Anyone, by_chmod, is_set_id),
    row("set-user-id-file-by-fchmod", Who::Anyone, by_fchmod, is_set_id),
    row("set-user-id-file-by-fchmodat2", Who::Anyone, by_fchmodat2, is_set_id),
    row("set-user-id-file-by-open", Who::Anyone, by_open, is_set_id),
    row("set-user-id-file-by-openat2", Who::Anyone, by_openat2, is_set_id),
    row("set-group-id-file-by-mknod", Who::Anyone, by_mknod, is_set_id),
    row("device-file", Who::Root, device, |scene, _| file(&scene.prey).exists()),
    row("io_uring", Who::Anyone, |_| io_uring(), done),
    row("userfaultfd", Who::Anyone, |_| simple(libc::SYS_userfaultfd, 1), done),
    Row {
        // Debian leaves it to root.
        unless: Some(|| perf().is_err()),
        ..row("perf_event_open", Who::Anyone, |_| perf(), done)
    },
    row("bpf", Who::Root, |_| bpf(), done),
    row("keyctl", Who::Anyone, |_| simple(libc::SYS_keyctl, 1), done),
    row("add_key", Who::Anyone, |_| add_key(), done),
    Row {
        unless: Some(none_but_root_types),
        ..row("type-into-the-terminal", Who::Anyone, |_| typed(0), typed_there)
    },
    Row {
        unless: Some(none_but_root_types),
        ..row("type-with-a-wide-number", Who::Anyone, |_| typed(bit(32)), typed_there)
    },
    Row {
        unless: Some(|| console().is_err()),
        ..row("type-by-the-console", Who::Root, |_| console(), done)
    },
    row("mount", Who::Anyone, mount, done),
    row("raw-packets", Who::Root, |_| socket(libc::AF_PACKET, libc::SOCK_RAW), done),
    Row {
        unless: Some(|| socket(libc::AF_VSOCK, libc::SOCK_STREAM).is_err()),
        ..row("vsock", Who::Anyone, |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM), done)
    },
    Row {
        unless: Some(|| socket(libc::AF_ALG, libc::SOCK_SEQPACKET).is_err()),
        ..row("kernel-cipher", Who::Anyone, |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET), done)
    },
    Row {
        unless: Some(|| any_other_family().is_err()),
        ..row("any-other-socket", Who::Anyone, |_| any_other_family(), done)
    },
    Row {
        unless: Some(no_other_convention),
        ..row("int-0x80", Who::Anyone, |_| other_convention(), alive)
    },
    Row { unless: Some(no_x32), ..row("x32", Who::Anyone, |_| x32(), alive) },
    row("core-dump", Who::Anyone, |_| Ok(String::new()), dumps),
];

fn nothing(_: usize) -> String {
    String::new()
}

fn namespace(flags: CloneFlags) -> Result<String, Errno> {
    unshare(flags).map(|()| String::new())
}

/// The user that the program has become, as it says.
fn set_id_program(_: &Prey) -> Result<String, Errno> {
    // An environment that was cleared has it not.
    let program = std::env::var_os(SET_ID).ok_or(Errno::ENOENT)?;
    let output = std::process::Command::new(program).arg("-u").env_remove("TIDY_TRY").output();
    let output = output.map_err(|_| Errno::EACCES)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn file(prey: &Prey) -> PathBuf {
    prey.scratch.join("file")
}

fn is_set_id(scene: &Scene, _: &Outcome) -> bool {
    let mode = fs::symlink_metadata(file(&scene.prey)).map_or(0, |meta| meta.permissions().mode());
    mode & 0o6000 != 0
}

fn made(prey: &Prey) -> fs::File {
    fs::File::create(file(prey)).expect("a file of its own")
}

fn io(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn by_chmod(prey: &Prey) -> Result<String, Errno> {
    made(prey);
    let set = fs::set_permissions(file(prey), PermissionsExt::from_mode(0o4755));
    set.map(|()| String::new()).map_err(|error| io(&error))
}

fn by_fchmod(prey: &Prey) -> Result<String, Errno> {
    let set = made(prey).set_permissions(PermissionsExt::from_mode(0o2755));
    set.map(|()| String::new()).map_err(|error| io(&error))
}

fn by_fchmodat2(prey: &Prey) -> Result<String, Errno> {
    made(prey);
    let path = path(prey);
    let here = arg(libc::AT_FDCWD);
    call(452, [here, path.as_ptr() as usize, 0o4755, 0, 0]).map(nothing)
}

fn path(prey: &Prey) -> std::ffi::CString {
    std::ffi::CString::new(file(prey).into_os_string().into_encoded_bytes()).unwrap()
}

fn by_open(prey: &Prey) -> Result<String, Errno> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o4755).open(file(prey));
    made.map(|_| String::new()).map_err(|error| io(&error))
}

fn by_openat2(prey: &Prey) -> Result<String, Errno> {
    let how = [(libc::O_CREAT | libc::O_WRONLY) as u64, 0o4755, 0];
    let (path, how) = (path(prey), how.as_ptr() as usize);
    let here = arg(libc::AT_FDCWD);
    call(libc::SYS_openat2, [here, path.as_ptr() as usize, how, 24, 0]).map(nothing)
}

fn by_mknod(prey: &Prey) -> Result<String, Errno> {
    let mode = Mode::from_bits_retain(0o2755);
    mknod(&file(prey), SFlag::S_IFREG, mode, 0).map(|()| String::new())
}

/// The null device.
fn device(prey: &Prey) -> Result<String, Errno> {
    mknod(&file(prey), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)).map(|()| String::new())
}

fn io_uring() -> Result<String, Errno> {
    let parameters = [0_u64; 15];
    call(libc::SYS_io_uring_setup, [1, parameters.as_ptr() as usize, 0, 0, 0]).map(nothing)
}

fn simple(number: libc::c_long, first: usize) -> Result<String, Errno> {
    call(number, [first, 0, 0, 0, 0]).map(nothing)
}

/// Counts this process's own page faults.
fn perf() -> Result<String, Errno> {
    let mut attributes = [0_u32; 32];
    (attributes[0], attributes[1], attributes[2]) = (1, 128, 2);
    // exclude_kernel, exclude_hv
    attributes[10] = 1 << 5 | 1 << 6;
    let none = arg(-1);
    call(libc::SYS_perf_event_open, [attributes.as_ptr() as usize, 0, none, none, 0]).map(nothing)
}

/// An array of one.
fn bpf() -> Result<String, Errno> {
    let attributes = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    call(libc::SYS_bpf, [0, attributes.as_ptr() as usize, 72, 0, 0]).map(nothing)
}

/// In the keyring of the process.
fn add_key() -> Result<String, Errno> {
    let (kind, name) = (c"user".as_ptr() as usize, c"tidy".as_ptr() as usize);
    call(libc::SYS_add_key, [kind, name, c"x".as_ptr() as usize, 1, arg(-2)]).map(nothing)
}

/// Types a letter into a terminal of its own, which it controls; what it reads there then.
/// None where the kernel's longs have 32 bits.
fn bit(number: u32) -> usize {
    1_usize.checked_shl(number).unwrap_or_default()
}

fn typed(high: usize) -> Result<String, Errno> {
    let terminal = nix::pty::openpty(None, None)?;
    nix::unistd::setsid()?;
    let slave = arg(terminal.slave.as_raw_fd());
    call(libc::SYS_ioctl, [slave, wide(libc::TIOCSCTTY), 0, 0, 0])?;
    let letter = b'y';
    let request = wide(libc::TIOCSTI) | high;
    call(libc::SYS_ioctl, [slave, request, &raw const letter as usize, 0, 0])?;
    // It is echoed.
    let mut read = [0; 8];
    let count = nix::unistd::read(&terminal.master, &mut read)?;
    // Closed, it would hang up on this process.
    std::mem::forget(terminal);
    Ok(String::from_utf8_lossy(&read[..count]).into_owned())
}

fn wide(request: libc::Ioctl) -> usize {
    usize::try_from(request).expect("a request has 32 bits")
}

/// Since Linux 6.2, if it is set so.
fn none_but_root_types() -> bool {
    let legacy = fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    legacy.is_ok_and(|legacy| legacy.trim() == "0") && !nix::unistd::geteuid().is_root()
}

fn typed_there(_: &Scene, outcome: &Outcome) -> bool {
    outcome.answer == "done y"
}

fn socket(family: i32, kind: i32) -> Result<String, Errno> {
    call(libc::SYS_socket, [arg(family), arg(kind), 0, 0, 0]).map(nothing)
}

/// Each family that there is or will be, but for those of a fence: UNIX, INET, INET6, NETLINK.
fn any_other_family() -> Result<String, Errno> {
    let all = (0..64).filter(|family| ![1, 2, 10, 16].contains(family));
    let all = all.flat_map(|family| (1..=6).map(move |kind| (family, kind)));
    let made = all.map(|(family, kind)| (family, socket(family, kind)));
    let made = made.into_iter().find(|(_, made)| made.is_ok());
    made.map(|(family, _)| family.to_string()).ok_or(Errno::EAFNOSUPPORT)
}

/// Asks the first virtual console for the state of its keys: pasting there is another number of the
/// same request (TIOCLINUX).
fn console() -> Result<String, Errno> {
    const SHIFT_STATE: u8 = 6;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let terminal = open("/dev/tty1", flags, Mode::empty());
    // It is not in a sandbox: a terminal of its own is asked there.
    let own = || nix::pty::openpty(None, None).map(|pair| pair.slave);
    let (terminal, mut number) = (terminal.or_else(|_| own())?, SHIFT_STATE);
    let place = &raw mut number as usize;
    let request = wide(libc::TIOCLINUX);
    call(libc::SYS_ioctl, [arg(terminal.as_raw_fd()), request, place, 0, 0]).map(nothing)
}

/// In a namespace of its own where it can have one, so that nothing outside is covered.
fn mount(prey: &Prey) -> Result<String, Errno> {
    let root = nix::unistd::geteuid().is_root();
    let user = if root { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
    // Where that is refused the call itself has to be too.
    if unshare(user | CloneFlags::CLONE_NEWNS).is_ok() {
        // MS_REC, MS_PRIVATE
        let (place, private) = (c"/".as_ptr() as usize, 1 << 14 | 1 << 18);
        call(libc::SYS_mount, [place, place, 0, private, 0])?;
    }
    let point = std::ffi::CString::new(prey.scratch.as_os_str().as_encoded_bytes()).unwrap();
    let kind = c"tmpfs".as_ptr() as usize;
    call(libc::SYS_mount, [kind, point.as_ptr() as usize, kind, 0, 0]).map(nothing)
}

/// Whether it was answered; a filter that ends it does so with SIGSYS.
fn alive(_: &Scene, outcome: &Outcome) -> bool {
    let ended = ended_by(&outcome.child);
    assert!(ended.is_none() || ended == Some(libc::SIGSYS), "{ended:?}");
    ended.is_none() && outcome.answer.starts_with("done")
}

#[cfg(target_arch = "x86_64")]
fn other_convention() -> Result<String, Errno> {
    Ok(super::attacker::int_0x80().to_string())
}

#[cfg(not(target_arch = "x86_64"))]
fn other_convention() -> Result<String, Errno> {
    Err(Errno::ENOSYS)
}

/// A kernel without it ends who tries, or says so.
fn no_other_convention() -> bool {
    let has = fs::read("/proc/sys/abi/vsyscall32").is_ok();
    !has || !cfg!(target_arch = "x86_64")
}

/// A kernel without these numbers answers that they are unknown.
fn x32() -> Result<String, Errno> {
    match call(0x4000_0000 | 39, [0; 5]) {
        Err(Errno::ENOSYS) => Ok(String::new()),
        answer => answer.map(nothing),
    }
}

fn no_x32() -> bool {
    !cfg!(target_arch = "x86_64")
}

/// Whether it may dump core, by its hard limit: at 1 no handler behind a pipe is started (core(5)).
fn dumps(_: &Scene, outcome: &Outcome) -> bool {
    let line = line_of(outcome.child.id().cast_signed(), "limits", "Max core file size");
    line.split_whitespace().nth(1) != Some("1")
}
