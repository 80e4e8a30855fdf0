//! What a command tries against the machine around it: each row without a sandbox first, where it
//! must succeed, or it proves nothing; then in one, where it must fail. What counts is what is seen
//! from outside.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child as StdChild, Command as StdCommand};
use std::sync::OnceLock;

use serial_test::serial;
use tidy_process::{Command, Network, Sandbox, Supervisor};

use super::rows::{ROWS, Row, Who};
use super::services::{self, Services};
use super::{stage, text};
use crate::actor::{ROLE, actor};
use crate::attacks::permissions::delegated;
use crate::attacks::succeeds;
use crate::support::{Alone, Stage};

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
    pub(super) services: Services,
    /// The run root.
    pub(super) root: PathBuf,
    shared: Option<String>,
}

pub(super) fn sleeper() -> StdChild {
    StdCommand::new("sleep").arg("100").env_remove(ROLE).spawn().unwrap()
}

fn run(script: &mut StdCommand) -> String {
    String::from_utf8(script.output().unwrap().stdout).unwrap()
}

impl World {
    fn make(root: &Path) -> Self {
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
            services: Services::start(&out, base.join("tools")),
            root: root.to_owned(),
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

    /// Whether it has come to pass; what it has done in overlays is committed before.
    fn try_row(&mut self, row: &Row, supervisor: &Supervisor, sandbox: Option<&Sandbox>) -> bool {
        let (_, _, script, effect) = row;
        let mut command = Command::new("sh");
        let script =
            format!("PY='/usr/bin/python3 -c'; {}", script.replace("$PY", "/usr/bin/python3 -c"));
        command.args(["-c", &script]).supervisor(supervisor).env_remove(ROLE).current_dir("/");
        let port =
            |address: std::io::Result<std::net::SocketAddr>| address.unwrap().port().to_string();
        for (key, value) in [
            ("OUT", self.out.display().to_string()),
            ("WORK", self.work.display().to_string()),
            ("VICTIM", self.victim.id().to_string()),
            ("BOSS", std::process::id().to_string()),
            ("ROOT", self.root.display().to_string()),
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
        command.envs(self.services.variables());
        sandbox.map(|sandbox| command.sandbox(sandbox));
        let output = command.output().unwrap();
        output.report.changes.iter().for_each(|changes| drop(changes.commit().unwrap()));
        let said = text(&output);
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

/// As an actor: its environment has the secret, and fd 200 is the directory that is not named.
pub(crate) fn play() {
    play_in(|named| {
        // The first is the same for all rows: from the third on they enter its template.
        static USED: OnceLock<Sandbox> = OnceLock::new();
        let used = USED.get_or_init(|| named.clone().network(Network::None));
        vec![used.clone(), named.clone().network(Network::Loopback)]
    });
}

/// The same with the directory that is named as an overlay, which is committed each time.
pub(crate) fn play_overlay() {
    play_in(|named| vec![named.clone()]);
}

fn play_in(levels: fn(&Sandbox) -> Vec<Sandbox>) {
    let supervisor = Supervisor::builder().build().unwrap();
    let mut world = World::make(supervisor.path().unwrap());
    let dir = fs::File::open(&world.out).unwrap();
    let _inherited = inherited(&dir);
    let root = nix::unistd::geteuid().is_root();
    let work = world.work.clone();
    let overlay = std::env::var(ROLE).is_ok_and(|role| role == "sandbox-overlay");
    let named = Sandbox::new().system().read_only(&world.services.tools);
    let named = if overlay { named.overlay(&work) } else { named.read_write(&work) };
    let named = named.hide(work.join("hidden")).hide(work.join("key"));
    let (mut tried, mut broken) = (0, Vec::new());
    let all = ROWS.iter().chain(services::ROWS).filter(|row| root || row.1 == Who::Anyone);
    for row in all {
        let no_sysrq = row.0.contains("sysrq") && !fs::exists("/proc/sysrq-trigger").unwrap();
        if no_sysrq || !world.services.have(row.0) {
            eprintln!("not tried: {}", row.0);
            continue;
        }
        if !world.try_row(row, &supervisor, None) {
            broken.push(format!("{}: fails without a sandbox, and proves nothing", row.0));
        }
        for level in levels(&named) {
            if world.try_row(row, &supervisor, Some(&level)) {
                broken.push(format!("{}: works in {level:?}", row.0));
            }
        }
        tried += 1;
    }
    assert!(tried >= 36 && broken.is_empty(), "{tried} rows were tried: {broken:#?}");
    // In the host's network its ports are reached, and abstract sockets are not.
    let host = named.network(Network::Host);
    for (name, reached) in [("connect to a port", true), ("connect to an abstract socket", false)] {
        let row = ROWS.iter().find(|row| row.0 == name).unwrap();
        assert_eq!(world.try_row(row, &supervisor, Some(&host)), reached, "{name}");
    }
    drop(world);
    supervisor.close().unwrap();
}

fn inherited(dir: &fs::File) -> std::os::fd::OwnedFd {
    use nix::fcntl::{FcntlArg, fcntl};
    use std::os::fd::AsRawFd;
    // Not closed by exec.
    let fd = fcntl(dir, FcntlArg::F_DUPFD(200)).unwrap();
    assert!(fd == 200 && dir.as_raw_fd() != 200, "fd {fd}");
    super::owned(fd)
}

fn fails_for_every_user(stage: &Stage, role: &str) {
    let mut command = actor(stage, role);
    command.env("SECRET", SECRET);
    succeeds(&mut command, "as this user");
    if nix::unistd::geteuid().is_root() {
        let secret = GroupSecret::make();
        let mut command = with_group(stage, role);
        command.env("SECRET", SECRET).env(services::GROUP_SECRET, &secret.0);
        in_its_own_tree(stage, command);
    }
}

/// A group that a user has beside its own.
const GROUP: u32 = 4243;

/// A file of root's for that group.
struct GroupSecret(PathBuf);

impl GroupSecret {
    fn make() -> Self {
        let made = Self(std::env::temp_dir().join(format!("tidy-group-{}", std::process::id())));
        fs::write(&made.0, SECRET).unwrap();
        std::os::unix::fs::chown(&made.0, None, Some(GROUP)).unwrap();
        fs::set_permissions(&made.0, PermissionsExt::from_mode(0o640)).unwrap();
        made
    }
}

impl Drop for GroupSecret {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The actor as an ordinary user in that group: std has no groups.
fn with_group(stage: &Stage, role: &str) -> StdCommand {
    let mut command = StdCommand::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--groups", &GROUP.to_string()]);
    stage.mark_std(command.arg(crate::victim::exe()));
    command.env(ROLE, role);
    command
}

fn in_its_own_tree(stage: &Stage, mut command: StdCommand) {
    let Some(tree) = delegated(stage) else { return };
    tree.enroll(command.env("TIDY_PROCESS_PARENT", tree.path().unwrap())).unwrap();
    succeeds(&mut command, "as an ordinary user");
    drop(command);
    assert_eq!(tree.finish().unwrap().leftovers, []);
}

#[test]
#[serial]
fn every_escape_that_works_without_a_sandbox_fails_in_one() {
    let Some(stage) = stage() else { return };
    fails_for_every_user(&stage, "sandbox");
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn none_works_by_way_of_an_overlay_that_is_committed() {
    let Some(stage) = super::overlay::overlay_stage() else { return };
    fails_for_every_user(&stage, "sandbox-overlay");
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

/// That program is executed before anything is confined, for each command anew.
#[test]
#[serial]
fn the_set_up_program_does_nothing_as_a_command() {
    let Some(stage) = stage() else { return };
    let work = super::open_dir("again");
    let script = work.join("script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let sandbox = Sandbox::new().system().read_write(&work);
    for program in ["/proc/self/exe", script.to_str().unwrap()] {
        let mut command = stage.command(program);
        let report =
            command.args(["3", "4", "5"]).sandbox(&sandbox).current_dir("/").run().unwrap();
        assert_eq!((report.status.code(), report.leftover_count), (Some(2), 0), "{program}");
    }
    assert_eq!(super::said(&stage, "echo as ever", &sandbox), "as ever\n");
    fs::remove_dir_all(work).unwrap();
    drop(sandbox);
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
