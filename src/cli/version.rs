//! `--version --verbose`: what this program was built of, for reports of faults.

use std::ffi::OsString;

use crate::exit::Failure;
use crate::print::text::print;

/// Whether the whole command line asks for it, in any of the orders that rustc and cargo take.
pub(crate) fn is_asked(argv: &[OsString]) -> bool {
    let [_, words @ ..] = argv else { return false };
    let has = |known: &[&str]| words.iter().any(|word| known.iter().any(|other| word == other));
    let version = ["-V", "--version", "-vV", "-Vv"];
    let verbose = ["-v", "--verbose", "-vV", "-Vv"];
    let all = |word: &OsString| version.iter().chain(&verbose).any(|known| word == known);
    words.iter().all(all) && has(&version) && has(&verbose)
}

/// The features that are on or off by themselves.
const FEATURES: [(&str, bool); 6] = [
    ("cli", cfg!(feature = "cli")),
    ("sandbox", cfg!(feature = "sandbox")),
    ("man", cfg!(feature = "man")),
    ("serde", cfg!(feature = "serde")),
    ("tokio", cfg!(feature = "tokio")),
    ("cgroups-rs", cfg!(feature = "cgroups-rs")),
];

const LIBC: &str = match (cfg!(target_env = "musl"), cfg!(target_feature = "crt-static")) {
    (true, true) => "musl, linked statically",
    (true, false) => "musl",
    (false, true) => "glibc, linked statically",
    (false, false) => "glibc",
};

/// Prints a line for each fact.
pub(crate) fn print_all() -> Result<(), Failure> {
    let features = FEATURES.into_iter().filter(|(_, is_on)| *is_on);
    let features = features.map(|(name, _)| name).collect::<Vec<_>>().join(" ");
    print(&format!(
        "tidy-process {}\ncommit: {}\nfeatures: {features}\nhost: {}\nlibc: {LIBC}\n\
         rustc: {}\nprofile: {}\nguard: {}\nkeeper: {}\nset-up program: {}\n",
        env!("CARGO_PKG_VERSION"),
        env!("TIDY_COMMIT"),
        env!("TIDY_TARGET"),
        env!("TIDY_RUSTC"),
        env!("TIDY_PROFILE"),
        env!("TIDY_GUARD"),
        env!("TIDY_KEEPER"),
        env!("TIDY_SET_UP"),
    ))
}
