//! `/proc/self/mountinfo`, and where our own cgroup is on these mounts.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use procfs_core::process::MountInfo;
use tidy_process::fuzzing::{candidates, mounts, own_cgroup};

fuzz_target!(|data: &[u8]| {
    let all = mounts(data);
    let size = |(root, point, kind, options): &(PathBuf, PathBuf, String, String)| {
        root.as_os_str().len() + point.as_os_str().len() + kind.len() + options.len()
    };
    assert!(all.iter().map(size).sum::<usize>() <= 3 * data.len());
    data.split(|byte| *byte == b'\n').for_each(agrees);
    survives(data);
    leads_below_a_mount(data, &all);
});

/// procfs reads the same, but leaves the escapes as they are.
fn agrees(line: &[u8]) {
    let Ok(text) = std::str::from_utf8(line) else { return };
    let fields = text.split(" - ").nth(1).map_or(0, |rest| rest.split(' ').count());
    // Not of the kernel: another number of fields, and empty ones but for the source's.
    let odd = text.split(' ').filter(|field| field.is_empty()).count() > 0 || fields != 3;
    let Ok(theirs) = MountInfo::from_line(text) else { return };
    if odd || text.contains(['\\', '\r']) || text.matches(" - ").count() != 1 {
        return;
    }
    let ours = mounts(line);
    let [(root, point, kind, options)] = ours.as_slice() else {
        panic!("not understood: {text:?}")
    };
    assert_eq!((root.to_str(), point), (Some(&*theirs.root), &theirs.mount_point));
    assert_eq!(*kind, theirs.fs_type);
    assert!(options.split(',').all(|option| {
        let (key, value) = option.split_once('=').unzip();
        theirs.super_options.contains_key(key.unwrap_or(option)) || value.is_some()
    }));
}

/// Whatever a directory is called, its path comes back from what the kernel makes of it.
fn survives(path: &[u8]) {
    let path: Vec<u8> = path.iter().copied().filter(|byte| *byte != 0).collect();
    if path.is_empty() {
        return;
    }
    let mut written = Vec::new();
    for byte in &path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => written.extend(format!("\\{byte:03o}").bytes()),
            _ => written.push(*byte),
        }
    }
    let line = [b"1 2 0:3 ", &*written, b" ", &*written, b" rw shared:1 - cgroup2  rw,x"].concat();
    let path = PathBuf::from(OsStr::from_bytes(&path));
    let wanted = (path.clone(), path, "cgroup2".to_owned(), "rw,x".to_owned());
    assert_eq!(mounts(&line), [wanted]);
}

/// A place is a mount's point, or below it.
fn leads_below_a_mount(data: &[u8], all: &[(PathBuf, PathBuf, String, String)]) {
    let own = own_cgroup(data).unwrap_or_else(|| Path::new("/a/../b (deleted)").to_owned());
    let found = candidates(data, &own);
    assert!(found.len() <= 2 * all.len());
    for place in found {
        let below = all.iter().any(|(_, point, ..)| {
            let point: PathBuf = point.components().collect();
            let rest = place.strip_prefix(point).ok();
            rest.is_some_and(|rest| rest.components().all(|part| part != Component::ParentDir))
        });
        assert!(below, "{place:?}");
    }
}
