//! In a job of Slurm: the tool stays where Slurm has put it, and its hints fit.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use serial_test::serial;
use tidy_process::cli_support;

use crate::conduct::said;
use crate::support::{SOON, Stage, lacks, skip, tool, until};

const JOB: &str = "SLURM_JOB_ID";

/// A unit of a systemd that is not there: a cgroup with a unit's name, outside of any run root.
struct Unit(PathBuf);

impl Unit {
    fn make() -> std::io::Result<Self> {
        let base = cli_support::find_base(None).unwrap();
        let path = base.join(format!("tidy-test-{}.scope", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        assert!(until(SOON, || fs::remove_dir(&self.0).is_ok() || !self.0.exists()));
    }
}

/// `/run/systemd/system`, and a busctl that says on standard error that it was asked.
const BOOTED: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/bin && \
    printf '#!/bin/sh\\necho asked >&2\\nexit 1\\n' >/run/bin/busctl && \
    chmod 755 /run/bin/busctl && echo $$ >\"$UNIT/cgroup.procs\" && \
    PATH=/run/bin:$PATH exec \"$TOOL\" run -v -- cat /proc/self/cgroup";

#[test]
#[serial]
fn no_scope_is_asked_for_in_a_job() {
    if !nix::unistd::geteuid().is_root() {
        return lacks("users", "only root can play a systemd");
    }
    let unit = match Unit::make() {
        Ok(unit) => unit,
        Err(error) => return skip(&format!("no cgroup beside the tests' own: {error}")),
    };
    let run = |job: Option<&str>| {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", BOOTED]);
        command.env("UNIT", &unit.0).env("TOOL", tool()).env_remove("TIDY_PROCESS_PARENT");
        match job {
            Some(job) => command.env(JOB, job),
            None => command.env_remove(JOB),
        };
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        output
    };
    let asked = |job| String::from_utf8_lossy(&run(job).stderr).contains("asked");
    assert!(asked(None), "the control: elsewhere a scope is asked for");
    assert!(asked(Some("")));
    assert!(!asked(Some("17")));
    let place = String::from_utf8(run(Some("17")).stdout).unwrap();
    assert!(place.contains(unit.0.file_name().unwrap().to_str().unwrap()), "{place}");
}

#[test]
#[serial]
fn the_hint_for_a_user_is_what_works_in_a_job() {
    if !nix::unistd::geteuid().is_root() {
        return lacks("users", "only root can change users");
    }
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap().parent().unwrap();
    let mut command = Command::new(tool());
    command.uid(65534).gid(65534).env(JOB, "17").env("TIDY_PROCESS_PARENT", base);
    match command.args(["run", "true"]).output() {
        Ok(output) => {
            let text = said(&output);
            assert_eq!(output.status.code(), Some(125), "{text}");
            assert!(text.contains("in this job of Slurm"), "{text}");
            assert!(text.contains("--containment best-effort"), "{text}");
            assert!(!text.contains("systemd-run") && !text.contains("let root"), "{text}");
            let mut kept = Command::new(tool());
            kept.uid(65534).gid(65534).env(JOB, "17").env("TIDY_PROCESS_PARENT", base);
            let kept = kept.args(["run", "--containment", "best-effort", "true"]).output().unwrap();
            assert!(kept.status.success(), "{}", said(&kept));
        }
        Err(error) => skip(&format!("nobody cannot reach the tool: {error}")),
    }
    stage.close(crate::support::Alone::No);
}
