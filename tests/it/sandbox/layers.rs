//! The layer of an overlay is memory, and is freed with what holds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serial_test::serial;
use tidy_process::{Command, Sandbox, Stdio};

use super::overlay::overlay_stage;
use super::{boxed, open_dir};
use crate::actor::actor;
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
