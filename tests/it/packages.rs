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
        for program in ["guard", "keeper", "set-up program"] {
            assert_eq!(fact(program), "carried", "{program}");
        }
        assert!(fact("profile").contains("opt-level"), "{text}");
        let commit = commit().unwrap_or_default();
        assert!(!fact("commit").is_empty() && fact("commit").starts_with(&commit), "{text}");
        assert!(commit.is_empty() || commit.len() == 40, "{commit}");
    }
}

/// The commit of this checkout, a worktree too, or of this package; none where only the sources
/// have been copied.
fn commit() -> Option<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Ok(noted) = std::fs::read_to_string(root.join(".cargo_vcs_info.json")) {
        return Some(noted.split('"').find(|word| word.len() == 40).unwrap().to_owned());
    }
    let git = || Command::new("git").arg("-C").arg(root).args(["rev-parse", "HEAD"]).output();
    let output = root.join(".git").exists().then(git)?.unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
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

/// What each command of `ci/` needs and a machine with a shell, cargo and Python alone has not.
const MISSING: &[(&[&str], &str)] = &[
    (&["all"], "gcc chromium make git tmux zsh firejail g++ qemu-system-x86 busybox-static"),
    (&["bench"], "gcc make parallel bubblewrap firejail"),
    (&["check"], "gcc"),
    (&["cluster", "ssh"], "util-linux openssh-client parallel"),
    (&["cross"], "gcc qemu-user"),
    (&["engines", "trixie"], "qemu-system-x86 busybox-static gcc git binutils tar"),
    (&["fuzz"], "gcc g++"),
    (&["gallery"], "gcc make"),
    (&["lanes"], "qemu-system-x86 busybox-static dpkg gcc git binutils crun strace bubblewrap"),
    (&["man", "/nowhere"], "gcc"),
    (&["package"], "gcc"),
    (&["pages"], "gcc chromium librsvg2-bin"),
    (&["picture"], "gcc"),
    (&["release"], "gcc git dpkg nodejs npm procps binutils"),
    (&["suites"], "gcc"),
    (&["systemd", "trixie"], "qemu-system-x86 busybox-static dpkg git binutils"),
    (&["test"], "gcc chromium librsvg2-bin make git busybox-static strace crun nodejs npm man-db"),
    (&["vm", "arm64", "--", "limits::oom"], "qemu-system-arm busybox-static gcc git qemu-user"),
    (&["vm", "6.12", "--", "limits"], "qemu-system-x86 busybox-static gcc binutils crun"),
];

/// Each command of `ci/` says all that is missing in one line, before it does anything; as root,
/// where apt-get is, it installs that.
#[test]
#[parallel]
fn each_command_of_ci_names_all_that_is_missing_at_once() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ci");
    let path = std::env::temp_dir().join(format!("tidy-bare-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    bare(&path);
    for (words, expected) in MISSING {
        let mut command = Command::new(root.join(words[0]));
        command.args(&words[1..]).env("PATH", &path).env("TIDY_TOOL", "/nowhere");
        let output = command.env_remove("TIDY_FLASK_PYTHON").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{words:?} needs nothing");
        let how = "packages, as root: apt-get install --no-install-recommends ";
        let line = said.lines().find_map(|line| line.split_once(how));
        let (_, named) = line.unwrap_or_else(|| panic!("{words:?}: {said}"));
        for package in expected.split(' ') {
            assert!(named.split(' ').any(|name| name == package), "{words:?}: {package}: {said}");
        }
    }
    let known = |name: &str| MISSING.iter().any(|(words, _)| words[0] == name);
    for entry in std::fs::read_dir(&root).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert!(known(&name) || name == "need" || entry.path().is_dir(), "what does {name} need?");
    }
    std::fs::remove_dir_all(&path).unwrap();
}

/// Links to what every machine has that can build Rust; `cargo` does nothing.
fn bare(path: &std::path::Path) {
    use std::os::unix::fs::symlink;
    let find = "for name in bash env dirname id sed realpath rustc uname sort cat rm mkdir; do \
        command -v $name; done; python3 -c 'import sys; print(sys.executable)'";
    let found = Command::new("sh").args(["-c", find]).output().unwrap().stdout;
    for program in String::from_utf8(found).unwrap().lines() {
        let name = std::path::Path::new(program).file_name().unwrap().to_str().unwrap();
        let name = if name.starts_with("python") { "python3" } else { name };
        symlink(program, path.join(name)).unwrap();
    }
    symlink("/bin/true", path.join("cargo")).unwrap();
}
