//! The end of a child by `finish(&self)`: once, and its report is kept.

use std::thread;

use serial_test::{parallel, serial};
use tidy_process::{Cause, Stdio};

use crate::support::{Alone, SOON, Stage, read_ready};

#[test]
#[parallel]
fn a_finished_child_keeps_its_report_and_dropping_it_does_nothing() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let child = stage.sh("sleep 20 & exit 4").spawn().unwrap();
        child.wait().unwrap();
        let first = child.finish().unwrap();
        stage.assert_clean("when it is finished");
        let again = child.finish().unwrap();
        assert_eq!((again.wall, &again.leftovers), (first.wall, &first.leftovers));
        assert_eq!((first.cause, first.leftovers.len()), (Cause::Exited, 1));
        assert_eq!(child.wait().unwrap().code(), Some(4));
        child.kill().unwrap();
        child.stop(SOON).unwrap();
        assert_eq!(child.finish().unwrap().cause, Cause::Exited);
        assert!(child.signal(libc::SIGTERM).is_err());
        // A directory of the same name is not its own any more.
        let path = child.tree().path().map(std::path::Path::to_owned);
        path.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        drop(child);
        path.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn several_threads_finish_and_get_the_same_report() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let mut command = stage.sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
        let mut child = command.grace(SOON).stdout(Stdio::piped()).spawn().unwrap();
        drop(command);
        read_ready(child.stdout.take().unwrap());
        let reports: Vec<_> = thread::scope(|scope| {
            let threads = [(); 3].map(|()| scope.spawn(|| child.finish().unwrap()));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for report in &reports {
            assert_eq!((report.status.code(), report.cause), (Some(5), Cause::Stopped));
            assert_eq!(report.wall, reports[0].wall);
        }
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn a_child_whose_tree_was_finished_has_a_report_too() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let child = stage.sh("sleep 20 & sleep 20").spawn().unwrap();
        child.tree().finish().unwrap();
        stage.assert_clean("when the tree is finished");
        let report = child.finish().unwrap();
        assert_eq!((report.cause, report.leftovers), (Cause::Signaled(9), Vec::new()));
        stage.close(Alone::No);
    }
}

/// The caller has waited for every child.
#[test]
#[serial]
fn a_status_that_was_taken_is_reported_as_that() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.sh("sleep 20 & exit 4").spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::wait::waitpid(pid, None).unwrap();
    let error = child.wait().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECHILD), "{error}");
    let report = child.finish().unwrap();
    assert_eq!((report.cause, report.status.code()), (Cause::StatusTaken, Some(255)));
    assert!(!report.success());
    assert_eq!(report.leftovers.len(), 1);
    stage.assert_clean("though its status is not known");
    drop(child);
    stage.close(Alone::Yes);
}
