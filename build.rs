//! Links the guard and the set-up program of sandboxes, static programs without libc, for the
//! target; the library carries them.
//!
//! Never fails a build: where one cannot be linked an empty file is carried. The guard is a fork of
//! its owner then, that runs the same code; a sandbox is an error.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const GUARD: &str = "src/supervisor/guard/program";
const SET_UP: &str = "src/sandbox/program";

/// A guard is 9 KiB; a program of this size holds something that it should not.
const LARGEST: usize = 64 << 10;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for sources in [GUARD, SET_UP, "src/sandbox/layout.rs"] {
        println!("cargo::rerun-if-changed={sources}");
    }
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    make(&out, "guard", GUARD, "the guard will be a fork of its owner");
    if env::var_os("CARGO_FEATURE_SANDBOX").is_some() {
        make(&out, "set-up", SET_UP, "there will be no sandbox with a view of its own");
    }
}

/// Links one program, or says what its absence means.
fn make(out: &Path, name: &str, sources: &str, without: &str) {
    let program = match is_written_for() {
        true => link(out, name, sources),
        false => Err(String::from("no such target")),
    };
    let program = program.unwrap_or_else(|why| {
        println!("cargo::warning={without}: {why}");
        Vec::new()
    });
    if let Err(error) = fs::write(out.join(name), program) {
        println!("cargo::warning=the program {name} cannot be written: {error}");
    }
}

/// Whether there are system calls for the target in `calls.rs`.
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
    let mut last = String::new();
    for linker in told {
        match compile(out, [name, sources, &target], &linker) {
            Ok(program) => return Ok(program),
            Err(why) => last = why,
        }
    }
    Err(last)
}

const LLD: [&str; 6] = [
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    "-Clink-self-contained=no",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=--no-rosegment",
    "-Clink-arg=-znorelro",
];

/// For a C compiler as linker.
const DRIVER: [&str; 6] = [
    "-Clink-self-contained=no",
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
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let to = out.join(format!("tidy-{name}"));
    let mut command = Command::new(rustc);
    command.args(["--edition=2024", "--crate-type=bin"]);
    command.arg(format!("--crate-name=tidy_{}", name.replace('-', "_")));
    command.args(["-Cpanic=abort", "-Copt-level=s", "-Ccodegen-units=1", "-Cstrip=symbols"]);
    command.args(["-Crelocation-model=static", "-Cforce-unwind-tables=no", "-Cdebuginfo=0"]);
    command.args(["-Cdebug-assertions=no", "-Coverflow-checks=no", "--cap-lints=allow"]);
    command.arg("--target").arg(target).args(linker).arg("-o").arg(&to);
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
