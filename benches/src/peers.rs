//! `/bin/true` from start to end, each peer in the way its documentation shows.

use std::path::{Path, PathBuf};
use std::process::Command as StdCommand;

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::cgroup::Cgroup;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Hierarchy, Subsystem};
use command_group::CommandGroup;
use process_wrap::std::{CommandWrap, ProcessGroup};
use tidy_process::{Command, Supervisor, Tree};

use crate::Res;
use crate::sample::Entry;

const TRUE: &str = "/bin/true";

/// A runtime on the calling thread alone.
pub(crate) fn runtime() -> Res<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub(crate) fn entries<'a>(supervisor: &'a Supervisor) -> Res<Vec<Entry<'a>>> {
    let (tokio, kit) = (runtime()?, runtime()?);
    let root = supervisor.path().unwrap().to_owned();
    Ok(vec![
        Entry::new("tidy-process", || {
            Command::new(TRUE).supervisor(supervisor).run()?;
            Ok(())
        }),
        Entry::new("std", || {
            StdCommand::new(TRUE).status()?;
            Ok(())
        }),
        Entry::new("std + Tree::enroll", || {
            let tree = Tree::within(supervisor, None)?;
            let mut command = StdCommand::new(TRUE);
            tree.enroll(&mut command)?;
            command.status()?;
            tree.finish()?;
            Ok(())
        }),
        Entry::new("tokio", move || {
            tokio.block_on(async { tokio::process::Command::new(TRUE).status().await })?;
            Ok(())
        }),
        Entry::new("process-wrap (group)", || {
            let mut command = CommandWrap::with_new(TRUE, |_| {});
            command.wrap(ProcessGroup::leader()).spawn()?.wait()?;
            Ok(())
        }),
        Entry::new("command-group", || {
            StdCommand::new(TRUE).group_spawn()?.wait()?;
            Ok(())
        }),
        Entry::new("duct", || {
            duct::cmd!(TRUE).run()?;
            Ok(())
        }),
        Entry::new("subprocess", || {
            subprocess::Exec::cmd(TRUE).join()?;
            Ok(())
        }),
        Entry::new("async-process", || {
            futures_lite::future::block_on(async_process::Command::new(TRUE).status())?;
            Ok(())
        }),
        Entry::new("processkit (cgroup)", move || {
            use processkit::StdioMode::Inherit;
            let command = processkit::Command::new(TRUE).stdout(Inherit).stderr(Inherit);
            kit.block_on(async { command.start().await?.wait().await })?;
            Ok(())
        }),
        Entry::new("cgroups-rs + std", move || with_cgroups_rs(&root)),
    ])
}

/// Spawned first, moved then: what it does meanwhile happens outside.
fn with_cgroups_rs(root: &Path) -> Res {
    std::fs::create_dir(root.join("cgroups-rs"))?;
    let cgroup = Cgroup::load(Box::new(Root(root.to_owned())), "cgroups-rs");
    let mut child = StdCommand::new(TRUE).spawn()?;
    // It may have ended already.
    let _ = cgroup.add_task_by_tgid(CgroupPid::from(u64::from(child.id())));
    child.wait()?;
    cgroup.kill()?;
    Ok(cgroup.delete()?)
}

/// Its own look-up does not find the hierarchy on hybrid hosts, nor a cgroup without controllers.
#[derive(Debug, Clone)]
struct Root(PathBuf);

impl Hierarchy for Root {
    fn subsystems(&self) -> Vec<Subsystem> {
        vec![Subsystem::Pid(PidController::new(self.root(), PathBuf::new(), true))]
    }

    fn root(&self) -> PathBuf {
        self.0.clone()
    }

    fn root_control_group(&self) -> Cgroup {
        Cgroup::load(Box::new(self.clone()), "")
    }

    fn parent_control_group(&self, _: &str) -> Cgroup {
        self.root_control_group()
    }

    fn v2(&self) -> bool {
        true
    }
}
