//! `/proc/PID/stat`, `status`, `cmdline`, the fdinfo of a pidfd, links to namespaces and sockets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use procfs_core::FromBufRead;
use procfs_core::process::Status;
use tidy_process::fuzzing::{decimal, inodes, stat, state_and_parent, status_pids, words};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    two_readers_agree(data, &text);
    command_line(data);
    let (ended, tracer) = status_pids(&text);
    assert_ne!(ended, Some(0));
    if let Ok(theirs) = Status::from_buf_read(data) {
        assert!(
            tracer == u32::try_from(theirs.tracerpid).ok()
                || text.matches("TracerPid:").count() > 1
        );
    }
    links(data);
    let pid = data.first_chunk().map_or(0, |four| i32::from_ne_bytes(*four));
    assert_eq!(decimal(pid), u32::try_from(pid).ok().map(|pid| pid.to_string()));
});

/// A keeper has a reader of its own, which does not allocate.
fn two_readers_agree(data: &[u8], text: &str) {
    let (survey, keeper) = (stat(text), state_and_parent(data));
    let Some((state, parent, _, name, _)) = survey else { return };
    assert!(text.contains(&name));
    let Some((seen, above)) = keeper else { panic!("a keeper does not understand {text:?}") };
    assert!(state == char::from(seen) || !state.is_ascii(), "{state:?} {seen:?}");
    assert!(parent == above || parent < 0, "{parent} {above}");
}

/// 64 words of 4 KiB in all; a word that is not cut is what it was.
fn command_line(data: &[u8]) {
    let (all, cut) = words(data);
    assert!(all.len() <= 64);
    assert!(all.iter().map(String::len).sum::<usize>() <= 3 * 4096);
    let end = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let whole = String::from_utf8_lossy(&data[..end]);
    assert!(cut.is_some() || all.join("\0") == whole);
    assert!(cut.is_none() || data.len() > 4096 || data.split(|byte| *byte == 0).count() > 64);
}

fn links(data: &[u8]) {
    let (namespace, socket) = inodes(data, "pid");
    let number = |inode: Option<u64>| inode.map_or(String::new(), |inode| inode.to_string());
    let plain = !data.contains(&b'+') && !data.windows(2).any(|pair| pair == b"[0");
    assert!(
        !plain || namespace.is_none() || format!("pid:[{}]", number(namespace)).as_bytes() == data
    );
    assert!(
        !plain || socket.is_none() || format!("socket:[{}]", number(socket)).as_bytes() == data
    );
}
