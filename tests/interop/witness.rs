//! The procfs crate as an independent witness: what we say of processes and sockets is what it
//! reads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use procfs::ProcError;
use procfs::net::TcpState;
use procfs::process::{FDTarget, Process, Stat, all_processes};
use serial_test::parallel;
use tidy_process::{Child, ListeningPort, Protocol, Ready, Stdio};

use crate::server::{server, soon};
use crate::support::{Alone, SOON, Stage, read_ready, until};

/// What the witness sees of a process that is alive. One that goes while it looks is not there.
#[derive(Debug)]
struct Seen {
    stat: Stat,
    command: Vec<String>,
    cgroup: String,
}

fn seen(process: Result<Process, ProcError>) -> Option<(u32, Seen)> {
    let process = process.ok()?;
    let stat = process.stat().ok()?;
    let cgroups = process.cgroups().ok()?.0;
    let cgroup = cgroups.into_iter().find(|cgroup| cgroup.hierarchy == 0)?.pathname;
    let command = process.cmdline().unwrap_or_default();
    let living = stat.state != 'Z';
    living.then_some((stat.pid.cast_unsigned(), Seen { stat, command, cgroup }))
}

/// All processes of the machine whose cgroup, of version 2, is one of a tree.
fn of_cgroup(path: &str) -> BTreeMap<u32, Seen> {
    let all = all_processes().unwrap().filter_map(seen);
    all.filter(|(_, seen)| seen.cgroup.ends_with(path)).collect()
}

/// The end of its path in the hierarchy: the run root, which no other test has, and the tree.
fn cgroup_of(child: &Child) -> String {
    let path = child.tree().path().unwrap();
    let names = [path.parent().unwrap(), path].map(|path| path.file_name().unwrap().to_str());
    names.map(|name| "/".to_owned() + name.unwrap()).concat()
}

/// A daemon in a session of its own, a stopped process with a name that looks like fields and odd
/// arguments, and the shell that started them.
const FAMILY: &str = "(setsid sleep 60 &)
cp \"$(readlink -f /bin/sh)\" \"$0/a) S (b\" || exit
\"$0/a) S (b\" -c 'kill -STOP $$; sleep 60' 'two words' &
echo ready; wait";

#[test]
#[parallel]
fn the_processes_of_a_tree_are_those_that_procfs_finds_in_its_cgroup() {
    let Some(stage) = Stage::set() else { return };
    let dir = std::env::temp_dir().join(format!("tidy-witness-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let mut command = stage.sh(FAMILY);
    let mut child = command.arg(&dir).stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    let cgroup = cgroup_of(&child);
    // Its programs are still being started.
    let settled = || {
        let stats: Vec<Stat> = of_cgroup(&cgroup).into_values().map(|seen| seen.stat).collect();
        let mut states: Vec<_> = stats.iter().map(|stat| (&*stat.comm, stat.state)).collect();
        states.sort_unstable();
        states == [("a) S (b", 'T'), ("sh", 'S'), ("sleep", 'S')]
    };
    assert!(until(SOON, settled), "{:?}", of_cgroup(&cgroup));
    let witness = of_cgroup(&cgroup);
    let ours = child.tree().processes();
    assert_eq!(
        ours.iter().map(|process| process.pid).collect::<BTreeSet<_>>(),
        witness.keys().copied().collect()
    );
    for process in ours {
        let Seen { stat, command, .. } = &witness[&process.pid];
        assert_eq!(process.ppid, stat.ppid.cast_unsigned(), "{process:?}");
        assert_eq!(process.session, stat.session.cast_unsigned(), "{process:?}");
        assert_eq!((&process.name, process.state), (&stat.comm, stat.state), "{process:?}");
        assert_eq!(&process.command, command, "{process:?}");
    }
    child.finish().unwrap();
    assert!(of_cgroup(&cgroup).is_empty(), "procfs finds something left");
    std::fs::remove_dir_all(&dir).unwrap();
    drop(command);
    stage.close(Alone::No);
}

/// The sockets that wait for peers, by inode, in the network namespace of a process.
fn waiting(process: &Process) -> HashMap<u64, (Protocol, SocketAddr)> {
    let tcp = [process.tcp(), process.tcp6()].into_iter().flat_map(Result::unwrap);
    let listen = tcp.filter(|entry| entry.state == TcpState::Listen);
    let tcp = listen.map(|entry| (entry.inode, (Protocol::Tcp, entry.local_address)));
    let udp = [process.udp(), process.udp6()].into_iter().flat_map(Result::unwrap);
    let bound = udp.filter(|entry| entry.remote_address.port() == 0);
    tcp.chain(bound.map(|entry| (entry.inode, (Protocol::Udp, entry.local_address)))).collect()
}

/// The ports of a tree by the witness: sockets by the tables, owners by their fds.
fn ports(cgroup: &str) -> BTreeSet<(u32, String)> {
    let mut found = BTreeSet::new();
    for pid in of_cgroup(cgroup).into_keys() {
        let process = Process::new(pid.cast_signed()).unwrap();
        let waiting = waiting(&process);
        for fd in process.fd().unwrap().flatten() {
            let FDTarget::Socket(inode) = fd.target else { continue };
            let socket = waiting.get(&inode);
            found.extend(socket.map(|(protocol, at)| (pid, format!("{protocol:?} {at}"))));
        }
    }
    found
}

fn told(port: &ListeningPort) -> (u32, String) {
    (port.pid, format!("{:?} {}", port.protocol, port.address))
}

#[test]
#[parallel]
fn the_ports_of_a_tree_are_those_that_procfs_finds_by_fds_and_tables() {
    let Some(stage) = Stage::set() else { return };
    let script = "tcp 127.0.0.1:0\ntcp 0.0.0.0:0\ntcp [::1]:0\nudp 127.0.0.1:0\nudp [::]:0\nstay";
    let child = server(&stage, script).spawn().unwrap();
    child.wait_ready(Ready::any_tcp(), soon()).unwrap();
    let cgroup = cgroup_of(&child);
    assert!(until(SOON, || ports(&cgroup).len() == 5), "{:?}", ports(&cgroup));
    let ours = child.tree().listening_ports().unwrap();
    assert_eq!(ours.iter().map(told).collect::<BTreeSet<_>>(), ports(&cgroup));
    child.finish().unwrap();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_port_in_another_network_namespace_is_the_one_that_procfs_finds_there() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.command("unshare");
    let script = "tcp 0.0.0.0:7\nudp 0.0.0.0:9\nsay ready\nstay";
    command.arg("-n").arg(crate::victim::exe()).env("TIDY_SERVER", script);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    let witness = ports(&cgroup_of(&child));
    let said: Vec<_> = witness.iter().map(|(_, port)| port.as_str()).collect();
    assert_eq!(said, ["Tcp 0.0.0.0:7", "Udp 0.0.0.0:9"]);
    let ours = child.tree().listening_ports().unwrap();
    assert_eq!(ours.iter().map(told).collect::<BTreeSet<_>>(), witness);
    drop((child, command));
    stage.close(Alone::No);
}
