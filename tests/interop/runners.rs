//! Under `cargo test` and cargo-nextest, with us round each test binary: the sample crate of
//! `examples/nextest`, that leaks on purpose.

use std::path::{Path, PathBuf};
use std::process::Command as StdCommand;
use std::sync::OnceLock;
use std::time::Instant;

use serial_test::serial;

use crate::support::{Alone, SOON, Stage, skip};

/// The command line tool: `TIDY_TOOL`, or built here.
pub(crate) fn tool() -> &'static Path {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    TOOL.get_or_init(|| {
        if let Some(tool) = std::env::var_os("TIDY_TOOL") {
            return tool.into();
        }
        let target = target("tool");
        let mut cargo = StdCommand::new("cargo");
        cargo.args(["build", "--quiet", "--features", "cli", "--bin", "tidy-process"]);
        cargo.current_dir(ROOT).env("CARGO_TARGET_DIR", &target);
        assert!(cargo.status().unwrap().success(), "the tool is not built");
        target.join("debug/tidy-process")
    })
}

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A directory beside our own `deps`.
fn target(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.parent().and_then(Path::parent).unwrap().join(name)
}

/// The sample crate of examples/nextest, under a real runner, with us round each test binary.
fn sample(stage: &Stage, args: &[&str]) -> (Option<i32>, String) {
    let version = StdCommand::new("rustc").arg("-vV").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
    let mut cargo = StdCommand::new("cargo");
    cargo.args(args).current_dir(format!("{ROOT}/examples/nextest"));
    cargo.env("CARGO_TARGET_DIR", target("nextest-sample")).env("RUST_BACKTRACE", "0");
    cargo.env(variable, format!("{} run --leaks=fail --", tool().display()));
    stage.mark_std(&mut cargo);
    let output = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), said + &String::from_utf8_lossy(&output.stderr))
}

#[test]
#[serial]
fn under_cargo_test_a_test_binary_that_leaks_fails_and_is_named() {
    let Some(stage) = Stage::set() else { return };
    // Building it may take longer than the test.
    tool();
    let start = Instant::now();
    let (code, said) = sample(&stage, &["test", "--offline", "--test", "leaks"]);
    assert_eq!(code, Some(123), "{said}");
    // The harness is content: it does not see what is left.
    assert!(said.contains("test result: ok. 2 passed"), "{said}");
    assert!(said.contains("killed 1 leftover process: "), "{said}");
    assert!(said.contains(" sleep 47"), "{said}");
    let (code, said) = sample(&stage, &["test", "--offline", "--test", "tidy"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(start.elapsed() < SOON * 2, "it waited for the leak");
    stage.close(Alone::No);
}

#[test]
#[serial]
fn under_nextest_only_the_test_that_leaks_fails() {
    let Some(stage) = Stage::set() else { return };
    let found = StdCommand::new("cargo").args(["nextest", "--version"]).output().unwrap();
    if !found.status.success() {
        let install = "cargo install cargo-nextest --locked";
        return skip(&format!("cargo-nextest is missing: {install}"));
    }
    let args = ["nextest", "run", "--offline", "--no-fail-fast", "--color=never"];
    let (code, said) = sample(&stage, &args);
    assert_eq!(code, Some(100), "{said}");
    assert!(said.contains("3 tests run: 2 passed, 1 failed"), "{said}");
    let failed = said.lines().find(|line| line.trim_start().starts_with("FAIL")).unwrap();
    assert!(failed.contains("a_test_that_leaks_on_purpose"), "{said}");
    assert!(said.contains("killed 1 leftover process: ") && said.contains(" sleep 47"), "{said}");
    stage.close(Alone::No);
}
