//! `tidy-process report`: one page of many reports, whatever stands in the directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Output;

use serial_test::parallel;

use super::Scratch;
use super::run::{out, said};
use crate::support::{Alone, SOON, Stage, tool, until};

fn report(stage: &Stage, dir: &Scratch) -> Output {
    stage.tool(&["report", dir.as_ref().to_str().unwrap()]).output().unwrap()
}

/// The row of a command, without its markup.
fn row(page: &str, command: &str) -> Vec<String> {
    let begin = page.find(&format!("<tr><td><code>{command}</code>")).expect(command);
    let row = &page[begin..begin + page[begin..].find("</tr>").unwrap()];
    let plain = |cell: &str| {
        let parts = cell.split('<').map(|part| part.split_once('>').map_or(part, |(_, it)| it));
        parts.collect::<Vec<_>>().join(" ").trim().to_owned()
    };
    row.split("<td").skip(1).map(|cell| plain(cell.split_once('>').unwrap().1)).collect()
}

#[test]
#[parallel]
fn runs_are_gathered_by_command() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let script = "sleep 60 & exit $(cat $D/status)";
    let variable = format!("D={}", dir.path("."));
    for (number, status) in ["0", "1", "0", "0"].iter().enumerate() {
        fs::write(dir.path("status"), status).unwrap();
        let json = dir.path(&format!("{number}.json"));
        let args = ["run", "-q", "-E", &variable, "--json", &json, "--", "sh", "-c", script];
        stage.tool(&args).output().unwrap();
    }
    let (events, results) = (dir.path("events.ndjson"), dir.path("results"));
    let args = ["pool", "-q", "--json", &events, "--results", &results, "--", "echo"];
    stage.tool(&[&args[..], &[":::", "a", "b"]].concat()).output().unwrap();
    let output = report(&stage, &dir);
    let page = out(&output);
    assert!(output.status.success(), "{}", said(&output));
    let cells = row(&page, "sh -c &#39;sleep 60 &amp; exit $(cat $D/status)&#39;");
    assert!(cells[0].contains("left  sleep 60"), "{cells:?}");
    assert_eq!(cells[1], "4");
    assert!(cells[2].starts_with('1') && cells[2].contains("1 × exit status 1"), "{cells:?}");
    assert_eq!((cells[3].as_str(), cells[8].as_str()), ("2 of 3", "4"), "{cells:?}");
    // From the events and from the report beside the output.
    assert_eq!(row(&page, "echo a")[1], "2");
    assert!(page.contains("<b class=\"bad\">1 failed"), "{page}");
    let file = dir.path("page.html");
    let path = dir.as_ref().to_str().unwrap();
    assert!(stage.tool(&["report", path, "-o", &file]).status().unwrap().success());
    assert_eq!(dir.read("page.html"), page);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn what_strangers_have_put_there_is_bounded_and_not_followed() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let write = |name: &str, text: &[u8]| fs::write(dir.path(name), text).unwrap();
    let hostile = "</code><script>alert(1)</script>\\u001b[31m\\u202e";
    write(
        "a.json",
        format!("{{\"v\":1,\"exit\":1,\"command\":[\"{hostile}\"],\"cause\":\"<i>\"}}").as_bytes(),
    );
    write("deep.json", ("[".repeat(1 << 20) + "\n").as_bytes());
    write("bytes.json", b"{\"exit\":0,\"command\":[\"\xff\"]}\n");
    write("odd.json", b"null\n7\n{\"exit\":-1,\"command\":[]}\n{\"exit\":0,\"command\":[7]}\n");
    let outside = Scratch::new();
    fs::write(outside.path("b.json"), "{\"v\":1,\"exit\":0,\"command\":[\"outside\"]}").unwrap();
    symlink(outside.path("b.json"), dir.path("link.json")).unwrap();
    symlink(outside.as_ref(), dir.path("linked")).unwrap();
    symlink(dir.as_ref(), dir.path("loop")).unwrap();
    symlink("/dev/zero", dir.path("zero.json")).unwrap();
    let fifo = std::ffi::CString::new(dir.path("fifo.json")).unwrap();
    nix::unistd::mkfifo(fifo.as_c_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A gigabyte of nothing, without an end of line.
    fs::File::create(dir.path("huge.json")).unwrap().set_len(1 << 28).unwrap();
    let deep = dir.path(&"d/".repeat(40));
    fs::create_dir_all(&deep).unwrap();
    fs::write(format!("{deep}/c.json"), "{\"v\":1,\"exit\":0,\"command\":[\"deep\"]}").unwrap();
    let output = report(&stage, &dir);
    let page = out(&output);
    assert!(output.status.success(), "{}", said(&output));
    assert!(page.contains("1 runs of 1 commands"), "{page}");
    assert!(!page.contains("<script") && !page.contains("<i>"), "{page}");
    assert!(!page.contains(['\u{1b}', '\u{202e}']) && !page.contains("outside"), "{page}");
    assert!(page.contains("lines or files are no report"), "{page}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn many_commands_are_counted_and_the_first_ones_shown() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let line = |number: u32| format!("{{\"v\":1,\"exit\":0,\"command\":[\"c{number}\"]}}\n");
    fs::write(dir.path("many.json"), (0..3000).map(line).collect::<String>()).unwrap();
    let output = report(&stage, &dir);
    let page = out(&output);
    assert!(page.contains("3000 runs of 2000 commands") && page.contains("1000 runs of other"));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_directory_without_reports_is_an_error() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let output = report(&stage, &dir);
    assert_eq!(output.status.code(), Some(125));
    assert!(said(&output).contains("no report in"), "{}", said(&output));
    let missing = stage.tool(&["report", &dir.path("missing")]).output().unwrap();
    assert!(said(&missing).contains("ENOENT"), "{}", said(&missing));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn directories_may_be_more_than_files_can_be_open() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let report = r#"{"v":1,"exit":0,"command":["x"],"wall_seconds":1.0}"#;
    for number in 0..200 {
        fs::create_dir(dir.path(&number.to_string())).unwrap();
        fs::write(dir.path(&format!("{number}/report.json")), report).unwrap();
    }
    let script = "ulimit -n 40; exec \"$0\" report \"$1\"";
    let mut command = std::process::Command::new("sh");
    stage.mark_std(&mut command);
    let output = command.args(["-c", script, tool()]).arg(dir.as_ref()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(row(&out(&output), "x")[1], "200");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn directories_that_are_left_out_are_counted() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let report = r#"{"v":1,"exit":0,"command":["x"],"wall_seconds":1.0}"#;
    let deep = dir.path(&["d"; 20].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(format!("{deep}/r.json"), report).unwrap();
    fs::write(dir.path("r.json"), report).unwrap();
    let page = out(&self::report(&stage, &dir));
    assert_eq!(row(&page, "x")[1], "1");
    assert!(page.contains("1 lines or files are no report"), "{page}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_file_that_is_longer_than_any_disk_is_not_read_to_its_end() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    fs::write(dir.path("r.json"), r#"{"v":1,"exit":0,"command":["x"]}"#).unwrap();
    // Hours, at some GiB in a second.
    fs::File::create(dir.path("sparse.json")).unwrap().set_len(1 << 43).unwrap();
    let path = dir.as_ref().to_str().unwrap();
    let mut report = stage.tool(&["report", path, "-o", "/dev/null"]).spawn().unwrap();
    // What is believed of holes is a GiB, which a debug build reads in seconds.
    let ended = until(SOON * 5, || report.try_wait().unwrap().is_some());
    report.kill().unwrap();
    assert!(ended && report.wait().unwrap().success());
    stage.close(Alone::No);
}
