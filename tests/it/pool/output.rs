//! What commands write: grouped, tagged, in order, in files.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use serial_test::parallel;

use super::Scratch;
use super::run::{exits, fed, lines, out, pool, said};
use crate::support::{Alone, Stage};

#[test]
#[parallel]
fn the_output_of_a_command_is_in_one_piece() {
    let Some(stage) = Stage::set() else { return };
    let script = "for i in 1 2 3 4 5; do echo {}; sleep 0.01; done; echo {} >&2";
    let args = ["-q", "-j4", "--", "sh", "-c", script, ":::", "a", "b", "c", "d"];
    let output = pool(&stage, &args);
    let lines: Vec<String> = out(&output).lines().map(str::to_owned).collect();
    assert!(lines.chunks(5).all(|five| five.iter().all(|it| *it == five[0])), "{lines:?}");
    assert_eq!((lines.len(), said(&output).lines().count()), (20, 4));
    // Ungrouped, it comes as it is written.
    let together = pool(&stage, &[&["--ungroup"], &args[..]].concat());
    let lines: Vec<String> = out(&together).lines().map(str::to_owned).collect();
    assert!(lines.len() == 20 && lines[..4] != ["a", "a", "a", "a"], "{lines:?}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn lines_are_tagged_and_no_tag_steers_a_terminal() {
    let Some(stage) = Stage::set() else { return };
    let args = ["-q", "--tag", "--", "printf", "x\ny"];
    let output = fed(&stage, &args, b"a\n\x1b[31mred\n");
    let text = out(&output);
    assert!(text.contains("a\tx\na\ty"), "{text:?}");
    assert!(!text.contains('\u{1b}') && text.contains("[31mred\tx\n"), "{text:?}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_order_is_kept_on_demand() {
    let Some(stage) = Stage::set() else { return };
    // The first one ends last.
    let script = "[ {} != 1 ] || sleep 0.3; echo {}; echo {} >&2";
    let numbers: Vec<String> = (1..=40).map(|number| number.to_string()).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let wanted = numbers.join("\n") + "\n";
    let base = ["-q", "-j4", "--keep-order", "--", "sh", "-c", script, ":::"];
    let output = pool(&stage, &[&base[..], &numbers].concat());
    assert_eq!((out(&output), said(&output)), (wanted.clone(), wanted));
    let output = pool(&stage, &[&base[1..2], &base[3..], &numbers].concat());
    assert_ne!(out(&output).lines().next(), Some("1"));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn results_are_files_of_each_command() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let results = dir.path("a/b");
    let args = ["-q", "--results", &results, "--", "sh", "-c", "echo {}; echo e{} >&2; exit {}"];
    let args = [&args[..], &[":::", "0", "3"]].concat();
    assert_eq!(exits(&stage, &args, 1), [""; 0]);
    assert_eq!((dir.read("a/b/1/stdout"), dir.read("a/b/2/stderr")), ("0\n".into(), "e3\n".into()));
    let report = dir.read("a/b/2/report.json");
    assert!(report.contains("\"exit\":3") && report.contains("\"v\":1"), "{report}");
    stage.close(Alone::No);
}

/// What stands in the place of a result is not followed, and not waited for.
#[test]
#[parallel]
fn results_go_through_no_link_and_no_fifo() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    fs::create_dir_all(dir.path("r/1")).unwrap();
    fs::write(dir.path("precious"), "precious").unwrap();
    symlink(dir.path("precious"), dir.path("r/1/stdout")).unwrap();
    fs::hard_link(dir.path("precious"), dir.path("r/1/report.json")).unwrap();
    let fifo = std::ffi::CString::new(dir.path("r/1/stderr")).unwrap();
    nix::unistd::mkfifo(fifo.as_c_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink(dir.path("elsewhere"), dir.path("r/2")).unwrap();
    fs::create_dir(dir.path("elsewhere")).unwrap();
    let results = dir.path("r");
    let args = ["-q", "--results", &results, "--", "echo", ":::", "x"];
    assert_eq!(exits(&stage, &args, 0), [""; 0]);
    assert_eq!((dir.read("precious"), dir.read("r/1/stdout")), ("precious".into(), "x\n".into()));
    // A directory that is a link is refused.
    let output = pool(&stage, &[&args[..], &["y"]].concat());
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert_eq!(fs::read_dir(dir.path("elsewhere")).unwrap().count(), 0);
    stage.close(Alone::No);
}

/// A reader that has seen enough ends the pool, and what runs.
#[test]
#[parallel]
fn a_reader_that_has_gone_ends_it() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.tool(&["pool", "-q", "-j2", "-k", "0.1", "--", "sh", "-c"]);
    command.args(["[ {} = 1 ] || sleep 60; echo {}", ":::", "1", "2", "3", "4"]);
    let mut tool = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(tool.stdout.take());
    let status = tool.wait().unwrap();
    assert_eq!(status.code(), Some(128 + 13), "{status}");
    stage.close(Alone::No);
}

/// A file may be told to be larger than any disk.
#[test]
#[parallel]
fn a_hostile_length_is_not_believed() {
    let Some(stage) = Stage::set() else { return };
    let mut command = stage.tool(&["pool", "-q", "--", "sh", "-c"]);
    command.args(["truncate -s 4E /dev/stdout; echo {}", ":::", "1"]);
    let mut tool = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = tool.stdout.take().unwrap();
    let (mut count, mut piece) = (0_u64, vec![0; 1 << 20]);
    loop {
        match stdout.read(&mut piece).unwrap() {
            0 => break,
            some => count += some as u64,
        }
    }
    assert!(tool.wait().unwrap().success() && count < 3 << 30, "{count}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_dry_run_prints_the_commands_and_runs_none() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let file = dir.path("made");
    let args = ["--dry-run", "--", "touch", &file, "{}", ":::", "a b", "-c"];
    let wanted = [format!("touch {file} 'a b'"), format!("touch {file} -c")];
    let said = lines(&pool(&stage, &args));
    assert_eq!(said, wanted);
    assert!(!dir.as_ref().join("made").exists());
    stage.close(Alone::No);
}
