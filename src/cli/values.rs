//! What is written on a command line, read: durations, sizes, signals, variables, rates.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;
use tidy_process::IoLimit;

/// `500ms`, `30s`, `5m`, `2h`, `1d`; a plain number is seconds, as in timeout(1).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err("the units are us, ms, s, m, h and d".to_owned()),
    };
    let seconds: f64 =
        number.parse().map_err(|_| "a duration is a number and a unit, as in 30s")?;
    Duration::try_from_secs_f64(seconds * unit)
        .map_err(|_| "a duration is not negative and not endless".to_owned())
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
    Signal::from_str(&full).map(|signal| signal as i32).map_err(|_| "no such signal".to_owned())
}

/// `512M`, `1G`, `4096`, `max`: powers of 1024, as in systemd.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    if text == "max" {
        return Ok(u64::MAX);
    }
    let (number, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = number.parse().map_err(|_| "a size is a number and K, M, G or T, or max")?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than any machine has".to_owned())
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

pub(crate) fn variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
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
    }

    #[test]
    fn odd_durations_are_refused() {
        for odd in ["", "s", "-1", "5 parsecs", "5x", "nan", "inf", "1e400"] {
            assert!(duration(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(
            (size("512M"), size("1G"), size("4096")),
            (Ok(512 << 20), Ok(1 << 30), Ok(4096))
        );
        assert_eq!(size("max"), Ok(u64::MAX));
        for odd in ["", "M", "-1", "1.5G", "1X", "99999999T"] {
            assert!(size(odd).is_err(), "{odd:?} was taken");
        }
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
