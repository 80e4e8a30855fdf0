//! A command that says which signals it gets, one line for each, so that none is counted once that
//! came twice. The test binary plays it.
#![expect(unsafe_code, reason = "no safe call waits for a signal with a timeout")]

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// How long it goes on once a signal has asked it to end, in milliseconds.
pub(crate) const EARS: &str = "TIDY_EARS";

/// Which signals ask it to end, if not all that do by default: their numbers.
pub(crate) const ENDS: &str = "TIDY_EARS_END";

/// It ends by itself, however badly the test goes.
const LIFE: Duration = Duration::from_secs(30);

/// Before `main`: no thread of the harness takes a signal then.
#[ctor::ctor]
fn enter() {
    let Ok(patience) = std::env::var(EARS) else { return };
    let ends = std::env::var(ENDS).unwrap_or("1 2 3 15".to_owned());
    let ends: Vec<i32> = ends.split(' ').map(|end| end.parse().unwrap()).collect();
    let mut set = SigSet::all();
    let jobs = [Signal::SIGCONT, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];
    jobs.into_iter().for_each(|signal| set.remove(signal));
    set.thread_block().unwrap();
    say("ready");
    let mut deadline = Instant::now() + LIFE;
    while let Some(signal) = next(&set, deadline) {
        say(&signal.to_string());
        if ends.contains(&signal) {
            let patience = Duration::from_millis(patience.parse().unwrap());
            deadline = deadline.min(Instant::now() + patience);
        }
    }
    say("end");
    std::process::exit(3);
}

fn say(line: &str) {
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

fn next(set: &SigSet, deadline: Instant) -> Option<i32> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = libc::timespec {
            tv_sec: left.as_secs().try_into().unwrap(),
            tv_nsec: left.subsec_nanos().cast_signed().into(),
        };
        // SAFETY: both are read; a null siginfo is allowed.
        let signal =
            unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &raw const left) };
        if signal > 0 {
            return Some(signal);
        }
        // A stop and its end interrupt the call.
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}
