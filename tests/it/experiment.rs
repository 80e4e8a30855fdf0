//! The experiment, again and again on one port: whatever way it ends, the next run finds a clean
//! machine.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support;

const RUNS: usize = 20;
/// Python on a busy machine takes seconds to start, and the example itself gives up after 30 s.
const RUN_WITHIN: Duration = Duration::from_secs(60);
/// How a run is told to end, its exit code, and the last thing that it is to print on stdout.
const ENDINGS: [(&str, i32, &str); 3] = [
    ("", 0, "the server was Stopped"),
    ("--error", 1, "no process is left"),
    ("--panic", 101, "no process is left"),
];
