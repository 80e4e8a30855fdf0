//! What is written on the command line of `pool`, read.

use std::thread::available_parallelism;

use nix::sys::resource::{Resource, getrlimit};

/// Fds that the tool needs besides those of what runs, and those of one command.
const OWN_FDS: u64 = 40;
const FDS_EACH: u64 = 8;

/// The most at a time that is asked for by 0.
const MOST: usize = 1000;

/// How many run at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Jobs {
    Number(usize),
    /// Of the CPUs.
    Percent(f64),
    /// More, or less, than CPUs.
    Beside(i32),
    Most,
}

impl Jobs {
    /// The number, and whether the limit of open files allows no more.
    pub(crate) fn number(self) -> (usize, bool) {
        let cpus = cpus();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let wanted = match self {
            Self::Number(number) => number,
            Self::Percent(percent) => (cpus as f64 * percent / 100.0).round() as usize,
            Self::Beside(more) => cpus.saturating_add_signed(more as isize),
            Self::Most => MOST,
        };
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let room = usize::try_from(files.saturating_sub(OWN_FDS) / FDS_EACH).unwrap_or(MOST);
        let number = wanted.clamp(1, room.max(1));
        (number, number < wanted && self != Self::Most)
    }
}

/// Those that this process may use: by its affinity, and the quota of its cgroup.
pub(crate) fn cpus() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// `8`, `50%`, `+2`, `-1`, `0`.
pub(crate) fn jobs(text: &str) -> Result<Jobs, String> {
    let wrong = || "give a number, 50% of the CPUs, +N or -N beside them, or 0".to_owned();
    if let Some(percent) = text.strip_suffix('%') {
        return share(percent).map(Jobs::Percent).ok_or_else(wrong);
    }
    if text.starts_with(['+', '-']) {
        return text.parse().map(Jobs::Beside).map_err(|_| wrong());
    }
    match text.parse() {
        Ok(0) => Ok(Jobs::Most),
        Ok(number) => Ok(Jobs::Number(number)),
        Err(_) => Err(wrong()),
    }
}

fn share(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok()).flatten().filter(|share| *share > 0.0)
}

/// How many processes may run, or be ready to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Busy(pub(crate) f64);

/// `4`, `1.5`, `80%` of the CPUs.
#[expect(clippy::cast_precision_loss, reason = "CPUs are few")]
pub(crate) fn load(text: &str) -> Result<Busy, String> {
    let (number, each) = match text.strip_suffix('%') {
        Some(number) => (number, cpus() as f64 / 100.0),
        None => (text, 1.0),
    };
    let wrong = "give a number of processes, or a share of the CPUs, as in 80%";
    share(number).map(|number| Busy(number * each)).ok_or_else(|| wrong.to_owned())
}

/// When the pool ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Halt {
    pub(crate) how: How,
    pub(crate) what: What,
    pub(crate) number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Never,
    /// No more are started.
    Soon,
    /// What runs is stopped, too.
    Now,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Fail,
    Success,
    Done,
}

/// `never`, `soon`, `now`, `now,fail=3`.
pub(crate) fn halt(text: &str) -> Result<Halt, String> {
    let wrong = || "give never, soon or now, with a count as in now,fail=3".to_owned();
    let (how, rest) = text.split_once(',').unwrap_or((text, "fail=1"));
    let how = match how {
        "never" => How::Never,
        "soon" => How::Soon,
        "now" => How::Now,
        _ => return Err(wrong()),
    };
    let (what, number) = rest.split_once('=').ok_or_else(wrong)?;
    let what = match what {
        "fail" => What::Fail,
        "success" => What::Success,
        "done" => What::Done,
        _ => return Err(wrong()),
    };
    let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    Ok(Halt { how, what, number })
}

pub(crate) fn count(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "give a number from 1 on".to_owned())
}

pub(crate) fn tries(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "give a number from 1 on: 3 tries it three times".to_owned())
}

/// One byte: itself, or `\n`, `\t`, `\0`, `\xHH`.
pub(crate) fn delimiter(text: &str) -> Result<u8, String> {
    let hex = text.strip_prefix("\\x").and_then(|hex| u8::from_str_radix(hex, 16).ok());
    match (text, text.as_bytes(), hex) {
        ("\\n", ..) => Ok(b'\n'),
        ("\\t", ..) => Ok(b'\t'),
        ("\\0", ..) => Ok(0),
        (_, &[byte], _) | (.., Some(byte)) => Ok(byte),
        _ => Err("give one character, or \\n, \\t, \\0, \\xHH".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_jobs_are_those_of_parallel() {
        assert_eq!(jobs("8"), Ok(Jobs::Number(8)));
        assert_eq!((jobs("50%"), jobs("0")), (Ok(Jobs::Percent(50.0)), Ok(Jobs::Most)));
        assert_eq!((jobs("+2"), jobs("-1")), (Ok(Jobs::Beside(2)), Ok(Jobs::Beside(-1))));
        for odd in ["", "x", "-", "%", "nan%", "1.5", "-5%", "0%"] {
            assert!(jobs(odd).is_err(), "{odd:?} was taken");
        }
        assert_eq!(Jobs::Beside(-1000).number().0, 1);
        assert_eq!(Jobs::Percent(100.0).number().0, cpus());
    }

    #[test]
    fn halts_are_those_of_parallel() {
        let halt_of = |how, what, number| Ok(Halt { how, what, number });
        assert_eq!(halt("now"), halt_of(How::Now, What::Fail, 1));
        assert_eq!(halt("soon,fail=3"), halt_of(How::Soon, What::Fail, 3));
        assert_eq!(halt("now,success=1"), halt_of(How::Now, What::Success, 1));
        for odd in ["", "later", "now,", "now,fail", "now,fail=0", "soon,fail=x", "2"] {
            assert!(halt(odd).is_err(), "{odd:?} was taken");
        }
    }

    #[test]
    fn delimiters_are_one_byte() {
        assert_eq!((delimiter(","), delimiter("\\0"), delimiter("\\x1f")), (Ok(44), Ok(0), Ok(31)));
        for odd in ["", "ab", "ä", "\\xzz"] {
            assert!(delimiter(odd).is_err(), "{odd:?} was taken");
        }
    }
}
