//! The lower directories of overlays as root has them for another user: mounts that show the
//! directory's owner as that user. Else the command could change nothing in what is root's, since
//! no file of an id that its namespace does not know goes to an upper layer.
//!
//! They are made while the program still is root, in the host's namespaces.

use crate::calls::{
    AT_CWD, AT_EMPTY_PATH, CLOEXEC, ENOTDIR, Facts, PATH_ONLY, at, call, close, exit, into, nr,
    number as fd_number, open_plain,
};
use crate::layout::{news, number, op};
use crate::orders::{Digits, Fault, Orders, Plan, joined, map_of, write_file};
use crate::view::{empty, fd};

/// Open mounts that are nowhere yet, each by its op's place in the list.
#[derive(Default)]
pub(crate) struct Lowers {
    all: [(u32, usize); op::MOST_OVERLAYS],
    count: usize,
}

impl Lowers {
    pub(crate) fn of(&self, index: u32) -> Option<usize> {
        let mut made = self.all.iter().take(self.count);
        made.find(|(place, _)| *place == index).map(|(_, mount)| *mount)
    }

    pub(crate) fn open(&mut self, orders: &Orders, plan: &Plan) -> Result<(), Fault> {
        for index in 0..plan.head.ops {
            let Some(op) = plan.op(index).filter(|op| op.kind == op::OVERLAY) else { continue };
            let made = owned(orders, plan.address(op.from));
            let answer = made.map_or_else(|errno| errno, usize::cast_signed);
            let mount = orders.check_at(news::VIEW, index, answer)?;
            if let Some(free) = self.all.get_mut(self.count) {
                *free = (index, mount);
                self.count += 1;
            }
        }
        Ok(())
    }
}

/// Clones the mount of a directory alone, without what is mounted below it.
pub(crate) fn cloned(path: usize) -> Result<(usize, Facts), isize> {
    const CLONE: usize = 1;
    let source = fd(open_plain(AT_CWD, path, PATH_ONLY))?;
    let facts = Facts::of(source)?;
    let flags = CLONE | CLOEXEC | AT_EMPTY_PATH;
    let tree = if facts.is_dir { call(nr::OPEN_TREE, [source, empty(), flags]) } else { ENOTDIR };
    close(source);
    Ok((fd(tree)?, facts))
}

/// The same, with the directory's owner and group shown as the command's.
fn owned(orders: &Orders, path: usize) -> Result<usize, isize> {
    const MAPPED: u64 = 0x10_0000;
    let (tree, facts) = cloned(path)?;
    let own = [orders.fd(number::UID), orders.fd(number::GID)];
    let theirs = [facts.uid as usize, facts.gid as usize];
    if own == theirs {
        return Ok(tree);
    }
    let namespace = mapping(theirs, own)?;
    let set = [MAPPED, 0, 0, namespace as u64];
    let args = [tree, empty(), AT_EMPTY_PATH, at(&set), size_of_val(&set), 0];
    let answer = call(nr::MOUNT_SETATTR, args);
    close(namespace);
    fd(answer).map(|_| tree)
}

/// Makes a user namespace that has one user and one group, `inside` as `outside`; its fd. A process
/// lives in it for as long as that takes.
fn mapping(inside: [usize; 2], outside: [usize; 2]) -> Result<usize, isize> {
    const NEW_USER: usize = 0x1000_0000;
    const SIGCHLD: usize = 17;
    let mut pipe = [0i32; 2];
    fd(call(nr::PIPE2, [into(&mut pipe), CLOEXEC]))?;
    let [hold, go] = pipe.map(fd_number);
    let pid = fd(call(nr::CLONE, [NEW_USER | SIGCHLD]))?;
    if pid == 0 {
        close(go);
        let mut byte = [0u8; 1];
        call(nr::READ, [hold, into(&mut byte), 1]);
        exit(0);
    }
    let made = mapped(pid, inside, outside);
    close(go);
    close(hold);
    call(nr::WAIT4, [pid]);
    made
}

fn mapped(pid: usize, inside: [usize; 2], outside: [usize; 2]) -> Result<usize, isize> {
    let digits = Digits::of(pid);
    let (mut path, mut map) = ([0u8; 64], [0u8; 64]);
    let files: [&[u8]; 2] = [b"/uid_map", b"/gid_map"];
    for ((file, inside), outside) in files.into_iter().zip(inside).zip(outside) {
        joined(&[b"/proc/", digits.bytes(), file], &mut path);
        let len = map_of(inside, outside, &mut map);
        fd(write_file(at(&path), map.get(..len).unwrap_or_default()))?;
    }
    joined(&[b"/proc/", digits.bytes(), b"/ns/user"], &mut path);
    fd(call(nr::OPENAT, [AT_CWD, at(&path), CLOEXEC]))
}
