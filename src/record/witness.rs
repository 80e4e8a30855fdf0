//! The thread that hears the kernel's news of processes, and reads command lines.
//!
//! A command line is in the memory of a process, and reading it may block (see `proc/read.rs`): the
//! sampler then starts another such thread, and the first one ends when the kernel lets go of it.

use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use crate::proc::glance;
use crate::record::state::{Inner, own_time};
use crate::sys::SignalsBlocked;
use crate::sys::poll::{self, Deadline};
use crate::sys::proc_events::ProcEvents;

/// The share of a CPU that this thread may take, in parts (more in a debug build, which is
/// slower); and what it may take at once.
const SHARE: u32 = if cfg!(debug_assertions) { 60 } else { 300 };
const BURST: Duration = Duration::from_millis(4);

/// News are read at such intervals where reading each at once takes more; where all of them do, at
/// longer ones. The socket holds them meanwhile.
const PAUSE: Duration = Duration::from_millis(25);
const LONG_PAUSE: Duration = Duration::from_millis(250);

/// Bytes of a thread's stack: it reads a few files.
pub(crate) const STACK: usize = 256 * 1024;

/// Starts the thread of this number for this shift.
pub(crate) fn start(
    inner: &Arc<Inner>,
    (shift, number): (u64, u32),
    wake: &Arc<PipeReader>,
) -> std::io::Result<()> {
    // A signal must never find this thread: the caller's threads know what to do with it.
    let _blocked = SignalsBlocked::new()?;
    let builder = Builder::new().name("tidy-process-see".to_owned()).stack_size(STACK);
    let witness = Witness {
        inner: Arc::clone(inner),
        wake: Arc::clone(wake),
        shift,
        number,
        began: inner.now(),
    };
    builder.spawn(move || witness.work()).map(drop)
}

struct Witness {
    inner: Arc<Inner>,
    wake: Arc<PipeReader>,
    shift: u64,
    number: u32,
    began: Duration,
}

impl Witness {
    fn work(&self) {
        loop {
            let events = {
                let mut state = self.inner.lock();
                if (state.shift, state.reader) != (self.shift, self.number) {
                    return;
                }
                state.rung = false;
                state.events.clone().filter(|_| state.pending == 0)
            };
            self.read_all();
            self.sleep(events.as_deref());
        }
    }

    /// Sleeps until it is woken or there are news; where those come too fast, for a while.
    fn sleep(&self, events: Option<&ProcEvents>) {
        let allowed = self.inner.now().saturating_sub(self.began) / SHARE + BURST;
        let debt = own_time().saturating_sub(allowed);
        let hurried = !debt.is_zero();
        let pause = debt.saturating_mul(SHARE).clamp(PAUSE, LONG_PAUSE);
        let pause = (hurried && events.is_some()).then(|| Deadline::from(pause).0).flatten();
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        let heard = events.filter(|_| !hurried);
        fds.extend(heard.map(|events| PollFd::new(events.as_fd(), PollFlags::POLLIN)));
        let _ = poll::news(&mut fds, pause);
        if fds.first().and_then(PollFd::any) == Some(true) {
            let _ = (&*self.wake).read(&mut [0; 64]);
        }
    }

    /// Reads what there is, without a lock where that may block.
    fn read_all(&self) {
        loop {
            let mut state = self.inner.lock();
            if (state.shift, state.reader) != (self.shift, self.number) {
                return;
            }
            let pid = match self.inner.next_news(&mut state) {
                Some(None) => continue,
                Some(Some(pid)) => pid,
                None => match state.unread.pop() {
                    Some(pid) => pid,
                    None => return,
                },
            };
            state.reading = Some(self.inner.now());
            drop(state);
            let line = glance::command_line(pid);
            let mut state = self.inner.lock();
            if (state.shift, state.reader) != (self.shift, self.number) {
                return;
            }
            state.reading = None;
            if let (Some(lane), Some(line)) = (state.lane_of(pid), line) {
                lane.called(pid, line);
            }
        }
    }
}
