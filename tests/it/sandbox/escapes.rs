//! What a command tries against the machine around it: each row without a sandbox first, where it
//! must succeed, or it proves nothing; then in one, where it must fail. What counts is what is seen
//! from outside.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Child as StdChild, Command as StdCommand};

use serial_test::serial;
use tidy_process::{Command, Network, Sandbox, Supervisor};

use super::rows::{ROWS, Row, Who};
use super::{stage, text};
use crate::actor::{ROLE, actor};
use crate::attacks::permissions::succeeds_as_ordinary;
use crate::attacks::succeeds;
use crate::support::Alone;

pub(super) const SECRET: &str = "open-sesame";

/// What is there outside.
pub(super) struct World {
    /// Not named in any sandbox.
    pub(super) out: PathBuf,
    /// Named, to be written to.
    pub(super) work: PathBuf,
    pub(super) victim: StdChild,
    pub(super) tcp: TcpListener,
    pub(super) udp: UdpSocket,
    pub(super) unix: UnixListener,
    pub(super) hidden: UnixListener,
    shared: Option<String>,
}

pub(super) fn sleeper() -> StdChild {
    StdCommand::new("sleep").arg("100").env_remove(ROLE).spawn().unwrap()
}

fn run(script: &mut StdCommand) -> String {
    String::from_utf8(script.output().unwrap().stdout).unwrap()
}

impl World {
    fn make() -> Self {
        let me = std::process::id();
        let base = std::env::temp_dir().join(format!("tidy-world-{me}"));
        let (out, work) = (base.join("out"), base.join("work"));
        for dir in [&out.join("home"), &work.join("hidden"), &work.join("mnt")] {
            fs::create_dir_all(dir).unwrap();
        }
        for dir in [&base, &out, &work] {
            fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
        }
        for file in ["file", "home/.netrc"] {
            fs::write(out.join(file), SECRET).unwrap();
        }
        fs::set_permissions(out.join("file"), PermissionsExt::from_mode(0o666)).unwrap();
        for file in [work.join("hidden/key"), work.join("key"), Self::shm(), Self::tmp()] {
            fs::write(file, SECRET).unwrap();
        }
        let shared = run(StdCommand::new("ipcmk").args(["-M", "64", "-p", "0666"]));
        let shared = shared.rsplit(' ').next().map(|id| id.trim().to_owned());
        let name = SocketAddr::from_abstract_name(format!("tidy-{me}")).unwrap();
        let world = Self {
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            unix: UnixListener::bind(out.join("socket")).unwrap(),
            hidden: UnixListener::bind_addr(&name).unwrap(),
            victim: sleeper(),
            shared: shared.filter(|id| !id.is_empty()),
            out,
            work,
        };
        fs::set_permissions(world.out.join("socket"), PermissionsExt::from_mode(0o666)).unwrap();
        world.tcp.set_nonblocking(true).unwrap();
        world.udp.set_nonblocking(true).unwrap();
        world.unix.set_nonblocking(true).unwrap();
        world.hidden.set_nonblocking(true).unwrap();
        world
    }

    fn shm() -> PathBuf {
        format!("/dev/shm/tidy-{}", std::process::id()).into()
    }

    fn tmp() -> PathBuf {
        format!("/tmp/tidy-{}", std::process::id()).into()
    }

    fn try_row(&mut self, row: &Row, supervisor: &Supervisor, sandbox: Option<&Sandbox>) -> bool {
        let (_, _, script, effect) = row;
        let mut command = Command::new("sh");
        let script =
            format!("PY='/usr/bin/python3 -c'; {}", script.replace("$PY", "/usr/bin/python3 -c"));
        command.args(["-c", &script]).supervisor(supervisor).env_remove(ROLE).current_dir("/");
        let root = supervisor.path().unwrap().display().to_string();
        let port =
            |address: std::io::Result<std::net::SocketAddr>| address.unwrap().port().to_string();
        for (key, value) in [
            ("OUT", self.out.display().to_string()),
            ("WORK", self.work.display().to_string()),
            ("VICTIM", self.victim.id().to_string()),
            ("BOSS", std::process::id().to_string()),
            ("ROOT", root),
            ("TCP", port(self.tcp.local_addr())),
            ("UDP", port(self.udp.local_addr())),
            ("SHARED", self.shared.clone().unwrap_or_default()),
            (
                "GROUP",
                nix::unistd::getgroups().unwrap().first().map_or(0, |g| g.as_raw()).to_string(),
            ),
        ] {
            command.env(key, value);
        }
        sandbox.map(|sandbox| command.sandbox(sandbox));
        let said = text(&command.output().unwrap());
        for left in ["l", "rootshell"].map(|name| self.work.join(name)) {
            if fs::symlink_metadata(&left).is_ok_and(|file| file.is_symlink()) {
                fs::remove_file(left).unwrap();
            }
        }
        effect(self, &said)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = (self.victim.kill(), self.victim.wait());
        let _ = fs::remove_dir_all(self.out.parent().unwrap());
        let _ = (fs::remove_file(Self::shm()), fs::remove_file(Self::tmp()));
        if let Some(id) = &self.shared {
            let _ = StdCommand::new("ipcrm").args(["-m", id]).status();
        }
    }
}

/// As an actor: its environment has the secret, and fd 9 is the directory that is not named.
pub(crate) fn play() {
    let mut world = World::make();
    let dir = fs::File::open(&world.out).unwrap();
    let _inherited = nine(&dir);
    let supervisor = Supervisor::builder().build().unwrap();
    let root = nix::unistd::geteuid().is_root();
    let work = world.work.clone();
    let named = Sandbox::new().system().read_write(&work);
    let named = named.hide(work.join("hidden")).hide(work.join("key"));
    let (mut tried, mut broken) = (0, Vec::new());
    for row in ROWS.iter().filter(|row| root || row.1 == Who::Anyone) {
        if row.0.contains("sysrq") && !fs::exists("/proc/sysrq-trigger").unwrap() {
            continue;
        }
        let open = world.try_row(row, &supervisor, None);
        if !open {
            broken.push(format!("{}: fails without a sandbox, and proves nothing", row.0));
        }
        for network in [Network::None, Network::Loopback] {
            let works = world.try_row(row, &supervisor, Some(&named.clone().network(network)));
            if works {
                broken.push(format!("{}: works in a sandbox with {network}", row.0));
            }
        }
        tried += 1;
    }
    assert!(tried >= 26 && broken.is_empty(), "{tried} rows were tried: {broken:#?}");
    // In the host's network its ports are reached, and abstract sockets are not.
    let host = named.network(Network::Host);
    for (name, reached) in [("connect to a port", true), ("connect to an abstract socket", false)] {
        let row = ROWS.iter().find(|row| row.0 == name).unwrap();
        assert_eq!(world.try_row(row, &supervisor, Some(&host)), reached, "{name}");
    }
    supervisor.close().unwrap();
}

fn nine(dir: &fs::File) -> std::os::fd::OwnedFd {
    use nix::fcntl::{FcntlArg, fcntl};
    use std::os::fd::AsRawFd;
    // Not closed by exec.
    let fd = fcntl(dir, FcntlArg::F_DUPFD(9)).unwrap();
    assert!(fd == 9 && dir.as_raw_fd() != 9, "fd {fd}");
    super::owned(fd)
}

#[test]
#[serial]
fn every_escape_that_works_without_a_sandbox_fails_in_one() {
    let Some(stage) = stage() else { return };
    let mut command = actor(&stage, "sandbox");
    command.env("SECRET", SECRET);
    succeeds(&mut command, "as this user");
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn so_does_every_one_that_an_ordinary_user_has() {
    let Some(stage) = stage() else { return };
    let mut command = actor(&stage, "sandbox");
    command.env("SECRET", SECRET);
    succeeds_as_ordinary(&stage, command);
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_symlink_that_one_run_plants_turns_no_mount_of_the_next_one() {
    let Some(stage) = stage() else { return };
    let (work, out) = (super::open_dir("plant"), super::open_dir("planted"));
    fs::create_dir(work.join("cache")).unwrap();
    fs::set_permissions(&work, PermissionsExt::from_mode(0o777)).unwrap();
    let named = Sandbox::new().system().read_write(&work);
    let plant = format!("rmdir {0}/cache && ln -s {1} {0}/cache", work.display(), out.display());
    super::said(&stage, &plant, &named);
    assert!(fs::symlink_metadata(work.join("cache")).unwrap().is_symlink());
    let next = named.private(work.join("cache"));
    let error = super::boxed(&stage, "true", &next).run().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
    // As something to be shown too.
    symlink("/etc", work.join("etc")).unwrap();
    let shown = Sandbox::new().system().read_only(work.join("etc"));
    let error = super::boxed(&stage, "true", &shown).run().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
    [work, out].iter().for_each(|dir| fs::remove_dir_all(dir).unwrap());
    drop((next, shown));
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn init_is_closed_to_those_inside() {
    let Some(stage) = stage() else { return };
    let sandbox = Sandbox::new().system().allow_syscall("ptrace").allow_syscall("process_vm_readv");
    let script = "for f in exe root cwd environ mem fd/0 ns/pid; do
            cat /proc/1/$f >/dev/null && echo OPENED; done
        echo >/proc/1/mem && echo OPENED; echo 500 >/proc/1/oom_score_adj && echo OPENED
        kill -9 1; kill -STOP 1; kill -TERM 1; ls /proc/1/fd | wc -l";
    let said = super::said(&stage, script, &sandbox);
    assert!(!said.contains("OPENED") && said.contains("Permission denied"), "{said}");
    let report = super::boxed(&stage, "kill -9 1; kill -STOP 1; sleep 0.1; exit 4", &sandbox).run();
    assert_eq!(report.unwrap().status.code(), Some(4));
    drop(sandbox);
    stage.close(Alone::Yes);
}
