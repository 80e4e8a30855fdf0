//! A timeline of commands under limits, with all controllers (`TIDY_CONTROLLERS=1`, the virtual
//! machines): where they are not there the limits are refused, and nothing is drawn.

use std::fs;
use std::path::Path;

use serde_json::Value;
use serial_test::serial;

use super::{Dir, json, said, tool};
use crate::load::WISH;
use crate::support::{Alone, Stage};
use crate::victim;

const MIB: f64 = 1_048_576.0;

/// A run under limits, as numbers and as a page; none where no limit can be had.
fn limited(stage: &Stage, options: &[&str], load: &str) -> Option<(Value, String)> {
    let dir = Dir::new("limited");
    let play = format!("{WISH}={load}");
    let drawn = ["a.json", "a.html"].map(|name| {
        let file = dir.file(name);
        let args = [&["run", "-q", "--timeline", &file, "-E", &play], options, &["--"]].concat();
        let exe = victim::exe();
        let output = tool(stage, &[&args[..], &[exe.to_str().unwrap()]].concat());
        if output.status.code() == Some(125) {
            assert!(std::env::var_os("TIDY_CONTROLLERS").is_none(), "{}", said(&output));
            assert!(said(&output).contains("limit "), "{}", said(&output));
            return None;
        }
        fs::read_to_string(&file).ok()
    });
    let [Some(_), Some(page)] = drawn else { return None };
    let lane = json(&dir.file("a.json"))["lanes"][0].clone();
    Some((lane, page))
}

fn event<'a>(lane: &'a Value, kind: &str) -> &'a Value {
    let mut events = lane["events"].as_array().unwrap().iter();
    events.find(|event| event["event"] == kind).unwrap_or_else(|| panic!("no {kind}: {lane}"))
}

/// A column of the samples.
fn column(lane: &Value, name: &str) -> Vec<f64> {
    let rows = lane["samples"].as_array().unwrap().iter();
    rows.filter_map(|row| row[name].as_f64()).collect()
}

fn most(lane: &Value, name: &str) -> f64 {
    column(lane, name).into_iter().fold(0.0, f64::max)
}

/// Whether a page has these words, and curves.
#[track_caller]
fn page_has(page: &str, words: &[&str]) {
    for word in words {
        assert!(page.contains(word), "no {word:?} in {page}");
    }
    // Each curve but that of io, whose controller nothing has asked for.
    let unknown = page.matches(">not known<").count();
    assert!(unknown <= 1, "{unknown} curves are not known: {page}");
}

#[test]
#[serial]
fn out_of_memory_is_an_event_and_the_limit_a_line() {
    let Some(stage) = Stage::set() else { return };
    if let Some((lane, page)) = limited(&stage, &["-m", "64M"], "memory 200") {
        assert_eq!(lane["cause"], "out-of-memory", "{lane}");
        assert_eq!(lane["limits"]["memory_bytes"], 64 << 20);
        assert!(event(&lane, "out-of-memory")["count"].as_u64() >= Some(1));
        assert_eq!(lane["memory_from"], "cgroup");
        let peak = most(&lane, "memory_bytes");
        assert!(peak <= 64.0 * MIB && !column(&lane, "memory_bytes").is_empty(), "{lane}");
        // Whenever samples were taken: the kernel keeps the peak.
        assert!(peak > 60.0 * MIB, "{peak}: {lane}");
        page_has(&page, &["out of memory", "limit 64.0 MiB", "class=\"limit\""]);
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn throttling_is_an_event_and_the_cpus_a_curve_below_their_line() {
    let Some(stage) = Stage::set() else { return };
    let load = "burn-for 2000 2";
    if let Some((lane, page)) = limited(&stage, &["--cpus", "0.5"], load) {
        assert_eq!(lane["limits"]["cpus"], 0.5, "{lane}");
        let throttled = event(&lane, "throttled");
        // One that goes on, with its count.
        assert!(throttled["count"].as_u64() >= Some(3), "{throttled}");
        assert!(throttled["until"].as_f64() > throttled["at"].as_f64(), "{throttled}");
        let (cpu, wall) = (most(&lane, "cpu_seconds"), lane["ended"].as_f64().unwrap());
        assert!((0.3 * wall..=0.6 * wall).contains(&cpu), "{cpu} of {wall}");
        assert!(column(&lane, "cpu_seconds").is_sorted(), "{lane}");
        page_has(
            &page,
            &["throttled ×", "limit 0.5 CPUs", "CPUs in use: at most ", "class=\"limit\""],
        );
    }
    stage.close(Alone::Yes);
}

/// Memory that comes and stays a while; forks that are refused.
#[test]
#[serial]
fn memory_and_processes_are_the_cgroups_own() {
    let Some(stage) = Stage::set() else { return };
    let limits = ["-m", "96M", "--memory-high", "90M", "--pids", "8"];
    if let Some((lane, page)) = limited(&stage, &limits, "forks 20") {
        assert_eq!(lane["limits"]["pids"], 8);
        assert_eq!(lane["limits"]["memory_high_bytes"], 90 << 20);
        event(&lane, "pids-exhausted");
        page_has(&page, &["fork refused", "limit 8, threads too"]);
    }
    if let Some((lane, _)) = limited(&stage, &limits, "memory 40") {
        assert_eq!((&lane["memory_from"], &lane["cause"]), (&"cgroup".into(), &"exited".into()));
        let peak = most(&lane, "memory_bytes");
        assert!(peak > 40.0 * MIB && peak < 90.0 * MIB, "{peak}: {lane}");
    }
    stage.close(Alone::Yes);
}

/// On a block device, where there is one that nothing else is on.
#[test]
#[serial]
fn what_is_written_to_a_device_is_a_curve() {
    let Some(stage) = Stage::set() else { return };
    if !Path::new("/scratch").exists() {
        // Every virtual machine has it.
        assert!(std::env::var_os("TIDY_CONTROLLERS").is_none());
        return stage.close(Alone::Yes);
    }
    let limits = ["-m", "256M", "--io", "/dev/vda:wbps=8M"];
    let (lane, page) = limited(&stage, &limits, "write /scratch/timeline 16").unwrap();
    assert_eq!(lane["io_from"], "cgroup", "{lane}");
    let written = column(&lane, "io_written_bytes");
    assert!(written.is_sorted() && most(&lane, "io_written_bytes") >= 16.0 * MIB, "{lane}");
    // An emulated machine may have few samples.
    assert!(written.len() > 2 && written[0] < 16.0 * MIB, "{written:?}");
    page_has(&page, &["io per second: at most ", "MiB written (dashed)"]);
    stage.close(Alone::Yes);
}
