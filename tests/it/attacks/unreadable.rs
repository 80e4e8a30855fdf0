//! What was killed is an entry, though `/proc` says nothing of it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command as StdCommand, Stdio};

use nix::unistd::geteuid;
use serde_json::Value;
use serial_test::parallel;

use super::{Measured, measured};
use crate::support::{Alone, SOON, Stage, skip, tool, until};
use crate::victim;

/// In a mount namespace of its own, after these commands.
fn within(stage: &Stage, preparation: &str, options: &[&str], command: &[&str]) -> StdCommand {
    let mut outer = StdCommand::new("unshare");
    let script = format!("{preparation} && exec \"$0\" \"$@\"");
    outer.args(["-m", "sh", "-c", &script, tool(), "run"]).args(options).arg("--").args(command);
    stage.mark_std(&mut outer);
    outer
}

fn said(seen: &Measured) -> Value {
    let json = seen.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(json).unwrap_or_else(|_| panic!("{seen:?}"))
}

fn code(seen: &Measured) -> Option<i32> {
    seen.status.and_then(|status| status.code())
}

const NO_PROC: &str = "mount -t tmpfs none /proc";

#[test]
#[parallel]
fn without_proc_a_leftover_is_an_entry() {
    let Some(stage) = Stage::set() else { return };
    if !geteuid().is_root() {
        return skip("only root mounts");
    }
    for how in [&[][..], &["--force-join"]] {
        let options = [&["--leaks=fail", "--json", "-"], how].concat();
        let command = ["sh", "-c", "sleep 20 & sleep 20 &"];
        let seen = measured(within(&stage, NO_PROC, &options, &command));
        assert_eq!(code(&seen), Some(123), "{seen:?}");
        assert!(seen.stderr.contains("killed 2 leftover processes: "), "{seen:?}");
        let report = said(&seen);
        assert_eq!(report["leftover_count"], 2);
        let left = &report["leftovers"][0];
        assert!(left["pid"].as_u64().unwrap() > 1);
        assert!(left.get("ppid").is_none() && left.get("running_seconds").is_none(), "{left}");
        let reason = left["missing"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("/proc does not say: No such file"), "{reason}");
        // Nobody is made up.
        let seen = measured(within(&stage, NO_PROC, &options, &["sh", "-c", "sleep 0.01 & wait"]));
        assert_eq!((code(&seen), &said(&seen)["leftover_count"]), (Some(0), &Value::from(0)));
    }
    stage.assert_clean("without /proc");
    stage.close(Alone::No);
}

/// The command may hide it too, from a supervisor of the same mount namespace.
#[test]
#[parallel]
fn a_command_that_covers_proc_hides_nobody() {
    let Some(stage) = Stage::set() else { return };
    if !geteuid().is_root() {
        return skip("only root mounts");
    }
    for mechanism in ["cgroup", "keeper"] {
        let how = format!("--containment={mechanism}");
        let script = format!("sleep 20 & {NO_PROC}");
        let options = ["--leaks=fail", &how, "--json", "-"];
        let seen = measured(within(&stage, ":", &options, &["sh", "-c", &script]));
        assert_eq!(code(&seen), Some(123), "{mechanism}: {seen:?}");
        assert_eq!(said(&seen)["leftovers"].as_array().unwrap().len(), 1, "{mechanism}");
    }
    stage.close(Alone::No);
}

/// A cgroup beside the stage's, which nobody but root may enter.
struct Base(PathBuf);

impl Base {
    fn new(stage: &Stage) -> Self {
        let above = stage.supervisor.path().unwrap().parent().unwrap();
        let dir = above.join(format!("tidy-test-user-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        // A process that has just ended may hold it for a moment.
        assert!(until(SOON, || fs::remove_dir(&self.0).is_ok()), "{:?} stays", self.0);
    }
}

#[test]
#[parallel]
fn a_leftover_that_hidepid_hides_from_an_ordinary_user_is_an_entry() {
    let Some(stage) = Stage::set() else { return };
    if !geteuid().is_root() {
        return skip("only root mounts");
    }
    let base = Base::new(&stage);
    let dir = base.0.display();
    let user = "setpriv --reuid=65534 --regid=65534 --clear-groups --";
    for option in ["hidepid=2", "hidepid=invisible", "hidepid=1"] {
        let script = format!(
            "chown 65534 {dir} {dir}/cgroup.procs && echo $$ >{dir}/cgroup.procs \
             && mount -t proc -o {option} proc /proc \
             && exec {user} \"$0\" run --parent {dir} --leaks=fail --json - -- \"$@\""
        );
        let exe = std::env::temp_dir().join(format!("tidy-secretive-{}", std::process::id()));
        fs::copy(victim::exe(), &exe).unwrap();
        let bin = exe.with_extension("tool");
        fs::copy(tool(), &bin).unwrap();
        let mut command = StdCommand::new("unshare");
        command.args(["-m", "sh", "-c", &script]).arg(&bin).arg(&exe);
        stage.mark_std(command.env("TIDY_VICTIM", "secretive"));
        let seen = measured(command);
        let _ = (fs::remove_file(&exe), fs::remove_file(&bin));
        assert_eq!(code(&seen), Some(123), "{option}: {seen:?}");
        let report = said(&seen);
        assert_eq!(report["leftover_count"], 1, "{option}: {report}");
    }
    drop(base);
    stage.close(Alone::No);
}

/// `cgroup.procs` has a 0 for a process that has no pid here.
#[test]
#[parallel]
fn a_leftover_of_another_pid_namespace_is_an_entry() {
    let Some(stage) = Stage::set() else { return };
    if !geteuid().is_root() {
        return skip("only root makes pid namespaces");
    }
    for also in ["", "sleep 20 & "] {
        let script = format!("{also}echo ready; read go");
        let mut command = StdCommand::new("unshare");
        command.args(["-p", "-f", "--mount-proc", tool(), "run", "--leaks=fail", "--json", "-"]);
        command.args(["--", "sh", "-c", &script]);
        stage.mark_std(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut inner = command.spawn().unwrap();
        let mut lines = BufReader::new(inner.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let mut stranger = StdCommand::new("sleep").arg("25").spawn().unwrap();
        let runs = fs::read_dir(stage.supervisor.path().unwrap()).unwrap().flatten();
        let run = runs.map(|entry| entry.path()).find(|path| path.is_dir()).unwrap();
        fs::write(run.join("0/cgroup.procs"), stranger.id().to_string()).unwrap();
        inner.stdin.take().unwrap().write_all(b"\n").unwrap();
        let report: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(inner.wait().unwrap().code(), Some(123), "{report}");
        let left = report["leftovers"].as_array().unwrap();
        assert!(left.iter().any(|process| process["pid"] == 0), "{report}");
        assert_eq!(report["leftover_count"], if also.is_empty() { 1 } else { 2 }, "{report}");
        let killed = until(SOON, || stranger.try_wait().unwrap().is_some());
        assert!(killed, "it was not killed");
    }
    stage.close(Alone::No);
}

/// A clock that a container, or somebody else, has put over the kernel's own.
#[test]
#[parallel]
fn an_impossible_uptime_is_no_panic() {
    let Some(stage) = Stage::set() else { return };
    if !geteuid().is_root() {
        return skip("only root mounts");
    }
    for uptime in ["-5.00 1.00", "1e300 1.00", "nan 0", "99999999999999999999.0 0", ""] {
        let fake = std::env::temp_dir().join(format!("tidy-uptime-{}", std::process::id()));
        fs::write(&fake, uptime).unwrap();
        let preparation = format!("mount --bind {} /proc/uptime", fake.display());
        let options = ["--leaks=report", "--json", "-"];
        let seen = measured(within(&stage, &preparation, &options, &["sh", "-c", "sleep 20 &"]));
        fs::remove_file(&fake).unwrap();
        assert_eq!(code(&seen), Some(0), "{uptime:?}: {seen:?}");
        let running = said(&seen)["leftovers"][0]["running_seconds"].as_f64().unwrap();
        assert!((0.0..20.0).contains(&running), "{uptime:?}: {running}");
    }
    stage.close(Alone::No);
}
