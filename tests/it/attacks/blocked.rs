//! Files that never open.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command as StdCommand, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, geteuid, mkfifo};
use serial_test::serial;

use crate::support::{Alone, SOON, Stage, rounds, skip, tool, until};

/// A directory of this test's own; goes with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidy-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn fifo(&self) -> String {
        let path = self.0.join("fifo");
        let _ = fs::remove_file(&path);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        path.display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Fails instead of hanging.
fn ends(child: Child, what: &str) -> (ExitStatus, Duration) {
    ends_in(SOON, child, what)
}

fn ends_in(patience: Duration, mut child: Child, what: &str) -> (ExitStatus, Duration) {
    let start = Instant::now();
    let mut status = None;
    let over = until(patience, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if !over {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("{what}: hangs");
    }
    (status.unwrap(), start.elapsed())
}

/// Every place where the tool opens what the caller has named.
fn openings(fifo: &str) -> Vec<(Vec<String>, &'static [&'static str])> {
    let run = |option: &str| vec!["run".to_owned(), "-q".to_owned(), format!("--{option}={fifo}")];
    let server = "sleep 30";
    let with = ["with", "-q", "--server", server, "--log", fifo].map(str::to_owned);
    let mut all: Vec<(Vec<String>, &'static [&'static str])> =
        ["stdin", "stdout", "stderr", "json"].map(|name| (run(name), &["true"][..])).to_vec();
    all.push((with.to_vec(), &["--", "true"]));
    all
}

fn start(stage: &Stage, args: &[String], more: &[&str], command: &[&str]) -> Child {
    let mut tool = stage.tool(&[]);
    tool.args(args).args(more).args(command);
    tool.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
#[serial]
fn a_timeout_is_in_force_while_a_fifo_is_opened() {
    let Some(stage) = Stage::set() else { return };
    let place = Place::new("fifo-timeout");
    for (args, command) in openings(&place.fifo()) {
        let tool = start(&stage, &args, &["-t", "0.3"], command);
        let (status, _) = ends(tool, &format!("{args:?}"));
        assert_eq!(status.code(), Some(124), "{args:?}: {status}");
        assert!(until(SOON, || stage.alive().is_empty()), "{args:?}: {:?}", stage.alive());
        stage.assert_clean(&format!("{args:?}"));
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_signal_ends_the_tool_while_a_fifo_is_opened() {
    let Some(stage) = Stage::set() else { return };
    let place = Place::new("fifo-signal");
    for (number, (args, command)) in openings(&place.fifo()).into_iter().enumerate() {
        let signal = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP][number % 3];
        let tool = start(&stage, &args, &[], command);
        // Nothing announces that it is about to open the file.
        std::thread::sleep(Duration::from_millis(200));
        kill(Pid::from_raw(tool.id().cast_signed()), signal).unwrap();
        let (status, _) = ends(tool, &format!("{args:?}"));
        assert_eq!(status.signal(), Some(signal as i32), "{args:?}: {status}");
        assert!(until(SOON, || stage.alive().is_empty()), "{args:?}: {:?}", stage.alive());
        stage.assert_clean(&format!("{args:?}"));
    }
    stage.close(Alone::Yes);
}

/// The tool is killed: what opens for it goes too.
#[test]
#[serial]
fn a_tool_that_is_killed_while_it_opens_leaves_nobody() {
    let Some(stage) = Stage::set() else { return };
    let place = Place::new("fifo-kill");
    for (args, command) in openings(&place.fifo()) {
        let mut tool = start(&stage, &args, &[], command);
        // Its own run root, and what opens.
        assert!(until(SOON, || stage.alive().len() > 1), "{args:?}");
        tool.kill().unwrap();
        tool.wait().unwrap();
        assert!(until(SOON, || stage.alive().is_empty()), "{args:?}: {:?}", stage.alive());
    }
    assert!(until(SOON, || stage.cgroups() == 0));
    stage.close(Alone::Yes);
}

/// What could be opened before can be opened still.
#[test]
#[serial]
fn a_fifo_with_another_end_and_the_names_of_our_own_fds_work() {
    let Some(stage) = Stage::set() else { return };
    let place = Place::new("fifo-peer");
    let fifo = place.fifo();
    let args = ["run", "-q", "--stdin", &fifo, "--stdout", "/dev/stdout", "cat"];
    let tool = stage.tool(&args).stdout(Stdio::piped()).spawn().unwrap();
    fs::write(&fifo, "through").unwrap();
    let output = tool.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"through"[..]));

    let file = place.0.join("file");
    fs::write(&file, "old and longer").unwrap();
    let args = ["run", "-q", "--stdout", file.to_str().unwrap(), "echo", "new"];
    assert!(stage.tool(&args).status().unwrap().success());
    assert_eq!(fs::read_to_string(&file).unwrap(), "new\n");

    let missing = place.0.join("none/file");
    let args = ["run", "-q", "--stdin", missing.to_str().unwrap(), "true"];
    let output = stage.tool(&args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("none/file\": No such file or directory"), "{said}");
    stage.close(Alone::Yes);
}

/// A file system that never answers, in a mount namespace of its own: FUSE without its daemon's
/// part. `ask` makes the daemon take requests without an answer: then even SIGKILL does not end who
/// waits for one.
const SILENT: &str = r#"
import ctypes, os, struct, sys
place, takes = sys.argv[1], sys.argv[2] == 'takes'
fuse = os.open('/dev/fuse', os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
how = f'fd={fuse},rootmode=40000,user_id=0,group_id=0'.encode()
if libc.mount(b'silent', place.encode(), b'fuse', 0, how):
    sys.exit(77)
if os.fork() == 0:
    os.setsid()
    head = os.read(fuse, 1 << 17)
    size, opcode, unique = struct.unpack('IIQ', head[:16])
    body = struct.pack('IIIIHHII', 7, 31, 0, 0, 0, 0, 4096, 1) + bytes(32)
    os.write(fuse, struct.pack('IiQ', 16 + len(body), 0, unique) + body)
    while takes:
        try: os.read(fuse, 1 << 17)
        except OSError: break
    import time
    time.sleep(60)
    os._exit(0)
os.close(fuse)
os.execv(sys.argv[3], sys.argv[3:])
"#;

/// The tool, on a machine where `PLACE/x` never answers. The namespace ends with it.
fn silent(stage: &Stage, place: &Place, takes: &str, args: &[&str]) -> Child {
    let mut command = StdCommand::new("unshare");
    command.args(["-m", "--propagation", "private", "-p", "-f", "--kill-child", "--mount-proc"]);
    command.args(["python3", "-c", SILENT]).arg(&place.0).arg(takes).arg(tool()).args(args);
    stage.mark_std(&mut command);
    command.stdin(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
}

#[test]
#[serial]
fn a_file_system_that_does_not_answer_is_a_timeout() {
    if !geteuid().is_root() {
        return skip("only root can mount");
    }
    let Some(stage) = Stage::set() else { return };
    let place = Place::new("silent");
    let file = place.0.join("x").display().to_string();
    for takes in ["takes", "never"] {
        for args in [
            &["run", "-q", "-t", "0.3", "--stdin", &file, "true"][..],
            &["run", "-q", "-t", "0.3", "--json", &file, "true"],
            &["run", "-q", "-t", "0.3", "-C", &file, "true"],
            &["run", "-q", "-t", "0.3", "--force-join", "-C", &file, "true"],
            &["run", "-q", "-t", "0.3", "--containment=keeper", "-C", &file, "true"],
            &["run", "-q", "-t", "0.3", &file],
        ] {
            // A child that cannot be killed costs two teardowns, of its tree and of the run root,
            // ten seconds each.
            let opens = args.contains(&"--stdin") || args.contains(&"--json");
            if takes == "takes" && !opens && rounds(0, 1) == 0 {
                continue;
            }
            let tool = silent(&stage, &place, takes, args);
            let (status, took) = ends_in(2 * SOON, tool, &format!("{takes} {args:?}"));
            println!("{takes} {args:?}: {status} after {took:?}");
            if status.code() == Some(77) {
                return skip("no FUSE can be mounted here");
            }
            assert_eq!(status.code(), Some(124), "{takes} {args:?}: {status}");
            assert!(until(SOON, || stage.alive().is_empty()), "{args:?}: {:?}", stage.alive());
        }
    }
    assert!(until(SOON, || stage.cgroups() == 0));
    stage.close(Alone::Yes);
}
