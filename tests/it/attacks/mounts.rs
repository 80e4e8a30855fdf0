//! What a workload mounts inside its cgroup is not of the cgroup, whatever it looks like: nothing
//! there is read, signalled, changed or removed. Everybody in the tree dies all the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child as StdChild, Command as StdCommand, Stdio as StdStdio};
use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Child, Command, Error, Stdio, Supervisor, list, sweep};

use crate::actor::{ROLE, unshared};
use crate::attacks::permissions::{delegated, ordinary};
use crate::attacks::succeeds;
use crate::support::{Alone, Stage, marked, read_ready, skip};
use crate::victim;

/// No pid.
const NONE: [i32; 0] = [];

/// A tenth of what a teardown that goes on trying takes, and ten times what one needs.
const QUICK: Duration = Duration::from_secs(2);

/// What is mounted where. `$R`: the run root, `$L`: the tree, `$U`: a directory of the user's,
/// `$P`: a stranger's pid, `$O`: its cgroup. Then `$V` goes on, which `cgroup.kill` does not end.
const ATTACKS: [Attack; 9] = [
    Attack { script: "mkdir $L/x; mount --bind $U $L/x", named: Some("x") },
    Attack {
        script: "mkdir -p $L/a/x; mount -t tmpfs t $L/a/x; echo $P >$L/a/x/cgroup.procs; \
            mkdir -p $L/a/x/y; echo $P >$L/a/x/y/cgroup.procs",
        named: Some("a/x"),
    },
    Attack {
        script: "echo $P >$U/pids; echo populated 0 >$U/none; for f in kill freeze; do \
            mount --bind $U/empty $L/cgroup.$f; done; mount --bind $U/none $L/cgroup.events; \
            mount --bind $U/pids $L/cgroup.procs; mount --bind $U/pids $L/cgroup.threads",
        named: None,
    },
    Attack {
        script: "mkfifo $U/fifo; mount --bind $U/fifo $L/cgroup.procs; \
            mount --bind $U/fifo $L/cgroup.freeze; mount --bind $U/fifo $L/cpu.stat",
        named: None,
    },
    Attack {
        script: "mkdir $L/x; echo $$ >$L/x/cgroup.procs; mount -t tmpfs t $L; \
            echo $P >$L/cgroup.procs; touch $L/cgroup.kill; echo populated 0 >$L/cgroup.events; \
            mkdir $L/x; echo $P >$L/x/cgroup.procs",
        named: Some(""),
    },
    Attack {
        script: "mkdir -p $L/x/y; echo $$ >$L/x/y/cgroup.procs; mount --bind $U $L/x/y; \
            mount -t tmpfs t $L/x; mkdir $L/x/y; echo $P >$L/x/y/cgroup.procs",
        named: Some("x"),
    },
    Attack { script: "mkdir $L/x; mount --bind $O $L/x", named: Some("x") },
    Attack { script: "mkdir $L/x; mount --rbind $R $L/x", named: Some("x") },
    Attack { script: "mount -t tmpfs t $R; mkdir $R/z; echo $P >$R/z/cgroup.procs", named: None },
];

struct Attack {
    script: &'static str,
    /// The directory that cannot go, below the tree.
    named: Option<&'static str>,
}

#[test]
#[serial]
fn what_is_mounted_in_a_tree_is_left_alone() {
    act("mounts");
}

/// Who has a user namespace of their own may mount as well.
#[test]
#[serial]
fn what_an_ordinary_user_mounts_is_left_alone() {
    let Some(stage) = Stage::set() else { return };
    let Some(tree) = delegated(&stage) else { return };
    for role in ["mounts", "mounts-stale"] {
        let mut command = StdCommand::new("unshare");
        command.args(["-U", "-r", "-m"]).arg(victim::exe()).env(ROLE, role);
        stage.mark_std(&mut command);
        ordinary(&mut command, &tree);
        succeeds(&mut command, role);
        sweep(Some(tree.path().unwrap()), false).unwrap();
    }
    assert_eq!(tree.finish().unwrap().leftovers, []);
    stage.close(Alone::No);
}

/// As with a seccomp filter that knows nothing of openat2.
#[test]
#[serial]
fn what_is_mounted_is_left_alone_without_openat2() {
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing");
    }
    for (errno, role) in [("ENOSYS", "mounts"), ("EPERM", "mounts-stale")] {
        let inject = format!("inject=openat2:error={errno}");
        act_as(role, &["strace", "-o", "/dev/null", "-e", "trace=openat2", "-e", &inject]);
    }
}

#[test]
#[serial]
fn what_is_mounted_in_a_stale_run_root_is_left_alone() {
    act("mounts-stale");
}

fn act(role: &str) {
    act_as(role, &[]);
}

fn act_as(role: &str, tracer: &[&str]) {
    let Some(stage) = Stage::set() else { return };
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can mount");
    }
    succeeds(&mut unshared(&stage, role, tracer), role);
    // The mounts went with their namespace; what they kept from being removed goes now.
    sweep(Some(stage.supervisor.path().unwrap()), false).unwrap();
    stage.close(Alone::Yes);
}

/// A stranger to every tree that is attacked: a process in a cgroup of its own, and files.
struct Stranger {
    process: StdChild,
    cgroup: PathBuf,
    files: PathBuf,
}

impl Stranger {
    fn new(base: &Path) -> Self {
        let cgroup = base.join("stranger");
        fs::create_dir(&cgroup).unwrap();
        let process = StdCommand::new("sleep").arg("90").stdin(StdStdio::null()).spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), process.id().to_string()).unwrap();
        let files = std::env::temp_dir().join(format!("tidy-mounts-{}", std::process::id()));
        fs::create_dir_all(files.join("kept/kept")).unwrap();
        fs::write(files.join("empty"), "").unwrap();
        Self { process, cgroup, files }
    }

    fn tell(&self, command: &mut Command) {
        let victim = victim::exe();
        command.env("U", &self.files).env("O", &self.cgroup).env("V", victim);
        command.env("P", self.process.id().to_string()).env_remove(ROLE);
    }

    fn assert_unharmed(&mut self, what: &str) {
        assert_eq!(self.process.try_wait().unwrap(), None, "{what}: the stranger was killed");
        assert!(self.files.join("kept/kept").exists(), "{what}: a directory was removed");
        let frozen = fs::read_to_string(self.cgroup.join("cgroup.freeze")).unwrap();
        assert_eq!(frozen, "0\n", "{what}: the stranger was frozen");
        for file in ["pids", "empty", "none"] {
            let path = self.files.join(file);
            let text = fs::read_to_string(&path).unwrap_or_default();
            assert!(!text.contains('1') || file == "pids", "{what}: written to {path:?}: {text}");
        }
        let _ = fs::remove_file(self.files.join("fifo"));
    }

    fn leave(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        fs::remove_dir_all(&self.files).unwrap();
        fs::remove_dir(&self.cgroup).unwrap();
    }
}

/// The workload has mounted, and lives on without its main thread.
fn attacked(supervisor: &Supervisor, stranger: &Stranger, attack: &str, join: bool) -> Child {
    let script = format!("set -e; L=$(echo $R/*-it); {attack}; TIDY_VICTIM=dead-leader exec $V");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).name("it").supervisor(supervisor).force_join(join);
    command.env("R", supervisor.path().unwrap()).env("TIDY_MARK", mark());
    stranger.tell(&mut command);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    child
}

fn mark() -> String {
    format!("mounts-{}", std::process::id())
}

pub(crate) fn play() {
    let base = PathBuf::from(std::env::var_os("TIDY_PROCESS_PARENT").unwrap());
    let mut stranger = Stranger::new(&base);
    for (number, Attack { script, named }) in ATTACKS.iter().enumerate() {
        for join in [false, true] {
            let what = format!("attack {number}, joined: {join}");
            // The guard has tests of its own.
            let supervisor = Supervisor::builder().guard(false).build().unwrap();
            let child = attacked(&supervisor, &stranger, script, join);
            let tree = child.tree().path().unwrap().to_owned();
            let pid = stranger.process.id();
            assert!(child.tree().processes().iter().all(|one| one.pid != pid), "{what}: listed");
            child.signal_all(libc::SIGCONT).unwrap();
            let start = Instant::now();
            let ended = child.finish();
            assert_eq!(marked(&mark()), NONE, "{what}: still alive, {ended:?}");
            stranger.assert_unharmed(&what);
            match named {
                None => drop(ended.unwrap_or_else(|error| panic!("{what}: {error}"))),
                Some(place) => assert_named(&ended.unwrap_err(), &tree.join(place), &what),
            }
            drop(supervisor);
            assert!(start.elapsed() < QUICK, "{what}: took {:?}", start.elapsed());
            stranger.assert_unharmed(&what);
            unmount_all(&base);
            sweep(Some(&base), false).unwrap();
        }
    }
    stranger.leave();
}

fn assert_named(error: &Error, place: &Path, what: &str) {
    // A tree's own directory has no slash at its end.
    let place: PathBuf = place.components().collect();
    let text = error.to_string();
    assert!(text.contains(&format!("{place:?}")) && text.contains("mount"), "{what}: {text}");
    assert!(error.hint().is_some_and(|hint| hint.contains("umount")), "{what}: {text}");
}

fn unmount_all(base: &Path) {
    let script = "for i in 1 2 3 4 5 6 7 8 9; do grep -F \" $B/\" /proc/self/mountinfo | \
         cut -d' ' -f5 | while read m; do umount -l $m; done; done 2>/dev/null";
    StdCommand::new("sh").args(["-c", script]).env("B", base).status().unwrap();
}

/// The owner is gone, and so is what its trees were held by: what is mounted is all that is left.
pub(crate) fn play_stale() {
    let base = PathBuf::from(std::env::var_os("TIDY_PROCESS_PARENT").unwrap());
    let mut stranger = Stranger::new(&base);
    for (number, Attack { script, .. }) in ATTACKS.iter().enumerate() {
        let mut owner = StdCommand::new(victim::exe());
        owner.env(ROLE, "mounts-owner").env("ATTACK", script).env("U", &stranger.files);
        owner.env("O", &stranger.cgroup).env("P", stranger.process.id().to_string());
        let mut owner = owner.env("TIDY_MARK", mark()).stdout(StdStdio::piped()).spawn().unwrap();
        read_ready(owner.stdout.take().unwrap());
        owner.kill().unwrap();
        owner.wait().unwrap();
        let what = format!("stale, attack {number}");
        let pid = stranger.process.id();
        let listed = list(Some(&base)).unwrap();
        // The stage's own run root holds the stranger, and says so.
        let mut trees = listed.iter().filter(|root| root.path != base).flat_map(|root| &root.trees);
        let stranger_listed = trees.any(|tree| tree.processes.iter().any(|one| one.pid == pid));
        assert!(!stranger_listed, "{what}: {listed:?}");
        let start = Instant::now();
        let stale = sweep(Some(&base), false).unwrap();
        assert!(start.elapsed() < QUICK, "{what}: took {:?}", start.elapsed());
        assert_eq!(stale.len(), 1, "{what}: {stale:?}");
        assert!(stale[0].processes.iter().all(|one| one.pid != pid), "{what}: {stale:?}");
        assert_eq!(marked(&mark()), NONE, "{what}: still alive, {stale:?}");
        stranger.assert_unharmed(&what);
        if let Err(error) = &stale[0].removed {
            assert!(error.to_string().contains("mount"), "{what}: {error}");
        }
        unmount_all(&base);
        sweep(Some(&base), false).unwrap();
    }
    stranger.leave();
}

pub(crate) fn play_owner() {
    let supervisor = Supervisor::builder().guard(false).sweep(false).build().unwrap();
    let script = "set -e; L=$(echo $R/*-it); eval \"$ATTACK\"; TIDY_VICTIM=dead-leader exec $V";
    let mut command = Command::new("sh");
    command.args(["-c", script]).name("it").supervisor(&supervisor).env_remove(ROLE);
    command.env("R", supervisor.path().unwrap()).env("V", victim::exe());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    nix::unistd::write(std::io::stdout(), b"ready\n").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}
