//! Samples taken in turns: what disturbs the machine then disturbs all entries alike.

use std::thread;
use std::time::{Duration, Instant};

use crate::Res;

/// Something to measure: a name, and a closure that says how long it took.
pub(crate) struct Entry<'a> {
    pub(crate) name: String,
    run: Box<dyn FnMut() -> Res<Duration> + 'a>,
    samples: Vec<Duration>,
}

impl<'a> Entry<'a> {
    /// The whole closure is timed.
    pub(crate) fn new(name: &str, mut run: impl FnMut() -> Res + 'a) -> Self {
        Self::partly(name, move || {
            let start = Instant::now();
            run()?;
            Ok(start.elapsed())
        })
    }

    /// The closure times a part of itself.
    pub(crate) fn partly(name: &str, run: impl FnMut() -> Res<Duration> + 'a) -> Self {
        Self { name: name.to_owned(), run: Box::new(run), samples: Vec::new() }
    }

    fn once(&mut self) -> Res<Duration> {
        (self.run)().map_err(|error| format!("{}: {error}", self.name).into())
    }

    /// So many per hundred of the samples took this long at the most.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        percentile(&self.samples, percent)
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }
}

pub(crate) fn percentile(samples: &[Duration], percent: usize) -> Duration {
    let mut sorted = samples.to_owned();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
}

/// How often, and how closely.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) warm_up: usize,
    pub(crate) count: usize,
    /// Before each sample.
    pub(crate) pause: Duration,
}

impl Rounds {
    pub(crate) fn tight(count: usize) -> Self {
        Self { warm_up: (count / 10).clamp(1, 10), count, pause: Duration::ZERO }
    }
}

/// Every entry once in each round, in an order that differs from round to round: nobody always
/// comes after the same neighbour.
pub(crate) fn interleave(entries: &mut [Entry<'_>], rounds: Rounds) -> Res {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..rounds.warm_up + rounds.count {
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last + 1));
        }
        for &number in &order {
            let Some(entry) = entries.get_mut(number) else { continue };
            thread::sleep(rounds.pause);
            let took = entry.once()?;
            if round >= rounds.warm_up {
                entry.samples.push(took);
            }
        }
    }
    Ok(())
}

/// xorshift: the same order every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % limit
    }
}
