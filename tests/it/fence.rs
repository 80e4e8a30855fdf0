//! A fence and all that stands round it: reports, plans, errors, nesting, programs of every day.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::{Command as StdCommand, Output};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::Value;
use serial_test::{parallel, serial};
use tidy_process::{Command, Containment, Level, Mechanism, Sandbox, Stdio, Supervisor, Tree};

use crate::actor::{ROLE, unshared};
use crate::attacks::succeeds;
use crate::support::{Alone, Stage, lacks, skip, tool};

/// A stage, where a fence can be made; else the test is skipped.
pub(crate) fn stage() -> Option<Stage> {
    let stage = Stage::set()?;
    may_be_made().then_some(stage)
}

/// Whether a fence can be made here (Linux 6.12). The error says so, and what to do.
pub(crate) fn may_be_made() -> bool {
    let Err(error) = Sandbox::fence().plan() else { return true };
    assert!(error.is_unconfinable() && error.hint().is_some(), "{error}");
    lacks("fence", &error.to_string());
    false
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(stage: &Stage, args: &[&str]) -> Output {
    stage.tool(args).output().unwrap()
}

#[test]
#[parallel]
fn a_report_says_the_level_and_the_mechanisms() {
    let Some(stage) = stage() else { return };
    for how in ["cgroup", "keeper"] {
        let output =
            run(&stage, &["run", "-v", "--fence", "--containment", how, "--json", "-", "true"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let level = &report["sandbox"]["level"];
        assert_eq!((output.status.code(), level.as_str()), (Some(0), Some("fence")), "{report}");
        let mechanisms = report["sandbox"]["mechanisms"].to_string();
        assert!(mechanisms.contains("landlock") && mechanisms.contains("seccomp"), "{report}");
        assert!(said(&output.stderr).contains("confined by a fence"), "{output:?}");
    }
    let plain: Value =
        serde_json::from_slice(&run(&stage, &["run", "--json", "-", "true"]).stdout).unwrap();
    assert!(plain.get("sandbox").is_none(), "{plain}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_plan_names_every_layer_and_runs_nothing() {
    let Some(stage) = stage() else { return };
    let flag = std::env::temp_dir().join(format!("tidy-plan-{}", std::process::id()));
    let touch = ["touch", flag.to_str().unwrap()];
    let output = run(&stage, &[&["run", "--fence", "--plan"], &touch[..]].concat());
    let text = said(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for word in ["fence\n", "no-new-privs", "landlock", "no writing below \"/proc\"", "ptrace"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let with = ["with", "--fence", "--plan", "--json", "-", "--server", "sleep 9"];
    let plan: Value = serde_json::from_slice(&run(&stage, &with).stdout).unwrap();
    assert_eq!(plan["plan"]["layers"].as_array().unwrap().len(), 6, "{plan}");
    assert_eq!(plan["plan"]["layers"][4]["properties"][0], "inside");
    assert!(!flag.exists(), "it was run");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn what_cannot_be_confined_is_not_run() {
    let Some(stage) = stage() else { return };
    let says = |args: &[&str], words: [&str; 2]| {
        let output = run(&stage, &[&["run", "--fence"], args, &["echo", "ran"]].concat());
        let text = said(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(125), &b""[..]), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    says(&["--deny-syscall", "frobnicate"], ["\"frobnicate\"", "no such system call"]);
    says(&["--delegate"], ["cannot leave its cgroup", "leave out --delegate"]);
    says(&["--keep-fd", "999"], ["--keep-fd 999", "not open when tidy-process was started"]);
    let dir = std::env::temp_dir().join(format!("tidy-fence-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let cases: [(&str, &[&str]); 2] =
        [("level = 'fence'\nhide = '/opt'", &[]), ("level = 'fence'", &["--hide", "/opt"])];
    for (text, options) in cases {
        fs::write(dir.join("fence.toml"), text).unwrap();
        let file = dir.join("fence.toml");
        let args = ["run", "--profile", file.to_str().unwrap()];
        let output = run(&stage, &[&args[..], options, &["echo", "ran"]].concat());
        let text = said(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(125), &b""[..]), "{text}");
        assert!(text.contains("hide in a fence: only the level sandbox"), "{text}");
    }
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}

/// Each step that a child takes to confine itself, and each of the preparation.
#[test]
#[serial]
fn every_step_that_fails_is_an_error_that_names_it() {
    let Some(stage) = stage() else { return };
    if StdCommand::new("strace").arg("-V").output().is_err() {
        return skip("strace is missing: apt-get install strace");
    }
    let steps = [
        ("landlock_create_ruleset", "EOPNOTSUPP", "landlock"),
        ("landlock_create_ruleset", "ENOSYS", "landlock"),
        ("landlock_add_rule", "ENOMEM", "landlock"),
        ("landlock_restrict_self", "EPERM", "landlock"),
        ("landlock_restrict_self", "E2BIG", "16 times"),
        ("seccomp", "EPERM", "seccomp"),
        ("seccomp", "EINVAL", "seccomp"),
        ("close_range", "ENOSYS", "close_range"),
        ("prlimit64", "EPERM", "prlimit"),
        ("capset", "EPERM", "capset"),
    ];
    for (call, errno, named) in steps {
        for path in [&[][..], &["--force-join"], &["--containment=keeper"]] {
            let mut command = StdCommand::new("strace");
            let inject = format!("inject={call}:error={errno}");
            // The guard closes fds too.
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject]).arg(tool());
            command.args(["run", "--fence", "--no-guard"]).args(path).args(["echo", "ran"]);
            stage.mark_std(&mut command);
            let output = command.output().unwrap();
            let (text, what) = (said(&output.stderr), format!("{call} {errno} {path:?}"));
            // A keeper closes by another way then.
            assert_eq!(output.status.code(), Some(125), "{what}: {text}");
            assert_eq!(said(&output.stdout), "", "{what}");
            assert!(text.contains("confine") && text.contains(named), "{what}: {text}");
            assert!(text.contains("hint: "), "{what}: {text}");
            stage.assert_clean(&what);
        }
    }
    stage.close(Alone::Yes);
}

#[test]
#[parallel]
fn a_supervisor_in_a_fence_says_what_to_do_or_takes_a_keeper() {
    let Some(stage) = stage() else { return };
    let nested = |inner: &[&str]| {
        let args = [&["run", "--fence", "--", tool(), "run"], inner, &["sh", "-c", "exit 7"]];
        run(&stage, &args.concat())
    };
    let refused = nested(&[]);
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    assert!(said(&refused.stderr).contains("this process is confined"), "{refused:?}");
    for how in [&["--containment=best-effort"][..], &["--containment=keeper", "--fence"]] {
        let kept = nested(how);
        assert_eq!(kept.status.code(), Some(7), "{how:?}: {kept:?}");
    }
    stage.close(Alone::No);
}

/// Without a fence a process of the same user ends the keeper, and with it what it holds.
#[test]
#[parallel]
fn a_keeper_cannot_be_killed_out_of_a_fence() {
    let Some(stage) = stage() else { return };
    let killing = |fence: &[&str]| {
        let script = ["sh", "-c", "kill -9 $PPID; echo $?; kill -STOP $PPID; echo $?"];
        run(&stage, &[&["run", "--containment=keeper"], fence, &script[..]].concat())
    };
    let output = killing(&[]);
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(said(&output.stderr).contains("was killed"), "{output:?}");
    let output = killing(&["--fence"]);
    assert_eq!((output.status.code(), &*said(&output.stdout)), (Some(0), "1\n1\n"), "{output:?}");
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_supervisor_confines_all_that_it_starts_and_nothing_else_comes_in() {
    let Some(stage) = stage() else { return };
    let fence = Sandbox::fence();
    for containment in [Containment::Cgroup, Containment::Keeper] {
        let builder = Supervisor::builder().containment(containment).sandbox(&fence);
        let supervisor = builder.build().unwrap();
        let status = ["-q", "^Seccomp:.*2$", "/proc/self/status"];
        let report = supervisor.command("grep").args(status).run().unwrap();
        assert!(report.success(), "{report:?}");
        assert_eq!(report.sandbox.map(|how| how.level), Some(Level::Fence));
        if report.mechanism == Mechanism::Cgroup {
            let tree = Tree::within(&supervisor, None).unwrap();
            let error = tree.enroll(&mut StdCommand::new("true")).unwrap_err();
            assert!(error.is_unconfinable() && error.hint().is_some(), "{error}");
            let mut stranger = StdCommand::new("sleep").arg("20").spawn().unwrap();
            assert!(tree.add(stranger.id()).unwrap_err().is_unconfinable());
            stranger.kill().unwrap();
            stranger.wait().unwrap();
            let error = supervisor.command("true").delegate(true).run().unwrap_err();
            assert!(error.is_unconfinable(), "{error}");
        }
        supervisor.close().unwrap();
    }
    drop(fence);
    stage.close(Alone::Yes);
}

/// The closures of the caller come before, and are not confined.
#[test]
#[serial]
fn a_fence_stands_on_every_path_of_a_spawn() {
    let Some(stage) = stage() else { return };
    let fence = Sandbox::fence();
    let confined = |command: &mut Command| {
        let output = command.sandbox(&fence).output().unwrap();
        assert_eq!(said(&output.stdout).trim(), "Seccomp:\t2", "{output:?}");
    };
    let grep = || {
        let mut command = stage.command("grep");
        command.args(["^Seccomp:", "/proc/self/status"]);
        command
    };
    confined(&mut grep());
    confined(grep().force_join(true));
    if nix::unistd::geteuid().is_root() {
        confined(grep().uid(65534).gid(65534));
    }
    let mut command = grep();
    // SAFETY: one call that allocates nothing.
    #[expect(unsafe_code, reason = "what is tested")]
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into))
    };
    confined(&mut command);
    drop((command, fence));
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn only_the_fds_that_are_named_are_there() {
    let Some(stage) = stage() else { return };
    let files = [0, 1].map(|_| {
        let file = fs::File::open("/etc/hostname").or_else(|_| fs::File::open("/etc/passwd"));
        let file = file.unwrap();
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        file
    });
    let listed = |fence: Option<&Sandbox>| {
        let mut command = stage.command("ls");
        command.args(["-1", "/proc/self/fd"]);
        fence.map(|fence| command.sandbox(fence));
        said(&command.output().unwrap().stdout)
    };
    let has = |text: &str, number: i32| text.lines().any(|line| line == number.to_string());
    let [one, other] = [&files[0], &files[1]].map(AsRawFd::as_raw_fd);
    let plain = listed(None);
    assert!(has(&plain, one) && has(&plain, other), "{plain}");
    // The listing itself is one more, with the lowest number.
    assert_eq!(listed(Some(&Sandbox::fence())).lines().count(), 4);
    let kept = listed(Some(&Sandbox::fence().inherit_fds([other])));
    assert!(has(&kept, other) && kept.lines().count() == 5, "{kept}");
    drop(files);
    stage.close(Alone::Yes);
}

/// The tool's own fds, whatever number they get, are not handed out.
#[test]
#[serial]
fn the_tool_keeps_what_it_was_given_and_nothing_of_its_own() {
    let Some(stage) = stage() else { return };
    let sh = |number: i32, given: &str| {
        let closed = "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-";
        let tool = format!("exec {} run -q --fence --keep-fd {number}", tool());
        let script = format!("{closed}; {tool} -- test -e /proc/self/fd/{number} {given}");
        let mut command = StdCommand::new("sh");
        stage.mark_std(command.args(["-c", &script]));
        command.output().unwrap()
    };
    for number in 3..10 {
        let output = sh(number, "");
        let text = said(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{text}");
        assert!(text.contains("not open when tidy-process was started"), "{text}");
    }
    let output = sh(7, "7</dev/null");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    stage.close(Alone::No);
}

/// A mount that comes later is found: nothing of the kernel's is written to by way of it.
#[test]
#[serial]
fn a_mount_that_comes_between_two_spawns_is_seen() {
    let Some(stage) = stage() else { return };
    if !nix::unistd::geteuid().is_root() {
        return skip("only root mounts");
    }
    let mut command = unshared(&stage, "fence-mounts", &[]);
    succeeds(&mut command, "in a mount namespace");
    stage.close(Alone::Yes);
}

pub(crate) fn play_mounts() {
    let dir = std::env::temp_dir().join(format!("tidy-fence-mounts-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let fence = Sandbox::fence();
    let mount = |args: &[&str]| {
        let mut command = StdCommand::new(args[0]);
        let status = command.args(&args[1..]).arg(&dir).env_remove(ROLE).status();
        assert!(status.unwrap().success(), "{args:?}");
    };
    let writes = |file: &str, fence: Option<&Sandbox>| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo 1 >{}", dir.join(file).display())]).env_remove(ROLE);
        fence.map(|fence| command.sandbox(fence));
        command.stderr(Stdio::null()).run().unwrap().success()
    };
    let refused = format!("no writing below {dir:?}");
    let is_refused = || fence.plan().unwrap().to_string().contains(&refused);
    assert!(writes("file", Some(&fence)) && !is_refused());
    mount(&["mount", "-t", "proc", "proc"]);
    assert!(writes("self/oom_score_adj", None), "it proves nothing");
    assert!(!writes("self/oom_score_adj", Some(&fence)) && is_refused());
    mount(&["umount"]);
    assert!(writes("file", Some(&fence)) && !is_refused());
    fs::remove_dir_all(&dir).unwrap();
}

/// Programs that use what a fence touches: threads, processes, shared memory, sockets, compilers.
#[test]
#[serial]
fn programs_of_every_day_run_in_a_fence() {
    let Some(stage) = stage() else { return };
    let dir = std::env::temp_dir().join(format!("tidy-programs-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let python = "import asyncio, multiprocessing as m, threading, socket, subprocess, tempfile\n\
        t = threading.Thread(target=lambda: None); t.start(); t.join()\n\
        async def f():\n  p = await asyncio.create_subprocess_exec('true'); return await p.wait()\n\
        assert asyncio.run(f()) == 0\n\
        assert m.Pool(2).map(abs, [-1, -2]) == [1, 2]\n\
        s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname())\n\
        assert subprocess.run(['sh', '-c', 'kill -9 $$']).returncode == -9\n\
        open('f', 'w').write('x'); print('fine')";
    let git = "git init -q . && \
        git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && \
        git clone -q . ../$(basename $PWD)/copy && echo fine";
    let cc = "printf 'int main(){return 0;}' >a.c && \
        printf 'a: a.c\\n\\tcc -o a a.c\\n' >Makefile && make -s && ./a && echo fine";
    let node = "require('child_process').execSync('true'); new (require('worker_threads').Worker)\
        ('require(\"fs\").writeFileSync(\"w\", \"x\")', {eval: true}).on('exit', () => \
        require('net').createServer().listen(0, '127.0.0.1', function () { this.close(); \
        console.log('fine') }))";
    let bash = "sleep 9 & kill %1; wait; cat <(echo a) >/dev/null; (ulimit -n 64); nice true; \
        mkfifo p && rm p && chmod 755 . && mv f g 2>/dev/null; echo fine";
    let programs = [
        ("python3", vec!["-c", python]),
        ("git", vec!["-c", git]),
        ("cc", vec!["-c", cc]),
        ("node", vec!["-e", node]),
        ("bash", vec!["-c", bash]),
    ];
    for (name, args) in programs {
        let there = StdCommand::new(name).arg("--version").output();
        if !there.is_ok_and(|output| output.status.success()) {
            skip(&format!("{name} is not installed"));
            continue;
        }
        let program = if ["git", "cc"].contains(&name) { "sh" } else { name };
        let mut command = stage.command(program);
        command.args(&args).current_dir(&dir).sandbox(&Sandbox::fence()).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!(said(&output.stdout), "fine\n", "{name}: {output:?}");
        assert!(output.status.success(), "{name}: {output:?}");
    }
    fs::remove_dir_all(&dir).unwrap();
    stage.close(Alone::Yes);
}
