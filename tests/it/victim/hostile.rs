//! Victims that make it hard to look at them: what they leave is large, blocks, or steers a
//! terminal. The main process has ended when the test comes to look, unless it says otherwise.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::null_mut;
use std::thread;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use super::life::{Gate, child, exit, fail, hold, must, ready, until};

/// What a terminal obeys: C0, C1 as one byte and as UTF-8, DEL, a change of direction, a new line.
pub(crate) const EVIL: &[u8] = b"evil\x1b[31m\x9b2J\xc2\x9b2J\x7f\xe2\x80\xae\nX";

/// So many children become what `body` makes of them, and stay; the main process ends.
fn leave(count: usize, body: impl Fn()) -> ! {
    let gate = Gate::new();
    for _ in 0..count {
        child(|| {
            body();
            gate.arrived();
            hold()
        });
    }
    gate.wait(count);
    ready();
    exit(0)
}

fn number(name: &str) -> usize {
    let text = std::env::var(name).unwrap_or_default();
    must(&format!("read {name}"), text.parse())
}

fn raise(resource: Resource) {
    let (_, hard) = must("ask for a limit", getrlimit(resource));
    must("raise a limit", setrlimit(resource, hard, hard));
}

/// A command line of half a gibibyte of zeroes: no memory is used for it, no right is needed.
pub(super) fn long_command() -> ! {
    leave(1, || {
        let (len, kind) = (1 << 29, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a new mapping, at a place that the kernel picks.
        let place = unsafe { libc::mmap(null_mut(), len, libc::PROT_READ, kind, -1, 0) };
        if place == libc::MAP_FAILED {
            fail("map", &Errno::last());
        }
        stretch(place as u64, len as u64);
    })
}

/// `struct prctl_mm_map`
#[repr(C)]
struct Map {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: *mut u64,
    auxv_size: u32,
    exe_fd: u32,
}

fn stretch(from: u64, len: u64) {
    let stat = must("read stat", fs::read_to_string("/proc/self/stat"));
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    // The state is field 3 of proc(5).
    let fields: Vec<u64> =
        fields.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    // SAFETY: asks for the end of the heap and changes nothing.
    let brk = unsafe { libc::sbrk(0) } as u64;
    let map = Map {
        start_code: field(26),
        end_code: field(27),
        start_data: field(45),
        end_data: field(46),
        start_brk: field(47),
        brk,
        start_stack: field(28),
        arg_start: from,
        arg_end: from + len,
        env_start: field(50),
        env_end: field(51),
        auxv: null_mut(),
        auxv_size: 0,
        exe_fd: u32::MAX,
    };
    let (size, place) = (size_of::<Map>(), &raw const map);
    // SAFETY: the kernel reads one struct of this size.
    let set = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, place, size, 0) };
    must("stretch the command line", Errno::result(set));
}

/// Twenty processes with 200,000 words each.
pub(super) fn many_words() -> ! {
    raise(Resource::RLIMIT_STACK);
    let mut command = Command::new(super::exe());
    command.args(std::iter::repeat_n("x", 200_000)).env(super::WISH, "many-words-go");
    fail("exec", &command.exec())
}

pub(super) fn many_words_go() -> ! {
    leave(20, || ())
}

/// 3,000 sockets in 60 processes each.
pub(super) fn many_sockets() -> ! {
    raise(Resource::RLIMIT_NOFILE);
    let bind = || must("bind", UdpSocket::bind("127.0.0.1:0"));
    let held: Vec<_> = std::iter::repeat_with(bind).take(3000).collect();
    leave(60, || assert_eq!(held.len(), 3000))
}

/// Processes that one cannot look at: one thread waits in a page fault of a frozen file system,
/// another for that one, with the memory locked. The main process says `ready`, waits until the
/// file system is frozen, and says it again.
pub(super) fn memory_locked() -> ! {
    let count = number("TIDY_COUNT");
    let path = std::env::var("TIDY_FILE").unwrap_or_default();
    let (arrived, (frozen, go)) = (Gate::new(), must("make a pipe", std::io::pipe()));
    let each = |_| {
        child(|| {
            let page = page_of(&path);
            arrived.arrived();
            must("wait", (&frozen).read_exact(&mut [0]));
            lock_memory(page);
            hold()
        })
    };
    let children: Vec<Pid> = (0..count).map(each).collect();
    arrived.wait(count);
    ready();
    must("wait for the freeze", std::io::stdin().read_exact(&mut [0]));
    must("go", std::io::Write::write_all(&mut &go, &vec![0; count]));
    for pid in children {
        until("two threads are stuck", || stuck(pid.as_raw()) == 2);
    }
    ready();
    if std::env::var_os("TIDY_STAY").is_some() {
        hold()
    }
    exit(0)
}

fn page_of(path: &str) -> usize {
    let mut how = fs::OpenOptions::new();
    let file = must("open", how.read(true).write(true).create(true).truncate(false).open(path));
    must("grow", file.set_len(4096));
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let fd = file.as_raw_fd();
    // SAFETY: a new mapping, at a place that the kernel picks.
    let page = unsafe { libc::mmap(null_mut(), 4096, access, libc::MAP_SHARED, fd, 0) };
    if page == libc::MAP_FAILED {
        fail("map", &Errno::last());
    }
    // SAFETY: the page is there, and of the file's one page.
    let _ = unsafe { page.cast::<u8>().read_volatile() };
    page as usize
}

fn lock_memory(page: usize) {
    thread::spawn(move || {
        let place = page as *mut u8;
        // SAFETY: the page is mapped, and nothing else is in it.
        unsafe { place.write_volatile(1) };
    });
    let me = std::process::id().cast_signed();
    until("a thread is stuck", || stuck(me) == 1);
    thread::spawn(move || {
        // SAFETY: none but the stuck thread uses the page, and that ends with the process.
        unsafe { libc::munmap(page as *mut libc::c_void, 4096) };
    });
}

/// How many threads of a process are in state D.
fn stuck(pid: i32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.filter(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D'))).count()
}

/// What a terminal obeys, in the command line.
pub(super) fn evil_words() -> ! {
    let gate = Gate::new();
    child(|| {
        let mut command = Command::new("sleep");
        command.arg0(OsStr::from_bytes(EVIL)).arg("20").env_remove(super::WISH);
        gate.arrived();
        fail("exec", &command.exec())
    });
    gate.wait(1);
    until("it is asleep", || named("sleep"));
    ready();
    exit(0)
}

/// Whether a child has become this.
fn named(name: &str) -> bool {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let comm = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children.split_whitespace().any(|pid| comm(pid).trim_end() == name)
}

/// The same in the names of a process that listens and of its directory; the main process stays.
pub(super) fn evil_server() -> ! {
    let dir = std::env::temp_dir().join(OsStr::from_bytes(EVIL));
    must("make a directory", fs::create_dir_all(&dir));
    must("go there", std::env::set_current_dir(&dir));
    let name = must("name", CString::new(&b"e\x1b[2J\x9b\xc2\x9b\n\x7f\xe2\x80\xae"[..]));
    // SAFETY: a string that ends in NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    let held = must("listen", TcpListener::bind("127.0.0.1:0"));
    must("write", nix::unistd::write(std::io::stdout(), &[EVIL, b"\n"].concat()));
    ready();
    if std::env::var_os("TIDY_STAY").is_none() {
        must("go away", fs::remove_dir(&dir));
        exit(3)
    }
    let _held = held;
    hold()
}

/// Others may not look at it: it is hidden where `/proc` hides what is not one's own.
pub(super) fn secretive() -> ! {
    leave(1, || {
        // SAFETY: no memory is involved.
        let set = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        must("hide", Errno::result(set));
    })
}
