//! Containers as Docker and Podman make them, by crun (the runtime of Debian's Podman) and
//! bubblewrap: what is said where cgroupfs is read-only, and that all works where it is not.
//!
//! crun mounts the hierarchy itself, so those tests are for machines where cgroup v2 is the only
//! one (the virtual machines, where `TIDY_CONTROLLERS=1` says that it has to be).

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use serial_test::serial;

use crate::server::free_port;
use crate::support::{Alone, Stage, example, lacks, skip, tool};
use crate::victim;

/// What Docker and Podman leave to a container's root.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What `--privileged` adds.
const MORE: [&str; 27] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cgroupfs {
    ReadOnly,
    Writable,
    /// Writable, like all of sysfs, with every capability and nothing masked.
    Privileged,
}

/// A container that crun makes, from the directories of this machine.
struct Container {
    bundle: PathBuf,
    name: String,
    user: u32,
    cgroup: Option<PathBuf>,
}

impl Container {
    /// None where cgroup v1 is there too or crun is missing, if that may be: see `skip`.
    fn make(cgroupfs: Cgroupfs, user: u32, words: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        if mounts.contains(" - cgroup ") {
            assert!(std::env::var_os("TIDY_CONTROLLERS").is_none(), "there is cgroup v1: {mounts}");
            lacks("controllers", "crun's containers need a host without cgroup v1: try ci/all");
            return None;
        }
        if Command::new("crun").arg("--version").output().is_err() {
            skip("crun is missing: install the package crun");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidy-container-{}-{number}", std::process::id());
        let bundle = std::env::temp_dir().join(&name);
        let this = Self { bundle, name, user, cgroup: None };
        fs::create_dir_all(this.bundle.join("rootfs")).unwrap();
        for dir in [&this.bundle, &this.bundle.join("rootfs")] {
            chown(dir, Some(user), Some(user)).unwrap();
        }
        let mut spec = this.crun();
        spec.arg("spec").current_dir(&this.bundle);
        if user != 0 {
            spec.arg("--rootless");
        }
        assert!(spec.status().unwrap().success());
        this.configure(cgroupfs, words);
        Some(this)
    }

    fn crun(&self) -> Command {
        let mut crun = Command::new("crun");
        crun.args(["--root", &self.bundle.join("state").display().to_string()]);
        crun.uid(self.user).gid(self.user).env_remove("XDG_RUNTIME_DIR");
        crun
    }

    /// What crun proposes, with our command, the engines' capabilities, and this machine's files.
    fn configure(&self, cgroupfs: Cgroupfs, words: &[&str]) {
        let path = self.bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let process = &mut config["process"];
        process["terminal"] = false.into();
        process["args"] = words.into();
        let path_variable = format!("PATH={}", std::env::var("PATH").unwrap());
        // A rootless container has one user.
        let may_skip = if self.user == 0 { "TIDY_MAY_SKIP=" } else { "TIDY_MAY_SKIP=users" };
        process["env"] = json!([path_variable, "HOME=/tmp", may_skip]);
        let privileged = cgroupfs == Cgroupfs::Privileged;
        let more: &[&str] = if privileged { &MORE } else { &[] };
        for set in ["bounding", "effective", "permitted"] {
            process["capabilities"][set] = [&CAPABILITIES, more].concat().into();
        }
        if privileged {
            for key in ["maskedPaths", "readonlyPaths"] {
                config["linux"].as_object_mut().unwrap().remove(key);
            }
        }
        for mount in config["mounts"].as_array_mut().unwrap() {
            let writable = mount["destination"] == "/sys/fs/cgroup"
                && cgroupfs != Cgroupfs::ReadOnly
                || mount["destination"] == "/sys" && privileged;
            if writable {
                mount["options"].as_array_mut().unwrap().retain(|option| option != "ro");
            }
        }
        self.add_files(config["mounts"].as_array_mut().unwrap());
        fs::write(path, config.to_string()).unwrap();
    }

    fn add_files(&self, mounts: &mut Vec<Value>) {
        for entry in fs::read_dir("/").unwrap().flatten() {
            let (name, from) = (entry.file_name(), entry.path());
            let to = self.bundle.join("rootfs").join(&name);
            let kept = ["proc", "sys", "dev", "run"].iter().any(|other| name == *other);
            match entry.file_type().unwrap() {
                kind if kind.is_symlink() => symlink(fs::read_link(&from).unwrap(), &to).unwrap(),
                kind if kind.is_dir() && !kept => mounts.push(json!({
                    "destination": from, "source": from, "type": "none",
                    "options": ["rbind", "rprivate"],
                })),
                _ => {}
            }
        }
    }

    fn run(&self) -> Output {
        let mut crun = self.crun();
        crun.args(["--cgroup-manager", if self.user == 0 { "cgroupfs" } else { "disabled" }]);
        crun.args(["run", "--bundle"]).args([self.bundle.to_str().unwrap(), &self.name]);
        if let Some(cgroup) = &self.cgroup {
            // The shell goes there first, as a session's own does.
            let mut outer = Command::new("sh");
            outer.args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec \"$@\""]).arg(cgroup);
            let user = self.user.to_string();
            outer.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
            return outer.arg(crun.get_program()).args(crun.get_args()).output().unwrap();
        }
        crun.output().unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.bundle);
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// The error, its errno, and what to type.
fn assert_read_only(output: &Output) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("make cgroup") && said.contains("(EROFS)"), "{said}");
    for typed in ["--security-opt writable-cgroups=true", "--security-opt unmask=/sys/fs/cgroup"] {
        assert!(said.contains(typed), "{said}");
    }
}

fn capabilities(output: &Output) -> Value {
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)));
    value["capabilities"].clone()
}

#[test]
#[serial]
fn a_default_container_gets_an_error_that_says_what_to_type() {
    let run = [tool(), "run", "true"];
    let Some(container) = Container::make(Cgroupfs::ReadOnly, 0, &run) else { return };
    assert_read_only(&container.run());
    let doctor = [tool(), "doctor", "--json", "--require", "cgroup2,base"];
    let container = Container::make(Cgroupfs::ReadOnly, 0, &doctor).unwrap();
    let output = container.run();
    let all = capabilities(&output);
    assert_eq!((output.status.code(), &all["create"]["state"]), (Some(0), &json!("no")), "{all}");
    assert_eq!(all["cgroup2"]["read_only"], true);
    assert_eq!(all["namespace"]["first"], false);
}

#[test]
#[serial]
fn a_rootless_container_gets_an_error_that_says_what_to_type() {
    let run = [tool(), "run", "true"];
    let Some(container) = Container::make(Cgroupfs::ReadOnly, 1000, &run) else { return };
    assert_read_only(&container.run());
}

/// By root's default container and a rootless one, both with a read-only cgroupfs.
#[test]
#[serial]
fn in_a_default_container_best_effort_ends_all_victims() {
    for user in [0, 1000] {
        let script = "setsid sleep 60 & sleep 60 & exit 7";
        let effort = ["--containment", "best-effort", "--json", "-", "--", "sh", "-c", script];
        let run = [&[tool(), "run"], effort.as_slice()].concat();
        let Some(container) = Container::make(Cgroupfs::ReadOnly, user, &run) else { return };
        let output = container.run();
        drop(container);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(said.contains("held by a keeper") && said.contains("(EROFS)"), "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["mechanism"], "keeper", "{said}");
        assert_eq!(report["leftovers"].as_array().unwrap().len(), 2, "{said}");
        suite(Cgroupfs::ReadOnly, user, "keeper::every_victim");
    }
}

/// The first command of the README, where most try it: in the `rust` image, as root or not.
#[test]
#[serial]
fn in_a_default_container_the_experiment_says_that_it_does_its_best() {
    for user in [0, 1000] {
        let example = example("experiment");
        let port = free_port().to_string();
        let run = [example.to_str().unwrap(), "--port", &port];
        let Some(container) = Container::make(Cgroupfs::ReadOnly, user, &run) else { return };
        let output = container.run();
        drop(container);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let effort = said.lines().find(|line| line.starts_with("best effort: "));
        assert!(effort.is_some_and(|line| line.contains("(EROFS)")), "{said}");
        assert!(said.contains(&format!("port {port} is free again, no process is left")), "{said}");
    }
}

/// Runs tests in a container. The shell reaps what is orphaned, as `docker run --init` does.
fn suite(cgroupfs: Cgroupfs, user: u32, filters: &str) {
    let script = format!("{} {filters}; exit $?", victim::exe().display());
    let suite = Container::make(cgroupfs, user, &["sh", "-c", &script]).unwrap();
    let output = suite.run();
    let said = said(&output);
    assert!(output.status.success() && said.contains("test result: ok. "), "{said}");
    assert!(!said.contains("ok. 0 passed"), "{said}");
}

/// `docker run --security-opt writable-cgroups=true`, `podman run --security-opt
/// unmask=/sys/fs/cgroup`.
#[test]
#[serial]
fn in_a_container_with_a_writable_cgroupfs_all_victims_die() {
    let doctor = [tool(), "doctor", "--json", "--require", "create,kill,freeze,clone,guard"];
    let Some(container) = Container::make(Cgroupfs::Writable, 0, &doctor) else { return };
    let output = container.run();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    drop(container);
    suite(Cgroupfs::Writable, 0, "victims::");
}

/// A fence needs no namespace, so it holds in a container too.
#[test]
#[serial]
fn in_a_container_every_escape_fails_in_a_fence() {
    let doctor = [tool(), "doctor", "--json", "--require", "fence-inside,fence-apart"];
    let Some(container) = Container::make(Cgroupfs::Writable, 0, &doctor) else { return };
    let output = container.run();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    drop(container);
    suite(Cgroupfs::Writable, 0, "every_escape_that_works_without_a_fence_fails_in_one");
}

/// A default container's own /proc is covered in part, so the kernel mounts no other one in it.
#[test]
#[serial]
fn in_a_container_a_sandbox_is_refused_by_name_and_in_a_privileged_one_it_holds() {
    let run = [tool(), "run", "--sandbox", "--", "true"];
    let Some(container) = Container::make(Cgroupfs::Writable, 0, &run) else { return };
    let output = container.run();
    drop(container);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(125), "{told}");
    assert!(told.contains("/proc") && told.contains("hint: "), "{told}");
    suite(Cgroupfs::Privileged, 0, "every_escape_fails_in_a_sandbox_too");
}

/// `docker run --privileged --cgroupns=private`.
#[test]
#[serial]
fn in_a_privileged_container_a_run_works_and_victims_die() {
    let run = [tool(), "run", "sh", "-c", "setsid sleep 60 & exit 7"];
    let Some(container) = Container::make(Cgroupfs::Privileged, 0, &run) else { return };
    let output = container.run();
    drop(container);
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(said(&output).contains("killed 1 leftover process"), "{}", said(&output));
    suite(Cgroupfs::Privileged, 0, "victims::a_");
}

/// With a cgroup that was delegated to the user, as systemd does for Podman.
#[test]
#[serial]
fn in_a_rootless_container_with_a_writable_cgroupfs_a_run_works() {
    let script = "sleep 60 & sleep 60 & exit 7";
    let run = [tool(), "run", "sh", "-c", script];
    let Some(mut container) = Container::make(Cgroupfs::Writable, 1000, &run) else { return };
    let Some(stage) = Stage::set() else { return };
    let cgroup = stage.supervisor.path().unwrap().parent().unwrap().join(&container.name);
    fs::create_dir(&cgroup).unwrap();
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        chown(cgroup.join(file), Some(1000), Some(1000)).unwrap();
    }
    container.cgroup = Some(cgroup.clone());
    let output = container.run();
    let empty = crate::support::until(crate::support::SOON, || fs::remove_dir(&cgroup).is_ok());
    assert!(empty, "{cgroup:?} is not empty: {}", said(&output));
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(said(&output).contains("killed 2 leftover processes"), "{}", said(&output));
    stage.close(Alone::No);
}

/// bubblewrap shows the machine's own hierarchy, as it is told to.
fn bwrap(stage: &Stage, user: u32, how: &str, words: &[&str]) -> Option<Output> {
    let mut bwrap = Command::new("bwrap");
    bwrap.args([how, "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid"]);
    stage.mark_std(bwrap.args(["--die-with-parent", "--"]).args(words));
    if user != 0 {
        bwrap.uid(user).gid(user).env_remove("TIDY_PROCESS_PARENT");
    }
    match bwrap.output() {
        Ok(output) if said(&output).contains("bwrap: ") => skip(&said(&output)),
        Ok(output) => return Some(output),
        Err(error) => skip(&format!("bwrap: {error}: install the package bubblewrap")),
    }
    None
}

#[test]
#[serial]
fn in_a_sandbox_of_bubblewrap_it_is_the_mount_that_decides() {
    if !nix::unistd::geteuid().is_root() {
        return lacks("users", "only root can be two users");
    }
    let Some(stage) = Stage::set() else { return };
    for user in [0, 65534] {
        let words = [tool(), "run", "true"];
        let Some(output) = bwrap(&stage, user, "--ro-bind", &words) else { return };
        assert_read_only(&output);
    }
    let words = [tool(), "run", "sh", "-c", "sleep 60 & exit 7"];
    let Some(output) = bwrap(&stage, 0, "--bind", &words) else { return };
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(said(&output).contains("killed 1 leftover process: "), "{}", said(&output));
    stage.close(Alone::No);
}
