//! SIGKILL of the pool at any moment leaves nothing.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use serial_test::serial;

use crate::support::{Alone, SOON, Stage, rounds, until};

/// At a moment that differs from round to round, in the first tenth of a second: while some of 64
/// are being started, run, and end. `TIDY_LONG=1` does it 1,000 times.
#[test]
#[serial]
fn a_pool_killed_at_any_moment_leaves_nothing() {
    let Some(stage) = Stage::set() else { return };
    let script = "case $(({} % 3)) in 0) exec sleep 60;; 1) setsid sleep 60 & ;; *) exit 3;; esac";
    for round in 0..rounds(10, 1000) {
        let mut command = stage.tool(&["pool", "-q", "-j64", "--", "sh", "-c", script]);
        let numbers = (1..2000).map(|number| number.to_string());
        let mut tool = command.arg(":::").args(numbers).stdout(Stdio::null()).spawn().unwrap();
        // The moments are spread by a generator of small period, so that each run has the same.
        sleep(Duration::from_micros(u64::from(round * 7919 % 1000) * 100));
        tool.kill().unwrap();
        tool.wait().unwrap();
        assert!(until(SOON, || stage.cgroups() == 0), "round {round}: cgroups are left");
        stage.assert_clean(&format!("round {round}"));
    }
    stage.close(Alone::Yes);
}
