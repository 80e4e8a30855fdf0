//! A tree as [cgroups-rs] sees it, for every controller that is not wrapped here. On no hot path.
//!
//! [cgroups-rs]: https://docs.rs/cgroups-rs

use std::path::{Path, PathBuf};

use cgroups_rs::fs::blkio::BlkIoController;
use cgroups_rs::fs::cgroup::Cgroup;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::hugetlb::HugeTlbController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Hierarchy, Subsystem};

use crate::tree::Tree;

impl Tree {
    /// This tree as a loaded `cgroups_rs` cgroup: its typed controllers read and write the tree's
    /// files.
    ///
    /// Only controllers that are enabled for the tree are there; ask for one by a limit, or by
    /// [`SupervisorBuilder::account`](crate::SupervisorBuilder::account).
    ///
    /// Do not call on it: `create`, `apply` and `new` (they write every controller into the
    /// `subtree_control` of the directories above), `delete` (one rmdir, no kill:
    /// [`finish`](Tree::finish) does it), `add_task` and its kin (use [`add`](Tree::add), or
    /// [`enroll`](Tree::enroll)), and `clone` (the copy has another hierarchy). Its memory setters
    /// discard errors: read back what they wrote.
    ///
    /// Where a keeper holds the tree there is no cgroup, and it has no controllers.
    ///
    /// # Cleanup
    /// The cgroup stays this tree's; dropping the loaded one does nothing.
    #[must_use]
    pub fn cgroups_rs(&self) -> Cgroup {
        // A keeper's tree has no path, and what the working directory has is not its.
        let Some(tree) = self.path().map(Path::to_owned) else {
            let root = RunRootHierarchy { root: "/".into(), tree: None };
            return Cgroup::load(Box::new(root), "");
        };
        let root = tree.parent().unwrap_or(Path::new("/")).to_owned();
        let name = tree.file_name().unwrap_or_default().to_owned();
        Cgroup::load(Box::new(RunRootHierarchy { root, tree: Some(tree) }), Path::new(&name))
    }
}

/// Our run root as a hierarchy: cgroups-rs's own look-up does not find the mount on hybrid hosts.
#[derive(Debug, Clone)]
struct RunRootHierarchy {
    root: PathBuf,
    tree: Option<PathBuf>,
}

impl Hierarchy for RunRootHierarchy {
    fn subsystems(&self) -> Vec<Subsystem> {
        let Some(tree) = &self.tree else { return Vec::new() };
        let text = std::fs::read_to_string(tree.join("cgroup.controllers")).unwrap_or_default();
        text.split_whitespace().filter_map(|name| self.subsystem(name)).collect()
    }

    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    fn root_control_group(&self) -> Cgroup {
        Cgroup::load(Box::new(self.clone()), "")
    }

    fn parent_control_group(&self, path: &str) -> Cgroup {
        let parent = Path::new(path).parent().unwrap_or(Path::new(""));
        Cgroup::load(Box::new(self.clone()), parent)
    }

    fn v2(&self) -> bool {
        true
    }
}

impl RunRootHierarchy {
    fn subsystem(&self, name: &str) -> Option<Subsystem> {
        let (point, root) = (self.root(), PathBuf::new());
        Some(match name {
            "cpu" => Subsystem::Cpu(CpuController::new(point, root, true)),
            "io" => Subsystem::BlkIo(BlkIoController::new(point, root, true)),
            "cpuset" => Subsystem::CpuSet(CpuSetController::new(point, root, true)),
            "memory" => Subsystem::Mem(MemController::new(point, root, true)),
            "pids" => Subsystem::Pid(PidController::new(point, root, true)),
            "hugetlb" => Subsystem::HugeTlb(HugeTlbController::new(point, root, true)),
            _ => return None,
        })
    }
}
