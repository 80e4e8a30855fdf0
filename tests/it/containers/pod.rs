//! Containers of a pod, by crun, from what the kubelet and its runtimes document that they ask of
//! it: the cgroups of the systemd driver, the limits of a burstable pod, mounts, namespaces and
//! capabilities. No kubelet, no containerd and no CRI-O ran.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use serial_test::serial;

use super::container::{Cgroupfs, Container};
use super::{capabilities, said};
use crate::support::tool;
use crate::victim;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Runtime {
    Containerd,
    /// With crun, which has a cgroup of its own below that of the container.
    CriO,
}

impl Runtime {
    fn scope(self, id: &str) -> String {
        match self {
            Self::Containerd => format!("cri-containerd-{id}.scope"),
            Self::CriO => format!("crio-{id}.scope/container"),
        }
    }

    /// What CRI-O leaves out of the engines' capabilities.
    fn lacks(self, capability: &Value) -> bool {
        const LEFT_OUT: [&str; 5] =
            ["CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SYS_CHROOT"];
        self == Self::CriO && LEFT_OUT.iter().any(|name| capability == name)
    }
}

const BOTH: [Runtime; 2] = [Runtime::Containerd, Runtime::CriO];

/// The largest memory of the container, in bytes.
const MEMORY: u64 = 256 << 20;

/// One container of a pod of its own. Its cgroups go with it.
struct Pod {
    container: Container,
    slice: PathBuf,
}

impl Pod {
    /// None where containers cannot be made, if that may be.
    fn make(runtime: Runtime, cgroupfs: Cgroupfs, words: &[&str]) -> Option<Self> {
        let container = Container::make(cgroupfs, 0, words)?;
        let uid = container.name.replace('-', "_");
        let slice =
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice");
        let path = format!("{slice}/{}", runtime.scope(&container.name));
        container.change(|config| {
            config["linux"]["cgroupsPath"] = path.into();
            of_the_kubelet(config);
            of_the_runtime(config, runtime, cgroupfs);
        });
        let mount = |config: &mut Value, to: &str, from: &Path| {
            let options = json!(["rbind", "rprivate", "ro"]);
            let mount = json!({
                "destination": to, "type": "bind", "source": from, "options": options,
            });
            config["mounts"].as_array_mut().unwrap().push(mount);
        };
        let token = container.file("token", "a token\n");
        let log = container.file("termination-log", "");
        container.change(|config| {
            mount(config, "/run/secrets/kubernetes.io/serviceaccount/token", &token);
            mount(config, "/dev/termination-log", &log);
        });
        let this = Self { container, slice: Path::new("/sys/fs/cgroup").join(&slice[1..]) };
        this.limit();
        Some(this)
    }

    /// What the kubelet writes into the cgroup of the pod.
    fn limit(&self) {
        fs::create_dir_all(&self.slice).unwrap();
        let burstable = self.slice.parent().unwrap();
        for dir in [burstable.parent().unwrap(), burstable] {
            fs::write(dir.join("cgroup.subtree_control"), "+cpu +memory +pids").unwrap();
        }
        fs::write(self.slice.join("memory.max"), (MEMORY + (16 << 20)).to_string()).unwrap();
        fs::write(self.slice.join("pids.max"), "1000").unwrap();
    }

    fn run(&self) -> Output {
        self.container.run()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let burstable = self.slice.parent().unwrap();
        let scope = self.slice.join(format!("crio-{}.scope", self.container.name));
        for dir in [&scope, &self.slice, burstable, burstable.parent().unwrap()] {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Memory, CPUs and what comes of them for a burstable pod; a container dies as a whole.
fn of_the_kubelet(config: &mut Value) {
    config["linux"]["resources"] = json!({
        "memory": { "limit": MEMORY, "swap": MEMORY },
        "cpu": { "shares": 256, "quota": 150_000, "period": 100_000 },
        "unified": { "memory.oom.group": "1" },
    });
    config["process"]["oomScoreAdj"] = 900.into();
    let variables = config["process"]["env"].as_array_mut().unwrap();
    variables.push("KUBERNETES_SERVICE_HOST=10.96.0.1".into());
    variables.push("KUBERNETES_SERVICE_PORT=443".into());
}

/// Capabilities, namespaces. A privileged container has the node's cgroup namespace.
fn of_the_runtime(config: &mut Value, runtime: Runtime, cgroupfs: Cgroupfs) {
    let privileged = cgroupfs == Cgroupfs::Privileged;
    if privileged {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        return;
    }
    for set in ["bounding", "effective", "permitted"] {
        let capabilities = config["process"]["capabilities"][set].as_array_mut().unwrap();
        capabilities.retain(|capability| !runtime.lacks(capability));
    }
}

#[test]
#[serial]
fn a_pod_gets_an_error_that_says_what_to_type() {
    for runtime in BOTH {
        let run = [tool(), "run", "true"];
        let Some(pod) = Pod::make(runtime, Cgroupfs::ReadOnly, &run) else { return };
        let output = pod.run();
        drop(pod);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(125), "{runtime:?}: {told}");
        assert!(told.contains("make cgroup") && told.contains("(EROFS)"), "{runtime:?}: {told}");
        for typed in [
            "cgroup_writable = true",
            "io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw: \"true\"",
            "securityContext: {privileged: true}",
        ] {
            assert!(told.contains(typed) && !told.contains("docker run"), "{runtime:?}: {told}");
        }
        let doctor = [tool(), "doctor", "--json"];
        let pod = Pod::make(runtime, Cgroupfs::ReadOnly, &doctor).unwrap();
        let all = capabilities(&pod.run());
        assert_eq!(all["container"]["kind"], "kubernetes", "{runtime:?}: {all}");
        assert_eq!(all["create"]["state"], "no", "{runtime:?}: {all}");
    }
}

#[test]
#[serial]
fn in_a_pod_best_effort_leaves_nothing() {
    for runtime in BOTH {
        let script = "setsid sleep 60 & sleep 60 & exit 7";
        let effort = ["--containment", "best-effort", "-v", "--", "sh", "-c", script];
        let run = [&[tool(), "run"], effort.as_slice()].concat();
        let Some(pod) = Pod::make(runtime, Cgroupfs::ReadOnly, &run) else { return };
        let output = pod.run();
        drop(pod);
        assert_eq!(output.status.code(), Some(7), "{runtime:?}: {}", said(&output));
        assert!(said(&output).contains("killed 2 leftover processes"), "{}", said(&output));
    }
}

/// containerd's `cgroup_writable = true`, CRI-O's annotation: victims die, and a tree that runs out
/// of memory goes alone although the pod's container would die as a whole.
#[test]
#[serial]
fn in_a_pod_with_a_writable_cgroupfs_victims_die_and_limits_hold() {
    for runtime in BOTH {
        let limit = format!(
            "{tool} run -m 32M -- sh -c 'head -c 100M /dev/zero | tail | wc -c'; \
             echo status $?; cat /sys/fs/cgroup/memory.events.local; exit 5",
            tool = tool(),
        );
        let run = [tool(), "run", "--delegate", "sh", "-c", &limit];
        let Some(pod) = Pod::make(runtime, Cgroupfs::Writable, &run) else { return };
        let output = pod.run();
        drop(pod);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(5), "{runtime:?}: {told}");
        assert!(told.contains("out of memory") || told.contains("status 137"), "{told}");
        let tests = victim::exe();
        let script =
            format!("{} --test-threads 1 victims::a_ victims::nested; exit $?", tests.display());
        let pod = Pod::make(runtime, Cgroupfs::Writable, &["sh", "-c", &script]).unwrap();
        let output = pod.run();
        drop(pod);
        let told = said(&output);
        assert!(output.status.success() && told.contains("test result: ok. "), "{told}");
        assert!(!told.contains("ok. 0 passed"), "{told}");
    }
}

/// It sees all cgroups of the node; what it makes is in the pod's.
#[test]
#[serial]
fn in_a_privileged_pod_a_run_stays_in_the_pods_cgroup() {
    for runtime in BOTH {
        let look = "sed -n s/^0:://p /proc/self/cgroup; setsid sleep 60 & exit 7";
        let run = [tool(), "run", "sh", "-c", look];
        let Some(pod) = Pod::make(runtime, Cgroupfs::Privileged, &run) else { return };
        let slice = pod.slice.file_name().unwrap().to_str().unwrap();
        let own = format!("/{slice}/{}/tidy-process-", runtime.scope(&pod.container.name));
        let output = pod.run();
        drop(pod);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(7), "{runtime:?}: {told}");
        assert!(told.contains(&own), "{runtime:?}: {own}: {told}");
        assert!(told.contains("killed 1 leftover process"), "{runtime:?}: {told}");
    }
}
