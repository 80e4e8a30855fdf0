//! The scene of an attack: a supervisor with a tree that is attacked, and one that attacks.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use tidy_process::{Child, Command, Containment, Level, Sandbox, Stdio, Supervisor};

use crate::actor::ROLE;
use crate::escapes::Row;
use crate::escapes::apart::stat;
use crate::escapes::attacker::{PREY, Prey, SECRET, TRY};
use crate::support::SOON;
use crate::victim;

/// Names a program that is root's, with the set-user-id bit.
pub(super) const SET_ID: &str = "TIDY_SET_ID";

/// The way of a spawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Born,
    Joined,
}

pub(super) struct Scene {
    pub(super) supervisor: Supervisor,
    pub(super) prey: Prey,
    pub(super) prey_child: Child,
    pub(super) listener: UnixListener,
    pub(super) datagrams: UnixDatagram,
    /// How nice the prey was.
    pub(super) nice: String,
    fds: Vec<OwnedFd>,
}

/// What became of an attack.
pub(super) struct Outcome {
    /// `done ...` or `failed ERRNO`; empty if it ended before.
    pub(super) answer: String,
    pub(super) child: Child,
}

impl Outcome {
    /// Whether the attacker is in its tree, or has ended.
    pub(super) fn is_inside(&self) -> bool {
        let Some(tree) = self.child.tree().path().map(PathBuf::from) else { return true };
        let ours = PathBuf::from(cgroup_of(self.child.id().cast_signed()));
        let below_root = tree.iter().rev().take(2);
        ours.as_os_str().is_empty() || ours.iter().rev().take(2).eq(below_root)
    }

    /// The pid that it said.
    pub(super) fn pid(&self) -> i32 {
        self.answer.rsplit(' ').next().and_then(|pid| pid.parse().ok()).unwrap_or(-1)
    }
}

/// The process's cgroup, as the kernel names it.
pub(super) fn cgroup_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned()
}

/// The rest of the line that begins so.
pub(super) fn line_of(pid: i32, file: &str, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_default().trim().to_owned()
}

impl Scene {
    pub(super) fn set(containment: Containment) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidy-escapes-{}-{number}", std::process::id());
        let supervisor = Supervisor::builder().containment(containment).build().unwrap();
        let mut command = player(&supervisor, PREY);
        let (key, value) = SECRET.split_once('=').unwrap();
        let mut prey_child = command.env(key, value).spawn().unwrap();
        drop(command);
        let said = read_line(&mut prey_child);
        let address = said.strip_prefix("prey ").unwrap().parse().unwrap();
        let dir = prey_child.tree().path().unwrap_or("/nowhere".as_ref()).to_owned();
        if dir.exists() {
            fs::create_dir(dir.join("empty")).unwrap();
        }
        let root = supervisor.path().unwrap_or("/nowhere".as_ref()).to_owned();
        let scratch = std::env::temp_dir().join(&name);
        fs::create_dir(&scratch).unwrap();
        let root_fd = inheritable(&root, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        let procs_fd = inheritable(&root.join("cgroup.procs"), OFlag::O_WRONLY);
        let number = |fd: &Option<OwnedFd>| fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let listener = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&listener).unwrap();
        listener.set_nonblocking(true).unwrap();
        let datagrams = SocketAddr::from_abstract_name(format!("{name}-datagrams")).unwrap();
        let datagrams = UnixDatagram::bind_addr(&datagrams).unwrap();
        datagrams.set_nonblocking(true).unwrap();
        let nice = stat(prey_child.id().cast_signed(), 19);
        let prey = Prey {
            pid: prey_child.id().cast_signed(),
            dir,
            address,
            root,
            root_fd: number(&root_fd),
            procs_fd: number(&procs_fd),
            scratch,
            socket: name,
        };
        let fds = root_fd.into_iter().chain(procs_fd).collect();
        Self { supervisor, prey, prey_child, listener, datagrams, nice, fds }
    }

    /// Runs a command that does nothing.
    pub(super) fn warm(&self, sandbox: &Sandbox) {
        let mut command = self.supervisor.command("true");
        command.sandbox(sandbox).current_dir("/").run().unwrap();
    }

    pub(super) fn attack(&self, row: &Row, sandbox: Option<&Sandbox>, path: Path) -> Outcome {
        let mut command = player(&self.supervisor, row.name);
        command.envs(self.prey.variables()).force_join(path == Path::Joined);
        sandbox.map(|sandbox| command.sandbox(sandbox));
        if sandbox.is_some_and(|sandbox| sandbox.level() == Level::Sandbox) {
            command.current_dir("/");
        }
        let mut child = command.spawn().unwrap();
        let answer = read_line(&mut child);
        Outcome { answer, child }
    }

    /// Ends both; nothing is left.
    pub(super) fn close(self, outcome: Outcome) {
        let ended = outcome.child.finish();
        assert!(ended.is_ok(), "{ended:?}");
        let _ = fs::remove_dir_all(&self.prey.scratch);
        let root = self.prey.root;
        drop((outcome, self.prey_child.finish(), self.prey_child, self.fds));
        self.supervisor.close().unwrap();
        assert!(!root.exists(), "{root:?} is left");
    }

    /// Whether the signal has come to the prey, which blocks all.
    pub(super) fn got(&self, signal: i32) -> bool {
        // Of the process, and of its only thread.
        ["ShdPnd:", "SigPnd:"].into_iter().any(|set| {
            let pending = line_of(self.prey.pid, "status", set);
            let pending = u64::from_str_radix(&pending, 16).unwrap_or(0);
            pending & (1 << (signal - 1)) != 0
        })
    }
}

/// This binary in a role, with its input open and its output to be read.
fn player(supervisor: &Supervisor, name: &str) -> Command {
    let mut command = supervisor.command(victim::exe());
    command.env_remove(ROLE).env(TRY, name).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// An fd that children get.
fn inheritable(path: &std::path::Path, flags: OFlag) -> Option<OwnedFd> {
    let fd = open(path, flags, Mode::empty()).ok()?;
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    Some(fd)
}

/// What it says; nothing if it ends before.
fn read_line(child: &mut Child) -> String {
    let pipe = child.stdout.take().unwrap();
    let timeout = PollTimeout::try_from(SOON).unwrap();
    let news = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
    assert_eq!(news, 1, "it says nothing");
    let mut line = String::new();
    BufReader::new(pipe).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// How it has ended, if it does within a second.
pub(super) fn ended_by(child: &Child) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    let status = child.wait_deadline(Instant::now() + Duration::from_secs(1)).unwrap();
    status.and_then(|status| status.signal())
}

/// A directory that is removed in the end, with a set-user-id program of root's in it.
pub(super) struct SetId(PathBuf);

impl SetId {
    pub(super) fn path(&self) -> PathBuf {
        self.0.join("id")
    }
}

impl Drop for SetId {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn set_id_program() -> SetId {
    let dir = std::env::temp_dir().join(format!("tidy-set-id-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    let made = SetId(dir);
    fs::copy("/usr/bin/id", made.path()).unwrap();
    fs::set_permissions(made.path(), PermissionsExt::from_mode(0o4755)).unwrap();
    made
}

/// The number of an fd as an argument of a call.
pub(super) fn arg(fd: RawFd) -> usize {
    fd as isize as usize
}
