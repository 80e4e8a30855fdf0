//! At processes outside: signals, memory, priorities, limits, sockets.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::attacker::{Prey, SECRET, call, clone};
use super::scene::{Outcome, Scene, arg, cgroup_of, line_of};
use super::{Row, Who, done, row};

pub(super) const ROWS: &[Row] = &[
    row("kill", Who::Anyone, |prey| signal(prey.pid), |scene, _| scene.got(libc::SIGUSR1)),
    // SIGURG: it is ignored by default, and reaches strangers of this user too.
    row("kill-all", Who::User, |_| kill_all(), |scene, _| scene.got(libc::SIGURG)),
    row("kill-the-parent", Who::Anyone, |_| signal_parent(), done),
    row("clone-for-the-parent", Who::Anyone, |_| clone(libc::CLONE_PARENT), has_another_child),
    row("pidfd_send_signal", Who::Anyone, by_pidfd, |scene, _| scene.got(libc::SIGUSR1)),
    row("sigqueue", Who::Anyone, queue, |scene, _| scene.got(libc::SIGUSR2)),
    row("tgkill", Who::Anyone, thread_signal, |scene, _| scene.got(libc::SIGUSR1)),
    row("sigqueue-at-a-thread", Who::Anyone, queue_thread, |scene, _| scene.got(libc::SIGUSR2)),
    row("fcntl-setown", Who::Anyone, set_own, |scene, _| scene.got(libc::SIGIO)),
    row("fcntl-setown-ex", Who::Anyone, set_own_ex, |scene, _| scene.got(libc::SIGUSR2)),
    row("ptrace", Who::Anyone, trace, traced),
    row("process_vm_writev", Who::Anyone, vm_write, changed),
    row("proc-mem", Who::Anyone, mem_write, changed),
    row("proc-environ", Who::Anyone, environ, told),
    row("proc-root", Who::Anyone, |prey| list(prey, "root/etc"), done),
    row("proc-cwd", Who::Anyone, |prey| list(prey, "cwd/."), done),
    row("proc-fd", Who::Anyone, first_fd, done),
    row("proc-exe", Who::Anyone, |prey| opened(prey.proc("exe")), done),
    row("proc-maps", Who::Anyone, |prey| first_line(prey.proc("maps")), done),
    // In a sandbox that is its own init.
    Row {
        // In some virtual machines nothing is told of it.
        unless: Some(|| opened("/proc/1/exe".into()).is_err()),
        ..row("exe-of-process-1", Who::Root, |_| opened("/proc/1/exe".into()), done)
    },
    row("pidfd_getfd", Who::Anyone, get_fd, done),
    row("kcmp", Who::Anyone, compare, done),
    row("prlimit", Who::Anyone, limit, limited),
    row("sched_setaffinity", Who::Anyone, bind, bound),
    row("sched_setscheduler", Who::Anyone, |prey| set_policy(prey.pid), batched),
    row("sched_setattr", Who::Anyone, |prey| set_attributes(prey.pid), batched),
    Row {
        unless: Some(is_nicest),
        ..row("setpriority", Who::Anyone, |prey| renice(0, prey.pid), reniced)
    },
    Row {
        unless: Some(is_nicest),
        ..row("setpriority-of-a-group", Who::Anyone, renice_group, reniced)
    },
    row("ioprio_set", Who::Anyone, |prey| set_io(prey.pid), io_set),
    row("oom_score_adj", Who::Anyone, score, scored),
    row("abstract-socket", Who::Anyone, connect, connected),
    row("abstract-datagram", Who::Anyone, datagram, received),
];

fn nothing(_: usize) -> String {
    String::new()
}

fn io(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn signal(pid: i32) -> Result<String, Errno> {
    kill(Pid::from_raw(pid), Signal::SIGUSR1).map(|()| String::new())
}

fn kill_all() -> Result<String, Errno> {
    kill(Pid::from_raw(-1), Signal::SIGURG).map(|()| String::new())
}

/// The supervisor itself, with a signal that only asks.
fn signal_parent() -> Result<String, Errno> {
    kill(nix::unistd::getppid(), None).map(|()| String::new())
}

/// Whether a process of the attacker's cgroup beside it, and init, is the supervisor's child.
fn has_another_child(_: &Scene, outcome: &Outcome) -> bool {
    let (ours, attacker) = (std::process::id().to_string(), outcome.child.id().cast_signed());
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).any(|pid: i32| {
        pid != attacker
            && line_of(pid, "status", "PPid:") == ours
            && line_of(pid, "status", "Name:") != "tidy-init"
            && cgroup_of(pid) == cgroup_of(attacker)
    })
}

fn by_pidfd(prey: &Prey) -> Result<String, Errno> {
    let pidfd = call(libc::SYS_pidfd_open, [arg(prey.pid), 0, 0, 0, 0])?;
    let signal = libc::SIGUSR1 as usize;
    call(libc::SYS_pidfd_send_signal, [pidfd, signal, 0, 0, 0]).map(nothing)
}

fn queue(prey: &Prey) -> Result<String, Errno> {
    let info = queued();
    let (pid, signal) = (arg(prey.pid), libc::SIGUSR2 as usize);
    call(libc::SYS_rt_sigqueueinfo, [pid, signal, info.as_ptr() as usize, 0, 0]).map(nothing)
}

/// The signal comes to the thread alone, so its own set of pending ones is looked at.
fn thread_signal(prey: &Prey) -> Result<String, Errno> {
    let (pid, signal) = (arg(prey.pid), libc::SIGUSR1 as usize);
    call(libc::SYS_tgkill, [pid, pid, signal, 0, 0]).map(nothing)
}

fn queue_thread(prey: &Prey) -> Result<String, Errno> {
    let info = queued();
    let (pid, signal) = (arg(prey.pid), libc::SIGUSR2 as usize);
    let place = info.as_ptr() as usize;
    call(libc::SYS_rt_tgsigqueueinfo, [pid, pid, signal, place, 0]).map(nothing)
}

/// `siginfo_t`: si_signo, si_errno, si_code (SI_QUEUE).
fn queued() -> [i32; 32] {
    let mut info = [0; 32];
    (info[0], info[2]) = (libc::SIGUSR2, -1);
    info
}

/// `F_SETOWN_EX` names a process or a thread, `F_SETSIG` any other signal.
fn set_own_ex(prey: &Prey) -> Result<String, Errno> {
    const F_SETSIG: usize = 10;
    const F_SETOWN_EX: usize = 15;
    const PROCESS: i32 = 1;
    let owner = [PROCESS, prey.pid];
    asynchronous(|fd| {
        call(libc::SYS_fcntl, [fd, F_SETSIG, libc::SIGUSR2 as usize, 0, 0])?;
        call(libc::SYS_fcntl, [fd, F_SETOWN_EX, owner.as_ptr() as usize, 0, 0])
    })
}

/// The kernel sends SIGIO to the owner of a socket when there is something to read.
fn set_own(prey: &Prey) -> Result<String, Errno> {
    asynchronous(|fd| call(libc::SYS_fcntl, [fd, libc::F_SETOWN as usize, arg(prey.pid), 0, 0]))
}

fn asynchronous(own: impl FnOnce(usize) -> Result<usize, Errno>) -> Result<String, Errno> {
    let (one, mut other) = UnixStream::pair().map_err(|error| io(&error))?;
    let fd = arg(one.as_raw_fd());
    own(fd)?;
    call(libc::SYS_fcntl, [fd, libc::F_SETFL as usize, libc::O_ASYNC as usize, 0, 0])?;
    other.write_all(b"x").map_err(|error| io(&error))?;
    Ok(String::new())
}

/// `PTRACE_SEIZE`
fn trace(prey: &Prey) -> Result<String, Errno> {
    call(libc::SYS_ptrace, [0x4206, arg(prey.pid), 0, 0, 0]).map(nothing)
}

fn traced(scene: &Scene, outcome: &Outcome) -> bool {
    line_of(scene.prey.pid, "status", "TracerPid:") == outcome.child.id().to_string()
}

fn vm_write(prey: &Prey) -> Result<String, Errno> {
    let byte = b'z';
    let ours = [&raw const byte as usize, 1];
    let theirs = [prey.address, 1];
    let (ours, theirs) = (ours.as_ptr() as usize, theirs.as_ptr() as usize);
    call(libc::SYS_process_vm_writev, [arg(prey.pid), ours, 1, theirs, 1]).map(nothing)
}

fn mem_write(prey: &Prey) -> Result<String, Errno> {
    let file = fs::OpenOptions::new().write(true).open(prey.proc("mem"));
    let mut file = file.map_err(|error| io(&error))?;
    file.seek(SeekFrom::Start(prey.address as u64)).map_err(|error| io(&error))?;
    file.write_all(b"z").map(|()| String::new()).map_err(|error| io(&error))
}

fn changed(scene: &Scene, _: &Outcome) -> bool {
    let mut file = fs::File::open(scene.prey.proc("mem")).unwrap();
    file.seek(SeekFrom::Start(scene.prey.address as u64)).unwrap();
    let mut byte = [0];
    file.read_exact(&mut byte).unwrap();
    assert!(byte == *b"a" || byte == *b"z", "{byte:?}");
    byte == *b"z"
}

fn environ(prey: &Prey) -> Result<String, Errno> {
    let text = fs::read(prey.proc("environ")).map_err(|error| io(&error))?;
    Ok(String::from_utf8_lossy(&text).replace('\0', " "))
}

fn told(_: &Scene, outcome: &Outcome) -> bool {
    outcome.answer.contains(SECRET)
}

fn list(prey: &Prey, file: &str) -> Result<String, Errno> {
    let listed = fs::read_dir(prey.proc(file)).map_err(|error| io(&error))?;
    Ok(listed.flatten().count().to_string())
}

fn first_fd(prey: &Prey) -> Result<String, Errno> {
    let link = fs::read_link(prey.proc("fd/0")).map_err(|error| io(&error))?;
    Ok(link.display().to_string())
}

fn opened(path: PathBuf) -> Result<String, Errno> {
    fs::File::open(path).map(|_| String::new()).map_err(|error| io(&error))
}

fn first_line(path: PathBuf) -> Result<String, Errno> {
    let text = fs::read_to_string(path).map_err(|error| io(&error))?;
    text.lines().next().map(str::to_owned).ok_or(Errno::ENODATA)
}

fn get_fd(prey: &Prey) -> Result<String, Errno> {
    let pidfd = call(libc::SYS_pidfd_open, [arg(prey.pid), 0, 0, 0, 0])?;
    call(libc::SYS_pidfd_getfd, [pidfd, 0, 0, 0, 0]).map(nothing)
}

fn compare(prey: &Prey) -> Result<String, Errno> {
    let own = std::process::id() as usize;
    call(libc::SYS_kcmp, [own, arg(prey.pid), 0, 0, 0]).map(nothing)
}

fn limit(prey: &Prey) -> Result<String, Errno> {
    let limit = [100_u64, 100];
    let (which, new) = (libc::RLIMIT_NOFILE as usize, limit.as_ptr() as usize);
    call(libc::SYS_prlimit64, [arg(prey.pid), which, new, 0, 0]).map(nothing)
}

fn limited(scene: &Scene, _: &Outcome) -> bool {
    let line = line_of(scene.prey.pid, "limits", "Max open files");
    line.split_whitespace().take(2).eq(["100", "100"])
}

fn bind(prey: &Prey) -> Result<String, Errno> {
    let mask = [1_u64; 1];
    call(libc::SYS_sched_setaffinity, [arg(prey.pid), 8, mask.as_ptr() as usize, 0, 0]).map(nothing)
}

fn bound(scene: &Scene, _: &Outcome) -> bool {
    let allowed = line_of(scene.prey.pid, "status", "Cpus_allowed_list:");
    let all = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    assert!(all, "one CPU alone is no place to be bound");
    allowed == "0"
}

/// `SCHED_BATCH`
const BATCH: usize = 3;

fn set_policy(pid: i32) -> Result<String, Errno> {
    let priority = 0_i32;
    let place = &raw const priority as usize;
    call(libc::SYS_sched_setscheduler, [arg(pid), BATCH, place, 0, 0]).map(nothing)
}

fn set_attributes(pid: i32) -> Result<String, Errno> {
    // size, policy, and our own niceness: less is root's to give; all else is 0.
    let mut attributes = [0_u32; 12];
    attributes[0] = 48;
    attributes[1] = 3;
    attributes[4] = own_niceness()?.cast_unsigned();
    call(libc::SYS_sched_setattr, [arg(pid), attributes.as_ptr() as usize, 0, 0, 0]).map(nothing)
}

/// The number of this field of proc(5).
pub(super) fn stat(pid: i32, field: usize) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = text.rsplit(") ").next().unwrap().to_owned();
    rest.split_whitespace().nth(field - 3).unwrap_or_default().to_owned()
}

fn batched(scene: &Scene, _: &Outcome) -> bool {
    stat(scene.prey.pid, 41) == BATCH.to_string()
}

fn renice(which: usize, who: i32) -> Result<String, Errno> {
    let nice = own_niceness()?;
    call(libc::SYS_setpriority, [which, arg(who), arg(nice + 1), 0, 0]).map(nothing)
}

/// The raw call answers 20 for 0, and less for more.
fn own_niceness() -> Result<i32, Errno> {
    call(libc::SYS_getpriority, [0; 5]).map(|answer| 20 - i32::try_from(answer).unwrap())
}

/// It can be no nicer; each of the two rows makes it so by one.
fn is_nicest() -> bool {
    stat(std::process::id().cast_signed(), 19).parse::<i32>().is_ok_and(|nice| nice > 17)
}

/// The prey is of the same process group.
fn renice_group(prey: &Prey) -> Result<String, Errno> {
    // In a sandbox it is not to be seen, and of the group all the same.
    if fs::exists(format!("/proc/{}", prey.pid)).is_ok_and(|seen| seen) {
        let ours = stat(std::process::id().cast_signed(), 5);
        assert_eq!(ours, stat(prey.pid, 5), "the scene has one group");
    }
    renice(1, 0)
}

fn reniced(scene: &Scene, _: &Outcome) -> bool {
    stat(scene.prey.pid, 19) != scene.nice
}

/// The lowest of the best-effort class.
const IO_PRIORITY: usize = 2 << 13 | 7;

fn set_io(pid: i32) -> Result<String, Errno> {
    call(libc::SYS_ioprio_set, [1, arg(pid), IO_PRIORITY, 0, 0]).map(nothing)
}

fn io_set(scene: &Scene, _: &Outcome) -> bool {
    call(libc::SYS_ioprio_get, [1, arg(scene.prey.pid), 0, 0, 0]) == Ok(IO_PRIORITY)
}

fn score(prey: &Prey) -> Result<String, Errno> {
    fs::write(prey.proc("oom_score_adj"), "555").map(|()| String::new()).map_err(|error| io(&error))
}

fn scored(scene: &Scene, _: &Outcome) -> bool {
    fs::read_to_string(scene.prey.proc("oom_score_adj")).unwrap().trim() == "555"
}

fn connect(prey: &Prey) -> Result<String, Errno> {
    let address = SocketAddr::from_abstract_name(&prey.socket).map_err(|error| io(&error))?;
    let stream = UnixStream::connect_addr(&address).map_err(|error| io(&error))?;
    std::mem::forget(stream);
    Ok(String::new())
}

fn connected(scene: &Scene, _: &Outcome) -> bool {
    scene.listener.accept().is_ok()
}

fn datagram(prey: &Prey) -> Result<String, Errno> {
    let address = SocketAddr::from_abstract_name(format!("{}-datagrams", prey.socket));
    let address = address.map_err(|error| io(&error))?;
    let socket = UnixDatagram::unbound().map_err(|error| io(&error))?;
    socket.send_to_addr(b"x", &address).map(|_| String::new()).map_err(|error| io(&error))
}

fn received(scene: &Scene, _: &Outcome) -> bool {
    scene.datagrams.recv(&mut [0]).is_ok()
}
