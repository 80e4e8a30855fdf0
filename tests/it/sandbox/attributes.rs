//! Extended attributes and ACLs in an overlay, and what becomes of them by a commit.

use std::fs;
use std::path::Path;
use std::process::Command as StdCommand;

use tidy_process::Supervisor;

use super::overlay::{list, written};
use crate::actor::ROLE;

/// Sets up, changes or shows them; `acl` is for this user, to be read.
const PYTHON: &str = r"
import os, struct, sys
none = 0xffffffff
entries = [(1, 6, none), (2, 4, os.getuid()), (4, 0, none), (16, 4, none), (32, 0, none)]
acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries)
def make():
    for name in ['old', 'same', 'less', 'opened']: open(name, 'w').write('x')
    for name in ['dir', 'fresh']: os.mkdir(name)
    for name in ['old', 'less', 'opened', 'dir']: os.setxattr(name, 'user.x', b'1')
    os.setxattr('same', 'user.big', b'b' * 3000)
def change():
    os.setxattr('old', 'user.x', b'2'); os.setxattr('old', 'user.y', b'')
    os.removexattr('less', 'user.x')
    open('opened', 'r+').close(); open('same', 'r+').close()
    os.setxattr('dir', 'user.x', b'3')
    open('made', 'w').write('m'); os.setxattr('made', 'user.overlay.opaque', b'y')
    os.setxattr('made', 'user.z', b'z'); os.chmod('made', 0o400)
    open('acl', 'w').write('a'); os.setxattr('acl', 'system.posix_acl_access', acl)
    os.rmdir('fresh'); os.mkdir('fresh'); os.setxattr('fresh', 'user.f', b'f')
def show():
    for name in sorted(os.listdir('.')):
        for key in sorted(os.listxattr(name)):
            print(name, key, len(os.getxattr(name, key)), os.getxattr(name, key)[:1])
try: globals()[sys.argv[1]]()
except OSError as error: print(error); sys.exit(9)
";

fn python(dir: &Path, what: &str) -> (Option<i32>, String) {
    let mut command = StdCommand::new("/usr/bin/python3");
    let output = command.args(["-c", PYTHON, what]).current_dir(dir).env_remove(ROLE).output();
    let output = output.unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// As an actor: root, or an ordinary user.
pub(crate) fn play(supervisor: &Supervisor, dir: &Path) {
    let (made, said) = python(dir, "make");
    if made == Some(9) && said.contains("not supported") {
        eprintln!("not tried: attributes: {said}");
        return;
    }
    let before = python(dir, "show");
    let script = format!("/usr/bin/python3 -c \"$(cat <<'E'\n{PYTHON}\nE\n)\" change");
    let changes = written(supervisor, dir, &script);
    assert_eq!(python(dir, "show"), before);
    let wanted = [
        "added \"acl\" (1 bytes)",
        "changed \"dir\" (directory)",
        "changed \"fresh\" (directory)",
        "changed \"less\" (1 bytes)",
        "added \"made\" (1 bytes)",
        "changed \"old\" (1 bytes)",
    ];
    assert_eq!(list(&changes), wanted);
    changes.commit().unwrap();
    let root = nix::unistd::geteuid().is_root();
    // Root's command is another user: what its ACL says would be said of that one.
    let acl = if root { "" } else { "acl system.posix_acl_access 44 b'\\x02'\n" };
    let shown = "dir user.x 1 b'3'\nfresh user.f 1 b'f'\nmade user.z 1 b'z'\nold user.x 1 b'2'\n\
        old user.y 0 b''\nopened user.x 1 b'1'\nsame user.big 3000 b'b'\n";
    assert_eq!(python(dir, "show").1, format!("{acl}{shown}"));
    assert_eq!(list(&changes), [""; 0]);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(dir.join("made")).unwrap());
    assert_eq!(mode & 0o7777, 0o400);
}
