//! The guard for tests: what they leave behind fails them, by name.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command as StdCommand;

use serial_test::parallel;
use tidy_process::{NoLeaks, Tree};

use crate::support::Stage;

/// None, loudly, where no cgroups can be made.
fn guard() -> Option<NoLeaks> {
    // The stage says why not.
    drop(Stage::set()?);
    Some(NoLeaks::new().unwrap())
}

/// What the guard panics with, if it does, and that nothing is left then.
fn verdict(guard: NoLeaks, test: impl FnOnce(&NoLeaks)) -> Option<String> {
    let root = guard.supervisor().path().unwrap().to_owned();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let guard = guard;
        test(&guard);
    }));
    assert!(!populated(&root), "something still lives below {root:?}");
    let panic = panic.err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap())
}

fn populated(root: &std::path::Path) -> bool {
    let events = std::fs::read_to_string(root.join("cgroup.events")).unwrap_or_default();
    events.contains("populated 1")
}

/// Leaves this behind, and ends when it has become what it is.
fn leaving(sleep: &str) -> String {
    format!("sleep {sleep} & until [ $(cat /proc/$!/comm) = sleep ]; do :; done")
}

fn sh(script: &str) -> StdCommand {
    let mut command = StdCommand::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
#[parallel]
fn a_test_that_leaves_nothing_passes() {
    let Some(guard) = guard() else { return };
    let said = verdict(guard, |tidy| {
        let mut command = sh("sleep 0.01 & wait");
        tidy.enroll(&mut command).unwrap();
        assert!(command.status().unwrap().success());
        assert!(tidy.command("true").status().unwrap().success());
        // Stopped while it ran, with its helper: nobody was left.
        drop(tidy.command("sh").args(["-c", "sleep 20 & sleep 20"]).spawn().unwrap());
    });
    assert_eq!(said, None);
}

#[test]
#[parallel]
fn what_is_left_alive_fails_the_test_by_name() {
    let Some(guard) = guard() else { return };
    let said = verdict(guard, |tidy| {
        let mut command = sh(&format!("{}; {}", leaving("27"), leaving("28")));
        tidy.enroll(&mut command).unwrap();
        assert!(command.status().unwrap().success());
    });
    let said = said.unwrap();
    assert!(said.starts_with("left behind by what started at tests/it/leaks.rs:"), "{said}");
    assert!(said.contains(" sleep 27 (parent ") && said.contains(" sleep 28 ("), "{said}");
    assert_eq!(said.lines().count(), 3, "{said}");
}

#[test]
#[parallel]
fn what_a_command_of_ours_left_fails_the_test_too() {
    let Some(guard) = guard() else { return };
    let mut kept = None;
    let said = verdict(guard, |tidy| {
        let script = leaving("29");
        assert!(tidy.command("sh").args(["-c", &script]).status().unwrap().success());
        let dropped = tidy.command("sh").args(["-c", &leaving("28")]).spawn().unwrap();
        assert!(dropped.wait().unwrap().success());
        drop(dropped);
        let tree = Tree::within(tidy.supervisor(), None).unwrap();
        kept = Some((tidy.command("sleep").arg("26").spawn().unwrap(), tree));
    });
    let said = said.unwrap();
    for left in ["26", "28", "29"] {
        assert!(said.contains(&format!(" sleep {left} (")), "{left}: {said}");
    }
}

#[test]
#[parallel]
fn a_test_that_panics_says_its_own_panic() {
    let Some(guard) = guard() else { return };
    let said = verdict(guard, |tidy| {
        let mut command = sh(&leaving("27"));
        tidy.enroll(&mut command).unwrap();
        command.status().unwrap();
        panic!("on purpose");
    });
    assert_eq!(said.as_deref(), Some("on purpose"));
}

#[test]
#[parallel]
fn check_says_it_without_a_panic() {
    let Some(tidy) = guard() else { return };
    let mut command = sh(&leaving("27"));
    tidy.enroll(&mut command).unwrap();
    command.status().unwrap();
    let left = tidy.check().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].command, ["sleep", "27"]);
}
