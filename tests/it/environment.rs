//! The environment that a command takes over, without a copy where the caller has one thread.
#![expect(unsafe_code, reason = "variables are set, and closures run before the exec")]

use std::process::Command as StdCommand;

use serial_test::parallel;
use tidy_process::{Command, Containment, Supervisor};

use crate::support::{Alone, SOON, Stage, until};
use crate::{load, victim};

#[test]
#[parallel]
fn each_command_gets_the_environment_as_it_is_at_its_spawn() {
    let Some(stage) = Stage::set() else { return };
    let mut command = StdCommand::new(victim::exe());
    command.env(load::WISH, "environments");
    stage.mark_std(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let all: Vec<&str> = said.lines().collect();
    let want = ["one", "one, not", "two", "two, not", ""];
    assert_eq!(all, want, "{}", String::from_utf8_lossy(&output.stderr));
    // Its guard removes its run root, after its end.
    assert!(until(SOON, || stage.cgroups() == 0));
    stage.close(Alone::No);
}

/// Where the child is a fork: this process's memory is as bad as glibc can make it once it is free.
#[test]
#[parallel]
fn a_handler_of_a_fork_that_sets_variables_does_no_harm() {
    let Some(stage) = Stage::set() else { return };
    for kept in ["", "1"] {
        let mut command = StdCommand::new(victim::exe());
        command.env(load::WISH, "environments forked").env("MALLOC_PERTURB_", "165");
        command.env("TIDY_KEPT", kept);
        stage.mark_std(&mut command);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"set\n", "{output:?}");
        assert!(output.status.success(), "{output:?}");
    }
    stage.close(Alone::No);
}

/// Spawns by fork, with a handler that moves the list of variables.
pub(crate) fn fork_meets_setenv() {
    let kept = std::env::var("TIDY_KEPT").unwrap() == "1";
    let containment = if kept { Containment::Keeper } else { Containment::Cgroup };
    let supervisor = Supervisor::builder().guard(false).containment(containment).build().unwrap();
    for number in 0..5 {
        // SAFETY: this process has one thread. From now on the list is in memory of malloc's.
        unsafe { std::env::set_var(format!("TIDY_EARLY{number}"), "early") };
    }
    // SAFETY: as above.
    unsafe { std::env::set_var("TIDY_SET", "set") };
    // SAFETY: a handler that lives for ever.
    assert_eq!(unsafe { libc::pthread_atfork(None, None, Some(fill_at_fork)) }, 0);
    let mut command = Command::new("sh");
    // Another group: so it is forked.
    command.args(["-c", "echo $TIDY_SET"]).gid(nix::unistd::getgid().as_raw());
    command.supervisor(&supervisor).run().unwrap();
}

extern "C" fn fill_at_fork() {
    fill_the_environment().unwrap();
}

/// Shows what commands get of an environment that changes between them; of its own this process has
/// one thread.
pub(crate) fn play() {
    let show = || Command::new("sh").args(["-c", "echo $TIDY_SET"]).run().unwrap();
    for value in ["one", "two"] {
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var("TIDY_SET", value) };
        show();
        let mut command = Command::new("sh");
        command.args(["-c", "echo $TIDY_SET, not $TIDY_LATE"]);
        // SAFETY: it runs in a copy of this process, which has one thread.
        unsafe { command.pre_exec(fill_the_environment) };
        command.run().unwrap();
    }
    // SAFETY: as above.
    unsafe { std::env::remove_var("TIDY_SET") };
    show();
}

/// Makes libc move the list of variables.
fn fill_the_environment() -> std::io::Result<()> {
    for number in 0..200 {
        // SAFETY: the process is a copy of one that has one thread.
        unsafe { std::env::set_var(format!("TIDY_LATE{number}"), "late") };
    }
    // SAFETY: as above.
    unsafe { std::env::set_var("TIDY_SET", "late") };
    Ok(())
}
