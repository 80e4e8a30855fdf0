//! What is written on a command line: durations, sizes, shares, signals, variables, rates; and the
//! limits that are made of them.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tidy_fuzz::{cpus, duration, io, memory, number, signal, size, variable, weight};
use tidy_process::Limits;
use tidy_process::fuzzing::settings;

fuzz_target!(|data: &[u8]| {
    if let Ok((key, value)) = variable(OsStr::from_bytes(data)) {
        assert!(!key.is_empty() && !key.as_bytes().contains(&b'='));
        assert_eq!([key.as_bytes(), b"=", value.as_bytes()].concat(), data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    times(text, data);
    sizes(text);
    assert!(signal(text).map_or(true, |signal| (1..=64).contains(&signal)));
    assert!(weight(text).map_or(true, |weight| (1..=10_000).contains(&weight)));
    limits(text);
});

fn times(text: &str, data: &[u8]) {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    if let Ok(time) = duration(text) {
        assert!(time <= CENTURY);
        assert!(!text.contains(['-', 'e', 'E']) || text.contains(|c: char| c.is_alphabetic()));
        // Terms only add.
        assert!(
            duration(&format!("{text}1h")).is_ok_and(|more| more >= time) || !ends_in_unit(text)
        );
    }
    let millis = data.first_chunk().map_or(0, |four| u64::from(u32::from_le_bytes(*four)));
    let (seconds, rest) = (millis / 1000, millis % 1000);
    let exactly = Ok(Duration::from_millis(millis));
    assert_eq!(duration(&format!("{millis}ms")), exactly);
    assert_eq!(duration(&format!("{seconds}s{rest}ms")), exactly);
    assert_eq!(duration(&format!("{seconds}.{rest:03}")), exactly);
}

fn ends_in_unit(text: &str) -> bool {
    text.ends_with(|c: char| c.is_alphabetic()) && text.starts_with(|c: char| c.is_ascii_digit())
}

fn sizes(text: &str) {
    let found = size(text);
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_uppercase();
    let shift = ["", "K", "M", "G", "T"].iter().position(|known| *known == unit);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if let (true, Some(shift)) = (plain, shift) {
        let exact =
            digits.parse::<u128>().ok().and_then(|number| number.checked_shl(10 * shift as u32));
        let exact = exact.filter(|exact| exact >> (10 * shift) == digits.parse::<u128>().unwrap());
        assert_eq!(found.clone().ok(), exact.and_then(|exact| u64::try_from(exact).ok()), "{text}");
    }
    if let (Ok(bytes), true) = (&found, text.contains('.')) {
        assert_eq!(bytes % 4096, 0);
    }
    assert!(found.is_err() || text.ends_with('%') || memory(text) == found);
}

/// What is written to a control file is one line of the kernel's language.
fn limits(text: &str) {
    let mut limits = Limits::new().cpuset(text);
    limits = memory(text).into_iter().fold(limits, Limits::memory_max);
    limits = number(text).into_iter().fold(limits, Limits::pids_max);
    limits = weight(text).into_iter().fold(limits, Limits::cpu_weight);
    limits = cpus(text).into_iter().fold(limits, Limits::cpus);
    if let Ok((device, limit)) = io(text) {
        limits = limits.io(device, limit);
    }
    for (_, file, value) in settings(&limits).unwrap_or_default() {
        let plain =
            value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" :=+".contains(&byte));
        assert!(plain || file == "cpuset.cpus", "{file}: {value:?}");
    }
}
