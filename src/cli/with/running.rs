//! A server that was started: what is told of it, and its end.

use std::process::ChildStdin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidy_process::cli_support::{StandIn, quoted_lines};
use tidy_process::{Cause, Child, Log, Protocol, Report};

use crate::exit::Failure;
use crate::print::json;
use crate::with::ready::ReadyArg;
use crate::with::servers::{Program, Server};

pub(crate) struct Running<'a> {
    /// Its place in the plan.
    pub(crate) number: usize,
    pub(crate) server: &'a Server,
    pub(crate) child: Arc<Child>,
    /// Of its process group, where that has to stay.
    pub(crate) leader: Option<StandIn>,
    pub(crate) log: Log,
    /// What it reads, for as long as that is to stay open.
    pub(crate) input: Option<ChildStdin>,
    pub(crate) state: State,
    pub(crate) port: Option<u16>,
    pub(crate) report: Option<Report>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Awaited,
    /// After so long; none if nothing was awaited.
    Ready(Option<Duration>),
}

impl Running<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.server.name
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state != State::Awaited
    }

    /// Notes that it is ready, and finds its port; returns the others that it may be taken to have.
    pub(crate) fn note_ready(&mut self, after: Option<Duration>) -> tidy_process::Result<Vec<u16>> {
        self.state = State::Ready(after);
        let ready = self.server.options.ready.as_ref();
        self.port = ready.and_then(ReadyArg::port);
        if self.port.is_some() {
            return Ok(Vec::new());
        }
        let mut ports: Vec<u16> = Vec::new();
        for found in self.child.tree().listening_ports()? {
            let port = found.address.port();
            if (found.protocol == Protocol::Tcp || self.port.is_none()) && !ports.contains(&port) {
                ports.push(port);
            }
            self.port.get_or_insert(port);
        }
        let any = matches!(ready, Some(ReadyArg::AnyTcp));
        Ok(ports.into_iter().skip(1).filter(|_| any).collect())
    }

    /// Its name, and what is awaited of it.
    pub(crate) fn awaited(&self) -> String {
        let what = self.server.options.ready.as_ref().map(|ready| format!(" ({})", ready.said()));
        format!("{}{}", self.name(), what.unwrap_or_default())
    }

    /// What those that come after it learn of it.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let name = self.server.variable();
        let port = self.port.map(|port| (format!("TIDY_{name}_PORT"), port.to_string()));
        let pid = (format!("TIDY_{name}_PID"), self.child.id().to_string());
        port.into_iter().chain([pid]).collect()
    }

    /// Its name and its last lines.
    pub(crate) fn tail(&self, lines: usize) -> (String, String) {
        (self.name().to_owned(), quoted_lines(&self.log.tail(lines)))
    }

    /// Ends it, after its input, where that was kept open.
    pub(crate) fn finish(&mut self) -> tidy_process::Result<()> {
        self.input = None;
        let finished = self.child.finish();
        self.leader = None;
        match finished {
            Ok(report) => {
                self.report = Some(report);
                Ok(())
            }
            Err(error) => {
                self.report = error.report().cloned();
                Err(error)
            }
        }
    }

    /// What to do where its end at once and without fault tells that it found nothing to read.
    pub(crate) fn input_hint(&self) -> Option<&'static str> {
        let done = self.child.try_wait().ok().flatten().is_some_and(|status| status.success());
        (done && self.server.options.stdin.is_none()).then_some(
            "its standard input was /dev/null: one that ends with its input wants --stdin open",
        )
    }

    pub(crate) fn json(&self) -> Value {
        let mut value = json::about_server(self.name(), self.child.id(), self.report.as_ref());
        match &self.server.command {
            Program::Line(line) => json::insert_word(&mut value, "line", line),
            Program::Words(words) => json::insert(&mut value, "command", words.clone().into()),
        }
        if let State::Ready(Some(after)) = self.state {
            json::insert(&mut value, "ready_seconds", after.as_secs_f64().into());
        }
        if let Some(port) = self.port {
            json::insert(&mut value, "port", port.into());
        }
        value
    }
}

/// Makes the failure of a server that has ended by itself.
pub(crate) fn epitaph(running: &Running<'_>, meanwhile: &str) -> Result<Failure, Failure> {
    let report = running.child.finish()?;
    let status = match report.cause {
        Cause::Exited | Cause::Signaled(_) => report.status.to_string(),
        cause => format!("{cause} ({})", report.status),
    };
    let (name, lines) = running.tail(10);
    let tail = if lines.is_empty() {
        "; it has written nothing".to_owned()
    } else {
        format!("; its last lines:\n  {}", lines.replace('\n', "\n  "))
    };
    let hint = running.input_hint();
    Ok(Failure::ServerEnded { name, meanwhile: meanwhile.to_owned(), status, tail, hint })
}
