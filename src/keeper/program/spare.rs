//! Spares the guards of supervisors below a keeper: they are killed last.
//!
//! A supervisor in a keeper's tree may have made a run root of its own, which only its guard tears
//! down once both are killed. So a guard is spared for the time that it needs, and ends by itself.
//! It is recognised by its name, which any process may take: hence the bound.

use core::cell::Cell;

use super::calls::{self, Fd};
use super::tree::{has_name, open};

/// The name of a guard in `/proc/PID/comm`.
const GUARD: &[u8] = b"tidy-guard\n";

/// Milliseconds for which guards are spared.
const SPARED_MS: isize = 1000;

#[derive(Default)]
pub(super) struct Spare {
    /// Milliseconds on the monotonic clock when the killing began.
    since: Cell<Option<isize>>,
}

impl Spare {
    /// Whether this round spares the process.
    pub(super) fn holds(&self, process: &Fd) -> bool {
        self.is_on() && has_name(process, GUARD)
    }

    /// Whether this round spares a child, by its pid.
    pub(super) fn holds_child(&self, proc: i32, pid: i32) -> bool {
        self.is_on() && open(proc, pid).is_some_and(|process| has_name(&process, GUARD))
    }

    /// Whether guards are still spared; never without a clock.
    fn is_on(&self) -> bool {
        let Some(now) = calls::now() else { return false };
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        now.wrapping_sub(since) < SPARED_MS
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, Read};
    use std::os::fd::AsRawFd;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process by this name, once it has it.
    fn named(name: &str) -> io::Result<Child> {
        let script = format!("printf {name} >/proc/$$/comm; echo; read x");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdout.take().map_or(Ok(()), |mut said| said.read_exact(&mut [0]))?;
        Ok(child)
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn a_guard_is_spared_for_a_second_and_nothing_else_is() -> io::Result<()> {
        let proc = File::open("/proc")?;
        let said = |spare: &Spare, child: &Child| {
            let pid = child.id().cast_signed();
            let process = open(proc.as_raw_fd(), pid);
            let held = process.map(|process| spare.holds(&process));
            (held, spare.holds_child(proc.as_raw_fd(), pid))
        };
        let (mut guard, mut other) = (named("tidy-guard")?, named("tidy-guards")?);
        let now = Spare::default();
        assert_eq!(said(&now, &guard), (Some(true), true));
        assert_eq!(said(&now, &other), (Some(false), false));
        // The killing began when the machine did.
        let late = Spare { since: Cell::new(Some(0)) };
        assert_eq!(said(&late, &guard), (Some(false), false));
        for child in [&mut guard, &mut other] {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}
