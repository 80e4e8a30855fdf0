//! Does work that would block a runtime's thread for too long on a thread of its own, which ends
//! with the work.
//!
//! Not on the runtime's blocking pool: where no thread can be made (the pids have run out) that one
//! panics, or keeps the work until the next request, though threads can be made by then. Here the
//! caller does the work then. As with the pool, a runtime that is dropped waits for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::sys::SignalsBlocked;

/// Bytes of stack: the work reads a few files and writes two.
const OFFLOAD_STACK: usize = 256 * 1024;

/// Begins the work at once, whether or not the answer is awaited.
pub(crate) fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (said, heard) = oneshot::channel();
    // The receiver may be gone.
    let job = move || drop(said.send(work()));
    let job = Arc::new(Mutex::new(Some(job)));
    let (theirs, (over, gone)) = (Arc::clone(&job), oneshot::channel::<()>());
    // A signal must never find this thread: the caller's threads know what to do with it.
    let blocked = SignalsBlocked::new();
    let builder = Builder::new().name("tidy-process-end".to_owned()).stack_size(OFFLOAD_STACK);
    let thread = builder.spawn(move || {
        run(&theirs);
        drop(over);
    });
    drop(blocked);
    match thread {
        Ok(thread) => join_when_over(JoinOnDrop(Some(thread)), gone),
        Err(_) => run(&job),
    }
    heard
}

fn run(job: &Mutex<Option<impl FnOnce()>>) {
    let job = job.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(job) = job {
        job();
    }
}

/// Makes a task join the thread when it is over; a runtime that shuts down drops the task, which
/// joins it too.
fn join_when_over(thread: JoinOnDrop, gone: oneshot::Receiver<()>) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(async move {
            let _ = gone.await;
            drop(thread);
        })),
        Err(_) => drop(thread),
    }
}

struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}
