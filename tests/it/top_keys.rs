//! The keys of `top`, by what they do to real trees.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command as StdCommand, Stdio as StdStdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::{parallel, serial};
use tidy_process::{Cause, Child};

use crate::screen::Screen;
use crate::support::{Alone, SOON, Stage, root_of, until};
use crate::top::{SIZES, choose, finish, is_alive, row, sleeper, top};
use crate::top_terminal::signal_top;

fn is_frozen(child: &Child) -> bool {
    let path = child.tree().path().unwrap().join("cgroup.events");
    fs::read_to_string(path).unwrap().contains("frozen 1")
}

#[test]
#[parallel]
fn keys_freeze_thaw_stop_and_kill_the_chosen_tree_alone() {
    let Some(stage) = Stage::set() else { return };
    for size in SIZES {
        let children = ["one", "two", "three"].map(|name| sleeper(&stage, name));
        let Some(screen) = top(&stage, size, "") else { return };
        choose(&screen, "two");
        screen.types("f");
        screen.shows("freeze two of");
        // Anything but y leaves it as it is.
        screen.press(&["Enter"]);
        screen.shows("not done");
        assert!(!is_frozen(&children[1]));
        screen.types("f");
        screen.shows("freeze two of");
        screen.types("y");
        assert!(until(SOON, || is_frozen(&children[1])), "it was not frozen");
        screen.becomes("the state", |text| {
            row(text, " two").is_some_and(|row| row.contains("frozen"))
        });
        assert!(!is_frozen(&children[0]) && !is_frozen(&children[2]));
        screen.types("t");
        screen.shows("thaw two of");
        screen.types("y");
        assert!(until(SOON, || !is_frozen(&children[1])), "it was not thawed");
        screen.types("k");
        screen.shows("kill two of");
        screen.types("y");
        assert!(until(SOON, || !is_alive(&children[1])), "it was not killed");
        assert!(is_alive(&children[0]) && is_alive(&children[2]));
        screen.press(&["Escape"]);
        choose(&screen, "three");
        screen.types("s");
        screen.shows("stop three of");
        screen.types("y");
        assert!(until(SOON, || !is_alive(&children[2])), "it was not stopped");
        assert!(is_alive(&children[0]));
        let [one, two, three] = children.map(|child| child.finish().unwrap());
        assert_eq!(two.cause, Cause::Signaled(Signal::SIGKILL as i32));
        assert_eq!(three.cause, Cause::Signaled(Signal::SIGTERM as i32));
        assert_ne!(one.cause, Cause::Exited);
        screen.close();
    }
    stage.close(Alone::No);
}

/// One that ignores the stop signal is killed once the grace is over, also where top has ended.
#[test]
#[parallel]
fn a_stop_kills_after_the_grace() {
    let Some(stage) = Stage::set() else { return };
    for quit in [false, true] {
        let child = stage.sh("trap '' TERM; sleep 60; sleep 60").name("deaf").spawn().unwrap();
        let Some(screen) = top(&stage, (80, 24), "--kill-after 3s") else { return };
        choose(&screen, "deaf");
        screen.types("s");
        screen.shows("stop deaf of");
        screen.types("y");
        screen.becomes("the state", |text| {
            row(text, " deaf").is_some_and(|row| row.contains("stopping"))
        });
        if quit {
            screen.types("q");
        }
        assert!(until(SOON, || !is_alive(&child)), "it was not killed: {}", screen.text());
        let report = child.finish().unwrap();
        assert_eq!(report.cause, Cause::Signaled(Signal::SIGKILL as i32));
        screen.close();
    }
    stage.close(Alone::No);
}

/// So does a stop by the owner, which is shown.
#[test]
#[parallel]
fn a_tree_that_its_owner_stops_is_shown_as_stopping() {
    let Some(stage) = Stage::set() else { return };
    let deaf = "trap '' TERM; sleep 60; sleep 60";
    for ends in ["timeout", "signal"] {
        let time = if ends == "timeout" { "1s" } else { "60s" };
        let args = ["run", "--name", "deaf", "-t", time, "-k", "30s", "sh", "-c", deaf];
        let Some(screen) = top(&stage, (80, 24), "") else { return };
        let mut owner = stage.tool(&args).stderr(StdStdio::null()).spawn().unwrap();
        screen.shows(" deaf");
        if ends == "signal" {
            kill(Pid::from_raw(owner.id().cast_signed()), Signal::SIGTERM).unwrap();
        }
        screen.becomes("the state", |text| {
            row(text, " deaf").is_some_and(|row| row.contains("stopping"))
        });
        screen.close();
        owner.kill().unwrap();
        owner.wait().unwrap();
        assert!(until(SOON, || stage.cgroups() == 0));
    }
    stage.close(Alone::No);
}

/// What was confirmed is what dies: not a tree that has taken its place in the meantime.
#[test]
#[parallel]
fn a_tree_that_takes_the_place_of_another_is_not_the_one_that_was_confirmed() {
    let Some(stage) = Stage::set() else { return };
    let child = sleeper(&stage, "victim");
    let path = child.tree().path().unwrap().to_owned();
    let Some(screen) = top(&stage, (80, 24), "") else { return };
    choose(&screen, "victim");
    screen.types("k");
    screen.shows("kill victim of");
    child.finish().unwrap();
    // Another one, of the same path.
    fs::create_dir(&path).unwrap();
    let mut other = StdCommand::new("sleep").arg("60").spawn().unwrap();
    fs::write(path.join("cgroup.procs"), other.id().to_string()).unwrap();
    screen.types("y");
    screen.shows("killed victim");
    // Longer than a kill takes.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(other.try_wait().unwrap(), None, "the other one was killed");
    // A question about the new one is about the new one.
    screen
        .becomes("the new one", |text| row(text, " victim").is_some_and(|row| row.contains(" 1 ")));
    // The list may be a look old: then the key says that the first one has ended.
    screen.becomes("the question", |text| {
        if !text.contains("kill victim of") {
            screen.types("k");
            std::thread::sleep(Duration::from_millis(500));
        }
        text.contains("kill victim of")
    });
    screen.types("y");
    assert_eq!(other.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
    screen.close();
    assert!(until(SOON, || fs::remove_dir(&path).is_ok()));
    stage.close(Alone::No);
}

/// A tree that top froze goes on when top ends, unless it is told to leave it.
#[test]
#[serial]
fn no_tree_is_left_frozen_by_accident() {
    let Some(stage) = Stage::set() else { return };
    for (how, frozen) in [("TERM", false), ("HUP", false), ("qy", false), ("qn", true)] {
        let child = sleeper(&stage, "tree");
        let Some(screen) = top(&stage, (80, 24), "; echo ended") else { return };
        screen.shows("tree");
        screen.types("f");
        screen.shows("freeze tree of");
        screen.types("y");
        assert!(until(SOON, || is_frozen(&child)));
        screen.shows("1 frozen");
        match how.strip_prefix('q') {
            None => signal_top(&screen, how),
            Some(answer) => {
                screen.types("q");
                screen.shows("thaw the tree that you froze?");
                screen.types(answer);
            }
        }
        screen.says("ended");
        assert_eq!(is_frozen(&child), frozen, "{how}");
        if frozen {
            assert!(screen.text().contains("tree of"), "{}", screen.text());
            // Another top thaws it.
            screen.enters("clear; $T top");
            screen.shows("frozen");
            screen.types("t");
            screen.shows("thaw tree of");
            screen.types("y");
            assert!(until(SOON, || !is_frozen(&child)));
        }
        screen.close();
        finish([child]);
    }
    stage.close(Alone::Yes);
}

/// It ends as any other: by its owner, or when that is killed.
#[test]
#[serial]
fn a_frozen_tree_still_ends() {
    let Some(stage) = Stage::set() else { return };
    for dies in [false, true] {
        let mut command = stage.tool(&["run", "--name", "cold", "-t", "60", "sleep", "60"]);
        let Some(screen) = top(&stage, (80, 24), "") else { return };
        let mut owner = command.stderr(StdStdio::null()).spawn().unwrap();
        screen.shows(" cold");
        choose(&screen, "cold");
        screen.types("f");
        screen.shows("freeze cold of");
        screen.types("y");
        screen.shows("1 frozen");
        let signal = if dies { Signal::SIGKILL } else { Signal::SIGTERM };
        kill(Pid::from_raw(owner.id().cast_signed()), signal).unwrap();
        owner.wait().unwrap();
        screen.shows("0 trees");
        screen.close();
        stage.assert_clean(&format!("{signal}"));
    }
    stage.close(Alone::Yes);
}

/// One that top itself runs in is not frozen, nor killed from within.
#[test]
#[parallel]
fn it_is_no_victim_of_its_own() {
    let Some(stage) = Stage::set() else { return };
    let Some(screen) = Screen::shell(&stage, (80, 24)) else { return };
    let parent = root_of(&stage.supervisor).display().to_string();
    screen.enters(&format!("$T run --name around $T top --parent {parent}"));
    screen.shows("tidy-process top: ");
    screen.shows("around");
    for key in ["f", "k", "s"] {
        screen.types(key);
        screen.shows("runs in around of");
    }
    screen.types("q");
    screen.becomes("the prompt", |text| text.trim_end().ends_with("prompt>"));
    screen.close();
    stage.close(Alone::No);
}
