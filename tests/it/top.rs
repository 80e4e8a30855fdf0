//! `top` in a real terminal: what it shows, at which cost.

use std::fs;
use std::process::{Command as StdCommand, Stdio as StdStdio};
use std::time::Duration;

use serial_test::{parallel, serial};
use tidy_process::{Child, Tree};

use crate::screen::Screen;
use crate::support::{Alone, SOON, Stage, root_of, until};

pub(crate) const SIZES: [(u16, u16); 2] = [(80, 24), (200, 60)];

/// A tree that lives for a minute.
pub(crate) fn sleeper(stage: &Stage, name: &str) -> Child {
    stage.sh("sleep 60; true").name(name).spawn().unwrap()
}

/// `top` in a shell, once it has shown its heading.
pub(crate) fn top(stage: &Stage, size: (u16, u16), options: &str) -> Option<Screen> {
    let screen = Screen::shell(stage, size)?;
    screen.enters(&format!("stty -a >$HERE/before; $T top {options}"));
    screen.shows("tidy-process top: ");
    Some(screen)
}

pub(crate) fn row(text: &str, name: &str) -> Option<String> {
    text.lines().find(|line| line.contains(name)).map(str::to_owned)
}

pub(crate) fn is_alive(child: &Child) -> bool {
    child.try_wait().unwrap().is_none()
}

pub(crate) fn finish(children: impl IntoIterator<Item = Child>) {
    children.into_iter().for_each(|child| drop(child.finish().unwrap()));
}

/// Moves the cursor to the tree with this name, which is the only one that the filter lets through.
pub(crate) fn choose(screen: &Screen, name: &str) {
    screen.types("/");
    screen.shows("filter: _");
    screen.enters(name);
    screen.shows(&format!("1 with \"{name}\""));
}

#[test]
#[serial]
fn every_tree_is_shown_with_what_it_uses() {
    let Some(stage) = Stage::set() else { return };
    let idle = sleeper(&stage, "idle");
    let busy = stage.sh("while :; do :; done").name("busy").spawn().unwrap();
    let server = stage
        .command("python3")
        .args(["-c", LISTENS])
        .name("server")
        .stdout(tidy_process::Stdio::piped())
        .spawn();
    let mut server = server.unwrap();
    crate::support::read_ready(server.stdout.take().unwrap());
    let port = server.tree().listening_ports().unwrap()[0].address.port().to_string();
    for size in SIZES {
        let Some(screen) = top(&stage, size, "") else { return };
        screen.becomes("CPU of the busy one, and the port", |text| {
            let cpu = row(text, " busy").and_then(|row| {
                row.split_whitespace()
                    .find_map(|word| word.parse::<f64>().ok().filter(|_| word.contains('.')))
            });
            cpu.is_some_and(|cpu| cpu > 5.0)
                && row(text, " server").is_some_and(|row| row.contains(&port))
        });
        let text = screen.text();
        let me = std::process::id().to_string();
        let row = row(&text, " idle").unwrap();
        assert!(row.contains(&me) && row.contains("running"), "{row}");
        assert!(row.contains(" 2 ") && row.contains(" 0.0 "), "{row}");
        assert!(text.contains("3 trees"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(size.0)));
        assert_eq!(text.lines().last().unwrap().trim(), FOOT);
        screen.press(&["q"]);
        screen.becomes("the prompt", |text| text.trim_end().ends_with("prompt>"));
        screen.close();
    }
    finish([idle, busy, server]);
    stage.close(Alone::Yes);
}

const FOOT: &str =
    "Enter fold  s stop  k kill  f freeze  t thaw  o order  / filter  ? help  q quit";

const LISTENS: &str = "import socket, time
s = socket.create_server(('127.0.0.1', 0))
print('ready', flush=True)
time.sleep(60)";

#[test]
#[parallel]
fn trees_are_unfolded_ordered_filtered_and_scrolled() {
    let Some(stage) = Stage::set() else { return };
    let many: Vec<Child> = (0..40).map(|n| sleeper(&stage, &format!("job{n:02}"))).collect();
    let busy = stage.sh("while :; do :; done").name("zz-busy").spawn().unwrap();
    for size in SIZES {
        let Some(screen) = top(&stage, size, "") else { return };
        screen.shows("41 trees, by start");
        screen.becomes("the first one", |text| text.lines().nth(2).unwrap().contains("job00"));
        screen.press(&["End"]);
        screen.shows("zz-busy");
        screen.press(&["Home", "Enter"]);
        screen.becomes("its processes", |text| {
            let lines: Vec<&str> = text.lines().collect();
            lines[2].contains("- job00")
                && lines[3].contains("sleep 60; true")
                && lines[4].contains("sleep 60")
                && lines[5].contains("job01")
        });
        screen.press(&["Enter"]);
        screen.becomes("folded", |text| text.lines().nth(3).unwrap().contains("job01"));
        // By name, age, processes, CPU.
        screen.types("oooo");
        screen.shows("by cpu");
        screen
            .becomes("the busy one first", |text| text.lines().nth(2).unwrap().contains("zz-busy"));
        screen.types("r");
        screen.shows("by cpu, reversed");
        screen.types("OOO");
        screen.shows("by name, reversed");
        screen.press(&["Home"]);
        screen.becomes("the last name first", |text| {
            text.lines().nth(2).unwrap().contains("zz-busy")
        });
        choose(&screen, "job07");
        assert!(!screen.text().contains("job08"));
        screen.press(&["Escape"]);
        screen.shows("job08");
        screen.types("?");
        screen.shows("freeze it: all its processes stand still");
        screen.types("x");
        screen.hides("freeze it: all its processes stand still");
        screen.press(&["C-c"]);
        screen.becomes("the prompt", |text| text.trim_end().ends_with("prompt>"));
        screen.close();
    }
    finish(many);
    finish([busy]);
    stage.close(Alone::No);
}

/// Down to one column and one row, and up again.
#[test]
#[parallel]
fn it_follows_the_size_of_the_terminal() {
    let Some(stage) = Stage::set() else { return };
    let children: Vec<Child> = (0..30).map(|n| sleeper(&stage, &format!("job{n:02}"))).collect();
    let Some(screen) = top(&stage, (80, 24), "") else { return };
    screen.press(&["End"]);
    for size in [(200, 60), (30, 10), (5, 3), (1, 1), (120, 2), (80, 24)] {
        screen.resize(size);
        let rows = || screen.text().lines().count();
        assert!(until(SOON, || rows() == usize::from(size.1)), "{size:?}: {} rows", rows());
        assert_eq!(screen.ask("#{alternate_on}"), "1", "{size:?}: it has ended");
    }
    screen.becomes("all of it again", |text| {
        text.contains("job29") && text.trim_end().ends_with("q quit")
    });
    screen.close();
    finish(children);
    stage.close(Alone::No);
}

/// Names and command lines that a terminal would obey, that are wide, long, or run the other way.
#[test]
#[parallel]
fn hostile_names_reach_no_terminal() {
    let Some(stage) = Stage::set() else { return };
    let names = [
        "a\x1b[2J\x1b]0;owned\x07b".to_owned(),
        "日本語".repeat(20),
        "\u{202e}live\u{202c}".to_owned(),
        "x".repeat(200),
        "tab\tbell\x07".to_owned(),
        "שלום".to_owned(),
        "e\u{301}\u{301}\u{301}\u{200b}".to_owned(),
    ];
    let script = "exec -a \"$(printf 'evil\\033[2J\\033]0;owned\\007\\nnext')\" sleep 60";
    let root = root_of(&stage.supervisor).to_owned();
    // The library refuses most of these names; one that has the run root makes what it likes.
    let made: Vec<_> = names
        .iter()
        .zip(1..)
        .map(|(name, number)| {
            let dir = root.join(format!("{number}-{name}"));
            fs::create_dir(&dir).unwrap();
            let process = StdCommand::new("bash").args(["-c", script]).spawn().unwrap();
            fs::write(dir.join("cgroup.procs"), process.id().to_string()).unwrap();
            (dir, process)
        })
        .collect();
    for size in SIZES {
        let Some(screen) = top(&stage, size, "") else { return };
        screen.shows("7 trees");
        for number in 0..names.len() {
            screen.press(&["Enter"]);
            screen.becomes("unfolded", |text| text.matches("  evil?[2J").count() == number + 1);
            screen.press(&["Down", "Down"]);
        }
        let text = screen.text();
        assert!(
            text.contains("+ a?[2J?]0;owned?b") || text.contains("- a?[2J?]0;owned?b"),
            "{text}"
        );
        assert!(text.contains("?live?") && text.contains("tab bell?"), "{text}");
        // Each row is in its place, the columns behind the names too.
        let rows: Vec<&str> = text.lines().filter(|row| row.contains("running")).collect();
        assert_eq!(rows.len(), 7, "{text}");
        assert!(text.lines().next().unwrap().starts_with("tidy-process top: 7 trees"), "{text}");
        assert_ne!(screen.ask("#{pane_title}"), "owned");
        // A question about it is quoted as well.
        screen.press(&["Home"]);
        screen.types("k");
        screen.shows("kill a?[2J?]0;owned?b of");
        screen.types("n");
        screen.close();
    }
    for (dir, mut process) in made {
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(until(SOON, || fs::remove_dir(&dir).is_ok()));
    }
    stage.close(Alone::No);
}

/// Colours on a terminal that is to have them.
#[test]
#[parallel]
fn colours_are_left_out_where_they_are_not_wanted() {
    let Some(stage) = Stage::set() else { return };
    let child = sleeper(&stage, "cold");
    child.tree().freeze().unwrap();
    for (setting, coloured) in [("", true), ("NO_COLOR=1", false)] {
        let Some(screen) = Screen::shell(&stage, (80, 24)) else { return };
        screen.enters(&format!("{setting} $T top"));
        screen.becomes("the state", |text| {
            row(text, " cold").is_some_and(|row| row.contains("frozen"))
        });
        let text = screen.colours();
        assert_eq!(text.contains("38;5;6m"), coloured, "{setting}: {text:?}");
        screen.close();
    }
    child.tree().thaw().unwrap();
    finish([child]);
    stage.close(Alone::No);
}

/// Without a terminal: one table, without escapes, and no key is read.
#[test]
#[parallel]
fn a_pipe_gets_one_snapshot() {
    let Some(stage) = Stage::set() else { return };
    let children = [sleeper(&stage, "one"), sleeper(&stage, "t\u{202e}wo")];
    let output = stage.tool(&["top"]).stdin(StdStdio::null()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("NAME") && !text.contains('\x1b'), "{text}");
    let me = std::process::id().to_string();
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!((words[0], words[1], *words.last().unwrap()), ("one", &*me, "running"), "{text}");
    assert!(lines[2].starts_with("t?wo "), "{text}");
    finish(children);
    stage.close(Alone::No);
}

/// The cost of looking at a thousand trees, by the CPU time that the kernel counts for `top`.
#[test]
#[serial]
fn a_thousand_trees_cost_little() {
    let Some(stage) = Stage::set() else { return };
    let trees: Vec<Tree> = (0..1000)
        .map(|n| Tree::within(&stage.supervisor, Some(&format!("tree{n}"))).unwrap())
        .collect();
    let mut sleepers = Vec::new();
    for tree in &trees {
        let mut command = StdCommand::new("sleep");
        command.arg("120");
        tree.enroll(&mut command).unwrap();
        sleepers.push(command.spawn().unwrap());
    }
    let Some(screen) = top(&stage, (200, 60), "--order cpu") else { return };
    screen.shows("1000 trees");
    let shell: i32 = screen.ask("#{pane_pid}").parse().unwrap();
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    let pid: u32 = children.trim().parse().unwrap();
    let used = || {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    // What the first looks cost is spread over the time after them.
    let (before, time) = (used(), Duration::from_secs(20));
    std::thread::sleep(time);
    let share = (used() - before).as_secs_f64() / time.as_secs_f64();
    println!("top with 1,000 trees: {:.2} % of a CPU", share * 100.0);
    assert!(share < 0.05, "{:.1} % of a CPU", share * 100.0);
    // A key is answered all the same.
    screen.press(&["End"]);
    screen.types("?");
    screen.shows("any key goes back");
    screen.close();
    trees.iter().for_each(|tree| tree.kill().unwrap());
    for sleeper in &mut sleepers {
        sleeper.wait().unwrap();
    }
    drop(trees);
    stage.close(Alone::Yes);
}
