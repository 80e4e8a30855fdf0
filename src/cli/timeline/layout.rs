//! Puts processes into rows: each below the one that started it, several in a row where one ends
//! before the next begins.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidy_process::Span;

/// Where a process is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) row: usize,
    /// The place in the list of the process that started it, if that is drawn.
    pub(crate) parent: Option<usize>,
    /// Where the next one in its row begins.
    pub(crate) next: Option<Duration>,
}

/// Places these, which are sorted by birth; `least` is as long as a bar is at least, `end` is when
/// those end that have not. Returns how many rows there are with them.
pub(crate) fn places(spans: &[&Span], least: Duration, end: Duration) -> (Vec<Place>, usize) {
    let parents = parents(spans);
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
    let mut todo = Vec::new();
    for (number, parent) in parents.iter().enumerate() {
        match parent.and_then(|parent| children.get_mut(parent)) {
            Some(below) => below.push(number),
            None => todo.push((number, 0)),
        }
    }
    todo.reverse();
    let mut rows: Vec<BTreeMap<Duration, (Duration, usize)>> = Vec::new();
    let mut places = vec![Place { row: 0, parent: None, next: None }; spans.len()];
    // Not recursive: a workload chooses how deep its tree is.
    while let Some((number, from)) = todo.pop() {
        let Some(span) = spans.get(number) else { continue };
        let until = span.ended.unwrap_or(end).max(span.born + least);
        let free = (from..rows.len()).find(|&row| is_free(rows.get(row), span.born, until));
        let row = free.unwrap_or(rows.len().max(from));
        while rows.len() <= row {
            rows.push(BTreeMap::new());
        }
        if let Some(taken) = rows.get_mut(row) {
            taken.insert(span.born, (until, number));
        }
        if let Some(place) = places.get_mut(number) {
            (place.row, place.parent) = (row, parents.get(number).copied().flatten());
        }
        let below = children.get(number).into_iter().flatten().rev();
        todo.extend(below.map(|child| (*child, row + 1)));
    }
    for row in &rows {
        for ((_, (_, number)), (next, _)) in row.iter().zip(row.iter().skip(1)) {
            places.get_mut(*number).into_iter().for_each(|place| place.next = Some(*next));
        }
    }
    (places, rows.len())
}

fn is_free(
    row: Option<&BTreeMap<Duration, (Duration, usize)>>,
    from: Duration,
    until: Duration,
) -> bool {
    let Some(row) = row else { return true };
    let before = row.range(..=from).next_back().is_none_or(|(_, (end, _))| *end <= from);
    before && row.range(from..).next().is_none_or(|(start, _)| *start >= until)
}

/// The place of the process that started each: the last one of that pid that was there before.
fn parents(spans: &[&Span]) -> Vec<Option<usize>> {
    let mut last: HashMap<u32, usize> = HashMap::new();
    let mut all = Vec::with_capacity(spans.len());
    for (number, span) in spans.iter().enumerate() {
        all.push(last.get(&span.ppid).copied());
        last.insert(span.pid, number);
    }
    all
}
