//! Whole command lines, and the lines that are proposed instead.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use tidy_fuzz::{Understood, forgotten, run};

fuzz_target!(|data: &[u8]| {
    let words = data.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned());
    let argv: Vec<OsString> = ["tidy-process".into()].into_iter().chain(words).collect();
    match run(&argv) {
        Ok(Some(Understood { instead: Some(line), .. })) => is_understood(&line, &argv),
        Ok(_) => {}
        Err(text) => {
            assert!(!text.is_empty());
            if let Some(line) = forgotten(&argv) {
                is_understood(&line, &argv);
            }
        }
    }
});

/// The line that is proposed is a `run`.
fn is_understood(line: &str, argv: &[OsString]) {
    assert!(line.chars().count() <= 400 && !line.contains(char::is_control), "{line:?}");
    // What no shell reads alike: bash's quotes for bytes.
    if line.contains("$'") || line.ends_with(" '...'") {
        return;
    }
    let words = shlex::split(line).unwrap_or_else(|| panic!("no shell reads {line:?}"));
    let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    match run(&words) {
        Ok(Some(Understood { command, .. })) => {
            assert!(words.ends_with(&command), "{argv:?}: {line:?}")
        }
        Ok(None) => panic!("{argv:?}: no run: {line:?}"),
        Err(error) => panic!("{argv:?}: {line:?}: {error}"),
    }
}
