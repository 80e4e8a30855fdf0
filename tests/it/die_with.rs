//! A command that ends when another process does, in the library.

use std::process::{Command as StdCommand, Stdio as StdStdio};
use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Cause, Command, Supervisor};

use crate::actor::{KEPT, actor};
use crate::support::{Alone, SOON, Stage, read_ready, until};

/// Sets a stage.
type Set = fn() -> Option<Stage>;

/// Runs a command to its end, in one of the ways that wait.
type Wait = fn(&mut Command) -> Cause;

/// Born in the cgroup, forked, and with a keeper.
fn on_every_path(check: impl Fn(&Stage, bool)) {
    let paths: [(Set, bool); 3] =
        [(Stage::set, false), (Stage::set, true), (Stage::of_keepers, false)];
    for (set, join) in paths {
        let Some(stage) = set() else { return };
        check(&stage, join);
        stage.close(Alone::Yes);
    }
}

fn sleeper() -> std::process::Child {
    StdCommand::new("sleep").arg("30").spawn().unwrap()
}

fn end(mut process: std::process::Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}

/// Ends the process once the command waits for it.
fn end_soon(process: std::process::Child) -> std::thread::JoinHandle<()> {
    std::thread::spawn(|| {
        // Nothing tells that a thread is about to sleep in poll(2).
        std::thread::sleep(Duration::from_millis(30));
        end(process);
    })
}

#[test]
#[serial]
fn a_command_ends_with_the_process_that_it_names() {
    on_every_path(|stage, join| {
        let waits: [(&str, Wait); 4] = [
            ("run", |command| command.run().unwrap().cause),
            ("output", |command| command.output().unwrap().report.cause),
            ("linger", |command| command.linger(true).run().unwrap().cause),
            ("linger, output", |command| command.linger(true).output().unwrap().report.cause),
        ];
        for (how, wait) in waits {
            let partner = sleeper();
            let mut command = stage.sh("sleep 30 & exec sleep 30");
            command.die_with(partner.id()).force_join(join);
            let ended = end_soon(partner);
            let start = Instant::now();
            assert_eq!(wait(&mut command), Cause::Stopped, "{how}");
            assert!(start.elapsed() < SOON, "{how}");
            ended.join().unwrap();
        }
    });
}

#[test]
#[serial]
fn what_lingers_behind_the_main_process_ends_with_it_too() {
    on_every_path(|stage, join| {
        let partner = sleeper();
        let mut command = stage.sh("sleep 30 & exit 3");
        command.die_with(partner.id()).linger(true).force_join(join);
        let child = command.spawn().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3));
        let ended = end_soon(partner);
        let report = child.wait_with_output().unwrap().report;
        assert_eq!((report.status.code(), report.cause), (Some(3), Cause::Stopped));
        ended.join().unwrap();
    });
}

#[test]
#[serial]
fn the_tree_has_its_grace() {
    on_every_path(|stage, join| {
        let partner = sleeper();
        let mut command = stage.sh("trap 'echo asked; exit 5' TERM; sleep 30 & wait");
        command.die_with(partner.id()).grace(SOON).force_join(join);
        let ended = end_soon(partner);
        let output = command.output().unwrap();
        // The shell may not have set its trap when the signal comes.
        if output.status.code() == Some(5) {
            assert_eq!(output.stdout, b"asked\n");
        }
        assert_eq!(output.report.cause, Cause::Stopped);
        ended.join().unwrap();
    });
}

#[test]
#[serial]
fn an_event_loop_has_the_fd_to_wait_for() {
    on_every_path(|stage, join| {
        let partner = sleeper();
        let mut command = stage.command("sleep");
        let child = command.arg("30").die_with(partner.id()).force_join(join).spawn().unwrap();
        assert!(child.partner_fd().is_some());
        assert_eq!(child.next_deadline(), None);
        end(partner);
        assert!(child.next_deadline().is_some_and(|at| at <= Instant::now()));
        child.enforce();
        assert!(child.partner_fd().is_none(), "it would be readable for ever");
        assert!(child.wait_timeout(SOON).unwrap().is_some());
        child.finish().unwrap();
    });
}

#[test]
#[serial]
fn what_has_ended_is_no_process_to_die_with() {
    on_every_path(|stage, join| {
        let mut gone = StdCommand::new("true").spawn().unwrap();
        // A zombie first, then none at all.
        let dead = || stage.command("true").die_with(gone.id()).force_join(join).spawn();
        assert!(until(SOON, || dead().is_err_and(|error| error.is_partner_gone())));
        gone.wait().unwrap();
        let error = stage.command("true").die_with(gone.id()).run().unwrap_err();
        assert!(error.is_partner_gone(), "{error}");
        assert_eq!(
            error.to_string(),
            format!("die with process {}: it has ended already", gone.id())
        );
        for never in [0, u32::MAX] {
            let error = stage.command("true").die_with(never).run().unwrap_err();
            assert!(
                !error.is_partner_gone() && error.to_string().starts_with("die with"),
                "{error}"
            );
        }
    });
}

#[test]
#[serial]
fn an_earlier_end_is_the_commands_own() {
    on_every_path(|stage, join| {
        let partner = sleeper();
        let mut command = stage.sh("exit 4");
        let child = command.die_with(partner.id()).force_join(join).spawn().unwrap();
        assert!(until(SOON, || stage.alive().is_empty()));
        end(partner);
        assert_eq!(child.wait().unwrap().code(), Some(4));
        assert_eq!(child.finish().unwrap().cause, Cause::Exited);
    });
}

/// Plays a program whose parent dies: see `actor`.
#[test]
#[serial]
fn a_supervisor_ends_its_commands_with_the_parent() {
    for kept in [false, true] {
        let Some(stage) = Stage::set() else { return };
        let played = actor(&stage, "die-with-parent");
        let mut middle = StdCommand::new("sh");
        middle.args(["-c", "\"$0\" & wait"]).arg(played.get_program());
        for (key, value) in played.get_envs() {
            if let Some(value) = value {
                middle.env(key, value);
            }
        }
        if kept {
            middle.env(KEPT, "1");
        }
        let mut middle = middle.stdout(StdStdio::piped()).spawn().unwrap();
        read_ready(middle.stdout.take().unwrap());
        assert!(stage.alive().len() >= 3, "{:?}", stage.alive());
        end(middle);
        assert!(until(SOON, || stage.alive().is_empty()), "kept: {kept}: {:?}", stage.alive());
        assert!(until(SOON, || stage.cgroups() == 0));
        stage.close(Alone::Yes);
    }
}

#[test]
#[serial]
fn a_supervisor_with_a_parent_is_as_any_other_while_that_lives() {
    let Some(stage) = Stage::set() else { return };
    let supervisor = Supervisor::builder().die_with_parent().build().unwrap();
    assert!(supervisor.command("true").status().unwrap().success());
    drop(supervisor);
    stage.close(Alone::Yes);
}
