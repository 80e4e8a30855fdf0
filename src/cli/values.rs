//! What is written on a command line, read: durations, sizes, shares, signals, variables, rates.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use tidy_process::IoLimit;

/// As good as never, and small enough to be added to any clock.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Limits on memory are in whole pages.
const PAGE: u64 = 4096;

const NO_DURATION: &str = "a duration is a number and a unit, as in 30s or 1m30s, or inf";
const NO_SIZE: &str = "a size is a number and K, M, G or T, as in 512M or 1.5G, or max";

/// `500ms`, `30s`, `1m30s`, `2h`, `1d`, `inf`; a plain number is seconds, as in timeout(1).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if matches!(text, "inf" | "infinity" | "never" | "max") {
        return Ok(CENTURY);
    }
    if text.starts_with('-') {
        return Err("a duration is not negative".to_owned());
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, unit, later) = term(rest);
        let alone = number.len() == text.len();
        seconds += number.parse::<f64>().map_err(|_| NO_DURATION)? * scale(unit, alone)?;
        rest = later;
    }
    if text.is_empty() {
        return Err(NO_DURATION.to_owned());
    }
    Ok(Duration::try_from_secs_f64(seconds).map_or(CENTURY, |time| time.min(CENTURY)))
}

/// The number and the unit that a text begins with, and what follows. Digits and one point: no
/// exponent, no `nan`.
fn term(text: &str) -> (&str, &str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    (number, unit, rest.trim_start())
}

/// Seconds in a unit; only a number that stands alone needs none.
fn scale(unit: &str, alone: bool) -> Result<f64, String> {
    Ok(match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" if alone => 1.0,
        "" => return Err("each of several numbers needs its unit, as in 1m30s".to_owned()),
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return Err(format!("the units are us, ms, s, m, h and d: {NO_DURATION}")),
    })
}

/// `TERM`, `SIGTERM` or `15`; numbers reach the real-time signals too.
pub(crate) fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>() {
        let valid = (1..=64).contains(&number);
        return valid
            .then_some(number)
            .ok_or_else(|| "a signal has a number from 1 to 64".to_owned());
    }
    let name = text.to_ascii_uppercase();
    let full = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    Signal::from_str(&full)
        .map(|signal| signal as i32)
        .map_err(|_| "no such signal: give a name or a number, as in INT, SIGINT or 2".to_owned())
}

/// `512M`, `512MB`, `512MiB`, `1.5G`, `4096`, `max`: powers of 1024 however they are spelled, as in
/// systemd and docker. What is no whole number of bytes is rounded down to whole pages.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    if matches!(text, "max" | "inf" | "infinity") {
        return Ok(u64::MAX);
    }
    if text.starts_with('-') {
        return Err("a size is not negative".to_owned());
    }
    let (number, unit, rest) = term(text);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(NO_SIZE.to_owned()),
    };
    let more = || "that is more than any machine has; max is no limit".to_owned();
    if !rest.is_empty() {
        return Err(NO_SIZE.to_owned());
    }
    if !number.contains('.') && !number.is_empty() {
        let number: u64 = number.parse().map_err(|_| more())?;
        return number.checked_mul(1 << shift).ok_or_else(more);
    }
    let number: f64 = number.parse().map_err(|_| NO_SIZE)?;
    pages(number * f64::from(1_u32 << (shift / 2)) * f64::from(1_u32 << (shift / 2)))
        .ok_or_else(more)
}

/// Rounded down to whole pages.
fn pages(bytes: f64) -> Option<u64> {
    let whole = bytes >= 0.0 && bytes < 2_f64.powi(63);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    whole.then_some(bytes as u64 / PAGE * PAGE)
}

/// A size, or `50%`: a share of this machine's memory, as in systemd.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let Some(share) = text.strip_suffix('%') else { return size(text) };
    let share = percent(share).filter(|share| *share <= 100.0);
    let share = share.ok_or("a share of this machine's memory is from 0% to 100%")?;
    let installed = installed().ok_or("how much memory this machine has is not known")?;
    pages(installed * share / 100.0).ok_or_else(|| NO_SIZE.to_owned())
}

/// Bytes of this machine's memory.
#[expect(clippy::cast_precision_loss, reason = "a share of it is rounded to pages")]
fn installed() -> Option<f64> {
    let of = |variable| sysconf(variable).ok().flatten();
    Some(of(SysconfVar::_PHYS_PAGES)? as f64 * of(SysconfVar::PAGE_SIZE)? as f64)
}

/// Digits and one point: a float may be spelled in stranger ways.
fn percent(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

/// `0.5`, `2`, or `150%` of one.
pub(crate) fn cpus(text: &str) -> Result<f64, String> {
    let (number, of) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let cpus = percent(number).map(|cpus| cpus / of).filter(|cpus| *cpus > 0.0);
    cpus.ok_or_else(|| {
        "give a number of CPUs, as in 0.5 or 2, or a share of one, as in 150%".into()
    })
}

/// A number of processes, or `max`.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    if matches!(text, "max" | "inf" | "infinity") {
        return Ok(u64::MAX);
    }
    text.parse().map_err(|_| "give a whole number, or max".to_owned())
}

/// A share of the CPU against others, which have 100.
pub(crate) fn weight(text: &str) -> Result<u64, String> {
    let weight = text.parse().ok().filter(|weight| (1..=10_000).contains(weight));
    weight.ok_or_else(|| "give a whole number from 1 to 10000; others have 100".to_owned())
}

/// `/dev/vda:wbps=1M,riops=100`, `254:0:rbps=1M`.
pub(crate) fn io(text: &str) -> Result<(PathBuf, IoLimit), String> {
    let (device, rates) = text.rsplit_once(':').ok_or("give it as DEVICE:rbps=SIZE,...")?;
    let mut limit = IoLimit::default();
    for rate in rates.split(',') {
        let (key, value) = rate.split_once('=').ok_or("give it as DEVICE:rbps=SIZE,...")?;
        let place = match key {
            "rbps" => &mut limit.read_bytes,
            "wbps" => &mut limit.write_bytes,
            "riops" => &mut limit.read_ops,
            "wiops" => &mut limit.write_ops,
            _ => return Err("the rates are rbps, wbps, riops and wiops".to_owned()),
        };
        *place = Some(size(value)?);
    }
    Ok((device.into(), limit))
}

/// `NAME=VALUE`; neither need be text.
pub(crate) fn variable(text: &OsStr) -> Result<(OsString, OsString), String> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) if at > 0 => {
            let (key, value) = bytes.split_at(at);
            let value = value.get(1..).unwrap_or_default();
            Ok((OsStr::from_bytes(key).into(), OsStr::from_bytes(value).into()))
        }
        _ => Err("give it as NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_number_is_seconds() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30min"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("2 seconds"), Ok(Duration::from_secs(2)));
    }

    #[test]
    fn what_never_ends_can_be_added_to_any_clock() {
        for endless in ["inf", "infinity", "max", "never", "99999999999999999999d"] {
            assert_eq!(duration(endless), Ok(CENTURY), "{endless}");
        }
        assert!(std::time::Instant::now().checked_add(CENTURY).is_some());
    }

    #[test]
    fn odd_durations_are_refused() {
        for odd in
            ["", "s", "-1", "-5s", "5 parsecs", "5x", "nan", "1e400", "1m30", "1.2.3s", ".", "1s;"]
        {
            assert!(duration(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(
            (size("512M"), size("1G"), size("4096")),
            (Ok(512 << 20), Ok(1 << 30), Ok(4096))
        );
        for spelled in ["512M", "512m", "512MB", "512MiB", "512 MiB", "0.5G", ".5G", "524288K"] {
            assert_eq!(size(spelled), Ok(512 << 20), "{spelled}");
        }
        assert_eq!((size("max"), size("1.5G")), (Ok(u64::MAX), Ok(3 << 29)));
        assert_eq!(size("0.1G"), Ok(26_214 * PAGE));
        for odd in ["", "M", "-1", "1X", "99999999T", "9999999.5T", "50%", "1.2.3M", "1M2M", "nan"]
        {
            assert!(size(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn shares_are_of_this_machines_memory() {
        let all = installed().unwrap_or_default();
        assert_eq!((memory("100%").ok(), memory("4K")), (pages(all), Ok(4096)));
        assert_eq!(memory("50%").ok(), pages(all / 2.0));
        for odd in ["%", "-5%", "101%", "x%", "nan%", "inf%"] {
            assert!(memory(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn cpus_are_a_number_or_a_share_of_one() {
        assert_eq!((cpus("2"), cpus("0.5"), cpus("150%")), (Ok(2.0), Ok(0.5), Ok(1.5)));
        for odd in ["", "%", "0", "0%", "-1", "nan", "inf", "1e3", "two"] {
            assert!(cpus(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn numbers_and_weights_are_whole() {
        assert_eq!((number("7"), number("max"), weight("50")), (Ok(7), Ok(u64::MAX), Ok(50)));
        for odd in ["", "-1", "1.5", "1k"] {
            assert!(number(odd).is_err() && weight(odd).is_err(), "{odd:?} was taken");
        }
        assert!(weight("0").is_err() && weight("10001").is_err());
    }

    #[test]
    fn variables_are_bytes() {
        let odd = OsStr::from_bytes(b"A\xff=\xfe=");
        let pair = (OsStr::from_bytes(b"A\xff").into(), OsStr::from_bytes(b"\xfe=").into());
        assert_eq!(variable(odd), Ok(pair));
        assert!(variable("=x".as_ref()).is_err() && variable("x".as_ref()).is_err());
    }

    #[test]
    fn rates_belong_to_a_device() {
        let (device, limit) = io("/dev/vda:wbps=1M,riops=100").unwrap_or_default();
        assert_eq!(device, PathBuf::from("/dev/vda"));
        assert_eq!((limit.write_bytes, limit.read_ops), (Some(1 << 20), Some(100)));
        assert_eq!(io("254:0:rbps=1").unwrap_or_default().0, PathBuf::from("254:0"));
        for odd in ["", "/dev/vda", "/dev/vda:x=1", "/dev/vda:rbps", "/dev/vda:rbps=x"] {
            assert!(io(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal("TERM"), Ok(15));
        assert_eq!(signal("sigint"), Ok(2));
        assert_eq!(signal("34"), Ok(34));
        for odd in ["", "0", "65", "-9", "SIGNOPE", "SIG"] {
            assert!(signal(odd).is_err(), "{odd:?} was taken");
        }
    }
}
