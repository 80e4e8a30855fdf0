//! Progress in a real terminal: the bar of `run -t`, and what `with` waits for.

use std::fs;
use std::time::Duration;

use serial_test::{parallel, serial};

use crate::screen::{Screen, has_row};
use crate::support::{Alone, SOON, Stage, until};

/// The bar, in the last row.
fn has_bar(text: &str) -> bool {
    text.lines().last().is_some_and(|row| row.contains(" of 1:00"))
}

fn rows(screen: &Screen) -> Vec<String> {
    screen.text().lines().map(|row| row.trim_end().to_owned()).collect()
}

/// Waits until no row has anything of a bar, and all rows scroll again.
#[track_caller]
fn is_gone(screen: &Screen) {
    screen.becomes("no bar", |text| !text.contains(" of 1:00") && !text.contains("=>"));
    let lower = || screen.ask("#{scroll_region_lower}");
    let last = (screen.ask("#{pane_height}").parse::<u32>().unwrap() - 1).to_string();
    assert!(until(SOON, || lower() == last), "row {} of {last} is the last to scroll", lower());
}

/// A burst of many lines is whole, and the bar is gone: wherever the cursor was.
#[test]
#[serial]
fn a_bar_goes_when_the_command_writes_and_no_line_is_spoilt() {
    let Some(stage) = Stage::set() else { return };
    let dir = std::env::temp_dir().join(format!("tidy-bar-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    for (round, above) in [0, 3, 40].into_iter().enumerate() {
        let Some(screen) = Screen::shell(&stage, (80, 24)) else { return };
        let go = dir.join(format!("go-{round}"));
        let script = format!(
            "until [ -e {} ]; do sleep 0.05; done; printf 'here'; seq 1 60; sleep 30",
            go.display()
        );
        screen.enters(&format!("clear; seq 1 {above}; $T run -t 60 sh -c \"{script}\""));
        screen.becomes("a bar", has_bar);
        // What is typed is echoed where the cursor is, not in the bar.
        screen.types("typed");
        screen.becomes("what is typed above the bar", |text| {
            has_bar(text) && text.lines().any(|line| line.trim_end() == "typed")
        });
        fs::write(&go, "").unwrap();
        is_gone(&screen);
        screen.says("60");
        let lines = screen.ask_all();
        let start = lines.iter().rposition(|line| line.ends_with("here1")).unwrap();
        let burst: Vec<String> = lines[start + 1..].iter().take(59).cloned().collect();
        let whole: Vec<String> = (2..=60).map(|number| number.to_string()).collect();
        assert_eq!(burst, whole, "{above} lines above");
        assert!(!lines.iter().any(|line| line.contains(" of 1:00")), "{lines:?}");
        screen.press(&["C-c"]);
        screen.becomes("the prompt", |text| text.trim_end().ends_with("prompt>"));
        screen.close();
    }
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::Yes);
}

/// A program that fills the screen, as it would be without us.
const FULL: &str = "import curses, time
time.sleep(3)
def fill(screen):
    while True:
        rows, columns = screen.getmaxyx()
        screen.erase()
        for row in range(rows):
            screen.addstr(row, 0, 'row %d of %d' % (row + 1, rows))
        screen.refresh()
        if screen.getch() == ord('q'):
            return
curses.wrapper(fill)
";

/// It has drawn its last row when the bar is found to be in its way.
#[test]
#[parallel]
fn a_program_that_fills_the_screen_after_a_while_has_all_of_it() {
    let Some(stage) = Stage::set() else { return };
    let Some(screen) = Screen::shell(&stage, (80, 24)) else { return };
    let script = format!("cat >$HERE/full.py <<'END'\n{FULL}END\nclear");
    script.lines().for_each(|line| screen.enters(line));
    for (program, whole) in [
        ("python3 $HERE/full.py", Some("row 24 of 24")),
        ("sh -c 'sleep 3; seq 100 | less'", Some(":")),
        // It wants each key, and writes line after line.
        ("python3 -c 'import time, tty; time.sleep(3); tty.setcbreak(0); print(1); input()'", None),
    ] {
        screen.enters(&format!("clear; echo above; $T run -t 60 {program}; echo status $?"));
        screen.becomes("a bar", has_bar);
        is_gone(&screen);
        match whole {
            Some(last) => {
                let is_last =
                    |text: &str| text.lines().last().is_some_and(|row| row.trim_end() == last);
                screen.becomes(last, |text| is_last(text) && text.lines().count() == 24);
                let alternate = screen.ask("#{alternate_on}");
                screen.types("q");
                // less may lose a key that comes with the news of another size.
                let is_over = || screen.text().contains("status 0");
                if !until(Duration::from_secs(3), is_over) {
                    screen.types("q");
                }
                screen.says("status 0");
                assert_eq!(alternate, "1", "{program}");
            }
            None => {
                screen.says("1");
                screen.enters("");
                screen.says("status 0");
            }
        }
        // It was left as it was before, without the bar, and says its size.
        is_gone(&screen);
        let rows = rows(&screen);
        assert_eq!(rows[0], "above", "{program}: {rows:?}");
        assert!(rows[1..].iter().all(|row| !row.contains("row ")), "{program}: {rows:?}");
        screen.enters("clear; stty size");
        screen.says("24 80");
    }
    screen.close();
    stage.close(Alone::No);
}

/// It has the terminal give back the bar that was there before, and was not seen to take each key.
#[test]
#[parallel]
fn a_screen_of_its_own_for_a_moment_brings_no_bar_back() {
    let Some(stage) = Stage::set() else { return };
    let Some(screen) = Screen::shell(&stage, (80, 24)) else { return };
    let moment = "sleep 3; printf \"\\033[?1049h\"; sleep .05; printf \"\\033[?1049l\"";
    screen.enters(&format!("clear; echo above; $T run -t 60 sh -c '{moment}'; echo status $?"));
    screen.becomes("a bar", has_bar);
    screen.says("status 0");
    is_gone(&screen);
    assert_eq!(rows(&screen)[0], "above");
    screen.close();
    stage.close(Alone::No);
}

/// One that has written in the first two seconds is not silent: it may want the whole screen.
#[test]
#[parallel]
fn a_command_that_has_written_has_no_bar() {
    let Some(stage) = Stage::set() else { return };
    let Some(screen) = Screen::shell(&stage, (80, 24)) else { return };
    screen.enters("$T run -t 60 sh -c 'echo started; sleep 4; echo ended'");
    let mut seen = false;
    screen.becomes("its end", |text| {
        seen = seen_bar(seen, text);
        has_row(text, "ended")
    });
    assert!(!seen, "a bar was shown");
    screen.close();
    stage.close(Alone::No);
}

fn seen_bar(seen: bool, text: &str) -> bool {
    seen || has_bar(text)
}

#[test]
#[parallel]
fn a_bar_leaves_for_job_control_and_for_the_end() {
    let Some(stage) = Stage::set() else { return };
    let Some(screen) = Screen::shell(&stage, (80, 24)) else { return };
    screen.enters("clear; $T run -t 60 sleep 50");
    screen.becomes("a bar", has_bar);
    screen.press(&["C-z"]);
    screen.shows("Stopped");
    is_gone(&screen);
    // In the background it does not come back: the terminal is another's.
    screen.enters("bg; sleep 3; echo slept");
    screen.says("slept");
    is_gone(&screen);
    screen.enters("clear; fg");
    // `fg` has written, but not the command.
    screen.becomes("a bar again", has_bar);
    screen.press(&["C-c"]);
    screen.becomes("the prompt", |text| text.trim_end().ends_with("prompt>"));
    is_gone(&screen);
    screen.close();
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_bar_follows_the_size_of_the_terminal() {
    let Some(stage) = Stage::set() else { return };
    let Some(screen) = Screen::shell(&stage, (80, 24)) else { return };
    screen.enters("clear; $T run -t 60 sleep 50");
    screen.becomes("a bar", has_bar);
    for size in [(120, 40), (60, 10), (80, 24)] {
        screen.resize(size);
        screen.becomes(&format!("a bar at {size:?}"), |text| {
            has_bar(text) && text.matches(" of 1:00").count() == 1
        });
        assert_eq!(rows(&screen).len(), usize::from(size.1));
    }
    // One that is too small for it.
    screen.resize((30, 4));
    is_gone(&screen);
    screen.press(&["C-c"]);
    screen.becomes("the prompt", |text| text.trim_end().ends_with("prompt>"));
    screen.close();
    stage.close(Alone::No);
}

/// Whatever is asked for: what reads a pipe reads no progress.
#[test]
#[parallel]
fn nothing_is_shown_in_a_pipe_or_where_it_is_not_wanted() {
    let Some(stage) = Stage::set() else { return };
    let args = ["run", "--progress=always", "-t", "60", "sleep", "3"];
    let output = stage.tool(&args).env("TERM", "xterm").output().unwrap();
    assert_eq!((output.status.code(), output.stdout, output.stderr), (Some(0), vec![], vec![]));
    for options in ["--progress=never", "-q", "-v"] {
        let Some(screen) = Screen::shell(&stage, (80, 24)) else { return };
        screen.enters(&format!("clear; $T run {options} -t 60 sleep 4; echo ended"));
        let mut seen = false;
        screen.becomes("its end", |text| {
            seen = seen_bar(seen, text);
            has_row(text, "ended")
        });
        assert!(!seen, "{options}: a bar was shown");
        screen.close();
    }
    let Some(screen) = Screen::shell(&stage, (80, 24)) else { return };
    screen.enters("clear; $T run -q --progress=always -t 60 sleep 50");
    screen.becomes("a bar", has_bar);
    screen.close();
    stage.close(Alone::No);
}

/// Each server has a line that says what it is waited for, and none is left.
#[test]
#[parallel]
fn with_says_what_each_server_is_waited_for() {
    let Some(stage) = Stage::set() else { return };
    let dir = std::env::temp_dir().join(format!("tidy-waits-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let Some(screen) = Screen::shell(&stage, (100, 24)) else { return };
    let server =
        |name: &str| format!("--server 'sleep 60' --name {name} --ready file:{}", path(name));
    let line = format!(
        "clear; $T with --parallel {} {} -- sh -c 'echo up; exit 3'; echo status $?",
        server("db"),
        server("web")
    );
    screen.enters(&line);
    screen.becomes("a line for each", |text| {
        text.contains("waiting for db") && text.contains("waiting for web")
    });
    fs::write(path("db"), "").unwrap();
    screen.becomes("the other one alone", |text| {
        !text.contains("waiting for db") && text.contains("waiting for web")
    });
    fs::write(path("web"), "").unwrap();
    screen.shows("status 3");
    let rows = rows(&screen);
    let up = rows.iter().position(|row| row == "up").unwrap();
    assert!(!rows.iter().any(|row| row.contains("waiting for")), "{rows:?}");
    assert_eq!(rows[up + 1], "status 3", "{rows:?}");
    screen.close();
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::No);
}

/// Neither what the log has already nor a blank line is one that is awaited.
#[test]
#[parallel]
fn the_bar_of_a_pool_counts_what_is_to_be_run() {
    let Some(stage) = Stage::set() else { return };
    let Some(screen) = Screen::shell(&stage, (100, 24)) else { return };
    screen.enters("cd $HERE; printf 'true\\n\\n \\ntrue\\ntrue\\nsleep 50\\nsleep 51' >all");
    screen.enters("head -n 5 all | $T pool -q -j1 --joblog log; clear; echo status $?");
    screen.says("status 0");
    screen.enters("$T pool -j1 --joblog log --resume all");
    screen.becomes("a bar of two", |text| text.contains(" 0/2 "));
    screen.press(&["C-c"]);
    screen.shows("no more commands are started");
    // Until then it is the same request.
    std::thread::sleep(Duration::from_millis(300));
    screen.press(&["C-c"]);
    screen.becomes("the prompt", |text| text.trim_end().ends_with("prompt>"));
    screen.close();
    stage.close(Alone::No);
}
