//! A container as Docker and Podman make them, by crun.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::support::{lacks, skip};

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
pub(super) enum Cgroupfs {
    ReadOnly,
    Writable,
    /// Writable, like all of sysfs, with every capability and nothing masked.
    Privileged,
}

/// A container that crun makes, from the directories of this machine.
pub(super) struct Container {
    bundle: PathBuf,
    pub(super) name: String,
    user: u32,
    pub(super) cgroup: Option<PathBuf>,
}

impl Container {
    /// None where cgroup v1 is there too or crun is missing, if that may be: see `skip`.
    pub(super) fn make(cgroupfs: Cgroupfs, user: u32, words: &[&str]) -> Option<Self> {
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
        self.change(|config| self.with_command(config, cgroupfs, words));
    }

    fn with_command(&self, config: &mut Value, cgroupfs: Cgroupfs, words: &[&str]) {
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
    }

    /// Refuses these calls, as the engines' own profiles do.
    pub(super) fn forbid(&self, calls: &[&str]) {
        let refused = json!({ "names": calls, "action": "SCMP_ACT_ERRNO" });
        self.change(|config| {
            config["linux"]["seccomp"] =
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused] });
        });
    }

    /// Changes what crun reads.
    pub(super) fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// A file of the bundle, to be mounted.
    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.bundle.join(name);
        fs::write(&path, text).unwrap();
        path
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

    pub(super) fn run(&self) -> Output {
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
