//! What a process sends that looks like the kernel's news of processes.

use std::fs;

use nix::unistd::geteuid;
use serial_test::serial;

use crate::screen::has;
use crate::support::{Alone, Stage, skip};

/// Tells the tool, its parent, of the birth of a process that there is none of.
const SPOOF: &str = "
import os, socket, struct, sys
tool, me = os.getppid(), os.getpid()
rows = [line.split() for line in open('/proc/net/netlink')][1:]
ports = [int(row[2]) & 0xffffffff for row in rows if row[1] == '11' and row[2] == str(tool)]
if not ports:
    sys.exit(7)
event = struct.pack('=IIQiiii', 1, 0, 0, me, me, 4194000, 4194000)
message = struct.pack('=IIIIHH', 1, 1, 0, 0, len(event), 0) + event
packet = struct.pack('=IHHII', 16 + len(message), 3, 0, 0, 0) + message
line = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11)
for _ in range(100):
    line.sendto(packet, (ports[0], 0))
";

#[test]
#[serial]
fn the_kernel_alone_tells_a_recording_of_processes() {
    if !geteuid().is_root() {
        return skip("only root may send to the sockets of others");
    }
    let Some(stage) = Stage::set() else { return };
    if !has("python3", "python3") {
        return;
    }
    let name = format!("tidy-spoofed-{}.json", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = path.to_str().unwrap();
    let args = ["run", "--timeline", file, "--", "python3", "-c", SPOOF];
    let output = stage.tool(&args).output().unwrap();
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(&path);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("\"births\":\"told\""), "{text}");
    assert!(!text.contains("\"pid\":4194000"), "{text}");
    stage.close(Alone::No);
}
