//! The protocols between processes that may be killed at any step, as small models: every
//! interleaving is tried, and no state in which nothing moves any more may be a bad one.
//!
//! A model is what the code does, step by step, as far as other processes can see it. Whoever
//! changes a step there changes it here.

mod guard;
mod keeper;

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

/// All that several processes can see and remember.
trait Model: Clone + Eq + Hash + Debug {
    /// What may happen next: a name, whether it will (a step of a living process) or only may (a
    /// kill, a process that ends when it likes), and what comes of it.
    fn next(&self) -> Vec<(&'static str, Will, Self)>;

    /// What is wrong where nothing has to happen any more.
    fn fault(&self) -> Option<&'static str>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Will {
    /// It happens if nothing else does.
    Surely,
    Perhaps,
}
use Will::{Perhaps, Surely};

/// Visits every state that can be reached; the number of them, and of those where nothing has to
/// happen. Or what is wrong in one, and how it comes to that.
fn explore<M: Model>(start: M) -> Result<(usize, usize), (&'static str, String)> {
    let mut from: HashMap<M, Option<(M, &'static str)>> = HashMap::new();
    from.insert(start.clone(), None);
    let mut todo = vec![start];
    let mut at_rest = 0;
    while let Some(state) = todo.pop() {
        let next = state.next();
        if next.iter().all(|(_, will, _)| *will == Perhaps) {
            at_rest += 1;
            if let Some(fault) = state.fault() {
                return Err((fault, format!("{state:?}\nby: {}", story(&from, &state))));
            }
        }
        for (name, _, then) in next {
            from.entry(then.clone()).or_insert_with(|| {
                todo.push(then);
                Some((state.clone(), name))
            });
        }
    }
    Ok((from.len(), at_rest))
}

fn story<M: Model>(from: &HashMap<M, Option<(M, &'static str)>>, end: &M) -> String {
    let mut steps = Vec::new();
    let mut at = end;
    while let Some(Some((before, name))) = from.get(at) {
        steps.push(*name);
        at = before;
    }
    steps.reverse();
    steps.join(", ")
}

/// Without this part of a protocol the model finds this fault.
fn assert_needed<M: Model>(part: &str, broken: M, fault: &str) {
    match explore(broken) {
        Err((found, _)) => assert_eq!(found, fault, "without {part}"),
        Ok(_) => panic!("{part} is not needed"),
    }
}

fn assert_sound<M: Model>(model: M) {
    let (states, at_rest) = explore(model).unwrap_or_else(|(fault, by)| panic!("{fault}: {by}"));
    println!("{states} states, {at_rest} at rest");
    assert!(states > 300 && at_rest > 10, "{states}, {at_rest}");
}
