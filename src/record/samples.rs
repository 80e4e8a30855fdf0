//! Rows and events of a lane, in bounded memory: rows are merged by twos as they become too many.

use std::time::Duration;

use crate::record::timeline::{Event, EventKind, Sample};

/// Rows that are kept; a run of any length has at least half as many.
const ROWS: usize = 1024;

/// The time between two rows at first.
const DENSE: Duration = Duration::from_millis(20);

/// Events that are kept.
const EVENTS: usize = 256;

/// Events of one kind are one where less than this lies between them: a tree that
/// uses up its share of the CPUs is throttled once in a period, of 0.1 s.
pub(crate) const GOES_ON: Duration = Duration::from_millis(250);

/// What was used over time.
#[derive(Debug)]
pub(crate) struct Samples {
    rows: Vec<Sample>,
    interval: Duration,
}

impl Samples {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new(), interval: DENSE }
    }

    /// The time between two rows.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    pub(crate) fn rows(&self) -> &[Sample] {
        &self.rows
    }

    pub(crate) fn push(&mut self, row: Sample) {
        if self.rows.len() >= ROWS {
            self.thin();
        }
        self.rows.push(row);
    }

    /// Merges each two rows to one: what was counted up to the second, the most of what was
    /// measured in both.
    fn thin(&mut self) {
        let merged = self.rows.chunks(2).map(|pair| match pair {
            [one, other] => Sample {
                memory: one.memory.max(other.memory),
                processes: one.processes.max(other.processes),
                ..*other
            },
            all => all.first().copied().unwrap_or(NOTHING),
        });
        self.rows = merged.collect();
        self.interval = self.interval.saturating_mul(2);
    }
}

const NOTHING: Sample = Sample {
    at: Duration::ZERO,
    cpu: None,
    memory: None,
    processes: 0,
    io_read: None,
    io_written: None,
};

/// What has happened, in order.
#[derive(Debug, Default)]
pub(crate) struct Events {
    all: Vec<Event>,
    count: usize,
}

impl Events {
    pub(crate) fn all(&self) -> &[Event] {
        &self.all
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Notes an event; one that goes on since the last row is one.
    pub(crate) fn note(&mut self, at: Duration, kind: EventKind, count: u64, within: Duration) {
        let recent = self.all.iter_mut().rev().find(|event| event.kind == kind);
        match recent {
            Some(last) if lasts(kind) && at.saturating_sub(last.until) <= within => {
                last.until = at;
                last.count = last.count.saturating_add(count);
            }
            _ => {
                self.count += 1;
                if self.all.len() < EVENTS {
                    self.all.push(Event { at, until: at, kind, count });
                }
            }
        }
    }
}

/// Whether it may go on for a while, and is found by samples.
fn lasts(kind: EventKind) -> bool {
    use EventKind::{MemoryHigh, NewsLost, OutOfMemory, PidsExhausted, Throttled};
    matches!(kind, MemoryHigh | NewsLost | OutOfMemory | PidsExhausted | Throttled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_bounded_and_keep_the_peaks() {
        let mut samples = Samples::new();
        for number in 0..1_000_000u64 {
            let memory = Some(if number == 77_777 { 9 } else { 1 });
            let (at, cpu) = (Duration::from_millis(number), Some(Duration::from_micros(number)));
            samples.push(Sample { at, cpu, memory, processes: 1, ..NOTHING });
            assert!(samples.rows().len() <= ROWS);
        }
        assert!(samples.rows().len() >= ROWS / 2);
        assert_eq!(samples.rows().iter().filter(|row| row.memory == Some(9)).count(), 1);
        assert_eq!(samples.rows().last().map(|row| row.at), Some(Duration::from_millis(999_999)));
        assert!(samples.rows().is_sorted_by_key(|row| row.at));
        assert!(samples.interval() > DENSE * 500);
    }

    #[test]
    fn what_goes_on_is_one_event_and_all_are_bounded() {
        let (mut events, short) = (Events::default(), Duration::from_millis(100));
        let at = |number: u64| Duration::from_millis(number * 50);
        (0..100).for_each(|number| events.note(at(number), EventKind::Throttled, 2, short));
        assert_eq!((events.all().len(), events.count()), (1, 1));
        assert_eq!((events.all()[0].count, events.all()[0].until), (200, at(99)));
        (0..1000).for_each(|number| events.note(at(number), EventKind::StopSignal(15), 1, short));
        assert_eq!((events.all().len(), events.count()), (EVENTS, 1001));
    }
}
