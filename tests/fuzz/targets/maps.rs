//! `/proc/PID/maps`: what a keeper unmaps of itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use procfs_core::FromBufRead;
use procfs_core::process::{MMPermissions, MMapPath, MemoryMaps};
use tidy_process::fuzzing::maps;

fuzz_target!(|data: &[u8]| {
    let all = maps(data);
    assert!(all.len() <= data.iter().filter(|byte| **byte == b'\n').count());
    data.split_inclusive(|byte| *byte == b'\n').for_each(agrees);
});

/// procfs reads the same; what it takes for no file must be none for us either.
fn agrees(line: &[u8]) {
    // Of a longer line we see the beginning, which has the path's.
    if line.len() > 128 || !line.ends_with(b"\n") || panics_in_procfs(line) {
        return;
    }
    let Ok(theirs) = MemoryMaps::from_buf_read(line) else { return };
    let [map] = theirs.0.as_slice() else { return };
    let ours = maps(line);
    let ([(start, end, writable, has_file)], (first, last)) = (ours.as_slice(), map.address) else {
        panic!("not understood: {line:?}")
    };
    assert_eq!((*start as u64, *end as u64), (first, last));
    let private = MMPermissions::WRITE | MMPermissions::PRIVATE;
    assert!(!writable || map.perms.contains(private), "{line:?}");
    let is_none = matches!(map.pathname, MMapPath::Anonymous | MMapPath::Heap);
    assert!(*has_file || is_none, "{line:?}");
}

/// The thread's number in a `[stack:7]` of old kernels is cut out without a look.
fn panics_in_procfs(line: &[u8]) -> bool {
    line.windows(7).any(|part| part == b"[stack:")
}
