//! Asks a question that may block for ever in a thread of its own.
//!
//! A path may lead to a file system whose server is dead (NFS, FUSE): a thread that looks it up
//! hangs there, deaf to deadlines. The thread ends when its [`Aside`] is dropped, or when the
//! kernel lets go of it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use crate::sys::SignalsBlocked;

type BoxedQuestion<T> = Box<dyn FnOnce() -> T + Send>;

/// Asks questions of one kind, one after the other, in one thread.
pub(crate) struct Aside<T>(Option<Thread<T>>);

struct Thread<T> {
    questions: Sender<BoxedQuestion<T>>,
    answers: Receiver<T>,
    /// The thread has a question that it has not answered yet.
    busy: bool,
}

impl<T: Send + 'static> Aside<T> {
    /// Makes one; its thread starts with the first question.
    pub(crate) fn new() -> Self {
        Self(None)
    }

    /// Returns the answer, if it comes in time. While the thread is still at an earlier question
    /// this one is dropped, and the answer is to the earlier one.
    pub(crate) fn ask(
        &mut self,
        patience: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.0.is_none() {
            self.0 = start();
        }
        let Some(thread) = &mut self.0 else {
            // No thread can be started: better late than never.
            return Some(question());
        };
        if !thread.busy {
            thread.busy = thread.questions.send(Box::new(question)).is_ok();
        }
        match thread.answers.recv_timeout(patience) {
            Ok(answer) => {
                thread.busy = false;
                Some(answer)
            }
            Err(RecvTimeoutError::Timeout) => None,
            // The thread has panicked: the next question starts another one.
            Err(RecvTimeoutError::Disconnected) => {
                self.0 = None;
                None
            }
        }
    }
}

fn start<T: Send + 'static>() -> Option<Thread<T>> {
    let (questions, asked) = channel::<BoxedQuestion<T>>();
    let (said, answers) = channel();
    // A signal must never find this thread: the caller's threads know what to do with it.
    let _blocked = SignalsBlocked::new();
    let builder = Builder::new().name("tidy-process-ask".to_owned()).stack_size(256 * 1024);
    let thread = builder.spawn(move || {
        for question in asked {
            if said.send(question()).is_err() {
                return;
            }
        }
    });
    thread.is_ok().then_some(Thread { questions, answers, busy: false })
}
