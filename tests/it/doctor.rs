//! `doctor` says the truth in every environment, and leaves it as it was.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use serial_test::{parallel, serial};

use crate::support::{Alone, SOON, Stage, lacks, skip, tool};

const CONTROLLERS: [&str; 5] = ["memory", "pids", "cpu", "io", "cpuset"];

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The capabilities that a JSON answer has.
fn capabilities(output: &Output) -> Value {
    let text = said(&output.stdout);
    let value: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text:?}, {}", said(&output.stderr)));
    assert_eq!(value["v"], 1, "{text}");
    value["capabilities"].clone()
}

fn state<'a>(all: &'a Value, name: &str) -> &'a str {
    all[name]["state"].as_str().unwrap_or_else(|| panic!("no {name} in {all}"))
}

fn assert_states(all: &Value, expected: &str, names: &[&str]) {
    for name in names {
        assert_eq!(state(all, name), expected, "{name}: {}", all[name]);
    }
}

fn text<'a>(all: &'a Value, name: &str, field: &str) -> &'a str {
    all[name][field].as_str().unwrap_or_default()
}

/// Runs a shell script in mount and cgroup namespaces of its own; `$T` is the tool, `$P` the base.
fn in_a_namespace(stage: &Stage, script: &str) -> Output {
    let mut command = Command::new("unshare");
    command.args(["-C", "-m", "--propagation", "private", "sh", "-c", script]);
    stage.mark_std(&mut command);
    command.env("T", tool()).env("P", stage.supervisor.path().unwrap()).output().unwrap()
}

#[test]
#[parallel]
fn what_works_is_told_by_trying_it() {
    let Some(stage) = Stage::set() else { return };
    let output = stage.tool(&["doctor", "--json"]).output().unwrap();
    assert_eq!((output.status.code(), said(&output.stderr).as_str()), (Some(0), ""));
    let all = capabilities(&output);
    let tried =
        ["cgroup2", "base", "create", "guard", "kill", "freeze", "clone", "keeper", "kernel"];
    assert_states(&all, "ok", &tried);
    assert_states(&all, "ok", &["sweep"]);
    let base = stage.supervisor.path().unwrap();
    assert_eq!(Path::new(text(&all, "base", "path")), base);
    assert!(text(&all, "base", "found").ends_with("named by TIDY_PROCESS_PARENT"));
    assert!(base.starts_with(text(&all, "cgroup2", "mount")));
    assert_eq!(all["namespace"]["first"], true);
    let offered = fs::read_to_string(base.join("cgroup.controllers")).unwrap();
    for name in CONTROLLERS {
        let is_offered = offered.split_whitespace().any(|word| word == name);
        assert_eq!(all[name]["offered"], is_offered, "{name}");
        assert!(is_offered || std::env::var_os("TIDY_CONTROLLERS").is_none(), "{name}");
        // The stage's run root is the caller's: what it is offered it may hand down.
        assert_eq!(all[name]["usable"], is_offered, "{name}: {}", all[name]);
        assert_eq!(state(&all, name), if is_offered { "ok" } else { "no" });
        assert_eq!(text(&all, name, "remedy").is_empty(), is_offered, "{name}");
    }
    let handed_down = fs::read_to_string(base.join("cgroup.subtree_control")).unwrap();
    assert_eq!(handed_down.trim(), "", "what was tried stays handed down");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_table_has_a_line_for_each_capability_and_one_below_each_gap() {
    let Some(stage) = Stage::set() else { return };
    let output = stage.tool(&["doctor"]).output().unwrap();
    let table = said(&output.stdout);
    let all = capabilities(&stage.tool(&["doctor", "--json"]).output().unwrap());
    let mut lines = table.lines().peekable();
    let (mut names, mut rows) = (Vec::new(), 0);
    while let Some(line) = lines.next_if(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let word = words.next().unwrap();
        // Controllers that lack the same are one line: `memory, pids, cpu  not offered in ...`.
        let mut row = vec![words.next().unwrap()];
        while let Some(more) = row.last().unwrap().strip_suffix(',') {
            *row.last_mut().unwrap() = more;
            row.push(words.next().unwrap());
        }
        assert!(row.iter().all(|name| word == state(&all, name)), "{line}");
        let remedy = lines.next_if(|line| line.starts_with("                -> "));
        assert!(remedy.is_some() || word != "no", "no remedy below: {line}");
        rows += 1;
        names.extend(row);
    }
    let first =
        ["cgroup2", "base", "scope", "create", "guard", "kill", "freeze", "clone", "keeper"];
    assert!(names.starts_with(&first), "{table}");
    assert_eq!(names.len(), all.as_object().unwrap().len(), "{table}");
    let gaps = CONTROLLERS.iter().filter(|name| state(&all, name) == "no").count();
    assert_eq!(rows, names.len() - gaps.saturating_sub(1), "equal gaps are one line: {table}");
    assert!(table.contains("\ntidy-process run works here; limits that need a controller: "));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn what_is_required_decides_the_exit_status() {
    let Some(stage) = Stage::set() else { return };
    let output = stage.tool(&["doctor", "--require", "create,kill,guard"]).output().unwrap();
    assert_eq!((output.status.code(), said(&output.stderr).as_str()), (Some(0), ""));
    let args = ["doctor", "--json", "--parent", "/tmp", "--require", "create,kernel,cgroup2"];
    let output = stage.tool(&args).output().unwrap();
    let lines = said(&output.stderr);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!((output.status.code(), lines.len()), (Some(1), 2), "{lines:?}");
    assert!(lines[0].starts_with("tidy-process: create is required: open cgroup base \"/tmp\":"));
    assert!(lines[0].contains("; hint: give a directory below the cgroup2 mount"), "{lines:?}");
    assert!(lines[1].starts_with("tidy-process: kernel is required: "), "{lines:?}");
    assert_states(&capabilities(&output), "no", &["base", "create"]);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn an_unknown_capability_is_refused_with_a_list_of_the_known() {
    for bad in ["kil", "kill,", "container", "kill memory"] {
        let mut command = Command::new(tool());
        let output = command.args(["doctor", "--require", bad]).output().unwrap();
        let error = said(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{bad}: {error}");
        assert!(error.contains("[possible values: cgroup2, base, scope, create,"), "{error}");
        assert_eq!(said(&output.stdout), "");
    }
}

/// As containers have it by default.
#[test]
#[parallel]
fn a_read_only_cgroupfs_is_told_with_what_to_type() {
    let Some(stage) = Stage::set() else { return };
    let script = "mount --bind \"$P\" \"$P\" && mount -o remount,bind,ro \"$P\" && \
        exec \"$T\" doctor --json --require kill";
    let output = in_a_namespace(&stage, script);
    let all = capabilities(&output);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output.stderr));
    assert!(said(&output.stderr).contains("kill is required: not tried: see create"));
    assert_states(&all, "no", &["create"]);
    assert_states(&all, "-", &["kill", "freeze", "clone", "guard", "memory", "kernel"]);
    assert!(text(&all, "create", "found").ends_with("(EROFS)"), "{all}");
    assert!(text(&all, "create", "remedy").contains("writable-cgroups=true"), "{all}");
    assert_eq!(all["namespace"]["first"], false);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn without_any_cgroup2_mount_doctor_says_so() {
    let Some(stage) = Stage::set() else { return };
    let script = "grep ' - cgroup2 ' /proc/self/mountinfo | cut -d' ' -f5 | while read -r m; do \
        umount -l \"$m\"; done; unset TIDY_PROCESS_PARENT; exec \"$T\" doctor --json";
    let output = in_a_namespace(&stage, script);
    let all = capabilities(&output);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    assert_states(&all, "no", &["cgroup2", "base", "create"]);
    assert!(text(&all, "cgroup2", "found").starts_with("not mounted"), "{all}");
    assert!(text(&all, "cgroup2", "remedy").contains("mount -t cgroup2"), "{all}");
    stage.close(Alone::No);
}

/// A chroot is like that. With a base given, all works.
#[test]
#[parallel]
fn without_proc_doctor_says_so() {
    let Some(stage) = Stage::set() else { return };
    let hide = "mount -t tmpfs none /proc && ";
    let script = format!("{hide} unset TIDY_PROCESS_PARENT; exec \"$T\" doctor --json");
    let all = capabilities(&in_a_namespace(&stage, &script));
    assert_states(&all, "no", &["cgroup2", "base", "create"]);
    assert!(text(&all, "cgroup2", "remedy").contains("mount -t proc"), "{all}");
    assert!(text(&all, "base", "remedy").starts_with("/proc is not mounted here"), "{all}");
    let output = in_a_namespace(&stage, &format!("{hide} exec \"$T\" doctor --json"));
    let all = capabilities(&output);
    assert_states(&all, "no", &["cgroup2"]);
    assert_states(&all, "ok", &["base", "create", "guard", "kill", "freeze", "clone"]);
    stage.close(Alone::No);
}

/// Refused by the kernel's own entry, as a seccomp filter does it.
#[test]
#[serial]
fn where_clone3_is_refused_the_fallback_and_its_reason_are_told() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing: install the package strace");
    }
    let Some(stage) = Stage::set() else { return };
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", "inject=clone3:error=ENOSYS", tool()]);
    stage.mark_std(command.args(["doctor", "--json"]));
    let all = capabilities(&command.output().unwrap());
    assert_states(&all, "no", &["clone"]);
    assert!(text(&all, "clone", "found").starts_with("clone3 is refused"), "{all}");
    assert_states(&all, "ok", &["create", "guard", "kill", "freeze"]);
    stage.close(Alone::No);
}

/// The same for pidfds: the refused call has its name, in each message.
#[test]
#[serial]
fn where_pidfds_are_refused_the_call_is_named() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing: install the package strace");
    }
    let Some(stage) = Stage::set() else { return };
    for (call, errno) in [("pidfd_open", "ENOSYS"), ("pidfd_send_signal", "EPERM")] {
        let inject = format!("inject={call}:error={errno}");
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-e", &inject, tool()]);
        stage.mark_std(command.args(["doctor", "--json"]));
        let all = capabilities(&command.output().unwrap());
        assert_states(&all, "no", &["kernel"]);
        let found = text(&all, "kernel", "found");
        assert!(found.contains(&format!("; {call} is refused: ")), "{found}");
        assert!(text(&all, "kernel", "remedy").contains("seccomp profile"), "{all}");
    }
    let mut command = Command::new("strace");
    let inject = "inject=pidfd_open:error=EPERM";
    command.args(["-f", "-o", "/dev/null", "-e", inject, tool(), "run", "true"]);
    stage.mark_std(&mut command);
    let output = command.output().unwrap();
    let said = said(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.starts_with("tidy-process: open pidfd (pidfd_open) of this process"), "{said}");
    assert!(said.contains("hint: a seccomp filter refuses pidfd_open"), "{said}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn what_was_left_by_others_is_told_and_not_touched() {
    let Some(stage) = Stage::set() else { return };
    let mut run = stage.tool(&["run", "--no-guard", "sh", "-c", "echo ready; exec sleep 60"]);
    let mut run = run.stdout(Stdio::piped()).spawn().unwrap();
    crate::support::read_ready(run.stdout.take().unwrap());
    run.kill().unwrap();
    run.wait().unwrap();
    for _ in 0..2 {
        let all = capabilities(&stage.tool(&["doctor", "--json"]).output().unwrap());
        assert_eq!(state(&all, "sweep"), "no", "{all}");
        assert_eq!((all["sweep"]["processes"].as_u64(), stage.alive().len()), (Some(1), 1));
        assert!(Path::new(all["sweep"]["run_roots"][0].as_str().unwrap()).is_dir());
        assert_eq!(text(&all, "sweep", "remedy"), "tidy-process sweep");
    }
    assert!(stage.tool(&["sweep"]).status().unwrap().success());
    let all = capabilities(&stage.tool(&["doctor", "--json"]).output().unwrap());
    assert_states(&all, "ok", &["sweep"]);
    stage.close(Alone::No);
}

const NOBODY: u32 = 65534;

/// A shell of an ordinary user, in a directory where root alone may make cgroups.
fn shell_of_nobody(stage: &Stage, script: &str) -> Option<std::process::Child> {
    if !nix::unistd::geteuid().is_root() {
        lacks("users", "only root can change users");
        return None;
    }
    let passing = fs::Permissions::from_mode(0o755);
    fs::set_permissions(stage.supervisor.path().unwrap(), passing).unwrap();
    let mut shell = Command::new("sh");
    stage.mark_std(shell.args(["-c", script]));
    shell.uid(NOBODY).gid(NOBODY).env("T", tool());
    Some(shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
}

/// What doctor says is typed, and then it works.
#[test]
#[serial]
fn an_ordinary_user_without_systemd_is_told_what_root_has_to_type() {
    if Path::new("/run/systemd/system").exists() {
        return lacks("systemd", "this host has systemd; ci/systemd checks what is said then");
    }
    let Some(stage) = Stage::set() else { return };
    let script = "$T doctor --json; read -r go; unset TIDY_PROCESS_PARENT; $T run sh -c 'exit 7'; \
        echo \"{\\\"exit\\\":$?}\"";
    let Some(mut shell) = shell_of_nobody(&stage, script) else { return };
    let mut answers =
        serde_json::Deserializer::from_reader(shell.stdout.take().unwrap()).into_iter::<Value>();
    let Some(Ok(answer)) = answers.next() else {
        return skip("nobody cannot reach the tool");
    };
    let all = &answer["capabilities"];
    assert_states(all, "no", &["create"]);
    assert!(text(all, "create", "found").ends_with("(EACCES)"), "{all}");
    let remedy = text(all, "create", "remedy");
    let command = remedy.strip_prefix("as root: ").unwrap();
    let command = command.split(" (").next().unwrap();
    assert!(command.contains(&format!("echo {} >", shell.id())), "{command}");
    let for_good = format!("for good: tidy-process doctor --setup {NOBODY} --apply)");
    assert!(remedy.ends_with(&for_good), "{remedy}");
    let typed = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(typed.status.success(), "{command}: {}", said(&typed.stderr));
    drop(shell.stdin.take());
    let works = answers.next().unwrap().unwrap();
    shell.wait().unwrap();
    let dir = stage.supervisor.path().unwrap().join(format!("user-{NOBODY}"));
    // The guard has its exec behind it, and the directory is nobody's any more.
    let removed = crate::support::until(SOON, || fs::remove_dir(&dir).is_ok());
    assert!(removed, "{dir:?} is not empty");
    assert_eq!(works["exit"], 7);
    stage.close(Alone::No);
}

/// Trying a limit in a delegated cgroup hands controllers down and makes doctor step aside: none of
/// it stays.
#[test]
#[serial]
fn a_delegated_cgroup_is_as_before_when_doctor_has_ended() {
    let Some(stage) = Stage::set() else { return };
    let offered =
        fs::read_to_string(stage.supervisor.path().unwrap().join("cgroup.controllers")).unwrap();
    let dir = stage.supervisor.path().unwrap().join("mine");
    fs::create_dir(&dir).unwrap();
    for controller in offered.split_whitespace() {
        let file = stage.supervisor.path().unwrap().join("cgroup.subtree_control");
        fs::write(file, format!("+{controller}")).unwrap();
    }
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        std::os::unix::fs::chown(dir.join(file), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let script = "read -r go; unset TIDY_PROCESS_PARENT; exec $T doctor --json";
    let Some(mut shell) = shell_of_nobody(&stage, script) else { return };
    fs::write(dir.join("cgroup.procs"), shell.id().to_string()).unwrap();
    drop(shell.stdin.take());
    let output = shell.wait_with_output().unwrap();
    let left = fs::read_dir(&dir).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let left: Vec<_> = left.collect();
    let handed_down = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap();
    fs::remove_dir(&dir).unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(handed_down.trim(), "");
    if output.stdout.is_empty() {
        return skip("nobody cannot reach the tool");
    }
    let all = capabilities(&output);
    assert_states(&all, "ok", &["create", "kill", "freeze", "clone", "guard"]);
    for name in CONTROLLERS {
        let is_offered = offered.split_whitespace().any(|word| word == name);
        assert_eq!(state(&all, name), if is_offered { "ok" } else { "no" }, "{}", all[name]);
        assert_eq!(all[name]["enabled"], false);
    }
    stage.close(Alone::No);
}
