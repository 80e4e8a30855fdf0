//! How times, sizes and processes are put into words.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use tidy_process::cli_support::{quoted, shortened};
use tidy_process::{EventKind, Lane, Source, Span};

/// Characters of a command line in a title.
const COMMAND: usize = 300;

/// `35 ms`, `1.20 s`, `2 min 3 s`, `3 h 20 min`
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time.is_zero() => "0".to_owned(),
        0 if time < Duration::from_millis(10) => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        0 => format!("{:.0} ms", time.as_secs_f64() * 1e3),
        1..60 => format!("{:.2} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `2026-11-27 03:30:56 UTC`
pub(crate) fn date(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March have their odd day at the end; 400 of them have 146,097 days.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// `3.2 MiB`
pub(crate) fn bytes(number: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut number, mut place) = (number, 0);
    while number >= 1024.0 && place + 1 < units.len() {
        (number, place) = (number / 1024.0, place + 1);
    }
    let unit = units.get(place).unwrap_or(&"B");
    if place == 0 || number >= 100.0 {
        format!("{number:.0} {unit}")
    } else {
        format!("{number:.1} {unit}")
    }
}

/// The name by which a process is drawn.
pub(crate) fn name(span: &Span) -> String {
    if span.name.is_empty() { "?".to_owned() } else { quoted(&span.name) }
}

/// Its command line on one line.
pub(crate) fn command(span: &Span) -> String {
    if span.command.is_empty() {
        return format!("[{}]", name(span));
    }
    let line = shortened(&quoted(&span.command.join(" ")), COMMAND);
    if span.cut && !line.ends_with("...") { line + "..." } else { line }
}

/// `exit status 1`, `signal 9 (SIGKILL)`
pub(crate) fn status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(_)) => status.to_string(),
        (None, None) => "ended".to_owned(),
    }
}

/// How a process ended.
pub(crate) fn end(span: &Span) -> String {
    let how = match (span.ended, span.status) {
        (None, _) => "still running".to_owned(),
        (Some(at), Some(how)) => format!("ended {} ({})", time(at), status(how)),
        (Some(at), None) => format!("ended {} (exit status not known)", time(at)),
    };
    match (span.left, span.killed) {
        (true, true) => how + "; left over, and killed",
        (true, false) => how + "; left over",
        (false, true) => how + "; killed",
        (false, false) => how,
    }
}

/// All that is known of a process, as a pointer over it shows it.
pub(crate) fn title(span: &Span) -> String {
    let lasted = span.ended.map(|ended| ended.saturating_sub(span.born));
    let mut lines = vec![format!("{} {}", span.pid, command(span))];
    let exec = match (span.executed, span.exec_count) {
        (Some(at), 1) => format!(", executed {}", time(at)),
        (Some(at), times) => format!(", executed {} times, first {}", times, time(at)),
        (None, _) => ", no exec seen".to_owned(),
    };
    lines.push(format!("started by {} at {}{exec}", span.ppid, time(span.born)));
    let lasted = lasted.map(|lasted| format!(", after {}", time(lasted))).unwrap_or_default();
    lines.push(end(span) + &lasted);
    for port in &span.ports {
        lines.push(format!("listened on {} {} ({})", port.protocol, port.address, time(port.seen)));
    }
    lines.join("\n")
}

/// `stop signal 15 (SIGTERM)`
pub(crate) fn event(kind: EventKind, lane: &Lane) -> String {
    match kind {
        EventKind::Ready => "ready".to_owned(),
        EventKind::TimedOut => "timed out".to_owned(),
        EventKind::CpuTimeExceeded => "CPU time used up".to_owned(),
        EventKind::StopSignal(number) => {
            let name = nix::sys::signal::Signal::try_from(number);
            format!("stop signal {}", name.map_or(number.to_string(), |name| name.to_string()))
        }
        EventKind::Killed => "the rest killed".to_owned(),
        EventKind::MainEnded => {
            let how = lane.status.map(status).unwrap_or_else(|| "ended".to_owned());
            format!("main: {how}")
        }
        EventKind::OutOfMemory => "out of memory".to_owned(),
        EventKind::MemoryHigh => "above memory-high".to_owned(),
        EventKind::Throttled => "throttled".to_owned(),
        EventKind::PidsExhausted => "fork refused".to_owned(),
        EventKind::NewsLost => "news lost".to_owned(),
        other => other.name().to_owned(),
    }
}

/// What has to be known about where a curve is from.
pub(crate) fn remark(source: Source, memory: bool) -> &'static str {
    match (source, memory) {
        (Source::Processes, true) => "resident, summed over processes: shared pages count in each",
        (Source::Processes, false) => "summed over processes: what ended unseen is missing",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        let words = |ms| time(Duration::from_millis(ms));
        assert_eq!([words(0), words(1), words(250)], ["0", "1.0 ms", "250 ms"]);
        assert_eq!([words(1200), words(123_000)], ["1.20 s", "2 min 3 s"]);
        assert_eq!([words(12_000_000), words(400_000_000)], ["3 h 20 min", "4 d 15 h"]);
        let day = |seconds| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(day(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(day(1_798_761_599), "2026-12-31 23:59:59 UTC");
        let sizes = [bytes(0.0), bytes(1023.0), bytes(1536.0), bytes(3e8)];
        assert_eq!(sizes, ["0 B", "1023 B", "1.5 KiB", "286 MiB"]);
    }
}
