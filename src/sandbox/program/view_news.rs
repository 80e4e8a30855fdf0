//! Tells main that init has made the view.
//!
//! It is a word in the memory that both share until main's exec. Whoever waits for it waits for a
//! process that cannot end without it: where init ends, the kernel kills its whole namespace.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::calls::{at, call, nr};

const PRIVATE: usize = 128;
const WAIT: usize = PRIVATE;
const WAKE: usize = PRIVATE | 1;

#[derive(Default)]
pub(crate) struct ViewNews(AtomicU32);

impl ViewNews {
    pub(crate) fn tell(&self) {
        self.0.store(1, Ordering::Release);
        call(nr::FUTEX, [at(&self.0), WAKE, 1]);
    }

    pub(crate) fn wait(&self) {
        while self.0.load(Ordering::Acquire) == 0 {
            call(nr::FUTEX, [at(&self.0), WAIT]);
        }
    }
}
