//! Runs many commands, so many at a time. What one command is, how it is waited for and torn down,
//! is in `spawn.rs` and `child/`.

pub(crate) mod crew;
mod worker;

use std::sync::{Arc, Mutex};

use crate::child::Child;
use crate::command::Command;
use crate::error::{Error, Result, Step};
use crate::exec::stdio::Stdio;
use crate::pool::crew::{Crew, Next, Work};
use crate::report::Report;

/// Runs many commands, so many at a time, each in a tree of its own.
///
/// A handle; clones are of the same pool, so that another thread, or the function that gets the
/// results, may [`close`](Self::close) or [`kill`](Self::kill) it.
///
/// # Cleanup
/// When [`run`](Self::run) returns nothing of any command is left; nor is it if `run` panics,
/// because the iterator or the function does.
///
/// # Examples
/// ```
/// use tidy_process::{Command, Pool};
///
/// let commands = (0..8).map(|number| {
///     let mut command = Command::new("sh");
///     command.args(["-c", &format!("exit {}", number % 2)]);
///     (number, command)
/// });
/// let mut failed = 0;
/// Pool::new(4).run(commands, |number, result| match result {
///     Ok(report) if report.success() => {}
///     Ok(report) => failed += report.status.code().unwrap_or(0),
///     Err(error) => eprintln!("command {number}: {error}"),
/// })?;
/// assert_eq!(failed, 4);
/// # Ok::<(), tidy_process::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pool {
    at_a_time: usize,
    crew: Arc<Crew>,
}

impl Pool {
    /// A pool that runs so many commands at a time, one at the least.
    #[must_use]
    pub fn new(at_a_time: usize) -> Self {
        Self { at_a_time: at_a_time.max(1), crew: Arc::default() }
    }

    /// Runs all commands, and returns when the last one has ended. Each is a command and what its
    /// result is known by; `ended` gets that together with the result, in the order in which they
    /// end.
    ///
    /// A command is asked for when there is room for it, so that 10^6 of them need no more memory
    /// than those that run. A few threads, no more than one for each CPU and one besides, start and
    /// await all; iterator and function are called in any of these, in one at a time. While one of
    /// them blocks, timeouts may be late. Only where the iterator is asked again after its end (it
    /// is, each time that a command has ended) may it have more.
    ///
    /// The streams are those of [`Command::spawn`]; a piped one, which no reader would empty, is an
    /// error of that command.
    ///
    /// # Errors
    /// Fds or threads have run out. What a command meets with is its own result.
    ///
    /// # Panics
    /// As the iterator or the function does, once all that runs is killed.
    pub fn run<K: Send, I>(
        &self,
        commands: I,
        ended: impl FnMut(K, Result<Report>) + Send,
    ) -> Result<()>
    where
        I: IntoIterator<Item = (K, Command)>,
        I::IntoIter: Send,
    {
        let given = Given { commands: Mutex::new(commands.into_iter()), ended: Mutex::new(ended) };
        self.crew.run(&given, self.at_a_time)
    }

    /// Starts no more commands; those that run go on to their end. For good.
    pub fn close(&self) {
        self.crew.close();
    }

    /// Starts no more commands, and kills those that run. For good.
    pub fn kill(&self) {
        self.crew.kill();
    }
}

/// The commands of an iterator, and a function for the results. A lock that a panic has poisoned is
/// that of something that broke down: it is not used again.
struct Given<I, F> {
    commands: Mutex<I>,
    ended: Mutex<F>,
}

impl<K, I, F> Work for Given<I, F>
where
    K: Send,
    I: Iterator<Item = (K, Command)> + Send,
    F: FnMut(K, Result<Report>) + Send,
{
    type Job = K;

    fn next(&self) -> Next<K> {
        let next = self.commands.lock().ok().and_then(|mut commands| commands.next());
        next.map_or(Next::Over, |(key, command)| Next::Start(key, Box::new(command)))
    }

    fn spawn(&self, _: &mut K, command: &mut Command) -> Result<Child> {
        if command.streams.iter().flatten().any(Stdio::is_piped) {
            let subject = format!("{:?}", command.program.program);
            let why = "a pool reads no pipe: give the command a file or Stdio::null()";
            return Err(Error::invalid(Step::Prepare, subject, why));
        }
        command.spawn()
    }

    fn ended(&self, key: K, result: Result<Report>) {
        if let Ok(mut ended) = self.ended.lock() {
            ended(key, result);
        }
    }
}
