//! A wait for readiness in steps, by a caller that sleeps by itself.

use std::time::{Duration, Instant};

use serial_test::parallel;
use tidy_process::{Child, Ready};

use crate::support::{Alone, SOON, Stage};

/// Checks until it is ready; how often, and the longest time to the next check.
fn steps(
    child: &Child,
    ready: Ready<'_>,
    within: Duration,
) -> tidy_process::Result<(u32, Duration)> {
    let mut readiness = child.readiness(ready, within)?;
    let (mut number, mut longest) = (1, Duration::ZERO);
    while let Some(next) = readiness.check()? {
        let pause = next.saturating_duration_since(Instant::now());
        longest = longest.max(pause);
        std::thread::sleep(pause);
        number += 1;
    }
    Ok((number, longest))
}

#[test]
#[parallel]
fn a_wait_in_steps_finds_what_a_whole_one_finds() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let child = stage.sh("sleep 60").spawn().unwrap();
        let mut asked = 0;
        let ready = Ready::when(|| {
            asked += 1;
            asked > 5
        });
        let (number, longest) = steps(&child, ready, SOON).unwrap();
        assert_eq!(number, 6);
        assert!(longest <= Duration::from_millis(250), "{longest:?}");
        child.finish().unwrap();
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn a_wait_in_steps_fails_as_a_whole_one_does() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.command("sleep").arg("60").spawn().unwrap();
    let error = steps(&child, Ready::when(|| false), Duration::from_millis(20)).unwrap_err();
    assert!(error.is_not_ready() && error.to_string().contains("not yet after"), "{error}");
    child.kill().unwrap();
    let error = steps(&child, Ready::tcp(1), SOON).unwrap_err();
    assert!(error.to_string().contains("nothing of the tree is left"), "{error}");
    let error = steps(&child, Ready::log("x"), SOON).unwrap_err();
    assert!(error.to_string().contains("log"), "{error}");
    child.finish().unwrap();
    stage.close(Alone::No);
}

/// A step enforces what every wait does.
#[test]
#[parallel]
fn a_wait_in_steps_keeps_the_timeout() {
    let Some(stage) = Stage::set() else { return };
    let timeout = Duration::from_millis(50);
    let child = stage.command("sleep").arg("60").timeout(timeout).spawn().unwrap();
    assert!(steps(&child, Ready::tcp(1), SOON).is_err());
    assert_eq!(child.finish().unwrap().cause, tidy_process::Cause::TimedOut);
    stage.close(Alone::No);
}
