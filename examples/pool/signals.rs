//! Ctrl-C and its kin: what runs is killed, nothing new is started.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{SigSet, Signal};
use tidy_process::Child;

/// What one worker runs now.
#[derive(Default)]
pub(crate) struct Slot(Mutex<Option<Arc<Child>>>);

impl Slot {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Arc<Child>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
pub(crate) struct Stop {
    slots: Arc<Vec<Slot>>,
    /// The signal that has come; 0 for none.
    signal: Arc<AtomicU8>,
}

impl Stop {
    /// From now on the signals come to a thread that waits for them, which ends with the process.
    /// No handler: the commands get their signals as ever, since the library unblocks them.
    pub(crate) fn collect(workers: usize) -> Self {
        let slots = (0..workers).map(|_| Slot::default()).collect();
        let stop = Self { slots: Arc::new(slots), signal: Arc::default() };
        let answered: SigSet =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        if let Err(errno) = answered.thread_block() {
            eprintln!("pool: signals are not answered: {errno}");
            return stop;
        }
        let this = stop.clone();
        std::thread::spawn(move || {
            while let Ok(signal) = answered.wait() {
                this.end(u8::try_from(signal as i32).unwrap_or(u8::MAX));
            }
        });
        stop
    }

    fn end(&self, signal: u8) {
        if self.signal.swap(signal, Ordering::SeqCst) != 0 {
            // The second one: the guard ends what is left.
            std::process::exit(128 + i32::from(signal));
        }
        for slot in self.slots.iter() {
            if let Some(child) = &*slot.lock() {
                let _ = child.kill();
            }
        }
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn signal(&self) -> Option<u8> {
        Some(self.signal.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }
}
