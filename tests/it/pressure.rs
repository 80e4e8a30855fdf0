//! When fds, processes or memory have run out: clear errors, nothing is left, and all works again
//! once there is room. The test binary plays the supervisor that is short of it (`TIDY_PRESSURE`).

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command as StdCommand, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use serial_test::parallel;
use tidy_process::{Cause, Child, Command, Error, Limits, Supervisor, Tree};

use crate::support::{Alone, SOON, Stage, lacks, skip};
use crate::victim;

const ROLE: &str = "TIDY_PRESSURE";

/// Room for the supervisor, its guard and a few dozen trees.
const PROCESSES: u64 = 60;

/// A user that nobody else is.
const USER: u32 = 54_321;

const MIB: u64 = 1 << 20;

#[ctor::ctor]
fn enter() {
    match std::env::var(ROLE).as_deref() {
        Ok("fds") => fds(),
        Ok("processes") => processes(),
        Ok("address space") => address_space(),
        Ok("memory") => memory(),
        Ok("all memory") => all_memory(),
        _ => return,
    }
    std::process::exit(0);
}

fn command(supervisor: &Supervisor, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove(ROLE).supervisor(supervisor);
    command
}

/// Trees until there is no room for one more, and what is said then.
fn fill(supervisor: &Supervisor) -> (Vec<Child>, Error) {
    let mut held = Vec::new();
    let error = loop {
        // On an emulated machine a minute is not enough to fill it.
        match command(supervisor, "sleep").arg("300").spawn() {
            Ok(child) => held.push(child),
            Err(error) => break error,
        }
        assert!(held.len() < 2000, "nothing runs out");
    };
    assert_eq!(trees(supervisor), held.len() as u64, "after {error}");
    assert!(held.iter().all(|child| child.try_wait().unwrap().is_none()));
    (held, error)
}

fn trees(supervisor: &Supervisor) -> u64 {
    directories(supervisor.path().unwrap())
}

/// A directory of a cgroup has two links and one for each below it: no fd is needed to count them.
fn directories(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().nlink() - 2
}

fn works(supervisor: &Supervisor) {
    assert!(command(supervisor, "true").status().unwrap().success());
}

/// Fills up, three times; in between one tree ends at a time, and another takes its place.
fn fill_and_recover(supervisor: &Supervisor, errno: i32, hint: &str) {
    let before = open_fds();
    for _ in 0..3 {
        let (mut held, error) = fill(supervisor);
        eprintln!("room for {} trees, then: {error}", held.len());
        assert_eq!(error.raw_os_error(), Some(errno), "{error}");
        assert!(error.hint().is_some_and(|said| said.contains(hint)), "{error:?}");
        for _ in 0..5 {
            assert_eq!(held.pop().unwrap().finish().unwrap().cause, Cause::Stopped);
            works(supervisor);
        }
        drop(held);
        assert_eq!((trees(supervisor), open_fds()), (0, before));
        works(supervisor);
    }
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn fds() {
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 1024).unwrap();
    let supervisor = Supervisor::builder().build().unwrap();
    fill_and_recover(&supervisor, libc::EMFILE, "ulimit -n");
}

fn processes() {
    // Elsewhere the cgroup has the limit: root has none of its own.
    if !nix::unistd::geteuid().is_root() {
        setrlimit(Resource::RLIMIT_NPROC, PROCESSES, PROCESSES).unwrap();
    }
    let supervisor = Supervisor::builder().build().unwrap();
    fill_and_recover(&supervisor, libc::EAGAIN, "ulimit -u");
    #[cfg(feature = "tokio")]
    asynchronously(&supervisor);
}

/// Where no thread can be made either.
#[cfg(feature = "tokio")]
fn asynchronously(supervisor: &Supervisor) {
    use crate::async_child::current_thread;
    current_thread().block_on(async {
        let pair = || {
            let mut pair = command(supervisor, "sh");
            pair.args(["-c", "sleep 60 & sleep 60"]).spawn_async().unwrap()
        };
        // The pid of a main process is free only when it is reaped: until then nothing else fits.
        let dropped = command(supervisor, "sleep").arg("60").spawn_async().unwrap();
        let [killed, finished] = [pair(), pair()];
        let full = || {
            let (held, error) = fill_more(supervisor);
            assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
            let thread = std::thread::Builder::new().spawn(|| ());
            assert!(thread.is_err(), "there is room for a thread");
            held
        };
        let held = full();
        let error = command(supervisor, "true").run_async().await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
        let before = trees(supervisor);
        drop(dropped);
        assert_eq!(trees(supervisor), before - 1);
        let more = full();
        killed.kill().await.unwrap();
        assert_eq!(killed.tree().processes(), []);
        let yet_more = full();
        assert_eq!(finished.finish().await.unwrap().cause, Cause::Stopped);
        drop((held, more, yet_more, killed));
        command(supervisor, "true").run_async().await.unwrap();
    });
    assert_eq!(trees(supervisor), 0);
}

/// The same beside other trees.
#[cfg(feature = "tokio")]
fn fill_more(supervisor: &Supervisor) -> (Vec<Child>, Error) {
    let mut held = Vec::new();
    loop {
        // On an emulated machine a minute is not enough to fill it.
        match command(supervisor, "sleep").arg("300").spawn() {
            Ok(child) => held.push(child),
            Err(error) => return (held, error),
        }
        assert!(held.len() < 2000, "nothing runs out");
    }
}

/// No room for an environment, but for what else is small.
fn address_space() {
    let supervisor = Supervisor::builder().build().unwrap();
    works(&supervisor);
    let sizes = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = sizes.split(' ').next().unwrap().parse().unwrap();
    setrlimit(Resource::RLIMIT_AS, pages * 4096 + 4 * MIB, libc::RLIM_INFINITY).unwrap();
    let mut filler: Vec<Vec<u8>> = Vec::with_capacity(10_000);
    loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(3500).is_err() {
            break;
        }
        filler.push(block);
    }
    // Two holes apart from each other.
    drop((filler.swap_remove(filler.len() - 5), filler.swap_remove(filler.len() - 8)));
    for _ in 0..3 {
        let error = command(&supervisor, "true").spawn().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
        eprintln!("no address space: {error}");
        assert_eq!(trees(&supervisor), 0);
    }
    drop(filler);
    works(&supervisor);
}

/// Every command that eats too much dies; the next one has room again.
fn memory() {
    let supervisor = Supervisor::builder().build().unwrap();
    for _ in 0..5 {
        let mut hungry = command(&supervisor, victim::exe().to_str().unwrap());
        let report = hungry.env("TIDY_LOAD", "memory 300").run().unwrap();
        assert!(matches!(report.cause, Cause::Signaled(9) | Cause::OutOfMemory), "{report:?}");
        assert_eq!(trees(&supervisor), 0);
        works(&supervisor);
    }
}

/// The supervisor eats it all itself.
fn all_memory() {
    let supervisor = Supervisor::builder().build().unwrap();
    let script = "(setsid sleep 60 &); sleep 60";
    let spawn = || command(&supervisor, "sh").args(["-c", script]).spawn().unwrap();
    let held: Vec<Child> = (0..3).map(|_| spawn()).collect();
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    while eaten.len() < 300 {
        eaten.push(vec![1; 1 << 20]);
    }
    drop((held, eaten));
}

/// Plays a role in a tree, as root or as somebody else to whom the tree then belongs.
fn play(stage: &Stage, tree: &Tree, role: &str, user: Option<u32>) -> Option<ExitStatus> {
    let mut command = StdCommand::new(victim::exe());
    // A large environment is a large block of memory, which std cannot do without.
    let few = |key: &str| key.starts_with("TIDY_") || ["PATH", "TMPDIR"].contains(&key);
    command.env_clear().envs(std::env::vars().filter(|(key, _)| few(key)));
    stage.mark_std(&mut command);
    command.env(ROLE, role).env("TIDY_PROCESS_PARENT", tree.path().unwrap());
    tree.enroll(&mut command).unwrap();
    if let Some(user) = user {
        let passable = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(stage.supervisor.path().unwrap(), passable).unwrap();
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            let path = tree.path().unwrap().join(file);
            nix::unistd::chown(&path, Some(user.into()), Some(user.into())).unwrap();
        }
        command.uid(user).gid(user);
    }
    match command.status() {
        Ok(status) => Some(status),
        Err(error) => {
            skip(&format!("another user cannot play {role}: {error}"));
            None
        }
    }
}

fn plays(role: &str) {
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    let status = play(&stage, &tree, role, None).unwrap();
    assert!(status.success(), "{role}: {status}");
    assert_eq!(tree.finish().unwrap().leftovers, []);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn with_1024_fds_in_use_a_spawn_says_so_and_leaves_nothing() {
    plays("fds");
}

#[test]
#[parallel]
fn without_address_space_a_spawn_says_so_and_leaves_nothing() {
    plays("address space");
}

#[test]
#[parallel]
fn without_a_process_to_spare_a_spawn_says_so_and_teardown_works() {
    if !nix::unistd::geteuid().is_root() {
        return lacks("users", "only root can change users");
    }
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    if let Some(status) = play(&stage, &tree, "processes", Some(USER)) {
        assert!(status.success(), "{status}");
    }
    assert_eq!(tree.finish().unwrap().leftovers, []);
    stage.close(Alone::No);
}

/// A tree with limits, where the machine has the controller.
fn limited(stage: &Stage, limits: &Limits) -> Option<Tree> {
    match Tree::limited(&stage.supervisor, None, limits) {
        Ok(tree) => Some(tree),
        Err(error) => {
            assert!(error.is_limit(), "{error}");
            assert!(std::env::var_os("TIDY_CONTROLLERS").is_none(), "{error}");
            lacks("controllers", "no controller on cgroup v2 limits memory and processes here");
            None
        }
    }
}

#[test]
#[parallel]
fn the_same_where_a_cgroup_limits_the_processes() {
    let Some(stage) = Stage::set() else { return };
    if let Some(tree) = limited(&stage, &Limits::new().pids_max(PROCESSES)) {
        let status = play(&stage, &tree, "processes", None).unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(tree.finish().unwrap().leftovers, []);
    }
    stage.close(Alone::No);
}

/// Its memory is the supervisor's and that of all it starts; the kernel picks one process.
fn with_little_memory(stage: &Stage) -> Option<Tree> {
    let tree = limited(stage, &Limits::new().memory_max(128 * MIB).swap_max(0))?;
    std::fs::write(tree.path().unwrap().join("memory.oom.group"), "0").unwrap();
    Some(tree)
}

#[test]
#[parallel]
fn under_memory_pressure_the_hungry_die_and_the_next_one_works() {
    let Some(stage) = Stage::set() else { return };
    if let Some(tree) = with_little_memory(&stage) {
        let status = play(&stage, &tree, "memory", None).unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(tree.finish().unwrap().leftovers, []);
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_supervisor_that_is_killed_for_its_memory_leaves_nothing() {
    use std::os::unix::process::ExitStatusExt;
    let Some(stage) = Stage::set() else { return };
    if let Some(tree) = with_little_memory(&stage) {
        let status = play(&stage, &tree, "all memory", None).unwrap();
        assert_eq!(status.signal(), Some(9), "{status}");
        let deadline = Instant::now() + SOON;
        while !stage.alive().is_empty() || directories(tree.path().unwrap()) > 0 {
            assert!(Instant::now() < deadline, "left: {:?}", stage.alive());
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(tree);
    }
    stage.close(Alone::No);
}
