//! The layer of an overlay is memory, and is freed with what holds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serial_test::serial;
use tidy_process::{Command, Sandbox, Stdio};

use super::overlay::overlay_stage;
use super::{boxed, open_dir};
use crate::actor::actor;
use crate::attacks::permissions::succeeds_as_ordinary;
use crate::attacks::succeeds;
use crate::support::{Alone, read_ready, until};

/// KiB of files in memory, on this machine.
fn shared() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let line = info.lines().find(|line| line.starts_with("Shmem:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

const KIB: u64 = 96 << 10;

fn filled(dir: &Path) -> (Sandbox, String) {
    let script = format!("dd if=/dev/zero of={}/big bs=1M count=96 2>&1", dir.display());
    (Sandbox::new().system().overlay(dir), script)
}

/// Others use the machine's memory too: half of it is enough to tell.
fn is_freed(before: u64) -> bool {
    until(Duration::from_secs(20), || shared() < before + KIB / 2)
}

#[test]
#[serial]
fn a_layer_is_gone_with_its_last_report() {
    let Some(stage) = overlay_stage() else { return };
    let dir = open_dir("freed");
    let (sandbox, script) = filled(&dir);
    let before = shared();
    let report = boxed(&stage, &script, &sandbox).run().unwrap();
    assert!(shared() > before + KIB / 2);
    let clone = report.clone();
    drop(report);
    assert_eq!(clone.changes[0].list().unwrap().count, 1);
    drop(clone);
    assert!(is_freed(before), "{} KiB are left", shared() - before);
    // Nor does a panic leave one, nor a child that was dropped.
    let caught = std::panic::catch_unwind(|| {
        let _report = boxed(&stage, &script, &sandbox).run().unwrap();
        panic!("on purpose");
    });
    assert!(caught.is_err() && is_freed(before));
    let child = boxed(&stage, &format!("{script}; sleep 60"), &sandbox).spawn().unwrap();
    drop(child);
    assert!(is_freed(before));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    fs::remove_dir(dir).unwrap();
    drop(sandbox);
    stage.close(Alone::Yes);
}

/// As an actor, with a report: another command of the same user looks for the layer among the fds
/// of this process. Without a fence it finds it.
pub(crate) fn play_fds() {
    let dir = open_dir("fds");
    let run = |script: &str, level: Option<&Sandbox>| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir("/").env_remove(crate::actor::ROLE);
        level.map(|level| command.sandbox(level));
        command.output().unwrap()
    };
    let make = format!("echo open-sesame >{}/within", dir.display());
    let overlay = Sandbox::new().system().overlay(&dir);
    let held = run(&make, Some(&overlay)).report;
    assert_eq!(held.changes[0].list().unwrap().count, 1);
    let boss = format!("/proc/{}/fd", std::process::id());
    let look = format!("for n in {boss}/* /proc/self/fd/*; do cat $n/within 2>/dev/null; done");
    let found = |level: Option<&Sandbox>| super::text(&run(&look, level)).contains("open-sesame");
    assert!(found(None), "it is not found without a fence, and proves nothing");
    let levels = [Sandbox::fence(), Sandbox::new().system(), overlay.clone()];
    for level in &levels {
        assert!(!found(Some(level)), "found in {level:?}");
    }
    // To write there too.
    let spoil = format!("for n in {boss}/*; do echo spoilt >$n/within; done 2>/dev/null");
    for level in &levels {
        run(&spoil, Some(level));
    }
    held.changes[0].commit().unwrap();
    assert_eq!(fs::read_to_string(dir.join("within")).unwrap(), "open-sesame\n");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
#[serial]
fn a_layer_is_out_of_reach_of_other_commands() {
    let Some(stage) = overlay_stage() else { return };
    succeeds(&mut actor(&stage, "overlay-fds"), "as this user");
    succeeds_as_ordinary(&stage, actor(&stage, "overlay-fds"));
    stage.close(Alone::Yes);
}

/// As an actor: says that it has a report, and waits to be killed.
pub(crate) fn hold() {
    let dir = PathBuf::from(std::env::var_os("TIDY_OVERLAY").unwrap());
    let (sandbox, script) = filled(&dir);
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir("/").sandbox(&sandbox).stdout(Stdio::null());
    let report = command.env_remove(crate::actor::ROLE).run().unwrap();
    assert_eq!(report.changes[0].list().unwrap().count, 1);
    println!("ready");
    std::thread::sleep(Duration::from_secs(60));
    drop(report);
}

#[test]
#[serial]
fn a_layer_is_gone_with_its_supervisor() {
    let Some(stage) = overlay_stage() else { return };
    let dir = open_dir("killed");
    let before = shared();
    let mut holder = actor(&stage, "overlay-held").env("TIDY_OVERLAY", &dir).spawn().unwrap();
    read_ready(holder.stdout.take().unwrap());
    assert!(shared() > before + KIB / 2);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(is_freed(before), "{} KiB are left", shared() - before);
    assert!(until(crate::support::SOON, || stage.cgroups() == 0));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    fs::remove_dir(dir).unwrap();
    stage.close(Alone::Yes);
}
