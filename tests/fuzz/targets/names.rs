//! Names of run roots and trees, the record of an owner, and the paths of zombies.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidy_process::fuzzing::{is_below, is_name, owner, owner_record, tree_name};

fuzz_target!(|data: &[u8]| {
    let name = OsStr::from_bytes(data);
    if let Some(pid) = owner(name) {
        let random = &data[data.len() - 8..];
        let made = [format!("tidy-process-{pid}-").as_bytes(), random].concat();
        assert_eq!(made, data, "another name than a run root is given");
    }
    if let Some(text) = owner_record(data) {
        assert_eq!(owner_record(text.as_bytes()).as_ref(), Some(&text));
    }
    let _ = tree_name(Path::new(name));
    if is_name(name) {
        is_part_of_a_directorys(name);
    }
});

fn is_part_of_a_directorys(name: &OsStr) {
    let bytes = name.as_bytes();
    assert!((1..=200).contains(&bytes.len()) && !bytes.contains(&b'/') && !bytes.contains(&0));
    let dir = OsStr::from_bytes(&[b"7-", bytes].concat()).to_owned();
    let tree = Path::new("/cg/tidy-process-1-0123abcd").join(&dir);
    assert_eq!(tree_name(&tree), (name.to_string_lossy().into_owned(), 7));
    let Some(dir) = dir.to_str() else { return };
    for (path, is_inside) in [
        (format!("/tidy-process-1-0123abcd/{dir}"), true),
        (format!("/../tidy-process-1-0123abcd/{dir}/x (deleted)"), true),
        (format!("/tidy-process-1-0123abcd/{dir}x"), false),
        (format!("/tidy-process-2-0123abcd/{dir}"), false),
    ] {
        // Of a name with the kernel's mark at its end two meanings are possible.
        assert!(
            is_below(Path::new(&path), &tree) == is_inside || dir.contains(" (deleted)"),
            "{path:?}"
        );
    }
}
