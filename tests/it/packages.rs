//! What packagers and those who report faults rely on.

use std::process::{Command, Output};

use serial_test::parallel;

use crate::support::tool;

fn answer(args: &[&str]) -> Output {
    Command::new(tool()).args(args).output().unwrap()
}

#[test]
#[parallel]
fn version_and_verbose_say_what_it_is_built_of() {
    let orders = [
        &["--version", "--verbose"][..],
        &["--verbose", "--version"],
        &["-V", "-v"],
        &["-v", "--version"],
        &["-vV"],
        &["-Vv"],
    ];
    for args in orders {
        let output = answer(args);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let first = format!("tidy-process {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(text.lines().next(), Some(&*first), "{text}");
        let fact = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
        };
        let features = fact("features");
        let features: Vec<&str> = features.split(' ').collect();
        assert_eq!(features.contains(&"tokio"), cfg!(feature = "tokio"), "{text}");
        assert!(features.starts_with(&["cli", "sandbox"]), "{text}");
        assert!(fact("host").starts_with(std::env::consts::ARCH), "{text}");
        assert!(fact("rustc").starts_with("1."), "{text}");
        assert!(fact("libc").starts_with(if cfg!(target_env = "musl") { "musl" } else { "glibc" }));
        assert_eq!(
            (fact("guard").as_str(), fact("set-up program").as_str()),
            ("carried", "carried")
        );
        assert!(fact("profile").contains("opt-level") && !fact("commit").is_empty(), "{text}");
    }
}

/// Scripts read the one line, and a word too many is a mistake.
#[test]
#[parallel]
fn version_alone_is_a_line_and_verbose_alone_a_mistake() {
    let line = format!("tidy-process {}\n", env!("CARGO_PKG_VERSION"));
    for args in [&["--version"][..], &["-V"]] {
        assert_eq!(String::from_utf8(answer(args).stdout).unwrap(), line);
    }
    for args in [&["--verbose"][..], &["-v"], &["-vV", "x"]] {
        let output = answer(args);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0), "{args:?}");
    }
}
