//! What goes wrong at a spawn names the step and leaves nothing.

use std::ops::Range;
use std::process::ExitStatus;

use serial_test::{parallel, serial};
use tidy_process::{Command, Error, Supervisor};

use crate::support::{Alone, Stage};

/// Both spawn paths say the same, and leave nothing.
fn fails(expected: &str, ask: impl Fn(&mut Command) -> &mut Command, program: &str) {
    let Some(stage) = Stage::set() else { return };
    for join in [false, true] {
        let mut command = stage.command(program);
        let result = ask(&mut command).force_join(join).status();
        assert_eq!(said(result), expected, "joined: {join}");
        stage.assert_clean("after the error");
    }
    stage.close(Alone::Yes);
}

fn said(result: Result<ExitStatus, Error>) -> String {
    result.expect_err("this must fail").to_string()
}

#[test]
#[serial]
fn a_missing_program_is_named() {
    fails("exec \"flsk\": No such file or directory (ENOENT)", |c| c, "flsk");
    fails("exec \"/no/such\": No such file or directory (ENOENT)", |c| c, "/no/such");
    fails("exec \"\": No such file or directory (ENOENT)", |c| c, "");
}

/// std leaves it to the kernel: a shell is not tried. Alone, since a fork of another test's may
/// have the script open for writing (ETXTBSY).
#[test]
#[serial]
fn a_script_without_a_first_line_is_refused_as_by_std() {
    for stage in [Stage::set(), Stage::of_keepers()].into_iter().flatten() {
        let path = std::env::temp_dir().join(format!("tidy-script-{}", std::process::id()));
        for text in ["echo hi\n", "", "a\0b\n", "\x7fELF of another machine"] {
            std::fs::write(&path, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
            let std = std::process::Command::new(&path).spawn().unwrap_err();
            for join in [false, true] {
                let mut command = stage.command(path.to_str().unwrap());
                let error = command.force_join(join).spawn().unwrap_err();
                assert_eq!(error.raw_os_error(), std.raw_os_error(), "{text:?}");
                assert!(error.is_not_executable() && error.hint().unwrap().contains("#!/bin/sh"));
            }
        }
        std::fs::remove_file(path).unwrap();
        stage.close(Alone::No);
    }
}

#[test]
#[serial]
fn a_file_that_is_not_executable_is_named() {
    fails("exec \"/etc/passwd\": Permission denied (EACCES)", |c| c, "/etc/passwd");
    fails("exec \"/etc\": Permission denied (EACCES)", |c| c, "/etc");
    fails("exec \"/etc/passwd/x\": Not a directory (ENOTDIR)", |c| c, "/etc/passwd/x");
}

#[test]
#[serial]
fn a_bad_directory_is_named() {
    let expected = "chdir \"/no/such\": No such file or directory (ENOENT)";
    fails(expected, |c| c.current_dir("/no/such"), "true");
}

#[test]
#[serial]
fn a_nul_byte_is_refused_before_anything_is_made() {
    fails("prepare argument \"a\\0b\": it contains a NUL byte", |c| c.arg("a\0b"), "true");
    fails(
        "prepare program \"a\\0b\": it contains a NUL byte",
        |c| c,
        "./a\0b".trim_start_matches("./"),
    );
    let expected = "prepare environment variable \"K=a\\0b\": it contains a NUL byte";
    fails(expected, |c| c.env("K", "a\0b"), "true");
    fails("prepare directory \"a\\0b\": it contains a NUL byte", |c| c.current_dir("a\0b"), "true");
}

#[test]
#[serial]
fn a_bad_variable_name_is_refused() {
    fails("prepare environment variable \"A=B\": not a name", |c| c.env("A=B", "x"), "true");
    fails("prepare environment variable \"\": not a name", |c| c.env("", "x"), "true");
}

#[test]
#[serial]
fn a_bad_user_or_group_is_named() {
    let bad = u32::MAX;
    fails("setuid 4294967295: Invalid argument (EINVAL)", |c| c.uid(bad), "true");
    fails("setgid 4294967295: Invalid argument (EINVAL)", |c| c.gid(bad), "true");
    fails("setgroups [4294967295]: Invalid argument (EINVAL)", |c| c.groups(&[bad]), "true");
}

#[test]
#[serial]
fn a_bad_process_group_is_named() {
    fails("setpgid 1: Operation not permitted (EPERM)", |c| c.process_group(1), "true");
    fails("setpgid -5: Invalid argument (EINVAL)", |c| c.process_group(-5), "true");
}

#[test]
#[serial]
fn a_bad_name_is_refused() {
    let no_slash = "prepare name \"a/b\": a name has no slash and no control character";
    fails(no_slash, |c| c.name("a/b"), "true");
    fails("prepare name \"\": a name has 1 to 200 bytes", |c| c.name(""), "true");
}

#[test]
#[serial]
fn arguments_that_are_too_long_are_an_error_of_exec() {
    fails("exec \"true\": Argument list too long (E2BIG)", |c| c.arg("x".repeat(1 << 20)), "true");
}

/// At every number of free fds the spawn works or says what it and leaves nothing.
#[test]
#[serial]
fn running_out_of_fds_is_an_error_at_every_step_and_leaves_nothing() {
    runs_out_of_fds(Stage::set(), 24, 4..24);
}

/// With fewer than `most` fds free. Errors are `expected` in so many cases.
pub(crate) fn runs_out_of_fds(stage: Option<Stage>, most: u64, expected: Range<u32>) {
    let Some(stage) = stage else { return };
    for join in [false, true] {
        let mut failed = 0;
        for free in 0..most {
            let filled = fill_fds(free);
            let result = stage.sh("exit 3").force_join(join).output();
            drop(filled);
            match result {
                Ok(output) => assert_eq!(output.status.code(), Some(3)),
                Err(error) => {
                    failed += 1;
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
                    assert!(error.hint().is_some_and(|hint| hint.contains("ulimit -n")));
                }
            }
            stage.assert_clean(&format!("{free} fds free, joined: {join}"));
        }
        assert!(expected.contains(&failed), "failed with {failed} numbers of free fds");
    }
    stage.close(Alone::Yes);
}

/// Occupies all fds but this many, by lowering the limit.
pub(crate) fn fill_fds(free: u64) -> impl Drop {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    struct Restore(u64, u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            setrlimit(Resource::RLIMIT_NOFILE, self.0, self.1).unwrap();
        }
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Fds below the highest that are free would be used too: count from the highest.
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
    let used = numbers.count() as u64 - 1;
    setrlimit(Resource::RLIMIT_NOFILE, used + free, hard).unwrap();
    Restore(soft, hard)
}

#[test]
#[parallel]
fn a_base_that_is_not_there_or_no_cgroup_is_named() {
    let error = Supervisor::builder().base("/no/such").build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "open cgroup base \"/no/such\": No such file or directory (ENOENT)"
    );
    assert!(error.is_no_cgroup());
    let error = Supervisor::builder().base("/tmp").build().unwrap_err();
    assert_eq!(error.to_string(), "open cgroup base \"/tmp\": not on a cgroup2 file system");
    assert!(error.hint().is_some_and(|hint| hint.contains("below the cgroup2 mount")));
}

#[cfg(feature = "cli")]
#[test]
#[parallel]
fn a_read_only_base_is_named_with_its_remedy() {
    let Some(stage) = Stage::set() else { return };
    // A private mount namespace with a read-only view, as containers have it.
    let script =
        "mount --bind \"$P\" \"$P\" && mount -o remount,bind,ro \"$P\" && exec \"$T\" run true";
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script]);
    command.env("P", stage.supervisor.path().unwrap()).env("T", crate::support::tool());
    let output =
        command.env("TIDY_PROCESS_PARENT", stage.supervisor.path().unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("make cgroup") && said.contains("(EROFS)"), "{said}");
    assert!(said.contains("hint: this container's cgroupfs is read-only"), "{said}");
    stage.close(Alone::No);
}

#[cfg(feature = "cli")]
#[test]
#[parallel]
fn a_base_of_somebody_else_is_named_with_its_remedy() {
    if !nix::unistd::geteuid().is_root() {
        return crate::support::lacks("users", "only root can change users");
    }
    let Some(stage) = Stage::set() else { return };
    let mut command = std::process::Command::new(crate::support::tool());
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    let base = stage.supervisor.path().unwrap().parent().unwrap();
    let output = command.args(["run", "--parent"]).arg(base).arg("true").output();
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{said}");
            assert!(said.contains("(EACCES)"), "{said}");
            let systemd = std::path::Path::new("/run/systemd/system").is_dir();
            let remedy = if systemd { "systemd-run --user --scope" } else { "let root make one" };
            assert!(said.contains(remedy), "{said}");
            assert_eq!(said.contains("systemd-run"), systemd, "{said}");
        }
        Err(error) => crate::support::skip(&format!("nobody cannot reach the tool: {error}")),
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_limit_on_the_number_of_cgroups_is_named_with_its_remedy() {
    let Some(stage) = Stage::set() else { return };
    std::fs::write(stage.supervisor.path().unwrap().join("cgroup.max.descendants"), "1").unwrap();
    let held = stage.command("sleep").arg("20").spawn().unwrap();
    let error = stage.command("true").spawn().unwrap_err();
    assert!(error.to_string().starts_with("make cgroup"), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    assert!(error.hint().is_some_and(|hint| hint.contains("cgroup.max.descendants")));
    drop(held);
    assert!(stage.command("true").status().unwrap().success());
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn errors_become_io_errors_of_the_same_kind() {
    let Some(stage) = Stage::set() else { return };
    let convert = |error: Error| std::io::Error::from(error);
    let missing = convert(stage.command("flsk").spawn().unwrap_err());
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    assert!(missing.to_string().starts_with("exec \"flsk\""));
    let refused = convert(stage.command("/etc/passwd").spawn().unwrap_err());
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    let invalid = convert(stage.command("true").arg("\0").spawn().unwrap_err());
    assert_eq!(invalid.kind(), std::io::ErrorKind::InvalidInput);
    stage.close(Alone::No);
}

/// Whatever prints an error: std's kinds of it, a whole chain of causes, a `main` that returns it.
#[test]
#[parallel]
fn the_hint_is_in_every_form_but_the_plain_one() {
    use std::error::Error as _;
    let Some(stage) = Stage::set() else { return };
    let error = || stage.command("flsk").spawn().unwrap_err();
    let hint = format!("hint: {}", error().hint().unwrap());
    let plain = "exec \"flsk\": No such file or directory (ENOENT)";
    let whole = format!("{plain}\n{hint}");
    assert_eq!((error().to_string().as_str(), format!("{:#}", error())), (plain, whole.clone()));
    assert_eq!(
        (format!("{:?}", error()), error().source().unwrap().to_string()),
        (whole.clone(), hint)
    );
    let io = std::io::Error::from(error());
    assert_eq!((io.to_string(), io.kind()), (whole.clone(), error().kind()));
    assert!(io.source().is_none(), "it would be said twice");
    let inner = io.get_ref().unwrap().downcast_ref::<Error>();
    assert!(inner.is_some_and(Error::is_not_found));
    let boxed: Box<dyn std::error::Error + Send + Sync> = error().into();
    assert_eq!(format!("{boxed:?}"), whole);
    stage.close(Alone::No);
}
