//! What a tree has used, against the victims' own count.

use std::time::{Duration, Instant};

use serial_test::serial;
use tidy_process::{Limits, Metric, Supervisor};

use crate::load::load;
use crate::support::{Alone, Stage, lacks, rounds};

const MIB: u64 = 1 << 20;

/// What one family says of itself, and what we say of it.
struct Family {
    own: f64,
    waited: f64,
    ours: f64,
}

/// Eight descendants burn so much each; half of them are daemons, for which nobody waits.
fn family(stage: &Stage, ms: u32) -> Family {
    let output = load(stage, &format!("family {ms}")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let seconds = |micros: &str| micros.parse::<f64>().unwrap() / 1e6;
    let (mut own, mut waited, mut burners) = (0.0, 0.0, 0);
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("waited", micros)) => waited = seconds(micros),
            Some((_, micros)) => own += seconds(micros),
            None => {
                burners += 1;
                own += seconds(line);
            }
        }
    }
    assert_eq!(burners, 8, "{text}");
    let usage = output.report.usage;
    let ours = usage.user.unwrap() + usage.system.unwrap();
    Family { own, waited, ours: ours.as_secs_f64() }
}

/// Starting and ending programs costs CPU time that none of them counts; a family that burns
/// nothing shows how much.
#[test]
#[serial]
fn cpu_time_counts_daemons_too() {
    let Some(stage) = Stage::set() else { return };
    let measured = || {
        let (idle, busy) = (family(&stage, 0), family(&stage, 600));
        let own = busy.own - idle.own;
        ((busy.ours - idle.ours) / own, (busy.waited - idle.waited) / own)
    };
    // A virtual machine's clock is late when its host is busy, which disturbs one measure or
    // another; what is not counted is missing in all of them. So the best of three counts.
    let mut all = [measured(), measured(), measured()];
    all.sort_by(|one, other| (one.0 - 1.0).abs().total_cmp(&(other.0 - 1.0).abs()));
    let (ratio, waited) = all[0];
    println!("cpu: {ratio:.3} of what the victims count; getrusage of the children {waited:.3}");
    // Where all is emulated the start of a program costs a third of a second, now more, now less.
    let slack = if std::env::var_os("TIDY_CONTROLLERS").is_some() { 0.1 } else { 0.02 };
    assert!((ratio - 1.0).abs() < slack, "ratio {ratio}");
    assert!(waited < 0.6, "getrusage saw {waited}");
    stage.close(Alone::No);
}

#[test]
#[serial]
fn what_is_not_measured_is_none_and_has_a_reason() {
    let Some(stage) = Stage::set() else { return };
    let usage = stage.command("true").run().unwrap().usage;
    assert!(usage.user.is_some() && usage.system.is_some());
    assert_eq!((usage.memory_peak, usage.pids_peak, usage.io_read), (None, None, None));
    for field in [Metric::MemoryPeak, Metric::PidsPeak, Metric::IoRead, Metric::IoWritten] {
        let missing = usage.missing.iter().find(|missing| missing.field == field).unwrap();
        assert!(missing.reason.contains("not asked for"), "{missing:?}");
    }
    stage.close(Alone::No);
}

/// Where the controllers are offered, accounting is had without any limit.
#[test]
#[serial]
fn memory_and_bytes_are_counted_where_the_controllers_are() {
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap().parent().unwrap();
    let supervisor = Supervisor::builder().base(base).account(true).build().unwrap();
    let mut command = load(&stage, "memory 60");
    let usage = command.supervisor(&supervisor).run().unwrap().usage;
    drop(command);
    let offered = std::fs::read_to_string(base.join("cgroup.subtree_control")).unwrap();
    if offered.contains("memory") {
        match usage.memory_peak {
            Some(peak) => {
                let ratio = peak as f64 / (60.0 * MIB as f64);
                println!("memory: {peak} bytes for 60 MiB ({ratio:.3})");
                assert!((1.0..1.05).contains(&ratio), "{peak}");
            }
            None => assert!(usage.missing.iter().any(|it| it.field == Metric::MemoryPeak)),
        }
        let limits = Limits::new();
        let mut command = load(&stage, "write /scratch/file 8");
        if std::path::Path::new("/scratch").is_dir() && offered.contains("io") {
            command.supervisor(&supervisor).limits(limits);
            let written = command.run().unwrap().usage.io_written.unwrap();
            println!("io: {written} bytes for 8 MiB");
            assert!((8 * MIB..10 * MIB).contains(&written), "{written}");
        }
    } else {
        assert!(std::env::var_os("TIDY_CONTROLLERS").is_none());
        assert_eq!(usage.memory_peak, None);
    }
    let unasked = usage.missing.iter().find(|missing| missing.reason.contains("not asked for"));
    assert!(unasked.is_none(), "{unasked:?}");
    drop(supervisor);
    stage.close(Alone::No);
}

/// Removed memory cgroups linger while page cache is charged to them; they must not pile up, nor
/// slow us down.
#[test]
#[serial]
fn runs_with_a_memory_limit_leave_nothing_behind_in_the_kernel() {
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap().parent().unwrap().to_owned();
    let dying = || -> u64 {
        let text = std::fs::read_to_string(base.join("cgroup.stat")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("nr_dying_descendants "));
        line.unwrap().parse().unwrap()
    };
    let mut command = stage.command("true");
    command.limits(Limits::new().memory_max(64 * MIB));
    if command.run().is_err() {
        drop(command);
        // The refusal is tested with the limits.
        assert!(std::env::var_os("TIDY_CONTROLLERS").is_none());
        lacks("controllers", "no controller on cgroup v2 limits memory and processes here");
        return stage.close(Alone::No);
    }
    let runs = rounds(600, 10_000) as usize;
    let before = dying();
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        assert!(command.run().unwrap().status.success());
        times.push(start.elapsed());
    }
    let median = |times: &[Duration]| {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    let (first, last) = (median(&times[..200]), median(&times[runs - 200..]));
    let ratio = last.as_secs_f64() / first.as_secs_f64();
    let after = dying();
    println!("{runs} runs: dying {before} -> {after}; first {first:?}, last {last:?}, {ratio:.2}");
    assert!(after < before + 200, "{after} cgroups linger");
    assert!(ratio < 2.0, "the last runs take {ratio:.2} times the first");
    assert_eq!(stage.cgroups(), 0);
    drop(command);
    stage.close(Alone::No);
}
