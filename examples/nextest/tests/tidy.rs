//! A test that ends what it starts.

use std::process::Command;

#[test]
fn a_command_that_ends_by_itself() {
    assert!(Command::new("true").status().unwrap().success());
}
