//! `explain`: each kind of denial is told with what allows it, nothing is decided by it, and
//! nothing that a command does keeps it from its end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio as StdStdio;
use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Action, Command, Denied, Network, Report, Sandbox, Stdio, Supervisor};

use super::{boxed, open_dir, stage};
use crate::actor::{ROLE, actor};
use crate::attacks::permissions::succeeds_as_ordinary;
use crate::attacks::succeeds;
use crate::support::{Alone, marked, read_ready, until};

/// What a script is denied: `D` is the directory.
fn denied(supervisor: &Supervisor, sandbox: &Sandbox, dir: &Path, script: &str) -> Report {
    let mut command = Command::new("bash");
    command.args(["-c", script]).supervisor(supervisor).sandbox(sandbox).current_dir("/");
    command.env_remove(ROLE).env("D", dir).stderr(Stdio::null()).stdout(Stdio::null());
    command.run().unwrap()
}

fn remedies(report: &Report) -> BTreeMap<String, &Denied> {
    let of = |denied: &Denied| {
        let Denied { remedy, call, .. } = denied;
        remedy.clone().unwrap_or_else(|| (*call).to_owned())
    };
    report.denied.iter().map(|denied| (of(denied), denied)).collect()
}

/// Each way to change a directory `$D/NAME` that has a file `f` in it, and the words of calls of
/// which one is told.
const CHANGES: [(&str, &str, &str); 15] = [
    ("create", "echo >$D/create/new", "openat"),
    ("append", "echo >>$D/append/f", "openat"),
    ("mkdir", "mkdir $D/mkdir/new", "mkdir mkdirat"),
    ("unlink", "rm -f $D/unlink/f", "unlinkat"),
    ("rmdir", "rmdir $D/rmdir/d", "rmdir unlinkat"),
    ("rename", "mv $D/rename/f $D/rename/g", "rename renameat renameat2"),
    ("link", "ln $D/link/f $D/link/g", "link linkat"),
    ("symlink", "ln -s x $D/symlink/g", "symlink symlinkat"),
    ("mknod", "mkfifo $D/mknod/g", "mknod mknodat"),
    ("chmod", "chmod 600 $D/chmod/f", "fchmodat fchmodat2 chmod"),
    ("chown", "chown $(id -u) $D/chown/f", "fchownat chown"),
    ("truncate", "truncate -s 9 $D/truncate/f", "openat truncate"),
    ("time", "set_on time 'utime(f)'", "utimensat"),
    ("attribute", r#"set_on attribute "setxattr(f, 'user.x', b'y')""#, "setxattr"),
    ("less", r#"set_on less "removexattr(f, 'user.x', follow_symlinks=False)""#, "lremovexattr"),
];

/// As an actor: every kind of denial, as the user that it is.
pub(crate) fn play() {
    let supervisor = Supervisor::builder().build().unwrap();
    let dir = open_dir("explained");
    for (name, ..) in CHANGES {
        fs::create_dir_all(dir.join(name).join("d")).unwrap();
        fs::write(dir.join(name).join("f"), "x").unwrap();
    }
    let explained = Sandbox::new().system().explain();
    let seen = explained.clone().read_only(&dir);
    let all: Vec<&str> = CHANGES.iter().map(|(_, script, _)| *script).collect();
    let set_on = "set_on() { python3 -c \"import os; f = '$D/$1/f'; os.$2\"; }\n";
    let report = denied(&supervisor, &seen, &dir, &format!("{set_on}{}", all.join("\n")));
    let told = remedies(&report);
    for (name, _, calls) in CHANGES {
        let remedy = format!("--write {}/{name}", dir.display());
        let one = told.get(&remedy).unwrap_or_else(|| panic!("{remedy}: {:#?}", report.denied));
        let known = calls.split(' ').any(|call| call == one.call);
        assert!(known && one.action == Action::Write && one.pid > 1, "{one}");
        assert!(one.target.starts_with(&format!("{}/{name}/", dir.display())), "{one}");
    }
    assert_eq!(report.denied_count, report.denied.len(), "{:#?}", report.denied);
    // What is missing besides: in the view nothing of the directory, or what was named is enough.
    let report = denied(&supervisor, &explained, &dir, "cat $D/append/f; cat $D/append/none; :");
    let told = remedies(&report);
    let remedy = format!("--read {}/append", dir.display());
    assert_eq!(told.keys().collect::<Vec<_>>(), [&remedy], "{:#?}", report.denied);
    assert_eq!((told[&remedy].name.as_str(), told[&remedy].action), ("cat", Action::Read));
    let written = explained.clone().read_write(&dir);
    let report =
        denied(&supervisor, &written, &dir, "cat $D/append/f >$D/create/made; rm $D/*/made");
    assert_eq!(remedies(&report).keys().next(), None, "{:#?}", report.denied);
    network(&supervisor, &explained, &dir);
    refused(&supervisor, &explained, &dir);
    fenced(&supervisor, &dir);
    fs::remove_dir_all(&dir).unwrap();
}

fn network(supervisor: &Supervisor, explained: &Sandbox, dir: &Path) {
    let script = "exec 3<>/dev/tcp/127.0.0.1/9; exec 3<>/dev/tcp/192.0.2.1/443";
    let of = |network| {
        let sandbox = explained.clone().network(network);
        let report = denied(supervisor, &sandbox, dir, script);
        remedies(&report).into_keys().collect::<Vec<_>>()
    };
    let host = "--allow-host NAME, or --net host";
    assert_eq!(of(Network::None), [host, "--net loopback"]);
    assert_eq!(of(Network::Loopback), [host]);
    assert_eq!(of(Network::Forward(3128)), [host]);
}

fn refused(supervisor: &Supervisor, explained: &Sandbox, dir: &Path) {
    let script = "unshare -U true && exit 9; unshare -U true; echo $?";
    for sandbox in [explained.clone(), Sandbox::fence().explain()] {
        let report = denied(supervisor, &sandbox, dir, script);
        assert_eq!(report.status.code(), Some(0), "{report}");
        let told = remedies(&report);
        let one = told["--allow-syscall unshare"];
        let text = one.to_string();
        assert!(text.starts_with("unshare: new namespaces (unshare ") && one.times == 2, "{text}");
        assert!(text.contains("gives up the promise that it cannot leave its cgroup"), "{text}");
    }
    let more = explained.clone().deny_syscall("getpriority");
    let report = denied(supervisor, &more, dir, "nice -n 5 true");
    let one = report.denied.iter().find(|one| one.call == "getpriority").unwrap();
    assert!(one.remedy.is_none() && one.to_string().contains("--deny-syscall"), "{one}");
}

/// In a fence files are as they are, but for the kernel's own.
fn fenced(supervisor: &Supervisor, dir: &Path) {
    let script = "cat $D/append/f >$D/fenced; echo x >/proc/self/comm; rm $D/fenced; cat /nothing";
    for join in [false, true] {
        let mut command = Command::new("sh");
        command.args(["-c", script]).supervisor(supervisor).sandbox(&Sandbox::fence().explain());
        command.env_remove(ROLE).env("D", dir).stderr(Stdio::null()).force_join(join);
        let report = command.run().unwrap();
        let [one] = &report.denied[..] else { panic!("{:#?}", report.denied) };
        let text = one.to_string();
        assert!(text.starts_with("write /proc/self/comm (openat, sh "), "{text}");
        assert!(one.remedy.is_none() && text.contains("kernel's file systems"), "{text}");
    }
}

#[test]
#[serial]
fn every_kind_of_denial_is_told_with_what_allows_it() {
    let Some(stage) = stage() else { return };
    succeeds(&mut actor(&stage, "explain"), "as this user");
    succeeds_as_ordinary(&stage, actor(&stage, "explain"));
    stage.close(Alone::Yes);
}

const WORK: &str = "import os, subprocess, threading
d = os.environ['D']
def work(n):
    os.mkdir(f'{d}/{n}')
    for i in range(30):
        open(f'{d}/{n}/{i}', 'w').write(str(i))
        try: open('/opt/none')
        except OSError as e: assert e.errno == 2
    try: open('/usr/none', 'w')
    except OSError as e: open(f'{d}/{n}/errno', 'w').write(str(e.errno))
    subprocess.run(['sh', '-c', f'echo $((1+{n})) >{d}/{n}/sh; kill -9 $$'])
all = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in all]; [t.join() for t in all]
os._exit(len(os.listdir(d)))";

/// Threads and processes, files, refusals by errno, exit status.
#[test]
#[serial]
fn an_explained_command_does_what_it_does_without() {
    let Some(stage) = stage() else { return };
    let sandbox = Sandbox::new().system();
    let mut seen = Vec::new();
    for explained in [false, true] {
        let dir = open_dir("same");
        let named = sandbox.clone().read_write(&dir);
        let named = if explained { named.explain() } else { named };
        let mut command = stage.command("/usr/bin/python3");
        command.args(["-c", WORK]).sandbox(&named).current_dir("/").env("D", &dir);
        let report = command.run().unwrap();
        drop(command);
        let list = StdStdio::piped();
        let all = std::process::Command::new("grep")
            .args(["-r", ""])
            .current_dir(&dir)
            .stdout(list)
            .output()
            .unwrap();
        let mut lines: Vec<_> =
            String::from_utf8(all.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines.len(), 8 * 32, "{report}");
        seen.push((report.status, lines));
        fs::remove_dir_all(&dir).unwrap();
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0.code(), Some(8));
    drop(sandbox);
    stage.close(Alone::Yes);
}

/// One thread changes the path while others open it.
const TURNS: &str = "import ctypes, threading, os, sys
libc = ctypes.CDLL(None, use_errno=True)
buf = ctypes.create_string_buffer(b'/usr/bin/true', 64)
end = False
def turn():
    while not end:
        buf.value = b'/opt/../root/.x'; buf.value = b'/usr/bin/true'
t = threading.Thread(target=turn); t.start()
for n in range(3000):
    fd = libc.open(buf, 0)
    if fd >= 0: os.close(fd)
    libc.open(ctypes.c_void_p(8), 0)
    libc.open(ctypes.c_void_p(-1), 0)
end = True; t.join()";

#[test]
#[serial]
fn a_command_that_is_hostile_is_told_of_and_changes_nothing() {
    let Some(stage) = stage() else { return };
    let explained = Sandbox::new().system().explain();
    let python = |script: &str, dir: &Path, sandbox: &Sandbox| {
        let mut command = stage.command("/usr/bin/python3");
        command.args(["-c", script]).sandbox(sandbox).current_dir("/").env("D", dir);
        command.run().unwrap()
    };
    let dir = open_dir("hostile");
    assert_eq!(python(TURNS, &dir, &explained).status.code(), Some(0));
    // What a terminal obeys, and a long name.
    let name = format!("\x1b[31m\u{202e}\n{}", "x".repeat(200));
    fs::write(dir.join(&name), "").unwrap();
    let report =
        python("import os\nfor n in os.listdir(os.environ['D']): os.stat(n)", &dir, &explained);
    assert!(!report.success());
    let open = "import os
try: open(os.environ['D'] + '/\\x1b[31m\\u202e\\n' + 'x' * 200)
except OSError: pass";
    let report = python(open, &dir, &explained);
    let told: String = report.denied.iter().map(|one| format!("{one}|")).collect();
    assert!(told.contains("/?[31m??xxx") && !told.contains('\x1b'), "{told:?}");
    assert!(!told.contains(['\n', '\u{202e}']) && told.len() < 1000, "{told:?}");
    // Many of one kind, and many kinds.
    let many = "import os
for n in range(100000):
    try: os.mkdir(os.environ['D'] + f'/{n}')
    except OSError: pass";
    let start = Instant::now();
    let report = python(many, &dir, &explained.clone().read_only(&dir));
    assert!(report.success() && report.denied_count == 1, "{:#?}", report.denied);
    assert!(report.denied[0].times > 1000, "{:#?}", report.denied);
    eprintln!("100000 denials: {:?}", start.elapsed());
    for number in 0..250 {
        fs::create_dir(dir.join(format!("d{number}"))).unwrap();
    }
    let kinds = "import os
for n in range(250):
    try: os.mkdir(os.environ['D'] + f'/d{n}/x')
    except OSError: pass";
    let report = python(kinds, &dir, &explained.clone().read_only(&dir));
    assert_eq!((report.denied.len(), report.denied_count), (100, 250), "{:#?}", report.denied);
    drop(explained);
    fs::remove_dir_all(&dir).unwrap();
    stage.close(Alone::Yes);
}

/// Many processes that are in a call at any time.
const BUSY: &str =
    "for n in 1 2 3 4; do (while :; do cat /opt/none; : >/usr/x; done 2>/dev/null) & done
    echo ready; wait";

#[test]
#[serial]
fn a_tree_in_the_middle_of_calls_ends_in_time() {
    let Some(stage) = stage() else { return };
    for sandbox in [Sandbox::new().system().explain(), Sandbox::fence().explain()] {
        for round in 0..8 {
            let mut command = boxed(&stage, BUSY, &sandbox);
            let mut child =
                command.force_join(round % 2 == 1).stdout(Stdio::piped()).spawn().unwrap();
            drop(command);
            read_ready(child.stdout.take().unwrap());
            if round % 4 == 1 {
                child.tree().freeze().unwrap();
            }
            let start = Instant::now();
            let report = child.finish().unwrap();
            assert!(!report.success(), "{report}");
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        }
    }
    stage.close(Alone::Yes);
}

/// As an actor: holds a busy tree until it is killed.
pub(crate) fn hold() {
    let supervisor = Supervisor::builder().build().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", BUSY]).supervisor(&supervisor).current_dir("/").env_remove(ROLE);
    let mut child =
        command.sandbox(&Sandbox::fence().explain()).stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    nix::unistd::write(std::io::stdout().as_fd(), b"ready\n").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
#[serial]
fn nothing_outlives_a_supervisor_that_is_killed() {
    let Some(stage) = stage() else { return };
    let mark = format!("explain-{}", std::process::id());
    let mut holder = actor(&stage, "explain-held").env("TIDY_MARK", &mark).spawn().unwrap();
    let mut ready = [0; 6];
    holder.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    assert!(!marked(&mark).is_empty());
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(until(Duration::from_secs(20), || marked(&mark).is_empty()), "{:?}", marked(&mark));
    stage.close(Alone::No);
}

#[test]
#[serial]
fn no_process_has_the_listener_and_exec_has_no_one_to_answer() {
    let Some(stage) = stage() else { return };
    for sandbox in [Sandbox::new().system().explain(), Sandbox::fence().explain()] {
        let fds = super::said(&stage, "ls -l /proc/self/fd", &sandbox);
        assert!(fds.contains(" 1 -> ") && !fds.contains("seccomp"), "{fds}");
        let plan = sandbox.plan().unwrap().to_string();
        assert!(plan.contains("seccomp-listener"), "{plan}");
        let report = boxed(&stage, "true", &sandbox).run().unwrap();
        assert!(report.sandbox.unwrap().mechanisms.contains(&"seccomp-listener"));
    }
    let error = stage.command("true").sandbox(&Sandbox::fence().explain()).exec();
    assert!(error.is_invalid_input() && error.to_string().contains("explain"), "{error}");
    let deaf = Sandbox::fence().explain().deny_syscall("sendmsg");
    assert!(deaf.plan().unwrap_err().is_invalid_input());
    let failing = Sandbox::new().system().explain().fail_at(21);
    let error = boxed(&stage, "true", &failing).run().unwrap_err();
    assert!(error.is_unconfinable() && error.to_string().starts_with("explain (lis"), "{error}");
    drop((deaf, failing));
    stage.close(Alone::Yes);
}
