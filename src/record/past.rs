//! The processes of a lane that have ended: the more important ones, and the rest by names.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use crate::record::timeline::{Omitted, Span};

/// Processes that are kept of a lane.
const KEPT: usize = 2000;

/// Names by which those that are left out are counted, and those that are told.
const NAMES: usize = 1000;
const TOLD: usize = 100;

#[derive(Debug)]
pub(crate) struct Past {
    main: u32,
    spans: Vec<Span>,
    omitted: Counts,
}

type Counts = HashMap<String, (usize, Duration)>;

impl Past {
    pub(crate) fn new(main: u32) -> Self {
        Self { main, spans: Vec::new(), omitted: Counts::new() }
    }

    pub(crate) fn push(&mut self, span: Span) {
        self.spans.push(span);
        if self.spans.len() >= 2 * KEPT {
            self.prune();
        }
    }

    /// Keeps what is more important, and counts the rest.
    pub(crate) fn prune(&mut self) {
        prune(self.main, &mut self.spans, &mut self.omitted);
    }

    /// Counts a process that is not followed.
    pub(crate) fn omit(&mut self, name: String) {
        count(&mut self.omitted, name, Duration::ZERO);
    }

    /// Takes back the last process of this pid, if it is one.
    pub(crate) fn take(&mut self, is_it: impl Fn(&Span) -> bool) -> Option<Span> {
        let place = self.spans.iter().rposition(is_it)?;
        Some(self.spans.remove(place))
    }

    /// The end of a main process may be known before its status is.
    pub(crate) fn of_main(&mut self) -> Option<&mut Span> {
        let main = self.main;
        self.spans.iter_mut().find(|span| span.pid == main)
    }

    /// All that is kept, with those that are alive, by their birth; and what was left out.
    pub(crate) fn with(&self, alive: impl Iterator<Item = Span>) -> (Vec<Span>, Vec<Omitted>) {
        let (mut all, mut omitted) = (self.spans.clone(), self.omitted.clone());
        all.extend(alive);
        prune(self.main, &mut all, &mut omitted);
        all.sort_unstable_by_key(|span| (span.born, span.pid));
        let each = omitted.into_iter();
        let mut told: Vec<Omitted> =
            each.map(|(name, (count, running))| Omitted { name, count, running }).collect();
        told.sort_unstable_by(|one, other| (other.count, &one.name).cmp(&(one.count, &other.name)));
        told.truncate(TOLD);
        (all, told)
    }
}

fn prune(main: u32, spans: &mut Vec<Span>, omitted: &mut Counts) {
    if spans.len() <= KEPT {
        return;
    }
    spans.sort_unstable_by_key(|span| Reverse(weight(span, main)));
    for span in spans.drain(KEPT..) {
        let running = span.ended.unwrap_or(span.born).saturating_sub(span.born);
        count(omitted, span.name, running);
    }
}

fn count(omitted: &mut Counts, name: String, running: Duration) {
    let known = omitted.len() < NAMES || omitted.contains_key(&name);
    let (count, time) = omitted.entry(if known { name } else { String::new() }).or_default();
    *count += 1;
    *time = time.saturating_add(running);
}

/// What is kept rather: the main process, what was left, killed or failed, and what ran long.
fn weight(span: &Span, main: u32) -> (bool, bool, bool, Duration) {
    let failed = span.status.is_some_and(|status| !status.success());
    let running = span.ended.map_or(Duration::MAX, |ended| ended.saturating_sub(span.born));
    (span.pid == main, span.left || span.killed, failed, running)
}
