//! The level `sandbox`: a command in a view of its own.

pub(crate) mod attributes;
mod basics;
pub(crate) mod escapes;
pub(crate) mod explain;
#[cfg(feature = "cli")]
pub(crate) mod explain_tool;
mod faults;
#[cfg(feature = "cli")]
mod kept;
pub(crate) mod layers;
pub(crate) mod lent;
pub(crate) mod life;
mod meanwhile;
mod network;
pub(crate) mod overlay;
mod real;
#[cfg(feature = "cli")]
mod recipes;
mod rows;
mod services;
mod streams;
mod template;

use std::path::Path;

use tidy_process::{Command, Output, Sandbox};

use crate::support::{Stage, lacks};

/// A stage, where namespaces can be made; else the test is skipped.
pub(crate) fn stage() -> Option<Stage> {
    let stage = Stage::set()?;
    let tried = boxed(&stage, "true", &Sandbox::new().system()).run();
    match tried {
        Ok(_) => Some(stage),
        Err(error) => {
            assert!(error.is_unconfinable() && error.hint().is_some(), "{error}");
            lacks("sandbox", &format!("{error:#}"));
            None
        }
    }
}

/// A script in a sandbox, at its root.
pub(crate) fn boxed(stage: &Stage, script: &str, sandbox: &Sandbox) -> Command {
    let mut command = stage.sh(script);
    command.sandbox(sandbox).current_dir("/");
    command
}

/// What a script says in a sandbox.
pub(crate) fn said(stage: &Stage, script: &str, sandbox: &Sandbox) -> String {
    let output = boxed(stage, script, sandbox).output().unwrap();
    text(&output)
}

pub(crate) fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// A directory of the test's own, which everybody may pass through and write to.
pub(crate) fn open_dir(name: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("tidy-box-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(dir.is_absolute() && Path::new(&dir).exists());
    dir
}

/// An fd that nothing else owns.
#[expect(unsafe_code, reason = "fcntl has just made it")]
pub(crate) fn owned(fd: i32) -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the caller has it from fcntl alone.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }
}
