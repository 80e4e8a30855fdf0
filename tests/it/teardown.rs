//! Teardown returns when nothing is left: races, in loops. A second at the desk; `TIDY_LONG=1` for
//! longer.

use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use serial_test::{parallel, serial};
use tidy_process::{Stdio, Supervisor};

use crate::support::{Alone, Stage, read_ready, rounds};

/// One write to `cgroup.kill` misses such a chain about once in 300 times.
#[test]
#[serial]
fn a_fork_chain_never_survives() {
    chains(Stage::set(), rounds(60, 2000));
}

/// The same races are run against keepers.
pub(crate) fn chains(stage: Option<Stage>, rounds: u32) {
    let Some(stage) = stage else { return };
    for round in 0..rounds {
        let name = if round % 2 == 0 { "chain" } else { "chain-setsid" };
        let mut child = stage.victim(name).spawn().unwrap();
        read_ready(child.stdout.take().unwrap());
        child.wait().unwrap();
        let left = child.finish().unwrap().leftovers;
        // It is named, or has ended by itself: what is seen is not waited for.
        assert!(left.iter().all(|process| process.pid > 0), "round {round}: {left:?}");
        stage.assert_clean(&format!("round {round}"));
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_bomb_without_main_threads_never_survives() {
    bombs(Stage::set());
}

pub(crate) fn bombs(stage: Option<Stage>) {
    let Some(stage) = stage else { return };
    for round in 0..rounds(5, 100) {
        let mut child = stage.victim("dead-leader-bomb").spawn().unwrap();
        read_ready(child.stdout.take().unwrap());
        child.finish().unwrap();
        stage.assert_clean(&format!("round {round}"));
    }
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn a_tree_killed_at_any_moment_of_its_youth_is_gone() {
    young_trees(Stage::set());
}

pub(crate) fn young_trees(stage: Option<Stage>) {
    let Some(stage) = stage else { return };
    for round in 0..rounds(200, 2000) {
        let mut command = stage.sh("sleep 20 & (setsid sleep 20 &) ; sh -c 'sleep 20 & wait'");
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        // Whatever stage it has come to by then: the point is not to wait for any.
        std::thread::sleep(Duration::from_micros(u64::from(round % 50) * 100));
        drop(child);
        stage.assert_clean(&format!("round {round}"));
    }
    stage.close(Alone::Yes);
}

#[test]
#[parallel]
fn a_workload_that_takes_permissions_away_is_removed_all_the_same() {
    let Some(stage) = Stage::set() else { return };
    let script = "D=$(sed -n 's/^0:://p' /proc/self/cgroup); D=$M$D; mkdir $D/a $D/a/b; sleep 20 & \
         echo $! > $D/a/b/cgroup.procs; \
         chmod 0 $D/a/b/cgroup.* $D/a/b $D/a $D/cgroup.* $D; echo ready; wait";
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
    let base = stage.supervisor.path().unwrap().parent().unwrap().display().to_string();
    let mount = base.strip_suffix(own.trim_end_matches('/')).unwrap_or(&base);
    let mut command = stage.sh(script);
    let mut child = command.env("M", mount).stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    child.finish().unwrap();
    drop(command);
    stage.close(Alone::No);
}

#[test]
#[serial]
fn deeply_nested_cgroups_go_with_few_fds() {
    let Some(stage) = Stage::set() else { return };
    let child = stage.command("sleep").arg("20").spawn().unwrap();
    let mut dir = child.tree().path().unwrap().to_owned();
    for _ in 0..300 {
        dir.push("d");
        nix::unistd::mkdir(&dir, Mode::S_IRWXU).unwrap();
    }
    for n in 0..50 {
        nix::unistd::mkdir(&child.tree().path().unwrap().join(format!("wide{n}")), Mode::S_IRWXU)
            .unwrap();
    }
    child.finish().unwrap();
    drop(child);
    stage.close(Alone::Yes);
}

#[test]
#[parallel]
fn a_hundred_processes_die_at_once() {
    let Some(stage) = Stage::set() else { return };
    let script = "for i in $(seq 100); do sleep 20 & done; echo ready; wait";
    let mut child = stage.sh(script).stdout(Stdio::piped()).spawn().unwrap();
    read_ready(child.stdout.take().unwrap());
    assert_eq!(child.tree().process_count(), 101);
    let start = Instant::now();
    child.finish().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
    stage.close(Alone::No);
}

/// A fork of the caller without exec has copies of everything, and no claim to it.
#[test]
#[serial]
fn a_forked_copy_of_the_caller_tears_nothing_down() {
    let Some(stage) = Stage::set() else { return };
    let supervisor = Supervisor::builder().base(stage.supervisor.path().unwrap()).build().unwrap();
    let child = stage.command("sleep").arg("20").supervisor(&supervisor).spawn().unwrap();
    // SAFETY: the forked copy only drops what it holds, which allocates nothing, and ends at once.
    #[expect(unsafe_code, reason = "fork without exec is what is tested")]
    let fork = unsafe { nix::unistd::fork() }.unwrap();
    match fork {
        nix::unistd::ForkResult::Child => {
            drop(child);
            drop(supervisor);
            // SAFETY: ends the copy without running the test harness in it.
            #[expect(unsafe_code, reason = "fork without exec is what is tested")]
            unsafe {
                libc::_exit(0)
            }
        }
        nix::unistd::ForkResult::Parent { child: copy } => {
            nix::sys::wait::waitpid(copy, None).unwrap();
            assert_eq!(child.try_wait().unwrap(), None, "it was killed");
            assert!(child.tree().path().unwrap().exists() && supervisor.path().unwrap().exists());
            child.finish().unwrap();
            drop(supervisor);
        }
    }
    stage.close(Alone::No);
}
