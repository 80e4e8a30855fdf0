//! Reports as JSON: what others read is what was written, on one line that no terminal obeys.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidy_fuzz::json;
use tidy_process::fuzzing::{lacks, port, process, report};
use tidy_process::{Cause, ProcessInfo, Protocol, Report};

#[derive(Debug, Arbitrary)]
struct Given<'a> {
    status: u16,
    cause: u8,
    numbers: [Option<u64>; 5],
    wall: Duration,
    command: Vec<&'a [u8]>,
    name: &'a [u8],
    leftovers: Vec<Left<'a>>,
}

#[derive(Debug, Arbitrary)]
struct Left<'a> {
    pid: i32,
    name: &'a str,
    command: Vec<&'a str>,
    state: char,
    cwd: Option<&'a [u8]>,
    port: Option<([u8; 16], u16)>,
    gap: Option<&'a str>,
}

fuzz_target!(|given: Given<'_>| {
    let Some(report) = made(&given) else { return };
    let command: Vec<OsString> = given.command.iter().map(|word| owned(word)).collect();
    let (value, text) = json(&command, &owned(given.name), &report);
    assert!(!text.contains(char::is_control) && !text.contains(['\u{202e}', '\u{2028}']));
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read, value);
    assert_eq!(bytes(&read, "name"), given.name);
    let places = read["command_escaped"].as_array().cloned().unwrap_or_default();
    for (place, word) in given.command.iter().enumerate() {
        let is_escaped = places.contains(&place.into());
        assert_eq!(unescaped(read["command"][place].as_str().unwrap(), is_escaped), *word);
    }
    assert_eq!(read["leftovers"].as_array().map(Vec::len), Some(given.leftovers.len()));
    for (place, left) in given.leftovers.iter().enumerate() {
        let seen = &read["leftovers"][place];
        assert_eq!(seen["name"], left.name);
        assert_eq!(seen["command"], Value::from(left.command.clone()));
        left.cwd.iter().for_each(|cwd| assert_eq!(bytes(seen, "cwd"), *cwd));
    }
    // The library's own form.
    let ours = serde_json::to_string(&report).unwrap();
    let read: Value = serde_json::from_str(&ours).unwrap();
    assert_eq!(read, serde_json::to_value(&report).unwrap());
    assert_eq!(read["leftover_count"], given.leftovers.len());
});

fn owned(word: &[u8]) -> OsString {
    OsStr::from_bytes(word).to_owned()
}

fn made(given: &Given<'_>) -> Option<Report> {
    let causes = [Cause::Exited, Cause::Signaled(9), Cause::TimedOut, Cause::OutOfMemory];
    let cause = causes[usize::from(given.cause) % causes.len()];
    let leftovers = given.leftovers.iter().map(left).collect();
    let mut report = report(given.status.into(), cause, leftovers);
    let [peak, pids, io, time, kills] = given.numbers;
    report.wall = given.wall;
    report.usage.memory_peak = peak;
    report.usage.pids_peak = pids;
    report.usage.io_read = io;
    report.usage.user = time.map(Duration::from_micros);
    report.usage.oom_kills = kills;
    Some(report)
}

fn left(given: &Left<'_>) -> ProcessInfo {
    let mut process = process(given.pid, "");
    process.gaps.clear();
    process.name = given.name.to_owned();
    process.command = given.command.iter().map(ToString::to_string).collect();
    process.state = given.state;
    process.cwd = given.cwd.map(|cwd| Path::new(OsStr::from_bytes(cwd)).to_owned());
    let ports = given.port.iter().map(|address| port(Protocol::Tcp, (*address).into(), given.name));
    process.ports = ports.collect();
    given.gap.iter().for_each(|reason| lacks(&mut process, "command", reason));
    process
}

/// A word as it was, from what docs/json.md says of it.
fn bytes(value: &Value, key: &str) -> Vec<u8> {
    let is_escaped = value.get(format!("{key}_escaped")).is_some();
    unescaped(value[key].as_str().unwrap(), is_escaped)
}

fn unescaped(text: &str, is_escaped: bool) -> Vec<u8> {
    if !is_escaped {
        return text.as_bytes().to_vec();
    }
    let mut all = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => {
                all.push(b'\\');
                after
            }
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                all.push(u8::from_str_radix(digits, 16).unwrap());
                after
            }
            _ => {
                all.push(*first);
                after
            }
        };
    }
    OsString::from_vec(all).into_vec()
}
