//! The environment that a command takes over, without a copy where the caller has one thread.
#![expect(unsafe_code, reason = "variables are set, and closures run before the exec")]

use std::process::Command as StdCommand;

use serial_test::parallel;
use tidy_process::Command;

use crate::support::{Alone, Stage};
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
    stage.close(Alone::No);
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
