//! The status line of an HTTP server, and the URL that it is asked by.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use tidy_fuzz::ready_port;
use tidy_process::fuzzing::{http_status, url};

fuzz_target!(|data: &[u8]| {
    if let Some(status) = http_status(data) {
        assert!(data.starts_with(b"HTTP/1.") && status < 1000);
    }
    let port = ready_port(OsStr::from_bytes(data));
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((host, named, path)) = url(text) else {
        assert!(!text.starts_with("http://") || port.is_none());
        return;
    };
    // Both become lines of a request.
    assert!([&host, &path].iter().all(|part| part.chars().all(|c| c.is_ascii_graphic())));
    assert!(path.starts_with('/') && named != 0 && !host.contains('/'));
    assert_eq!(port, Some(Some(named)), "the tool names the port that is asked");
    assert_eq!(url(&format!("http://{host}{path}")), Some((host, named, path)));
});
