//! Limits are enforced, or refused with the reason; each cause by a victim that just meets it, and
//! by one that almost does.
//!
//! Where the machine's controllers are on cgroup v1 the refusals are tested. With
//! `TIDY_CONTROLLERS=1` (the virtual machines) every limit has to be enforced.

use std::path::Path;
use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Cause, Child, IoLimit, Limits, Note, Report, Stdio, Supervisor, Tree};

use crate::load::load;
use crate::support::{Alone, Stage, read_ready, rounds};

const MIB: u64 = 1 << 20;

/// Whether limits of this kind can be enforced here. Where they cannot, the error has to say all
/// there is to say.
fn enforced(stage: &Stage, controller: &str, limits: &Limits) -> bool {
    let base = stage.supervisor.path().unwrap().parent().unwrap();
    // A base without processes hands down all that it has itself, once it is asked to.
    let ours = std::fs::read_to_string(base.join("cgroup.procs")).unwrap().is_empty();
    let file = if ours { "cgroup.controllers" } else { "cgroup.subtree_control" };
    let text = std::fs::read_to_string(base.join(file)).unwrap();
    if text.split_whitespace().any(|each| each == controller) {
        return true;
    }
    assert!(std::env::var_os("TIDY_CONTROLLERS").is_none(), "{controller} is not in {base:?}");
    let error = stage.command("true").limits(limits.clone()).spawn().unwrap_err();
    let said = error.to_string();
    assert!(error.is_limit(), "{said}");
    assert!(said.contains(&format!("limit {controller}: write ")), "{said}");
    assert!(said.contains("/tidy-process-") && error.hint().is_some(), "{said}");
    stage.assert_clean("after the refusal");
    false
}

/// A stage where this controller works, and a run under a limit.
fn run(controller: &str, limits: Limits, what: &str) -> Option<Report> {
    let stage = Stage::set()?;
    let possible = enforced(&stage, controller, &limits);
    let report = possible.then(|| load(&stage, what).limits(limits).run().unwrap());
    stage.close(Alone::No);
    report
}

#[test]
#[serial]
fn memory_beyond_the_limit_ends_the_whole_tree() {
    let limits = Limits::new().memory_max(64 * MIB);
    for what in ["memory 200", "child-memory 200"] {
        let Some(report) = run("memory", limits.clone(), what) else { return };
        assert_eq!(report.cause, Cause::OutOfMemory, "{what}: {report:?}");
        assert_eq!(report.notes, []);
        assert!(report.usage.oom_kills >= Some(1) && report.usage.memory_peak <= Some(64 * MIB));
    }
    let report = run("memory", limits, "memory 40").unwrap();
    assert_eq!((report.cause, report.usage.oom_kills), (Cause::Exited, Some(0)), "{report:?}");
}

#[test]
#[serial]
fn a_sigkill_of_somebody_else_is_no_lack_of_memory() {
    let Some(stage) = Stage::set() else { return };
    let limits = Limits::new().memory_max(64 * MIB);
    if enforced(&stage, "memory", &limits) {
        let report = stage.sh("kill -9 $$").limits(limits).run().unwrap();
        assert_eq!(report.cause, Cause::Signaled(9));
    }
    stage.close(Alone::No);
}

/// Without the group kill a grandchild may go alone: that is a note, and not the end.
#[test]
#[serial]
fn a_grandchild_killed_for_memory_is_a_note() {
    let Some(stage) = Stage::set() else { return };
    let limits = Limits::new().memory_max(64 * MIB);
    if enforced(&stage, "memory", &limits) {
        let mut command = stage.sh("read go; TIDY_LOAD='memory 200' \"$0\" || exit 5");
        command.arg(crate::victim::exe()).limits(limits).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(command);
        std::fs::write(child.tree().path().unwrap().join("memory.oom.group"), "0").unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        let report = child.finish().unwrap();
        assert_eq!((report.cause, report.status.code()), (Cause::Exited, Some(5)), "{report:?}");
        assert_eq!(report.notes, [Note::OutOfMemory(1)]);
    }
    stage.close(Alone::No);
}

#[test]
#[serial]
fn swap_is_off_with_a_memory_limit_and_on_when_asked_for() {
    let swap = std::fs::read_to_string("/proc/swaps").unwrap().lines().count() > 1;
    let limits = Limits::new().memory_max(64 * MIB);
    let Some(report) = run("memory", limits.clone(), "memory 100") else { return };
    assert_eq!(report.cause, Cause::OutOfMemory);
    assert!(swap, "this machine has no swap to test with");
    let report = run("memory", limits.swap_max(128 * MIB), "memory 100").unwrap();
    assert_eq!(report.cause, Cause::Exited, "{report:?}");
}

#[test]
#[serial]
fn memory_high_slows_down_and_does_not_kill() {
    let limits = Limits::new().memory_high(48 * MIB).swap_max(u64::MAX);
    let Some(report) = run("memory", limits, "memory 56") else { return };
    assert_eq!(report.cause, Cause::Exited, "{report:?}");
}

#[test]
#[serial]
fn forks_beyond_the_limit_are_refused_and_noted() {
    let Some(report) = run("pids", Limits::new().pids_max(8), "forks 20") else { return };
    assert_eq!((report.cause, report.status.code()), (Cause::Exited, Some(0)), "{report:?}");
    assert!(matches!(report.notes.as_slice(), [Note::PidsExhausted(1..)]), "{:?}", report.notes);
    assert!(report.usage.pids_peak <= Some(8));
    let report = run("pids", Limits::new().pids_max(30), "forks 20").unwrap();
    assert_eq!((report.cause, report.notes.as_slice()), (Cause::Exited, [].as_slice()));
    assert_eq!(report.usage.pids_peak, Some(21));
}

#[test]
#[serial]
fn half_a_cpu_is_half_a_cpu_however_many_burn() {
    for count in [1, 2] {
        let what = format!("burn-for 3000 {count}");
        let Some(report) = run("cpu", Limits::new().cpus(0.5), &what) else { return };
        let cpu = report.usage.user.unwrap() + report.usage.system.unwrap();
        let share = cpu.as_secs_f64() / report.wall.as_secs_f64();
        println!("{count} at --cpus 0.5 over {:?}: share {share:.3}", report.wall);
        assert!((0.475..0.525).contains(&share), "{count} processes had a share of {share}");
    }
}

#[test]
#[serial]
fn weights_and_sets_of_cpus_reach_the_kernel() {
    let Some(stage) = Stage::set() else { return };
    if enforced(&stage, "cpu", &Limits::new().cpu_weight(50)) {
        let limits = Limits::new().cpu_weight(50);
        let child = stage.command("sleep").arg("20").limits(limits).spawn().unwrap();
        let weight =
            std::fs::read_to_string(child.tree().path().unwrap().join("cpu.weight")).unwrap();
        assert_eq!(weight, "50\n");
    }
    if enforced(&stage, "cpuset", &Limits::new().cpuset("0")) {
        let output = stage.command("nproc").limits(Limits::new().cpuset("0")).output().unwrap();
        assert_eq!(output.stdout, b"1\n");
        let error = stage.command("true").limits(Limits::new().cpuset("4000")).spawn().unwrap_err();
        assert!(error.is_limit(), "{error}");
    }
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_device_is_written_no_faster_than_its_rate() {
    let Some(stage) = Stage::set() else { return };
    let scratch = Path::new("/scratch");
    let limit = IoLimit::new().write_bytes(2 * MIB);
    let limits = Limits::new().io("/dev/vda", limit);
    if Path::new("/dev/vda").exists() && enforced(&stage, "io", &limits) && scratch.is_dir() {
        let mut command = load(&stage, "write /scratch/slow 6");
        let start = Instant::now();
        let report = command.limits(limits).run().unwrap();
        drop(command);
        assert!(report.status.success(), "{report:?}");
        assert!(start.elapsed() > Duration::from_millis(1500), "took {:?}", start.elapsed());
        let written = report.usage.io_written.unwrap();
        println!("io: 6 MiB at 2 MiB/s took {:?}, {written} bytes counted", start.elapsed());
        assert!((6 * MIB..8 * MIB).contains(&written), "{written}");
    }
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_value_that_the_kernel_changes_is_refused() {
    let Some(stage) = Stage::set() else { return };
    let odd = Limits::new().memory_max(64 * MIB + 1);
    if enforced(&stage, "memory", &odd) {
        let error = stage.command("true").limits(odd).spawn().unwrap_err();
        let said = error.to_string();
        assert!(said.contains("\"67108865\"") && said.contains("made it \"67108864\""), "{said}");
        stage.assert_clean("after the refusal");
    }
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_limit_can_be_changed_while_the_tree_runs() {
    let Some(stage) = Stage::set() else { return };
    if enforced(&stage, "pids", &Limits::new().pids_max(4)) {
        let script = "echo ready; read go; (sleep 20 & sleep 20 & sleep 20 & wait) || exit 7";
        let mut command = stage.sh(script);
        command.limits(Limits::new().pids_max(4)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        drop(command);
        read_ready(child.stdout.take().unwrap());
        child.tree().set_limits(&Limits::new().pids_max(2)).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        let report = child.finish().unwrap();
        assert!(matches!(report.notes.as_slice(), [Note::PidsExhausted(1..)]), "{report:?}");
    }
    stage.close(Alone::No);
}

/// No controller is needed for this one.
#[test]
#[serial]
fn cpu_time_is_a_limit_for_the_whole_tree() {
    let Some(stage) = Stage::set() else { return };
    let limit = Duration::from_millis(400);
    let mut worst = Duration::ZERO;
    for _ in 0..rounds(3, 20) {
        let limits = Limits::new().cpu_time(limit);
        let report = load(&stage, "burn-for 20000 2").limits(limits).run().unwrap();
        assert_eq!(report.cause, Cause::CpuTimeExceeded, "{report:?}");
        let used = report.usage.user.unwrap() + report.usage.system.unwrap();
        assert!(used >= limit, "ended after {used:?}");
        worst = worst.max(used - limit);
    }
    println!("cpu time: worst overshoot {worst:?}");
    assert!(worst < Duration::from_millis(500), "overshoot {worst:?}");
    let limits = Limits::new().cpu_time(Duration::from_secs(30));
    let report = load(&stage, "burn 200").limits(limits).run().unwrap();
    assert_eq!(report.cause, Cause::Exited);
    stage.close(Alone::No);
}

/// A supervisor below the stage's base with a budget, if that can be had here.
fn budget(stage: &Stage, controller: &str, limits: Limits) -> Option<Supervisor> {
    let base = stage.supervisor.path().unwrap();
    enforced(stage, controller, &limits).then(|| {
        let base = base.parent().unwrap();
        Supervisor::builder().base(base).limits(limits).build().unwrap()
    })
}

#[test]
#[serial]
fn eight_trees_share_a_budget_of_processes() {
    let Some(stage) = Stage::set() else { return };
    if let Some(supervisor) = budget(&stage, "pids", Limits::new().pids_max(40)) {
        let spawn = |_| {
            let mut command = load(&stage, "forks 9");
            command.supervisor(&supervisor).spawn().unwrap()
        };
        let trees: Vec<Child> = (0..8).map(spawn).collect();
        let file = supervisor.path().unwrap().join("pids.peak");
        for child in trees {
            child.wait().unwrap();
        }
        if let Ok(peak) = std::fs::read_to_string(file) {
            assert!(peak.trim().parse::<u64>().unwrap() <= 40, "{peak}");
        }
    }
    stage.close(Alone::No);
}

/// One tree goes, as a whole, and the others stay.
#[test]
#[serial]
fn of_eight_trees_under_a_budget_of_memory_the_greedy_one_goes() {
    let Some(stage) = Stage::set() else { return };
    if let Some(supervisor) = budget(&stage, "memory", Limits::new().memory_max(96 * MIB)) {
        let sleep = |_| stage.command("sleep").arg("60").supervisor(&supervisor).spawn().unwrap();
        let modest: Vec<Child> = (0..7).map(sleep).collect();
        let report = load(&stage, "child-memory 200").supervisor(&supervisor).run().unwrap();
        assert_eq!(report.cause, Cause::OutOfMemory, "{report:?}");
        for child in modest {
            assert_eq!(child.try_wait().unwrap(), None, "a modest one was killed");
        }
        let nested = Limits::new().memory_max(16 * MIB);
        let report =
            load(&stage, "memory 40").supervisor(&supervisor).limits(nested).run().unwrap();
        assert_eq!(report.cause, Cause::OutOfMemory, "the inner limit: {report:?}");
    }
    stage.close(Alone::No);
}

#[test]
#[serial]
fn a_budget_that_cannot_be_had_leaves_no_run_root() {
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap();
    let before = stage.cgroups();
    let limits = Limits::new().cpus(f64::NAN);
    let error = Supervisor::builder().base(base).limits(limits).build().unwrap_err();
    assert!(error.is_limit(), "{error}");
    assert_eq!(stage.cgroups(), before);
    let tree = Tree::limited(&stage.supervisor, None, &Limits::new().cpus(-1.0));
    assert!(tree.is_err());
    stage.close(Alone::No);
}
