//! What was recorded of real runs.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use serial_test::{parallel, serial};
use tidy_process::{Births, Cause, EventKind, Lane, Recording, Span};

use super::{Dir, json, said, tool, well_formed, with_word};
use crate::support::{Alone, SOON, Stage, recorders, until};

fn lasted(span: &Span) -> Duration {
    span.ended.unwrap().saturating_sub(span.born)
}

fn has(lane: &Lane, kind: EventKind) -> bool {
    lane.events.iter().any(|event| event.kind == kind)
}

#[test]
#[parallel]
fn a_run_is_recorded_with_its_processes_and_how_they_ended() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("known");
    let file = dir.file("run.json");
    let script =
        "sleep 0.31; (exit 3) & sh -c 'kill -TERM $$'; setsid -f sleep 71; sleep 0.32; exit 7";
    let output = tool(&stage, &["run", "--timeline", &file, "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    let timeline = json(&file);
    assert_eq!((&timeline["v"], &timeline["lane_count"]), (&1.into(), &1.into()));
    let lane = &timeline["lanes"][0];
    assert_eq!((&lane["cause"], &lane["status"]["code"]), (&"exited".into(), &7.into()));
    let main = lane["main"].as_u64().unwrap();
    for word in ["0.31", "0.32"] {
        let [sleep] = with_word(lane, word)[..] else { panic!("{word}: {lane}") };
        assert_eq!(sleep["ppid"], main);
        let lasted = sleep["ended"].as_f64().unwrap() - sleep["born"].as_f64().unwrap();
        assert!((0.25..10.0).contains(&lasted), "{sleep}");
        assert_eq!((&sleep["left"], &sleep["killed"]), (&false.into(), &false.into()));
    }
    let left = with_word(lane, "71").into_iter().find(|span| span["name"] == "sleep").unwrap();
    assert_eq!((&left["left"], &left["killed"]), (&true.into(), &true.into()));
    let events: Vec<_> = lane["events"].as_array().unwrap().iter().map(|it| &it["event"]).collect();
    assert!(events.contains(&&"main-ended".into()) && events.contains(&&"killed".into()));
    let samples = lane["samples"].as_array().unwrap();
    assert!(samples.len() > 3 && samples.iter().any(|row| row["processes"] == 2), "{lane}");
    assert!(samples.last().unwrap()["cpu_seconds"].as_f64().unwrap() > 0.0);
    if lane["births"] == "told" {
        let ends = lane["processes"].as_array().unwrap().iter().map(|span| &span["status"]);
        let ends: Vec<_> = ends.cloned().collect();
        assert!(ends.contains(&serde_json::json!({ "code": 3 })), "{lane}");
        assert!(ends.contains(&serde_json::json!({ "signal": 15 })), "{lane}");
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_timeout_its_signal_and_its_kill_are_on_the_axis() {
    let Some(stage) = Stage::set() else { return };
    let recording = Recording::new();
    let mut command = stage.sh("trap '' TERM; sleep 0.1; while :; do sleep 72; done");
    command.timeout(Duration::from_millis(200)).grace(Duration::from_millis(50));
    let report = command.record(&recording).run().unwrap();
    assert_eq!(report.cause, Cause::TimedOut);
    drop(command);
    let lane = recording.timeline().lanes.remove(0);
    for kind in [EventKind::TimedOut, EventKind::StopSignal(15), EventKind::Killed] {
        assert!(has(&lane, kind), "{kind:?}: {:?}", lane.events);
    }
    assert_eq!(
        (lane.cause, lane.limits.timeout),
        (Some(Cause::TimedOut), Some(Duration::from_millis(200)))
    );
    let main = lane.processes.iter().find(|span| span.pid == lane.main).unwrap();
    assert!(main.killed && main.status.is_some() && lasted(main) >= Duration::from_millis(200));
    stage.close(Alone::No);
}

/// Between two samples, all of them.
#[test]
#[parallel]
fn no_process_is_too_short_lived_where_the_kernel_tells() {
    let Some(stage) = Stage::set() else { return };
    let recording = Recording::new();
    let mut command = stage.sh("n=0; while [ $n -lt 200 ]; do n=$((n+1)); /bin/true; done");
    command.record(&recording).run().unwrap();
    drop(command);
    let lane = recording.timeline().lanes.remove(0);
    if lane.births == Births::Told {
        assert_eq!(lane.process_count, 201);
        assert!(lane.processes.iter().all(|span| span.ended.is_some() && span.status.is_some()));
    }
    assert!(lane.process_count >= 1 && lane.processes.iter().any(|span| span.pid == lane.main));
    stage.close(Alone::No);
}

/// A run of many processes is bounded, and says what was left out.
#[test]
#[parallel]
fn of_many_processes_the_important_ones_are_kept_and_the_others_counted() {
    let Some(stage) = Stage::set() else { return };
    let recording = Recording::new();
    let script = "sleep 73 & n=0; while [ $n -lt 5000 ]; do n=$((n+1)); (:); done";
    stage.sh(script).record(&recording).run().unwrap();
    let lane = recording.timeline().lanes.remove(0);
    assert!(lane.processes.len() <= 2000, "{}", lane.processes.len());
    assert!(lane.processes.iter().any(|span| span.left && span.command.contains(&"73".into())));
    let omitted: usize = lane.omitted.iter().map(|omitted| omitted.count).sum();
    assert_eq!(lane.processes.len() + omitted, lane.process_count);
    if lane.births == Births::Told && lane.gaps.is_empty() {
        assert_eq!(lane.process_count, 5002);
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn two_thousand_at_a_time_make_a_page_of_bounded_size() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("crowd");
    let page = dir.file("crowd.html");
    let script = "import os, time
for _ in range(2000):
    if os.fork() == 0:
        time.sleep(60)
time.sleep(0.3)";
    let output = tool(&stage, &["run", "-q", "--timeline", &page, "--", "python3", "-c", script]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    well_formed(&page);
    let text = fs::read_to_string(&page).unwrap();
    assert!(text.len() < 4 << 20, "{} bytes", text.len());
    let bars = text.matches("class=\"p\"").count();
    assert!((1900..=2000).contains(&bars), "{bars} bars");
    let count = text.split(" processes, ").next().and_then(|it| it.rsplit(' ').next());
    let count: usize = count.unwrap().parse().unwrap();
    // Where python3 is a script there are a few more.
    assert!((2001..2200).contains(&count) || text.contains("may be missing"), "{count}");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn what_processes_call_themselves_means_nothing_in_a_page() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("hostile");
    let script =
        b"sleep 0.2; : '</title></svg><script>alert(1)</script><!-- ]]> &amp; \x1b[2J \xff\xfe \
        \xe2\x80\xae \xef\xbf\xbf' \"\"; sleep 0.1";
    let script = std::ffi::OsStr::from_bytes(script);
    let long = "x".repeat(100_000);
    for name in ["a.html", "a.svg", "a.json"] {
        let file = dir.file(name);
        let mut tool =
            stage.tool(&["run", "-q", "--name", "<b>&", "--timeline", &file, "sh", "-c"]);
        let output = tool.arg(script).arg("<i onload=alert(2)>").arg(&long).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.len() < 300_000, "{name}: {} bytes", text.len());
        for c in text.chars() {
            assert!(!c.is_control() || c == '\n', "{name} has {c:?}");
            assert!(c != '\u{202e}' && (c != '\u{ffff}' || name == "a.json"), "{name} has {c:?}");
        }
        match name {
            "a.json" => assert!(json(&file)["lanes"][0]["name"] == "<b>&"),
            _ => {
                assert!(!text.contains("<i onload") && !text.contains("<script>alert"));
                assert!(text.contains("&lt;/title&gt;"), "{text}");
                well_formed(&file);
            }
        }
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn with_has_a_lane_for_each_server_and_says_when_it_was_ready() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("with");
    let file = dir.file("with.json");
    let server = "python3 -c 'import socket, time
s = socket.create_server((\"127.0.0.1\", 0)); time.sleep(60)'";
    let args = ["with", "--timeline", &file, "--server", server, "--ready", "tcp", "--name", "db"];
    let args = [&args[..], &["--server", "sleep 60", "--", "sh", "-c", "sleep 0.5"]].concat();
    let output = tool(&stage, &args);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let timeline = json(&file);
    let lanes = timeline["lanes"].as_array().unwrap();
    let names: Vec<_> = lanes.iter().map(|lane| lane["name"].as_str()).collect();
    assert_eq!(names, [Some("db"), Some("server2"), None]);
    let events = lanes[0]["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event["event"] == "ready"), "{events:?}");
    let ports = lanes[0]["processes"].as_array().unwrap().iter();
    let ports: Vec<_> = ports.flat_map(|span| span["ports"].as_array().unwrap()).collect();
    assert_eq!((ports.len(), &ports[0]["protocol"]), (1, &"tcp".into()));
    let (db, cmd) = (&lanes[0], &lanes[2]);
    assert!(db["began"].as_f64() < cmd["began"].as_f64());
    assert!(db["ended"].as_f64() > cmd["ended"].as_f64());
    stage.close(Alone::No);
}

/// The file, and what stands in its place before the command runs or while it does.
#[test]
#[parallel]
fn a_file_that_cannot_be_written_is_named_before_the_command_is_started() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("files");
    let (there, marker) = (dir.file("there.svg"), dir.file("started"));
    fs::create_dir(&there).unwrap();
    let fifo = dir.file("fifo.svg");
    nix::unistd::mkfifo(Path::new(&fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for file in ["/no/such/a.html", "/proc/a.svg", &there, &fifo, "a.txt", "a"] {
        let output = tool(&stage, &["run", "--timeline", file, "--", "touch", &marker]);
        assert_eq!(output.status.code(), Some(125), "{file}: {}", said(&output));
        assert!(said(&output).contains(file), "{file}: {}", said(&output));
        assert!(!Path::new(&marker).exists(), "{file}");
    }
    let (file, other) = (dir.file("link.svg"), dir.file("other"));
    fs::write(&other, "mine").unwrap();
    // The command puts a link in the place of the file: it is replaced, not followed.
    let script = format!("ln -sf {other} {file}; exit 4");
    let output = tool(&stage, &["run", "--timeline", &file, "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
    symlink("/no/such/place", dir.file("dead.json")).unwrap();
    let output = tool(&stage, &["run", "--timeline", &dir.file("dead.json"), "--", "flsk"]);
    assert_eq!(output.status.code(), Some(127), "{}", said(&output));
    let none = json(&dir.file("dead.json"));
    assert!(none["error"].as_str().unwrap().contains("flsk") && none["lane_count"] == 0);
    assert!(!dir.names().iter().any(|name| name.ends_with(".tmp")), "{:?}", dir.names());
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_recording_leaves_no_thread_and_no_fd_and_may_be_used_again() {
    let Some(stage) = Stage::set() else { return };
    assert!(until(SOON, || recorders() == 0));
    let recording = Recording::new();
    for _ in 0..3 {
        stage.sh("sleep 0.05").record(&recording).run().unwrap();
        drop(stage.sh("sleep 74").record(&recording).spawn().unwrap());
        assert!(stage.command("/no/such").record(&recording).spawn().is_err());
    }
    let lanes = recording.timeline().lanes;
    assert_eq!(lanes.len(), 6);
    assert!(lanes.iter().all(|lane| lane.ended.is_some() && lane.cause.is_some()));
    // The thread that reads command lines ends by itself.
    assert!(until(SOON, || recorders() == 0));
    stage.close(Alone::Yes);
}

#[test]
#[parallel]
fn a_keepers_tree_is_recorded_too() {
    let Some(stage) = Stage::of_keepers() else { return };
    let recording = Recording::new();
    stage.sh("sleep 0.3; setsid -f sleep 75; sleep 0.2").record(&recording).run().unwrap();
    let lane = recording.timeline().lanes.remove(0);
    assert!(lane.processes.iter().any(|span| span.left && span.killed), "{:?}", lane.processes);
    let rows = lane.samples.len();
    // The last row is of its end.
    assert!(rows > 3 && lane.samples[..rows - 1].iter().all(|row| row.memory.is_some()));
    stage.close(Alone::No);
}

/// In a pid namespace of its own nothing is told: `/proc` is looked at.
#[test]
#[parallel]
fn where_the_kernel_does_not_tell_samples_do_and_the_page_says_so() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("sampled");
    let user: &[&str] = if nix::unistd::getuid().is_root() { &[] } else { &["-Ur"] };
    for name in ["a.json", "a.html"] {
        let file = dir.file(name);
        let mut command = std::process::Command::new("unshare");
        stage.mark_std(command.args(user).args(["-pf", "--mount-proc", "--kill-child"]));
        command.args([crate::support::tool(), "run", "--timeline", &file, "--", "sh", "-c"]);
        // The second one is the shell's pid by an exec.
        let output =
            command.arg("sleep 1.4; setsid -f sleep 77; exec sleep 1.42").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        if name == "a.html" {
            assert!(fs::read_to_string(&file).unwrap().contains("may be missing"));
            continue;
        }
        let lane = &json(&file)["lanes"][0];
        assert_eq!(lane["births"], "sampled");
        assert!(with_word(lane, "1.4")[0]["ended"].is_number(), "{lane}");
        let left = with_word(lane, "77")[0];
        assert_eq!((&left["left"], &left["killed"]), (&true.into(), &true.into()), "{lane}");
        let main = with_word(lane, "1.42")[0];
        assert_eq!((&main["pid"], &main["status"]["code"]), (&lane["main"], &0.into()), "{lane}");
    }
    stage.close(Alone::No);
}

/// A process whose command line cannot be read holds up neither the run nor its end.
#[test]
#[parallel]
fn what_is_frozen_in_a_read_is_left_behind() {
    let Some(stage) = Stage::set() else { return };
    let recording = Recording::new();
    let child = stage.sh("sleep 0.1; sleep 76").record(&recording).spawn().unwrap();
    child.tree().freeze().unwrap();
    let begun = Instant::now();
    child.finish().unwrap();
    assert!(begun.elapsed() < SOON);
    assert_eq!(recording.timeline().lanes.len(), 1);
    drop(child);
    stage.close(Alone::No);
}
