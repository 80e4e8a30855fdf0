//! What a supervisor owes the machine it runs on: orphans reaped, other users' trees left alone,
//! odd clocks survived, all closed when it says so.

use std::process::{Command as StdCommand, Stdio as StdStdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::geteuid;
use serial_test::{parallel, serial};
use tidy_process::{Command, Containment, Supervisor, Tree};

use crate::attacks::leases::{actor_of, end_copy, fork, lines, say};
use crate::support::{Alone, SOON, Stage, skip, until};
use crate::victim;

const ROLE: &str = "TIDY_DUTY";

#[ctor::ctor]
fn enter() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "reaper" => reaper(),
        "leftover" => leftover(),
        "global" => global(),
        "log" => log(),
        "no room" => no_room(),
        _ => unreachable!("{role}"),
    }
    std::process::exit(0);
}

fn actor(stage: &Stage, role: &str) -> StdCommand {
    actor_of(stage, ROLE, role)
}

fn zombies_of(pid: u32) -> usize {
    let is_ours = |entry: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        rest.starts_with(&format!("Z {pid} "))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(is_ours).count()
}

/// Children of every sort that die as orphans, before and at the end of the tree.
const ORPHANS: &str = "(setsid sleep 60 &); sh -c 'sleep 60 & sleep 60 &' & \
    (setsid sh -c 'exit 3' &); sh -c 'sh -c \"exit 4\" & exit 5'; exit 0";

/// A sub-reaper gets the orphans of all that it starts: those of its trees are no zombies of it,
/// and what is not of its trees is left for whoever waits for it.
fn reaper() {
    // Orphans come to the first process of a pid namespace by themselves.
    nix::sys::prctl::set_child_subreaper(std::process::id() != 1).unwrap();
    let supervisor = Supervisor::builder().build().unwrap();
    let strangers_orphan = StdCommand::new("sh").args(["-c", "sh -c 'exit 6' & exit 0"]).spawn();
    strangers_orphan.unwrap().wait().unwrap();
    let mut own = StdCommand::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
    let me = std::process::id();
    assert!(until(SOON, || zombies_of(me) == 2));
    for round in 0..20 {
        let mut command = Command::new("sh");
        command.args(["-c", ORPHANS]).env_remove(ROLE).force_join(round % 2 == 0);
        let report = command.supervisor(&supervisor).run().unwrap();
        assert!(report.status.success() && !report.leftovers.is_empty());
        let killed = command.spawn().unwrap();
        drop(killed);
        assert_eq!(zombies_of(me), 2, "round {round}");
    }
    assert_eq!(own.wait().unwrap().code(), Some(7), "it was reaped by another");
    let tree = Tree::within(&supervisor, None).unwrap();
    let mut enrolled = StdCommand::new("sleep");
    tree.enroll(enrolled.arg("60")).unwrap();
    let mut enrolled = enrolled.spawn().unwrap();
    tree.finish().unwrap();
    let status = enrolled.wait().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(9), "it was reaped by another");
    say("fine");
}

#[test]
#[serial]
fn a_sub_reaper_has_no_zombies_of_its_trees_and_keeps_all_others() {
    let Some(stage) = Stage::set() else { return };
    assert_eq!(lines(actor(&stage, "reaper").spawn().unwrap()), ["fine"]);
    if geteuid().is_root() {
        // The first process of a pid namespace.
        let mut command = StdCommand::new("unshare");
        stage.mark_std(command.env(ROLE, "reaper").args(["-p", "-f", "--mount-proc"]));
        command.arg(victim::exe()).stdin(StdStdio::piped()).stdout(StdStdio::piped());
        assert_eq!(lines(command.spawn().unwrap()), ["fine"]);
    }
    stage.close(Alone::Yes);
}

/// As a container's first process it waits for every orphan while its command runs.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn the_tool_reaps_all_orphans_of_a_container() {
    if !geteuid().is_root() {
        return skip("only root can make a pid namespace");
    }
    let Some(stage) = Stage::set() else { return };
    let script = "for i in 1 2 3 4 5 6 7 8 9; do (setsid sh -c 'exit 3' &); done; \
        n=1; while [ $n -lt 500 ] && grep -qs ') Z 1 ' /proc/[0-9]*/stat; do sleep 0.02; \
        n=$((n + 1)); done; [ $n -lt 500 ] && exit 9; exit 8";
    let tool = crate::support::tool();
    for how in [
        &["run", "-q"][..],
        &["run", "-q", "--containment", "keeper"],
        &["with", "-q", "--server", "sleep 60"],
        &["pool", "-q", "--halt", "now,done=1"],
    ] {
        let mut command = StdCommand::new("unshare");
        stage.mark_std(command.args(["-p", "-f", "--mount-proc", tool]));
        // The last two are an argument for the pool's command.
        let script = ["--", "sh", "-c", script, ":::", "sh"];
        let output = command.args(how).args(script).output().unwrap();
        assert_eq!(output.status.code(), Some(9), "{how:?}: {output:?}");
    }
    stage.close(Alone::Yes);
}

/// A container's own file, say.
#[test]
#[serial]
fn an_uptime_of_any_sort_ends_nothing() {
    if !geteuid().is_root() {
        return skip("only root can mount");
    }
    let Some(stage) = Stage::set() else { return };
    for uptime in ["-5.00 1.00", "1e300 1.00", "inf 0", "NaN NaN", "", "x"] {
        let file = std::env::temp_dir().join(format!("tidy-uptime-{}", std::process::id()));
        std::fs::write(&file, uptime).unwrap();
        let mut command = StdCommand::new("unshare");
        stage.mark_std(command.env(ROLE, "leftover").env("F", &file));
        command.args(["-m", "--propagation", "private", "sh", "-c"]);
        command.arg("mount --bind \"$F\" /proc/uptime && exec \"$0\"").arg(victim::exe());
        let output = command.output().unwrap();
        std::fs::remove_file(file).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{uptime:?}: {output:?}");
    }
    stage.close(Alone::Yes);
}

fn leftover() {
    let supervisor = Supervisor::builder().build().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 60 & exit 0"]).env_remove(ROLE);
    say(&command.supervisor(&supervisor).run().unwrap().leftovers.len().to_string());
}

/// Two trees of one name, of two users: root means its own.
#[cfg(feature = "cli")]
#[test]
#[serial]
fn kill_means_the_own_trees_of_a_name_unless_told_otherwise() {
    if !geteuid().is_root() {
        return skip("only root reaches other users' trees");
    }
    let Some(stage) = Stage::set() else { return };
    let said = |args: &[&str]| {
        let output = stage.tool(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let tree = || {
        let made = Supervisor::builder().base(stage.supervisor.path().unwrap()).build().unwrap();
        let mut command = made.command("sleep");
        let child = command.arg("60").name("web").spawn().unwrap();
        (child, made)
    };
    let ((own, mine), (other, theirs)) = (tree(), tree());
    std::os::unix::fs::chown(theirs.path().unwrap(), Some(65534), None).unwrap();
    assert_eq!(said(&["kill", "web"]).0, Some(0));
    assert!(own.wait_timeout(SOON).unwrap().is_some() && other.try_wait().unwrap().is_none());
    drop((own, mine));
    let (code, text) = said(&["kill", "web"]);
    assert!(code == Some(125) && text.contains("--all-users"), "{text}");
    let path = other.tree().path().unwrap().file_name().unwrap().to_str().unwrap();
    let partly = format!("{}/{path}", theirs.path().unwrap().file_name().unwrap().display());
    assert_eq!(said(&["kill", &partly]).0, Some(125));
    assert!(other.try_wait().unwrap().is_none());
    assert_eq!(said(&["kill", "--all-users", "web"]), (Some(0), String::new()));
    assert!(other.wait_timeout(SOON).unwrap().is_some());
    drop((other, theirs));
    let (other, theirs) = tree();
    std::os::unix::fs::chown(theirs.path().unwrap(), Some(65534), None).unwrap();
    let path = other.tree().path().unwrap().to_str().unwrap().to_owned();
    assert_eq!(said(&["kill", &path]), (Some(0), String::new()));
    assert!(other.wait_timeout(SOON).unwrap().is_some());
    drop((other, theirs));
    stage.close(Alone::Yes);
}

/// In a process of its own: there is one global supervisor.
fn global() {
    let made = || Supervisor::builder().containment(Containment::Keeper);
    let set = Supervisor::set_global(made()).unwrap();
    say(&format!("{:?}", Supervisor::global().unwrap().mechanism()));
    say(&Supervisor::set_global(made()).unwrap_err().to_string());
    set.close().unwrap();
    say(&format!("{:?}", Command::new("true").env_remove(ROLE).run().unwrap_err()));
    Supervisor::set_global(Supervisor::builder()).unwrap();
    let report = Command::new("true").env_remove(ROLE).run().unwrap();
    say(&format!("{:?}", report.mechanism));
    Supervisor::global().unwrap().close().unwrap();
}

#[test]
#[serial]
fn the_global_supervisor_is_set_once_until_it_is_closed() {
    let Some(stage) = Stage::set() else { return };
    let said = lines(actor(&stage, "global").spawn().unwrap());
    assert_eq!(said[0], "Keeper");
    assert!(said[1].contains("it was made before"), "{said:#?}");
    assert!(said[2].contains("it was closed") && said[3].contains("hint: "), "{said:#?}");
    assert_eq!(said[4], "Cgroup");
    stage.close(Alone::Yes);
}

#[cfg(feature = "cli")]
#[test]
#[parallel]
fn the_environment_says_what_holds_a_tree() {
    let Some(stage) = Stage::set() else { return };
    let run = |value: &str, more: &[&str]| {
        let mut tool = stage.tool(&["run", "--json", "-"]);
        let output = tool.args(more).arg("true").env("TIDY_PROCESS_CONTAINMENT", value).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (json["mechanism"].as_str().unwrap_or_default().to_owned(), error)
    };
    for (value, mechanism) in
        [("", "cgroup"), ("cgroup", "cgroup"), ("best-effort", "cgroup"), ("keeper", "keeper")]
    {
        assert_eq!(run(value, &[]).0, mechanism, "{value}");
    }
    assert_eq!(run("keeper", &["--containment", "cgroup"]).0, "cgroup");
    let (_, error) = run("docker", &[]);
    assert!(error.contains("TIDY_PROCESS_CONTAINMENT=\"docker\""), "{error}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_closed_supervisor_has_ended_everything_and_starts_nothing() {
    let Some(stage) = Stage::set() else { return };
    for containment in [Containment::Cgroup, Containment::Keeper] {
        let builder = Supervisor::builder().base(stage.supervisor.path().unwrap());
        let made = builder.containment(containment).build().unwrap();
        let root = made.path().to_owned();
        let spawn = |script| {
            let mut command = stage.sh(script);
            command.supervisor(&made).spawn().unwrap()
        };
        let child = spawn("sleep 60 & exec sleep 60");
        spawn("(setsid sleep 60 &); exec sleep 60").detach();
        let tree = (containment == Containment::Cgroup).then(|| made.tree("idle").unwrap());
        assert!(!stage.alive().is_empty());
        made.close().unwrap();
        assert!(stage.alive().is_empty(), "{:?}", stage.alive());
        assert!(root.is_none_or(|root| !root.exists()));
        made.close().unwrap();
        assert!(containment == Containment::Keeper || !made.is_guarded());
        let error = made.command("true").spawn().unwrap_err();
        assert!(error.to_string().contains("it was closed"), "{error}");
        assert!(error.hint().is_some());
        assert!(made.tree("late").is_err());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
        child.finish().unwrap();
        if let Some(tree) = tree {
            assert_eq!(tree.finish().unwrap().leftovers, []);
        }
        drop(made);
        stage.assert_clean("closed");
    }
    stage.close(Alone::No);
}

/// Spawns and the end meet: each spawn works and is ended, or is an error.
#[test]
#[serial]
fn closing_meets_spawning() {
    let Some(stage) = Stage::set() else { return };
    for round in 0..crate::support::rounds(20, 500) {
        let made = Supervisor::builder().base(stage.supervisor.path().unwrap()).build().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (stage, made) = (&stage, &made);
                scope.spawn(move || {
                    let mut command = stage.sh("sleep 60 & exec sleep 60");
                    command.supervisor(made).force_join(thread == 0);
                    let mut held = Vec::new();
                    while let Ok(child) = command.spawn() {
                        held.push(child);
                    }
                });
            }
            made.close().unwrap();
        });
        drop(made);
        stage.assert_clean(&format!("round {round}"));
    }
    stage.close(Alone::Yes);
}

/// The thread that reads a log is told of the end, though a fork holds its pipe open.
#[test]
#[serial]
fn a_fork_does_not_keep_a_log_from_ending() {
    let Some(stage) = Stage::set() else { return };
    assert_eq!(lines(actor(&stage, "log").spawn().unwrap()), ["\"hi\""]);
    stage.close(Alone::Yes);
}

fn log() {
    let supervisor = Supervisor::builder().build().unwrap();
    let log = tidy_process::Log::bounded(1000, 1000);
    let mut command = Command::new("sh");
    command.args(["-c", "echo hi; exec sleep 60"]).env_remove(ROLE).log(&log);
    let child = command.supervisor(&supervisor).spawn().unwrap();
    assert!(until(SOON, || log.tail(5).contains("hi")));
    let Some(copy) = fork() else {
        std::thread::sleep(SOON);
        end_copy();
    };
    child.finish().unwrap();
    say(&format!("{:?}", log.tail(5)));
    kill(copy, Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(copy, None).unwrap();
}

/// Ends without a teardown while there is no room for one process more, and leaves it so.
fn no_room() {
    use std::os::unix::process::CommandExt;

    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_NPROC, 40, 40).unwrap();
    assert!(Command::new("true").env_remove(ROLE).run().unwrap().status.success());
    // It takes every place that becomes free, for five seconds.
    let script = "import os, time
end = time.monotonic() + 5
while time.monotonic() < end:
    try:
        if os.fork() == 0:
            time.sleep(5); os._exit(0)
    except OSError:
        print('full', flush=True); time.sleep(0.0002)";
    let mut filler = StdCommand::new("python3");
    filler.args(["-c", script]).env_remove(ROLE).stdout(StdStdio::piped());
    let mut filler = filler.process_group(0).spawn().unwrap();
    let mut line = [0; 4];
    std::io::Read::read_exact(filler.stdout.as_mut().unwrap(), &mut line).unwrap();
    std::mem::forget(filler);
}

/// The global supervisor is not dropped at exit: what the guard does then needs no new process.
#[test]
#[serial]
fn a_run_root_goes_though_no_process_can_be_made() {
    use std::os::unix::process::CommandExt;
    if !geteuid().is_root() {
        return skip("only root can change users");
    }
    let Some(stage) = Stage::set() else { return };
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(stage.supervisor.path().unwrap(), open).unwrap();
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        std::os::unix::fs::chown(tree.path().unwrap().join(file), Some(54_322), Some(54_322))
            .unwrap();
    }
    let mut command = actor(&stage, "no room");
    tree.enroll(command.env("TIDY_PROCESS_PARENT", tree.path().unwrap()).uid(54_322).gid(54_322))
        .unwrap();
    let mut full = command.spawn().unwrap();
    drop(full.stdin.take());
    assert!(full.wait().unwrap().success());
    let left = || {
        let entries = std::fs::read_dir(tree.path().unwrap()).unwrap().flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    // Those that fill the room live for five seconds.
    assert!(until(std::time::Duration::from_secs(4), || left() == 0), "the run root is left");
    drop((command, full));
    tree.finish().unwrap();
    drop(tree);
    stage.close(Alone::Yes);
}
