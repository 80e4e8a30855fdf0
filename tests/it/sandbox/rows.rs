//! The rows of the table of escapes.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::escapes::{SECRET, World, sleeper};
use crate::support::until;

/// Who can do it without a sandbox.
#[derive(PartialEq, Eq, Clone, Copy)]
pub(super) enum Who {
    Anyone,
    Root,
}

/// Its name, who can do it, a script for sh, and whether it has come to pass: given what it said.
pub(super) type Row = (&'static str, Who, &'static str, fn(&mut World, &str) -> bool);

pub(super) fn leaked(_: &mut World, said: &str) -> bool {
    said.contains(SECRET)
}

pub(super) fn came_true(_: &mut World, said: &str) -> bool {
    said.contains("came true")
}

fn spoiled(world: &mut World, _: &str) -> bool {
    let now = fs::read_to_string(world.out.join("file")).unwrap_or_default();
    let gone = now.trim() != SECRET;
    fs::write(world.out.join("file"), SECRET).unwrap();
    gone
}

fn stolen(world: &mut World, _: &str) -> bool {
    let gone = !world.out.join("file").exists();
    fs::write(world.out.join("file"), SECRET).unwrap();
    let _ = fs::remove_file(world.work.join("file"));
    gone
}

fn linked(world: &mut World, _: &str) -> bool {
    let links = fs::metadata(world.out.join("file")).unwrap().nlink();
    let _ = fs::remove_file(world.work.join("hard"));
    links > 1
}

fn killed(world: &mut World, _: &str) -> bool {
    let ended = until(Duration::from_millis(300), || world.victim.try_wait().unwrap().is_some());
    if ended {
        world.victim = sleeper();
    }
    ended
}

fn reached<T>(accepted: std::io::Result<T>) -> bool {
    match accepted {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

fn set_id_behind(world: &mut World, _: &str) -> bool {
    let file = world.work.join("rootshell");
    let mode = fs::metadata(&file).map_or(0, |file| file.mode());
    let _ = fs::remove_file(file);
    mode & 0o6000 != 0
}

pub(super) const ROWS: &[Row] = &[
    ("write a file by its path", Who::Anyone, "echo x >$OUT/file", spoiled),
    ("write it by a symlink", Who::Anyone, "ln -s $OUT/file $WORK/l; echo x >$WORK/l", spoiled),
    ("write it through /proc/self/root", Who::Anyone, "echo x >/proc/self/root$OUT/file", spoiled),
    ("write it by an inherited fd", Who::Anyone, "echo x >/proc/self/fd/200/file", spoiled),
    ("rename it", Who::Anyone, "mv $OUT/file $WORK/file", stolen),
    ("make a hard link to it", Who::Anyone, "ln $OUT/file $WORK/hard", linked),
    ("read a file of the home", Who::Anyone, "cat $OUT/home/.netrc", leaked),
    ("read a file below a hidden one", Who::Anyone, "cat $WORK/hidden/key", leaked),
    ("read a hidden file", Who::Anyone, "cat $WORK/key", leaked),
    ("read by an inherited fd", Who::Anyone, "cat /proc/self/fd/200/file", leaked),
    ("read the environment", Who::Anyone, "env", leaked),
    ("read the supervisor's", Who::Anyone, "tr '\\0' ' ' </proc/$BOSS/environ", leaked),
    ("see a process", Who::Anyone, "[ -d /proc/$VICTIM ] && echo came true", came_true),
    (
        "see many processes",
        Who::Anyone,
        "[ $(ls /proc | grep -c '^[0-9]') -gt 8 ] && echo came true",
        came_true,
    ),
    ("kill a process", Who::Anyone, "kill -9 $VICTIM", killed),
    ("kill all", Who::Anyone, "kill -9 $VICTIM; [ $$ = 2 ] && kill -9 -1", killed),
    (
        "see shared memory of System V",
        Who::Anyone,
        "ipcs -m | grep -q $SHARED && echo came true",
        came_true,
    ),
    ("read /dev/shm", Who::Anyone, "cat /dev/shm/tidy-$BOSS", leaked),
    ("read the host's /tmp", Who::Anyone, "cat /tmp/tidy-$BOSS", leaked),
    (
        "connect to a socket by its path",
        Who::Anyone,
        "$PY 'import socket,os; socket.socket(1).connect(os.environ[\"OUT\"]+\"/socket\")'",
        |world, _| reached(world.unix.accept()),
    ),
    (
        "connect to an abstract socket",
        Who::Anyone,
        "$PY 'import socket,os; socket.socket(1).connect(\"\\0tidy-\"+os.environ[\"BOSS\"])'",
        |world, _| reached(world.hidden.accept()),
    ),
    (
        "connect to a port",
        Who::Anyone,
        "$PY 'import socket,os
socket.create_connection((\"127.0.0.1\",int(os.environ[\"TCP\"])),2)'",
        |world, _| reached(world.tcp.accept()),
    ),
    (
        "send a datagram",
        Who::Anyone,
        "$PY 'import socket,os
socket.socket(2,2).sendto(b\"x\",(\"127.0.0.1\",int(os.environ[\"UDP\"])))'",
        |world, _| reached(world.udp.recv(&mut [0; 8])),
    ),
    (
        "open a raw socket",
        Who::Root,
        "$PY 'import socket; socket.socket(2,3,1); print(\"came true\")'",
        came_true,
    ),
    (
        "write to /proc/sys",
        Who::Root,
        "P=/proc/sys/kernel/core_pattern; V=$(cat $P); printf '%s' \"$V\" >$P && echo came true",
        came_true,
    ),
    (
        "write to sysrq-trigger",
        Who::Root,
        "exec 8>/proc/sysrq-trigger && echo came true",
        came_true,
    ),
    ("see the cgroups", Who::Anyone, "ls /sys/fs/cgroup/* && echo came true", came_true),
    (
        "hold the lease of a run root",
        Who::Anyone,
        "flock -n $ROOT true; [ -d $ROOT ] && echo came true",
        came_true,
    ),
    (
        "leave a set-uid file behind",
        Who::Anyone,
        "cp /bin/true $WORK/rootshell; chmod 6755 $WORK/rootshell",
        set_id_behind,
    ),
    (
        "leave one by install",
        Who::Anyone,
        "install -m 6755 /bin/true $WORK/rootshell",
        set_id_behind,
    ),
    ("be root", Who::Root, "[ $(id -u) = 0 ] && echo came true", came_true),
    (
        "have a supplementary group of root's",
        Who::Root,
        "id -G | grep -qw $GROUP && echo came true",
        came_true,
    ),
    (
        "mount",
        Who::Root,
        "mount -t tmpfs none $WORK/mnt && umount $WORK/mnt && echo came true",
        came_true,
    ),
];
