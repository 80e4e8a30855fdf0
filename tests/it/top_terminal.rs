//! The terminal after `top`, and while it is stopped: as it was before. (After a panic:
//! `src/cli/top/screen.rs`.)

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::serial;

use crate::screen::{Screen, has_row};
use crate::support::{Alone, SOON, Stage, until};
use crate::top::{finish, is_alive, sleeper, top};

/// The modes of the terminal before `top`, and after it.
fn modes_are_as_before(screen: &Screen, how: &str) {
    screen.press(&["C-u"]);
    screen.enters("stty -a >$HERE/after; cmp $HERE/before $HERE/after && echo same modes");
    screen.becomes(&format!("the same modes after {how}"), |text| has_row(text, "same modes"));
    assert_eq!(screen.ask("#{alternate_on} #{cursor_flag}"), "0 1", "{how}");
}

#[test]
#[serial]
fn the_terminal_is_as_before_however_it_ends() {
    let Some(stage) = Stage::set() else { return };
    let child = sleeper(&stage, "tree");
    let ends: &[(&str, &str)] = &[
        ("kill -TERM $P", "143"),
        ("kill -INT $P", "130"),
        ("kill -HUP $P", "129"),
        ("kill -QUIT $P", "131"),
        ("q", "0"),
        ("C-c", "0"),
    ];
    for (how, status) in ends {
        let Some(screen) = top(&stage, (80, 24), "") else { return };
        screen.shows("tree");
        match how.strip_prefix("kill -") {
            Some(rest) => signal_top(&screen, rest.split(' ').next().unwrap()),
            None => screen.press(&[how]),
        }
        // What is typed before it has ended is for it.
        assert!(until(SOON, || screen.ask("#{alternate_on}") == "0"), "{how}");
        screen.enters("echo status $?");
        screen.says(&format!("status {status}"));
        modes_are_as_before(&screen, how);
        screen.close();
    }
    finish([child]);
    stage.close(Alone::Yes);
}

/// Sends a signal to the `top` in the pane.
pub(crate) fn signal_top(screen: &Screen, signal: &str) {
    let shell: i32 = screen.ask("#{pane_pid}").parse().unwrap();
    let children = format!("/proc/{shell}/task/{shell}/children");
    let pid = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let signal = format!("SIG{signal}").parse::<Signal>().unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[test]
#[serial]
fn the_terminal_is_the_shells_while_it_is_stopped() {
    let Some(stage) = Stage::set() else { return };
    let child = sleeper(&stage, "tree");
    let Some(screen) = top(&stage, (80, 24), "") else { return };
    for how in ["C-z", "TSTP", "STOP"] {
        screen.shows("tree");
        match how {
            "C-z" => screen.press(&["C-z"]),
            signal => signal_top(&screen, signal),
        }
        screen.shows("Stopped");
        if how != "STOP" {
            modes_are_as_before(&screen, how);
        }
        screen.enters("clear; fg");
        screen.shows("tidy-process top: ");
        // Keys are read as before.
        screen.types("?");
        screen.shows("any key goes back");
        screen.types("x");
        screen.hides("any key goes back");
    }
    screen.types("q");
    screen.becomes("the prompt", |text| text.trim_end().ends_with("prompt>"));
    modes_are_as_before(&screen, "fg and q");
    screen.close();
    finish([child]);
    stage.close(Alone::Yes);
}

/// The window is closed: it ends, and takes nothing with it.
#[test]
#[serial]
fn it_ends_with_its_terminal() {
    let Some(stage) = Stage::set() else { return };
    let child = sleeper(&stage, "tree");
    let Some(screen) = top(&stage, (80, 24), "") else { return };
    screen.close();
    assert!(until(SOON, || stage.alive().len() == 2), "{:?}", stage.alive());
    assert!(is_alive(&child));
    finish([child]);
    stage.close(Alone::Yes);
}
