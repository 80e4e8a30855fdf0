//! Overlays: the host's directory stays as it is, what was written is listed, committed or gone;
//! and what a command tries against the host by way of one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command as StdCommand;

use serial_test::serial;
use tidy_process::{ChangeKind, ChangeList, Changes, Command, Sandbox, Supervisor};

use super::{boxed, open_dir, stage};
use crate::actor::actor;
use crate::attacks::permissions::succeeds_as_ordinary;
use crate::attacks::succeeds;
use crate::support::{Alone, Stage};

/// A stage where there are overlays; else the test is skipped.
pub(crate) fn overlay_stage() -> Option<Stage> {
    let stage = stage()?;
    let dir = open_dir("can");
    let tried = boxed(&stage, "true", &Sandbox::new().system().overlay(&dir)).run();
    fs::remove_dir(&dir).unwrap();
    match tried {
        Ok(_) => Some(stage),
        Err(error) => {
            assert!(error.hint().is_some(), "{error}");
            crate::support::lacks("overlay", &format!("{error:#}"));
            None
        }
    }
}

/// The files below a directory: what they are, their permissions, and contents.
fn tree(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).unwrap().map(Result::unwrap) {
            let (path, data) = (entry.path(), entry.path().symlink_metadata().unwrap());
            let what = match (data.is_dir(), data.is_symlink()) {
                (true, _) => "dir".to_owned(),
                (_, true) => fs::read_link(&path).unwrap().display().to_string(),
                _ => fs::read_to_string(&path).unwrap(),
            };
            let mode = if data.is_symlink() { 0 } else { data.mode() & 0o7777 };
            let name = path.strip_prefix(dir).unwrap().to_owned();
            all.insert(name, format!("{mode:o} {} {what}", data.uid()));
            if data.is_dir() {
                open.push(path);
            }
        }
    }
    all
}

fn named(list: &ChangeList) -> Vec<String> {
    list.changes.iter().map(ToString::to_string).collect()
}

/// What is committed when a script has run at the root of the overlay.
pub(super) fn written(supervisor: &Supervisor, dir: &Path, script: &str) -> Changes {
    let sandbox = Sandbox::new().system().overlay(dir);
    let mut command = Command::new("sh");
    command.args(["-ec", script]).supervisor(supervisor).current_dir(dir).sandbox(&sandbox);
    command.env_remove(crate::actor::ROLE);
    let mut report = command.run().unwrap();
    assert!(report.success(), "{report}");
    assert_eq!((report.changes.len(), report.changes[0].dir()), (1, dir));
    report.changes.remove(0)
}

pub(super) fn list(changes: &Changes) -> Vec<String> {
    named(&changes.list().unwrap())
}

/// As an actor: root, or an ordinary user.
pub(crate) fn play() {
    let base = std::env::temp_dir().join(format!("tidy-overlay-{}", std::process::id()));
    let supervisor = Supervisor::builder().build().unwrap();
    type Test = fn(&Supervisor, &Path);
    let tests: [(&str, Test); 8] = [
        ("everything", everything),
        ("opaque", opaque),
        ("hostile", hostile),
        ("planted", planted),
        ("partial", partial),
        ("covered", covered),
        ("whole", whole),
        ("attributes", super::attributes::play),
    ];
    for (name, test) in tests {
        let dir = base.join(name);
        fs::create_dir_all(&dir).unwrap();
        test(&supervisor, &dir);
    }
    fs::remove_dir_all(&base).unwrap();
    supervisor.close().unwrap();
}

const EVERYTHING: &str =
    "printf new >a; touch -d @1000000000 a; rm gone; rm -r rm; mkdir made; chmod 750 made
    printf 1 >made/one; ln made/one made/two; printf x >run; chmod 4755 run || chmod 755 run
    ln -sf sub link; ln -s /etc/passwd out; mkfifo fifo; exec 5<>opened; exec 5>&-
    printf moved >sub/keep/new; mv sub/keep sub/kept; chmod 700 sub; mkdir shut; printf s >shut/in
    chmod 0 shut; printf h >hush; chmod 0 hush
    truncate -s 1T sparse; printf end >>sparse";

/// What that comes to.
const ALL: [&str; 19] = [
    "changed \"a\" (3 bytes)",
    "skipped \"fifo\" (0 bytes)",
    "removed \"gone\" (1 bytes)",
    "added \"hush\" (1 bytes)",
    "changed \"link\" (3 bytes)",
    "added \"made\" (directory)",
    "added \"made/one\" (1 bytes)",
    "added \"made/two\" (1 bytes)",
    "added \"out\" (11 bytes)",
    "removed \"rm\" (directory)",
    "added \"run\" (1 bytes)",
    "added \"shut\" (directory)",
    "added \"shut/in\" (1 bytes)",
    "added \"sparse\" (1099511627779 bytes)",
    "changed \"sub\" (directory)",
    "removed \"sub/keep\" (directory)",
    "added \"sub/kept\" (directory)",
    "added \"sub/kept/file\" (4 bytes)",
    "added \"sub/kept/new\" (5 bytes)",
];

/// Each kind of change once: nothing of it is outside before the commit, all of it after.
fn everything(supervisor: &Supervisor, dir: &Path) {
    for (name, text) in [("a", "old"), ("gone", "x"), ("same", "same"), ("opened", "opened")] {
        fs::write(dir.join(name), text).unwrap();
    }
    fs::create_dir_all(dir.join("rm/deep/er")).unwrap();
    fs::create_dir_all(dir.join("sub/keep")).unwrap();
    fs::write(dir.join("sub/keep/file"), "kept").unwrap();
    symlink("a", dir.join("link")).unwrap();
    fs::set_permissions(dir.join("same"), PermissionsExt::from_mode(0o600)).unwrap();
    let before = tree(dir);
    let changes = written(supervisor, dir, EVERYTHING);
    assert_eq!(tree(dir), before);
    assert_eq!(list(&changes), ALL);
    // Looking has changed nothing.
    assert_eq!(list(&changes), ALL);
    assert_eq!(named(&changes.commit().unwrap()), ALL);
    let data = |name: &str| fs::metadata(dir.join(name)).unwrap();
    assert_eq!((data("a").mtime(), data("made").mode() & 0o7777), (1_000_000_000, 0o750));
    assert_eq!((data("run").mode() & 0o7777, data("hush").mode() & 0o7777), (0o755, 0));
    assert_eq!((data("sub").mode() & 0o7777, data("shut").mode() & 0o7777), (0o700, 0));
    assert_eq!(data("made/one").ino(), data("made/two").ino());
    assert!(data("sparse").blocks() < 1000, "{} blocks", data("sparse").blocks());
    for name in ["hush", "shut"].map(|name| dir.join(name)) {
        fs::set_permissions(&name, PermissionsExt::from_mode(0o700)).unwrap();
    }
    let left = [
        "skipped \"fifo\" (0 bytes)",
        "changed \"hush\" (1 bytes)",
        "changed \"shut\" (directory)",
    ];
    assert_eq!(list(&changes), left);
    changes.discard();
    fs::remove_file(dir.join("sparse")).unwrap();
    let me = nix::unistd::geteuid();
    let after = tree(dir);
    assert!(after.values().all(|what| what.split(' ').nth(1) == Some(&me.to_string())));
    assert!(!after.contains_key(Path::new("fifo")) && !after.contains_key(Path::new("gone")));
    assert_eq!(after[Path::new("link")], format!("0 {me} sub"));
    assert_eq!(after[Path::new("out")], format!("0 {me} /etc/passwd"));
    assert_eq!(after[Path::new("sub/kept/new")], format!("644 {me} moved"));
    assert!(!after.keys().any(|name| name.to_string_lossy().contains(".tidy-commit")));
}

/// Directories that are replaced: by others of the same name, by files, and back.
fn opaque(supervisor: &Supervisor, dir: &Path) {
    let fill = || {
        for name in ["d/x", "d/deep/y", "f/z"] {
            fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), name).unwrap();
        }
        fs::write(dir.join("file"), "file").unwrap();
    };
    fill();
    let script = "rm -r d; mkdir d; mkdir d/deep; printf n >d/deep/n; rm -r f; printf now >f
                  rm file; mkdir file; printf in >file/in";
    let changes = written(supervisor, dir, script);
    let wanted = [
        "removed \"d/x\" (3 bytes)",
        "removed \"d/deep/y\" (8 bytes)",
        "added \"d/deep/n\" (1 bytes)",
        "changed \"f\" (3 bytes)",
        "changed \"file\" (directory)",
        "added \"file/in\" (2 bytes)",
    ];
    assert_eq!(list(&changes), wanted);
    changes.commit().unwrap();
    let names: Vec<_> = tree(dir).into_keys().collect();
    let names: Vec<_> = names.iter().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(names, ["d", "d/deep", "d/deep/n", "f", "file", "file/in"]);
    assert_eq!(list(&changes), [""; 0]);
    // And back again.
    let script =
        "rm f; mkdir f; printf z >f/z; rm -r file; printf file >file; rmdir d/deep || true";
    written(supervisor, dir, script).commit().unwrap();
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "file");
    assert_eq!(fs::read_to_string(dir.join("f/z")).unwrap(), "z");
    let nothing = written(supervisor, dir, "rm -r d; mkdir -p d/deep; printf n >d/deep/n; true");
    let list = nothing.list().unwrap();
    // Made anew it has another time, and the same contents.
    assert_eq!(named(&list), ["changed \"d/deep/n\" (1 bytes)"]);
}

/// Names, depth, number.
fn hostile(supervisor: &Supervisor, dir: &Path) {
    let script = "/usr/bin/python3 -c '
import os
os.mkdir(b\"\\x1b[2J\\xff\\n\")
for number in range(12000): open(f\"f{number:05}\", \"w\").close()
os.mkdir(\"deep\"); os.chdir(\"deep\")
for number in range(3000):
    os.mkdir(\"x\" * 200); os.chdir(\"x\" * 200)
open(\"bottom\", \"w\").close()
'";
    let changes = written(supervisor, dir, script);
    let found = changes.list().unwrap();
    assert_eq!((found.changes.len(), found.count), (10_000, 12_000 + 1 + 1 + 127 + 1));
    let text = found.changes[0].to_string();
    assert_eq!(text, "added \"\\u{1b}[2J\\xFF\\n\" (directory)");
    let skipped = found.changes.iter().filter(|change| change.kind == ChangeKind::Skipped);
    assert_eq!(skipped.count(), 1);
    let done = changes.commit().unwrap();
    assert_eq!(done.count, found.count);
    assert!(dir.join(OsStr::from_bytes(b"\x1b[2J\xff\n")).is_dir());
    assert!(dir.join("f11999").is_file() && dir.join("deep").is_dir());
    assert_eq!(changes.list().unwrap().count, 1);
    drop(changes);
    // Removed from below: each path of the whole is too long.
    assert!(StdCommand::new("rm").arg("-r").arg(dir.join("deep")).status().unwrap().success());
}

/// Symbolic links in the layer, and on the host when it is committed: none is followed.
fn planted(supervisor: &Supervisor, dir: &Path) {
    let out = dir.with_extension("out");
    let base = out.display();
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    fs::create_dir_all(dir.join("other")).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("secret"), "open-sesame").unwrap();
    let script = format!(
        "printf x >sub/deep/secret; rm -r other; ln -s {base} other; ln -s {base}/secret into
         ln -s {base} .tidy-commit-1-0; cat {base}/secret && exit 9
         ln {base}/secret hard && exit 9; mv sub/deep/secret {base}/secret && exit 9
         for fd in /proc/self/fd/*; do ls $fd/ 2>/dev/null | grep -q sesame && exit 9; done
         ls /.tidy* 2>/dev/null && exit 9; printf y >../beside; true",
    );
    let changes = written(supervisor, dir, &script);
    assert!(!dir.with_file_name("beside").exists());
    // The host's directory is turned elsewhere before the commit.
    fs::rename(dir.join("sub"), dir.join("was")).unwrap();
    symlink(&out, dir.join("sub")).unwrap();
    changes.commit().unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(out.join("secret")).unwrap(), "open-sesame");
    assert!(dir.join("sub").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read_link(dir.join("other")).unwrap(), out);
    assert_eq!(fs::read_link(dir.join("into")).unwrap(), out.join("secret"));
    // A directory that was there when it was listed, and is a link when it is entered.
    let changes = written(supervisor, dir, "mkdir -p was/deep/new; printf z >was/deep/new/z");
    fs::remove_dir_all(dir.join("was/deep")).unwrap();
    symlink(&out, dir.join("was/deep")).unwrap();
    changes.commit().unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    assert!(dir.join("was/deep/new/z").is_file());
}

/// What fails is named with what is done; a second commit goes on.
fn partial(supervisor: &Supervisor, dir: &Path) {
    // Root is refused by no permissions: a directory that is removed meanwhile is not there for it.
    if nix::unistd::geteuid().is_root() {
        return;
    }
    fs::create_dir(dir.join("sub")).unwrap();
    fs::set_permissions(dir.join("sub"), PermissionsExt::from_mode(0o500)).unwrap();
    let changes =
        written(supervisor, dir, "chmod 755 sub; printf 1 >sub/b; printf 2 >y; printf 3 >z");
    fs::set_permissions(dir, PermissionsExt::from_mode(0o500)).unwrap();
    let error = changes.commit().unwrap_err();
    let text = format!("commit \"y\" in {dir:?}, 2 changes are made: ");
    assert!(error.to_string().starts_with(&text), "{error}");
    assert!(error.to_string().ends_with("(EACCES)") && error.hint().is_some(), "{error}");
    assert!(dir.join("sub/b").exists() && !dir.join("z").exists());
    fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    let done = named(&changes.commit().unwrap());
    assert_eq!(done, ["added \"y\" (1 bytes)", "added \"z\" (1 bytes)"]);
}

/// A file that is being committed has no name before it is whole: then a kill leaves nothing.
fn whole(supervisor: &Supervisor, dir: &Path) {
    const SIZE: u64 = 64 << 20;
    let changes = written(supervisor, dir, "head -c 64M /dev/zero | tr '\\0' x >big; ln big two");
    let sizes = std::thread::scope(|scope| {
        let commit = scope.spawn(|| changes.commit().unwrap());
        let mut sizes = BTreeMap::new();
        while !commit.is_finished() {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let size = entry.metadata().map_or(SIZE, |data| data.len());
                sizes.insert((entry.file_name(), size), ());
            }
        }
        assert_eq!(commit.join().unwrap().count, 2);
        sizes
    });
    let part = sizes.keys().find(|(name, size)| *size < SIZE || name.len() > 3);
    assert_eq!(part, None, "it was seen");
    let data = fs::metadata(dir.join("two")).unwrap();
    assert_eq!((data.len(), data.nlink()), (SIZE, 2));
    fs::remove_file(dir.join("big")).unwrap();
    fs::remove_file(dir.join("two")).unwrap();
}

/// What is named below an overlay is what it is elsewhere; what is hidden there does not come to
/// light, and stays.
fn covered(supervisor: &Supervisor, dir: &Path) {
    for name in ["git/hooks", "real", "look"] {
        fs::create_dir_all(dir.join(name)).unwrap();
        fs::set_permissions(dir.join(name), PermissionsExt::from_mode(0o777)).unwrap();
    }
    fs::write(dir.join("git/secret"), "told").unwrap();
    fs::write(dir.join("look/in"), "in").unwrap();
    let sandbox = Sandbox::new().system().overlay(dir).hide(dir.join("git/secret"));
    let sandbox = sandbox.read_write(dir.join("real")).read_only(dir.join("look"));
    let mut command = Command::new("sh");
    let script = "cat git/secret; mv git gut; cat gut/secret; rm -rf git; printf x >real/out
                  printf x >look/out; cat look/in; umount git/secret; cat git/secret; printf x >n";
    command.args(["-c", script]).supervisor(supervisor).current_dir(dir).sandbox(&sandbox);
    command.env_remove(crate::actor::ROLE);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in");
    assert_eq!(fs::read_to_string(dir.join("real/out")).unwrap(), "x");
    assert!(!dir.join("look/out").exists() && !dir.join("n").exists());
    assert_eq!(fs::read_to_string(dir.join("git/secret")).unwrap(), "told");
}

#[test]
#[serial]
fn the_host_is_as_it_was_until_a_commit() {
    let Some(stage) = overlay_stage() else { return };
    succeeds(&mut actor(&stage, "overlay"), "as this user");
    succeeds_as_ordinary(&stage, actor(&stage, "overlay"));
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn an_overlay_is_a_directory_and_no_link() {
    let Some(stage) = overlay_stage() else { return };
    let dir = open_dir("odd");
    fs::write(dir.join("file"), "").unwrap();
    symlink(&dir, dir.join("link")).unwrap();
    for (name, errno) in [("file", libc::ENOTDIR), ("link", libc::ELOOP), ("gone", libc::ENOENT)] {
        let sandbox = Sandbox::new().system().overlay(dir.join(name));
        let error = boxed(&stage, "true", &sandbox).run().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{error}");
        assert!(error.to_string().starts_with("show in the sandbox: overlay "), "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
    fs::remove_dir_all(dir).unwrap();
    stage.close(Alone::Yes);
}
