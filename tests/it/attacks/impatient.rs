//! Terminals where `top` is to end at once, or has no room.

use nix::sys::signal::Signal;
use serial_test::parallel;
use tidy_process::Cause;

use crate::support::{Alone, SOON, Stage, until};
use crate::top::{choose, finish, is_alive, sleeper, top};

/// A tree that was asked to stop has an hour, and `top` ends with it: unless it is interrupted.
#[test]
#[parallel]
fn top_waits_for_no_grace_once_it_is_interrupted() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.sh("trap '' TERM; sleep 60; sleep 60").name("deaf,aside").spawn().unwrap();
    let Some(screen) = top(&stage, (80, 24), "--kill-after 1h; echo ended $?") else { return };
    choose(&screen, "deaf,aside");
    screen.types("s");
    screen.shows("stop deaf,aside of");
    screen.types("y");
    screen.shows("stopping deaf,aside of");
    screen.types("q");
    assert!(until(SOON, || screen.ask("#{alternate_on}") == "0"), "{}", screen.text());
    assert!(is_alive(&child));
    screen.press(&["C-c"]);
    screen.shows("ended 0");
    assert!(until(SOON, || !is_alive(&child)), "it was not killed: {}", screen.text());
    assert_eq!(child.finish().unwrap().cause, Cause::Signaled(Signal::SIGKILL as i32));
    screen.close();
    stage.close(Alone::No);
}

/// One column and one row, and back, and more than there is memory for; each key and each foot is
/// drawn there.
#[test]
#[parallel]
fn top_draws_on_terminals_of_any_size() {
    let Some(stage) = Stage::set() else { return };
    let child = sleeper(&stage, "tree");
    let Some(screen) = top(&stage, (80, 24), "; echo ended $?") else { return };
    choose(&screen, "tree");
    for size in [(1, 1), (2, 1), (1, 2), (3, 4), (14, 3), (200, 2)] {
        screen.resize(size);
        for key in ["Enter", "?", "Down", "/", "x", "Escape", "o", "s", "n", "C-l", "End", "PPage"]
        {
            screen.press(&[key]);
        }
    }
    screen.press(&["Escape"]);
    screen.resize((80, 24));
    screen.shows("tidy-process top: ");
    screen.types("q");
    screen.says("ended 0");
    // What a terminal says of its size is what was said to it.
    screen.enters("stty columns 30000 rows 30000; $T top; echo so $?");
    assert!(until(SOON, || screen.ask("#{alternate_on}") == "1"), "{}", screen.text());
    screen.types("q");
    screen.says("so 0");
    screen.close();
    assert!(is_alive(&child));
    finish([child]);
    stage.close(Alone::No);
}
