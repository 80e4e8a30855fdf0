//! Spawns, runs and collects a command in a tokio runtime.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use nix::errno::Errno;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::child::finish::with_report;
use crate::child::output::{AT_A_TIME, Capture, Output};
use crate::command::Command;
use crate::error::{Error, Result, Step, errno_of};
use crate::exec::stdio::Stdio;
use crate::log::Log;
use crate::report::Report;
use crate::runtime::child::AsyncChild;
use crate::spawn::Collects;

/// In a tokio runtime (feature `tokio`).
impl Command {
    /// As [`spawn`](Self::spawn). The spawn itself is done by the caller's thread, as tokio's own
    /// is: it takes about a millisecond, most of which is the child's exec.
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn) and [`AsyncChild::new`].
    ///
    /// # Panics
    /// The runtime has no io (`enable_io`).
    pub fn spawn_async(&mut self) -> Result<AsyncChild> {
        AsyncChild::new(self.spawn()?)
    }

    /// As [`run`](Self::run). Dropping the future ends the tree, as dropping an [`AsyncChild`]
    /// does.
    ///
    /// # Errors
    /// As for [`spawn_async`](Self::spawn_async) and [`AsyncChild::finish`].
    pub async fn run_async(&mut self) -> Result<Report> {
        let mut child = self.spawn_async()?;
        drop(child.stdin.take());
        let waited = child.all_that_is_waited_for().await;
        with_report(waited, child.finish().await).map(|((), report)| report)
    }

    /// As [`output`](Self::output). Dropping the future ends the tree, as dropping an
    /// [`AsyncChild`] does, and what it has written is lost.
    ///
    /// # Errors
    /// As for [`run_async`](Self::run_async), and reading may fail.
    ///
    /// # Examples
    /// ```
    /// use tidy_process::Command;
    ///
    /// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "sleep 30 & echo hi"]);
    /// let output = runtime.block_on(command.output_async())?;
    /// assert_eq!(output.stdout, b"hi\n"); // milliseconds, not 30 s
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn output_async(&mut self) -> Result<Output> {
        let defaults = [Stdio::null(), Stdio::piped(), Stdio::piped()];
        AsyncChild::new(self.spawn_with(defaults, Collects::Yes)?)?.wait_with_output().await
    }
}

impl AsyncChild {
    /// As [`Child::wait_with_output`](crate::Child::wait_with_output). Dropping the future ends the
    /// tree, and what it has written is lost.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait) and [`finish`](Self::finish), and reading may fail. The tree is
    /// gone all the same.
    pub async fn wait_with_output(self) -> Result<Output> {
        self.collect(&[]).await
    }

    /// As [`Child::communicate`](crate::Child::communicate). Dropping the future ends the tree, and
    /// what it has written is lost.
    ///
    /// # Errors
    /// As for [`wait_with_output`](Self::wait_with_output), and stdin is not piped.
    pub async fn communicate(self, input: impl AsRef<[u8]>) -> Result<Output> {
        self.as_child().check_input(self.stdin.is_some())?;
        self.collect(input.as_ref()).await
    }

    async fn collect(mut self, input: &[u8]) -> Result<Output> {
        let subject = format!("output of process {}", self.id());
        let failed = |errno| Error::os(Step::Read, subject.clone(), errno);
        let mut stdin = AsyncFeed { pipe: self.stdin.take(), rest: input };
        let [out_copy, err_copy] = self.as_child().log.copies();
        let mut streams = [
            AsyncCapture::new(self.stdout.take(), out_copy),
            AsyncCapture::new(self.stderr.take(), err_copy),
        ];
        let collected = {
            let moved = AtomicBool::new(false);
            let mut over = pin!(async {
                self.all_that_is_waited_for().await?;
                self.wind_down(&moved).await
            });
            let news = poll_fn(|cx| {
                let fed = stdin.rest.len();
                stdin.poll(cx).map_err(|error| failed(errno_of(&error)))?;
                let mut some = stdin.rest.len() < fed;
                for stream in &mut streams {
                    let before = stream.bytes.len();
                    stream.poll(cx).map_err(|error| failed(errno_of(&error)))?;
                    some |= stream.bytes.len() > before;
                }
                moved.fetch_or(some, Ordering::Relaxed);
                over.as_mut().poll(cx)
            });
            news.await
        };
        drop(stdin);
        let ((), report) = with_report(collected, self.finish().await)?;
        let [stdout, stderr] = streams;
        match stdout.drain().and_then(|stdout| Ok((stdout, stderr.drain()?))) {
            Ok((stdout, stderr)) => {
                self.as_child().log.close_copies();
                Ok(Output { status: report.status, stdout, stderr, report })
            }
            Err(errno) => Err(failed(errno).with_report(report)),
        }
    }
}

/// The input pipe, and what is still to go into it.
struct AsyncFeed<'a> {
    pipe: Option<Sender>,
    rest: &'a [u8],
}

impl AsyncFeed<'_> {
    /// Writes what there is room for, within bounds; closes the pipe behind the last byte, and when
    /// no reader is left. Wakes the task when there is room again.
    fn poll(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut left = AT_A_TIME;
        while let Some(pipe) = &self.pipe {
            if self.rest.is_empty() {
                self.pipe = None;
                break;
            }
            if left == 0 {
                cx.waker().wake_by_ref();
                break;
            }
            let Poll::Ready(ready) = pipe.poll_write_ready(cx) else { break };
            ready?;
            let part = self.rest.get(..left.min(self.rest.len())).unwrap_or_default();
            match pipe.try_write(part) {
                Ok(len) => {
                    left -= len;
                    self.rest = self.rest.get(len..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.pipe = None,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// One output pipe, and what came out of it.
struct AsyncCapture {
    pipe: Option<Receiver>,
    bytes: Vec<u8>,
    copy: Option<Log>,
}

impl AsyncCapture {
    fn new(pipe: Option<Receiver>, copy: Option<Log>) -> Self {
        Self { pipe, bytes: Vec::new(), copy }
    }

    /// Takes what is there, within bounds; wakes the task when there is more.
    fn poll(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let most = self.bytes.len() + AT_A_TIME;
        let mut buffer = vec![0; 16 * 1024];
        while let Some(pipe) = &self.pipe {
            if self.bytes.len() >= most {
                cx.waker().wake_by_ref();
                break;
            }
            let Poll::Ready(ready) = pipe.poll_read_ready(cx) else { break };
            ready?;
            match pipe.try_read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(len) => {
                    let part = buffer.get(..len).unwrap_or_default();
                    self.bytes.extend_from_slice(part);
                    self.copy.iter().for_each(|log| log.take(part));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is left once the tree is gone. From the pipe itself: the runtime may not have
    /// noticed it yet.
    fn drain(self) -> Result<Vec<u8>, Errno> {
        let pipe = self.pipe.map(Receiver::into_nonblocking_fd).transpose();
        let mut capture = Capture::new(pipe.map_err(|error| errno_of(&error))?, self.copy)?;
        capture.bytes = self.bytes;
        capture.drain()?;
        Ok(capture.bytes)
    }
}
