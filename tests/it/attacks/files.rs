//! Files that the tool is to write to, where something else stands, or nothing can.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::PathBuf;

use serial_test::parallel;

use crate::support::{Alone, Stage};

/// A directory that goes with its test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidy-files-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// As root a timeline would take the place of `/dev/stdout` for all. The command is not run.
#[test]
#[parallel]
fn a_timeline_takes_the_place_of_files_only() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("places");
    symlink("/dev/null", dir.file("device.json")).unwrap();
    symlink(&dir.0, dir.file("directory.json")).unwrap();
    fs::create_dir(dir.file("below.json")).unwrap();
    let mark = dir.file("ran");
    let bad = ["device.json", "directory.json", "below.json", "none.json/", "no/where.json"];
    for name in bad.map(|name| dir.file(name)) {
        let args = ["run", "--timeline", &name, "--", "touch", &mark];
        let output = stage.tool(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{name}: {output:?}");
        assert!(!fs::exists(&mark).unwrap(), "{name}");
    }
    let device = fs::symlink_metadata(dir.file("device.json")).unwrap();
    assert!(device.is_symlink() && !device.file_type().is_char_device());
    // A link to a file, or to nothing, is what is replaced.
    fs::write(dir.file("kept"), "kept").unwrap();
    symlink(dir.file("kept"), dir.file("link.json")).unwrap();
    let longest = format!("{}.json", "x".repeat(250));
    for name in ["link.json", &longest] {
        let args = ["run", "--timeline", &dir.file(name), "--", "true"];
        let output = stage.tool(&args).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(fs::symlink_metadata(dir.file(name)).unwrap().is_file(), "{name}");
    }
    assert_eq!(fs::read_to_string(dir.file("kept")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 6);
    stage.close(Alone::No);
}

/// The timeline takes the place of a file: a report that goes there would be lost.
#[test]
#[parallel]
fn a_timeline_has_a_file_of_its_own() {
    let Some(stage) = Stage::set() else { return };
    let dir = Dir::new("own");
    let (file, link) = (dir.file("a.json"), dir.file("b.json"));
    symlink(&file, &link).unwrap();
    for (what, how) in [
        ("--json", &["run"][..]),
        ("--junit", &["run"]),
        ("--stdout", &["run"]),
        ("--output", &["run"]),
        ("--json", &["with", "-q", "--server", "sleep 60"]),
    ] {
        let args = [what, &file, "--timeline", &link, "--", "true"];
        let output = stage.tool(how).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{how:?} {what}: {output:?}");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "{how:?} {what}");
    }
    stage.close(Alone::No);
}
