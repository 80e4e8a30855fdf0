//! More that is there outside: sockets of services, a message queue, a resolver, programs, and a
//! file for one group; and what a command tries against them.

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use super::escapes::World;
use super::rows::{Row, Who, came_true, leaked};

/// Names the file of another user that a supplementary group of this one may read.
pub(crate) const GROUP_SECRET: &str = "TIDY_GROUP_SECRET";

/// What services listen on, by the variable that names it to programs.
const SOCKETS: [(&str, &str); 3] =
    [("DOCKER_SOCK", "docker.sock"), ("BUS", "bus"), ("SSH_AUTH_SOCK", "agent")];

pub(super) struct Services {
    sockets: Vec<UnixListener>,
    /// Those of an X server: the one with a path is last.
    display: Vec<UnixListener>,
    display_number: u32,
    resolver: UdpSocket,
    queue: Option<Queue>,
    out: PathBuf,
    /// Named, to be read: a program is in it.
    pub(super) tools: PathBuf,
}

/// A POSIX message queue; none where the kernel has none.
struct Queue {
    fd: libc::mqd_t,
    name: CString,
}

impl Queue {
    #[expect(unsafe_code, reason = "no safe function opens one")]
    fn open() -> Option<Self> {
        let name = CString::new(format!("/tidy-{}", std::process::id())).unwrap();
        let flags = libc::O_CREAT | libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let none = std::ptr::null::<libc::mq_attr>();
        // SAFETY: a string that ends in NUL, and no attributes.
        let fd = unsafe { libc::mq_open(name.as_ptr(), flags, 0o666, none) };
        (fd >= 0).then_some(Self { fd, name })
    }

    #[expect(unsafe_code, reason = "no safe function receives")]
    fn has_message(&self) -> bool {
        let mut buffer = [0_u8; 8192];
        let (place, mut priority) = (buffer.as_mut_ptr().cast(), 0);
        // SAFETY: a buffer of this length.
        unsafe { libc::mq_receive(self.fd, place, buffer.len(), &raw mut priority) >= 0 }
    }
}

impl Drop for Queue {
    #[expect(unsafe_code, reason = "no safe function removes one")]
    fn drop(&mut self) {
        // SAFETY: a string that ends in NUL.
        unsafe { libc::mq_unlink(self.name.as_ptr()) };
        // SAFETY: it is this value's own.
        unsafe { libc::mq_close(self.fd) };
    }
}

/// Which everybody may connect to.
fn listener(path: &Path) -> UnixListener {
    let socket = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o666)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

impl Services {
    pub(super) fn start(out: &Path, tools: PathBuf) -> Self {
        fs::create_dir(&tools).unwrap();
        fs::copy("/bin/sh", tools.join("sh")).unwrap();
        let display_number = std::process::id();
        let name = format!("/tmp/.X11-unix/X{display_number}");
        let display = SocketAddr::from_abstract_name(&name).unwrap();
        let display = UnixListener::bind_addr(&display).unwrap();
        display.set_nonblocking(true).unwrap();
        // Its directory is there where there is such a server, or was.
        let dir = Path::new(&name).parent().unwrap();
        if fs::create_dir(dir).is_ok() {
            fs::set_permissions(dir, PermissionsExt::from_mode(0o1777)).unwrap();
        }
        let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
        resolver.set_nonblocking(true).unwrap();
        let sockets = SOCKETS.map(|(_, name)| listener(&out.join(name)));
        Self {
            sockets: sockets.into(),
            display: vec![display, listener(Path::new(&name))],
            display_number,
            resolver,
            queue: Queue::open(),
            out: out.to_owned(),
            tools,
        }
    }

    /// What an attacker knows of them.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let sockets = SOCKETS.map(|(key, name)| (key, self.out.join(name).display().to_string()));
        let others = [
            ("DISPLAY", format!(":{}", self.display_number)),
            ("DNS", self.resolver.local_addr().unwrap().port().to_string()),
            ("TOOLS", self.tools.display().to_string()),
            ("GROUP_SECRET", std::env::var(GROUP_SECRET).unwrap_or_default()),
        ];
        sockets.into_iter().chain(others).collect()
    }

    /// Whether a row can be tried here: else it is named.
    pub(super) fn have(&self, row: &str) -> bool {
        match row {
            SEND => self.queue.is_some(),
            GROUP => std::env::var_os(GROUP_SECRET).is_some(),
            _ => true,
        }
    }

    fn reached(&self, socket: usize) -> bool {
        accepted(&self.sockets[socket])
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let dir = Path::new("/tmp/.X11-unix");
        let _ = fs::remove_file(dir.join(format!("X{}", self.display_number)));
        // While another display is in it, it stays.
        let _ = fs::remove_dir(dir);
    }
}

fn accepted(listener: &UnixListener) -> bool {
    match listener.accept() {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

fn mode_changed(world: &mut World, _: &str) -> bool {
    let dir = &world.root;
    let mode = fs::metadata(dir).unwrap().mode() & 0o7777;
    fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    mode == 0o700
}

fn time_changed(world: &mut World, _: &str) -> bool {
    let file = fs::File::options().write(true).open(world.out.join("file")).unwrap();
    let changed = file.metadata().unwrap().mtime() == 1_000_000_000;
    file.set_modified(std::time::SystemTime::now()).unwrap();
    changed
}

/// Its program is longer than it was.
fn rewritten(world: &mut World, _: &str) -> bool {
    let (now, was) = (world.services.tools.join("sh"), Path::new("/bin/sh"));
    let longer = fs::metadata(&now).unwrap().len() > fs::metadata(was).unwrap().len();
    fs::remove_file(&now).unwrap();
    fs::copy(was, now).unwrap();
    longer
}

const SEND: &str = "send to a POSIX queue";
const GROUP: &str = "read a secret of a supplementary group";

pub(super) const ROWS: &[Row] = &[
    (
        "ask a container engine by its socket",
        Who::Anyone,
        "$PY 'import socket,os; socket.socket(1).connect(os.environ[\"DOCKER_SOCK\"])'",
        |world, _| world.services.reached(0),
    ),
    (
        "ask a bus for a service: systemd-run",
        Who::Anyone,
        "$PY 'import socket,os; socket.socket(1).connect(os.environ[\"BUS\"])'",
        |world, _| world.services.reached(1),
    ),
    (
        "ask an agent for a key",
        Who::Anyone,
        "$PY 'import socket,os; socket.socket(1).connect(os.environ[\"SSH_AUTH_SOCK\"])'",
        |world, _| world.services.reached(2),
    ),
    (
        "connect to a display by its path",
        Who::Anyone,
        "$PY 'import socket,os
socket.socket(1).connect(\"/tmp/.X11-unix/X\"+os.environ[\"DISPLAY\"][1:])'",
        |world, _| accepted(&world.services.display[1]),
    ),
    (
        "connect to a display by its abstract name",
        Who::Anyone,
        "$PY 'import socket,os
socket.socket(1).connect(\"\\0/tmp/.X11-unix/X\"+os.environ[\"DISPLAY\"][1:])'",
        |world, _| accepted(&world.services.display[0]),
    ),
    (
        "ask a resolver",
        Who::Anyone,
        "$PY 'import socket,os
query=b\"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\6secret\\7example\\0\\0\\1\\0\\1\"
socket.socket(2,2).sendto(query,(\"127.0.0.1\",int(os.environ[\"DNS\"])))'",
        |world, _| world.services.resolver.recv(&mut [0; 64]).is_ok(),
    ),
    (
        SEND,
        Who::Anyone,
        "$PY 'import ctypes,os
l=ctypes.CDLL(None); fd=l.mq_open(b\"/tidy-\"+os.environ[\"BOSS\"].encode(),1|0o4000)
l.mq_send(fd,b\"x\",1,0)'",
        |world, _| world.services.queue.as_ref().unwrap().has_message(),
    ),
    (GROUP, Who::Anyone, "cat $GROUP_SECRET", leaked),
    ("change the mode of a run root", Who::Anyone, "chmod 700 $ROOT", mode_changed),
    ("change the time of a file", Who::Anyone, "touch -d @1000000000 $OUT/file", time_changed),
    (
        "read the program of the supervisor",
        Who::Anyone,
        "head -c 4 /proc/$BOSS/exe | grep -q ELF && echo came true",
        came_true,
    ),
    (
        "rewrite the program that runs it",
        Who::Anyone,
        "$TOOLS/sh -c 'exec 8</proc/self/exe; exec sh -c \"echo x >>/proc/self/fd/8\"'",
        rewritten,
    ),
];
