//! What each layer of a sandbox costs by itself: a process that takes on one layer and ends, over
//! one that does without. What the kernel does at its end is in it, where it does not do that
//! later.
//!
//! # Safety
//! The child shares this process's memory while this thread is suspended (`CLONE_VFORK`), stands on
//! a stack of its own, and makes system calls alone.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::Res;
use crate::options::Options;
use crate::sample::{Entry, Rounds, interleave};
use crate::table;
use crate::targets::Targets;

const PROCESS: &str = "a process that ends at once";
const USER: &str = "a user namespace";
const PLACE: &str = "the three namespaces that mounts need";

const IN_PLACE: c_int = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID;

type Step = fn(&Prepared) -> Option<()>;

/// One layer, what it is compared with, the namespaces that the process is born in, and what it
/// does.
struct Layer {
    name: &'static str,
    base: &'static str,
    namespaces: c_int,
    step: Step,
}

const fn layer(name: &'static str, base: &'static str, namespaces: c_int, step: Step) -> Layer {
    Layer { name, base, namespaces, step }
}

const fn of_user(name: &'static str, namespace: c_int) -> Layer {
    layer(name, USER, libc::CLONE_NEWUSER | namespace, nothing)
}

const LAYERS: [Layer; 15] = [
    layer(PROCESS, PROCESS, 0, nothing),
    layer("a small program executed from memory", PROCESS, 0, execute),
    layer(USER, PROCESS, libc::CLONE_NEWUSER, nothing),
    of_user("its mounts: a copy of the host's", libc::CLONE_NEWNS),
    of_user("its process numbers", libc::CLONE_NEWPID),
    of_user("its IPC", libc::CLONE_NEWIPC),
    of_user("its host name", libc::CLONE_NEWUTS),
    of_user("its cgroups", libc::CLONE_NEWCGROUP),
    of_user("its network, empty", libc::CLONE_NEWNET),
    layer(PLACE, PROCESS, IN_PLACE, nothing),
    layer("its processes at /proc", PLACE, IN_PLACE, |_| mount(c"proc", c"/proc")),
    layer("a directory in memory", PLACE, IN_PLACE, |_| mount(c"tmpfs", c"/tmp")),
    layer("its terminals", PLACE, IN_PLACE, |_| mount(c"devpts", c"/tmp")),
    layer("processes outside: scopes of Landlock", PROCESS, 0, restrict),
    layer("system calls: a filter of 128 instructions", PROCESS, 0, filter),
];

/// What the layers are made of, and the stack of the process.
struct Prepared {
    program: OwnedFd,
    ruleset: OwnedFd,
    filter: Vec<libc::sock_filter>,
    stack: Vec<u128>,
}

pub(crate) fn measure(options: &Options, _: &mut Targets) -> Res {
    let prepared = Prepared::new()?;
    let can = |layer: &&Layer| prepared.run(layer).is_ok();
    let (can, cannot): (Vec<_>, Vec<_>) = LAYERS.iter().partition(can);
    cannot.iter().for_each(|layer| eprintln!("left out: {}", layer.name));
    let entry = |layer: &&'static Layer| {
        let (prepared, layer) = (&prepared, *layer);
        Entry::new(layer.name, move || prepared.run(layer))
    };
    let mut entries: Vec<_> = can.iter().map(entry).collect();
    interleave(&mut entries, Rounds::tight(options.rounds(500)))?;
    let row = |layer: &&Layer| {
        let [own, base] = [layer.name, layer.base].map(|name| table::median(&entries, name) * 1e6);
        let over = if layer.name == layer.base { own } else { own - base };
        vec![layer.name.to_owned(), format!("{over:.0} us"), layer.base.to_owned()]
    };
    let rows: Vec<_> = can.iter().map(row).collect();
    println!("\n## What each layer of a sandbox costs by itself");
    println!("\n{}", table::table(&["", "median", "over"], &rows));
    Ok(())
}

impl Prepared {
    fn new() -> Res<Self> {
        // `struct landlock_ruleset_attr`: all three scopes (ABI 6).
        let scopes: [u64; 3] = [0, 0, 3];
        let (place, size) = (ptr::from_ref(&scopes), size_of_val(&scopes));
        // SAFETY: the kernel reads three integers.
        let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, place, size, 0) };
        Ok(Self {
            program: program()?,
            ruleset: fd(ruleset)?,
            filter: tree(0, 512, 6).into_iter().collect(),
            stack: vec![0; 4096],
        })
    }

    /// Starts the process, and waits for its end.
    fn run(&self, layer: &Layer) -> Res {
        let order = (self, layer);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | layer.namespaces;
        let top = self.stack.as_ptr_range().end.cast_mut().cast();
        let arg = ptr::from_ref(&order).cast_mut().cast();
        // SAFETY: stack and order live until the child has executed or ended (CLONE_VFORK).
        let pid = unsafe { libc::clone(live, top, flags, arg) };
        if pid < 0 {
            return Err(io::Error::last_os_error().into());
        }
        let mut status = 0;
        // SAFETY: an integer that is writable.
        let reaped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        match (reaped == pid, status) {
            (true, 0) => Ok(()),
            _ => Err(format!("status {status}").into()),
        }
    }
}

extern "C" fn live(order: *mut c_void) -> c_int {
    // SAFETY: `run` passes this.
    let (prepared, layer) = unsafe { &*order.cast::<(&Prepared, &Layer)>() };
    if (layer.step)(prepared).is_some() { 0 } else { 1 }
}

fn nothing(_: &Prepared) -> Option<()> {
    Some(())
}

/// Returns only if that fails.
fn execute(prepared: &Prepared) -> Option<()> {
    let (fd, none) = (prepared.program.as_raw_fd(), ptr::null::<*const c_void>());
    let (empty, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: no arguments and no environment.
    unsafe { libc::syscall(libc::SYS_execveat, fd, empty, none, none, flags) };
    None
}

fn mount(kind: &CStr, at: &CStr) -> Option<()> {
    const CREATE: c_int = 6;
    const FROM_EMPTY_PATH: c_int = 4;
    let none = ptr::null::<c_void>();
    // SAFETY: a string that ends in NUL; so below.
    let context = ok(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 0) })?;
    // SAFETY: neither key nor value.
    ok(unsafe { libc::syscall(libc::SYS_fsconfig, context, CREATE, none, none, 0) })?;
    // SAFETY: integers.
    let tree = ok(unsafe { libc::syscall(libc::SYS_fsmount, context, 0, 0) })?;
    let (empty, at, here) = (c"".as_ptr(), at.as_ptr(), libc::AT_FDCWD);
    // SAFETY: two strings.
    ok(unsafe { libc::syscall(libc::SYS_move_mount, tree, empty, here, at, FROM_EMPTY_PATH) })?;
    Some(())
}

fn restrict(prepared: &Prepared) -> Option<()> {
    no_new_privileges()?;
    let ruleset = prepared.ruleset.as_raw_fd();
    // SAFETY: integers.
    ok(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) }).map(drop)
}

fn filter(prepared: &Prepared) -> Option<()> {
    no_new_privileges()?;
    let len = u16::try_from(prepared.filter.len()).ok()?;
    let program = libc::sock_fprog { len, filter: prepared.filter.as_ptr().cast_mut() };
    let (mode, place) = (libc::SECCOMP_SET_MODE_FILTER, ptr::from_ref(&program));
    // SAFETY: the kernel reads the program, which lives across the call.
    ok(unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, place) }).map(drop)
}

fn no_new_privileges() -> Option<()> {
    // SAFETY: integers.
    ok(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

fn ok(answer: c_long) -> Option<c_long> {
    (answer >= 0).then_some(answer)
}

/// Answers for the numbers of system calls from `first` on, by a tree: the shape of the library's
/// filter, and its size with the load in front.
fn tree(first: u32, count: u32, depth: u32) -> Vec<libc::sock_filter> {
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;
    let one = |code: u32, jt: usize, k: u32| libc::sock_filter {
        code: code as u16,
        jt: jt as u8,
        jf: 0,
        k,
    };
    if depth == 0 {
        return vec![one(ANSWER, 0, libc::SECCOMP_RET_ALLOW)];
    }
    let half = count / 2;
    let [below, above] = [first, first + half].map(|first| tree(first, half, depth - 1));
    let load = (count == 512).then(|| one(LOAD_WORD, 0, 0));
    let jump = one(AT_LEAST, below.len(), first + half);
    load.into_iter().chain([jump]).chain(below).chain(above).collect()
}

/// A file in memory with a program that exits with 0, and nothing else.
fn program() -> Res<OwnedFd> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // exit_group(0)
    #[cfg(target_arch = "x86_64")]
    const CODE: [u8; 12] = [0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05, 0x0f, 0x0b, 0];
    #[cfg(target_arch = "x86_64")]
    const MACHINE: u16 = 62;
    #[cfg(target_arch = "aarch64")]
    const CODE: [u8; 12] = [0xc8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 1, 0, 0, 0xd4];
    #[cfg(target_arch = "aarch64")]
    const MACHINE: u16 = 183;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, MACHINE].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([BASE + HEADERS, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    // One segment: the whole file, to be read and executed.
    file.extend([1u32, 5].map(u32::to_le_bytes).concat());
    let size = HEADERS + CODE.len() as u64;
    file.extend([0, BASE, BASE, size, size, 4096].map(u64::to_le_bytes).concat());
    file.extend(CODE);
    // SAFETY: a string that ends in NUL.
    let made = unsafe { libc::memfd_create(c"bench".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_EXEC) };
    let made = fd(made.into())?;
    // SAFETY: the kernel reads the bytes.
    let written = unsafe { libc::write(made.as_raw_fd(), file.as_ptr().cast(), file.len()) };
    if written == file.len() as isize { Ok(made) } else { Err("a short write".into()) }
}

fn fd(answer: c_long) -> io::Result<OwnedFd> {
    match i32::try_from(answer) {
        // SAFETY: the kernel has just opened it for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
