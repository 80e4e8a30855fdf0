//! cgroups-rs as an independent witness: what it reads is what we wrote.

use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use serial_test::serial;
use tidy_process::{Limits, Tree};

use crate::support::{Alone, Stage};

const MIB: u64 = 1 << 20;

#[test]
#[serial]
fn cgroups_rs_reads_the_limits_and_counters_that_we_do() {
    let Some(stage) = Stage::set() else { return };
    let limits = Limits::new().memory_max(64 * MIB).pids_max(17).cpus(0.5);
    match Tree::limited(&stage.supervisor, None, &limits) {
        Ok(tree) => {
            let mut command = std::process::Command::new("sleep");
            tree.enroll(command.arg("20")).unwrap();
            let mut child = command.spawn().unwrap();
            let loaded = tree.cgroups_rs();
            assert!(loaded.v2() && loaded.exists());
            let pids: &PidController = loaded.controller_of().unwrap();
            assert_eq!(pids.get_pid_max().unwrap(), MaxValue::Value(17));
            assert_eq!(pids.get_pid_current().unwrap(), 1);
            let memory: &MemController = loaded.controller_of().unwrap();
            assert_eq!(memory.memory_stat().limit_in_bytes, (64 * MIB).cast_signed());
            let cpu: &CpuController = loaded.controller_of().unwrap();
            assert_eq!(cpu.cfs_quota().unwrap(), 50_000);
            // And the other way round: what it writes, the kernel enforces in our tree.
            pids.set_pid_max(MaxValue::Value(3)).unwrap();
            let text = std::fs::read_to_string(tree.path().unwrap().join("pids.max")).unwrap();
            assert_eq!(text, "3\n");
            drop(tree);
            child.wait().unwrap();
            drop(command);
        }
        Err(error) => {
            // The controllers are on cgroup v1 here; then there is nothing to be loaded.
            assert!(std::env::var_os("TIDY_CONTROLLERS").is_none() && error.is_limit(), "{error}");
            let tree = Tree::within(&stage.supervisor, None).unwrap();
            let loaded = tree.cgroups_rs();
            assert!(loaded.controller_of::<PidController>().is_none());
        }
    }
    stage.close(Alone::No);
}
