//! A recording that several threads spawn with at the same time.

use std::sync::{Barrier, Mutex};
use std::thread;

use serial_test::serial;
use tidy_process::Recording;

use crate::support::{Alone, SOON, Stage, recorders, until};

/// A second pair of threads would take the place of the first one, which then finds its pipe ended
/// again and again.
#[test]
#[serial]
fn two_threads_look_however_many_spawn() {
    let Some(stage) = Stage::set() else { return };
    assert!(until(SOON, || recorders() == 0));
    for round in 0..50 {
        let recording = Recording::new();
        let (barrier, children) = (Barrier::new(8), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..8 {
                let mut command = stage.command("sleep");
                command.arg("60").record(&recording);
                let (barrier, children) = (&barrier, &children);
                scope.spawn(move || {
                    barrier.wait();
                    let child = command.spawn().unwrap();
                    children.lock().unwrap().push(child);
                });
            }
        });
        // A thread has its name once it runs.
        assert!(until(SOON, || recorders() >= 2), "round {round}");
        assert_eq!(recorders(), 2, "round {round}");
        let children = children.into_inner().unwrap();
        children.iter().for_each(|child| drop(child.finish().unwrap()));
        assert_eq!(recording.timeline().lanes.len(), 8);
        assert!(until(SOON, || recorders() == 0), "round {round}");
    }
    stage.close(Alone::Yes);
}
