//! Two tests that pass. After one of them a process is left.

use std::process::{Command, Stdio};

#[test]
fn a_test_that_cleans_up() {
    let mut server = Command::new("sleep").arg("46").spawn().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn a_test_that_leaks_on_purpose() {
    let mut server = Command::new("sh");
    server.args(["-c", "sleep 47 & exit 0"]).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(server.status().unwrap().success());
}
