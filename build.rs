//! Links the guard, the keeper and the set-up program of sandboxes, static programs without libc,
//! for the target; the library carries them.
//!
//! Never fails a build: where one cannot be linked an empty file is carried. Guard and keeper are
//! forks of their owner then, that run the same code; a sandbox is an error.
//!
//! Tells the tool what it is built of, for `--version --verbose`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const GUARD: &str = "src/supervisor/guard/program";
const KEEPER: &str = "src/keeper/program";
const SET_UP: &str = "src/sandbox/program";

/// A guard is 9 KiB; a program of this size holds something that it should not.
const LARGEST: usize = 64 << 10;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let shared = ["src/bare", "src/proc/parse.rs", "src/sandbox/layout.rs"];
    for sources in [GUARD, KEEPER, SET_UP].into_iter().chain(shared) {
        println!("cargo::rerun-if-changed={sources}");
    }
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    let guard = make(&out, "guard", GUARD, "the guard will be a fork of its owner");
    let keeper = make(&out, "keeper", KEEPER, "a keeper will be a fork of its owner");
    let set_up = env::var_os("CARGO_FEATURE_SANDBOX").is_some()
        && make(&out, "set-up", SET_UP, "there will be no sandbox with a view of its own");
    if env::var_os("CARGO_FEATURE_CLI").is_some() {
        tell(&[("GUARD", guard), ("KEEPER", keeper), ("SET_UP", set_up)]);
    }
}

/// Tells what `--version --verbose` says.
fn tell(programs: &[(&str, bool)]) {
    for (name, is_carried) in programs {
        let said = if *is_carried { "carried" } else { "missing" };
        println!("cargo::rustc-env=TIDY_{name}={said}");
    }
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let version = Command::new(rustc()).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = version.unwrap_or_default();
    println!("cargo::rustc-env=TIDY_RUSTC={}", version.trim().trim_start_matches("rustc "));
    println!("cargo::rustc-env=TIDY_TARGET={}", variable("TARGET"));
    let (profile, level) = (variable("PROFILE"), variable("OPT_LEVEL"));
    println!("cargo::rustc-env=TIDY_PROFILE={profile}, opt-level {level}");
    println!("cargo::rustc-env=TIDY_COMMIT={}", commit().unwrap_or("unknown".to_owned()));
}

/// The commit that `cargo package` has noted, or the one of this checkout.
fn commit() -> Option<String> {
    noted().or_else(checked_out)
}

fn noted() -> Option<String> {
    const NOTED: &str = ".cargo_vcs_info.json";
    let noted = fs::read_to_string(NOTED).ok()?;
    println!("cargo::rerun-if-changed={NOTED}");
    let (_, rest) = noted.split_once("\"sha1\": \"")?;
    let commit: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    Some(commit + if noted.contains("\"dirty\": true") { ", with changes" } else { "" })
}

/// None outside the root of a checkout, where the commit is that of a project with this one in it.
fn checked_out() -> Option<String> {
    // A file in a worktree.
    if !Path::new(".git").exists() {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let head = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs", head.as_deref().unwrap_or_default()] {
        let path = git(&["rev-parse", "--git-path", name]).unwrap_or_default();
        // What is not there has always changed, to cargo.
        if Path::new(&path).is_file() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    // Each change of a source would link the carried programs again.
    if env::var("PROFILE").is_ok_and(|profile| profile != "release") {
        return Some(commit + ", or changes of it");
    }
    println!("cargo::rerun-if-changed=src");
    let changes = git(&["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"])?;
    Some(commit + if changes.is_empty() { "" } else { ", with changes" })
}

/// What git says of this directory, also where cargo is called by a hook for another one.
fn git(args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"] {
        command.env_remove(variable);
    }
    let output = command.args(args).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

/// Where `core` is, if it was built for the target beside the toolchain (see ci/release).
fn sysroot() -> Option<String> {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    flags.split('\u{1f}').find(|flag| flag.starts_with("--sysroot=")).map(str::to_owned)
}

fn rustc() -> OsString {
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// Links one program, or says what its absence means; whether it is there.
fn make(out: &Path, name: &str, sources: &str, without: &str) -> bool {
    let program = match is_written_for() {
        true => link(out, name, sources),
        false => Err(String::from("no such target")),
    };
    let program = program.unwrap_or_else(|why| {
        println!("cargo::warning={without}: {why}");
        Vec::new()
    });
    if let Err(error) = fs::write(out.join(name), &program) {
        println!("cargo::warning=the program {name} cannot be written: {error}");
    }
    !program.is_empty()
}

/// Whether there are system calls for the target in `src/bare`.
fn is_written_for() -> bool {
    let is = |key: &str, values: &[&str]| {
        env::var(format!("CARGO_CFG_TARGET_{key}")).is_ok_and(|is| values.contains(&is.as_str()))
    };
    is("OS", &["linux"]) && is("ARCH", &["x86_64", "aarch64"]) && is("POINTER_WIDTH", &["64"])
}

/// The linkers that may do, in turn: the one that comes with rustc links for every target, the
/// one that cargo was told of is there on a distribution whose rustc comes without.
fn link(out: &Path, name: &str, sources: &str) -> Result<Vec<u8>, String> {
    let mut told = vec![LLD.iter().map(OsString::from).collect::<Vec<_>>()];
    let target = env::var("TARGET").unwrap_or_default();
    let variable =
        format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace(['-', '.'], "_"));
    for linker in ["RUSTC_LINKER", &variable].into_iter().filter_map(env::var_os) {
        let mut named = OsString::from("-Clinker=");
        named.push(linker);
        let args = DRIVER.iter().map(OsString::from).chain([named]).collect();
        told.push(args);
    }
    told.push(DRIVER.iter().map(OsString::from).collect());
    // rustc refuses the option for some targets, as for aarch64 with glibc.
    let is_taken = |arg: &&OsString| arg.to_str() != Some(OWN_OBJECTS);
    let without: Vec<Vec<OsString>> =
        told.iter().map(|args| args.iter().filter(is_taken).cloned().collect()).collect();
    told.extend(without);
    let mut last = String::new();
    for linker in told {
        match compile(out, [name, sources, &target], &linker) {
            Ok(program) => return Ok(program),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// None of the start files that come with rustc for musl.
const OWN_OBJECTS: &str = "-Clink-self-contained=no";

const LLD: [&str; 6] = [
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    OWN_OBJECTS,
    "-Clink-arg=-nostdlib",
    "-Clink-arg=--no-rosegment",
    "-Clink-arg=-znorelro",
];

/// For a C compiler as linker.
const DRIVER: [&str; 6] = [
    OWN_OBJECTS,
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-static",
    "-Clink-arg=-Wl,-z,norelro",
    "-Clink-arg=-Wl,--build-id=none",
];

fn compile(
    out: &Path,
    [name, sources, target]: [&str; 3],
    linker: &[OsString],
) -> Result<Vec<u8>, String> {
    let to = out.join(format!("tidy-{name}"));
    let mut command = Command::new(rustc());
    command.args(["--edition=2024", "--crate-type=bin"]);
    command.arg(format!("--crate-name=tidy_{}", name.replace('-', "_")));
    command.args(["-Cpanic=abort", "-Copt-level=s", "-Ccodegen-units=1", "-Cstrip=symbols"]);
    command.args(["-Crelocation-model=static", "-Cforce-unwind-tables=no", "-Cdebuginfo=0"]);
    command.args(["-Cdebug-assertions=no", "-Coverflow-checks=no", "--cap-lints=allow"]);
    command.arg("--target").arg(target).args(sysroot()).args(linker).arg("-o").arg(&to);
    command.arg(Path::new(sources).join("main.rs"));
    let output = command.output().map_err(|error| format!("rustc: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.lines().find(|line| line.starts_with("error")).unwrap_or("").to_owned());
    }
    let program = fs::read(&to).map_err(|error| format!("{to:?}: {error}"))?;
    match program.starts_with(b"\x7fELF") && program.len() <= LARGEST {
        true => Ok(program),
        false => Err(format!("{} bytes, and not the ELF that it should be", program.len())),
    }
}
