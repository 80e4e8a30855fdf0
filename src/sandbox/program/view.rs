//! What the command sees: built on a tmpfs of its own, by fds, from what the plan names.
//!
//! No path is followed through a symbolic link, neither on the host nor in the view. Nothing is
//! made outside of this program's own file systems: a place in a directory of the user's has to be
//! there.

use crate::calls::{
    self, AT_CWD, AT_EMPTY_PATH, AT_RECURSIVE, CLOEXEC, ENOENT, ENOTDIR, ESTALE, Facts, PATH_ONLY,
    at, byte, call, close, into, length, nr, open_plain,
};
use crate::layout::{Op, news, number, op, stage};
use crate::lower::Lowers;
use crate::namespaces::{NEW_MOUNTS, makes_template, unshare};
use crate::orders::{Fault, Orders, Plan};

pub(crate) const READ_ONLY: u32 = 1;
pub(crate) const NO_SET_ID: u32 = 2;
pub(crate) const NO_DEVICES: u32 = 4;
pub(crate) const NO_EXEC: u32 = 8;

/// tmpfs that the program has mounted, at the most: those of a plan and the root.
const MOST: usize = 64;

pub(crate) struct View {
    pub(crate) root: usize,
    /// The devices of the file systems that are ours.
    ours: [u64; MOST],
    count: usize,
}

/// Builds the view and makes it the root. The old root is gone then.
///
/// A command that makes a template builds what is fixed, then adds what is its own in a copy of
/// those mounts.
pub(crate) fn enter(orders: &Orders, plan: &Plan, lowers: &Lowers) -> Result<(), Fault> {
    let makes = makes_template(orders);
    let mut view = View::new(orders)?;
    for index in 0..plan.head.ops {
        match plan.op(index) {
            Some(op) if makes && op.stage == stage::OWN => view.prepare(plan, op),
            Some(op) => view.add(orders, plan, (index, op), lowers)?,
            None => {}
        }
    }
    view.become_root(orders)?;
    if !makes {
        return Ok(());
    }
    orders.check(news::TEMPLATE, unshare(NEW_MOUNTS))?;
    own(orders, plan, lowers)
}

/// Adds what is this command's own to the mounts of a template.
pub(crate) fn own(orders: &Orders, plan: &Plan, lowers: &Lowers) -> Result<(), Fault> {
    let root = orders.check(news::ROOT, open_plain(AT_CWD, text(c"/"), PATH_ONLY))?;
    let mut view = View { root, ours: [0; MOST], count: 0 };
    let ops = || (0..plan.head.ops).filter_map(|index| Some((index, plan.op(index)?)));
    let kept = ops().filter(|(_, op)| op.stage != stage::OWN);
    if orders.has_task(number::LOOKS_AT_COVERS) {
        for (_, op) in kept.filter(|(_, op)| matches!(op.kind, op::BIND | op::HIDE)) {
            orders.check(news::TEMPLATE, view.still_has(plan.address(op.to)))?;
        }
    }
    // Before they are covered by what they are moved into.
    let mut carried = [0; stage::MOST_CARRIED];
    let all = ops().filter(|(_, op)| op.stage == stage::CARRIED);
    for ((index, op), fd) in all.zip(&mut carried) {
        let opened = open_plain(root, plan.address(op.to), PATH_ONLY);
        *fd = orders.check_at(news::VIEW, index, opened)?;
    }
    let mut carried = carried.iter();
    for (index, op) in ops() {
        match op.stage {
            stage::OWN => view.add(orders, plan, (index, op), lowers)?,
            stage::CARRIED => {
                let mount = carried.next().copied().unwrap_or_default();
                let moved = view.carry(mount, plan.address(op.to));
                orders.check_at(news::VIEW, index, done(moved))?;
            }
            _ => {}
        }
    }
    close(root);
    Ok(())
}

impl View {
    /// Makes an empty root.
    fn new(orders: &Orders) -> Result<Self, Fault> {
        let root = orders.check(news::ROOT, new_tmpfs(text(c"755"), 0))?;
        // Somewhere it has to be, to be a place to mount on: over the old root, where nothing sees
        // it.
        orders.check(news::ROOT, attach(root, AT_CWD, text(c"/")))?;
        let mut view = Self { root, ours: [0; MOST], count: 0 };
        orders.check(news::ROOT, view.own(root))?;
        Ok(view)
    }

    fn add(
        &mut self,
        orders: &Orders,
        plan: &Plan,
        (index, op): (u32, Op),
        lowers: &Lowers,
    ) -> Result<(), Fault> {
        let added = match op.kind {
            op::OVERLAY => self.overlay(plan, op, lowers.of(index)).and_then(|upper| {
                let sent = orders.send([news::UPPER, 0, index], Some(upper as i32));
                close(upper);
                fd(sent).map(drop)
            }),
            _ => self.make_piece(plan, op),
        };
        orders.check_at(news::VIEW, index, done(added)).map(drop)
    }

    /// Makes a place in a template at which its commands mount what is their own. The kernel lets
    /// them mount `/proc` only where one is seen already. What fails here fails there, too.
    fn prepare(&mut self, plan: &Plan, op: Op) {
        let _ = match op.kind {
            op::PROC => self.make_piece(plan, op),
            _ => self.place(plan.address(op.to), true).map(close),
        };
    }

    /// Whether a mount of the template is where it was made. When a file of the host is removed
    /// or replaced, the kernel takes away what is mounted on it, everywhere.
    fn still_has(&self, place: usize) -> isize {
        let place = open_plain(self.root, place, PATH_ONLY);
        if place < 0 {
            return ESTALE;
        }
        let is_mount = Facts::of(place.cast_unsigned()).is_ok_and(|facts| facts.is_mount);
        close(place.cast_unsigned());
        if is_mount { 0 } else { ESTALE }
    }

    /// Moves a mount to a place.
    fn carry(&self, mount: usize, to: usize) -> Result<(), isize> {
        let place = self.place(to, Facts::of(mount)?.is_dir)?;
        self.mount(mount, place)
    }

    fn become_root(self, orders: &Orders) -> Result<(), Fault> {
        const DETACH: usize = 2;
        let (root, here) = (self.root, text(c"."));
        orders.check(news::ROOT, set_attributes(root, READ_ONLY, 0))?;
        orders.check(news::PIVOT, call(nr::FCHDIR, [root]))?;
        orders.check(news::PIVOT, call(nr::PIVOT_ROOT, [here, here]))?;
        // Both are at the same place now, the old one on top.
        orders.check(news::PIVOT, call(nr::UMOUNT2, [here, DETACH]))?;
        close(root);
        orders.check(news::PIVOT, call(nr::CHDIR, [text(c"/")])).map(drop)
    }

    /// Notes that the file system of this mount is ours.
    fn own(&mut self, mount: usize) -> isize {
        const NO_SPACE: isize = -28;
        match (Facts::of(mount), self.ours.get_mut(self.count)) {
            (Ok(facts), Some(free)) => {
                *free = facts.device;
                self.count += 1;
                0
            }
            (Err(errno), _) => errno,
            (_, None) => NO_SPACE,
        }
    }

    fn make_piece(&mut self, plan: &Plan, op: Op) -> Result<(), isize> {
        let (from, to) = (plan.address(op.from), plan.address(op.to));
        match op.kind {
            op::DIRECTORY => self.place(to, true).map(close),
            op::LINK => self.link(from, to),
            op::BIND => self.bind(from, to, op.attributes),
            op::TMPFS => self.tmpfs(from, to, op.attributes),
            op::HIDE => self.hide(to),
            op::DEVPTS => self.devpts(to),
            op::PROC => {
                let place = self.place(to, true)?;
                self.mount(fd(new(c"proc", &[], NO_SET_ID | NO_DEVICES | NO_EXEC))?, place)
            }
            _ => Err(calls::EIO),
        }
    }

    fn bind(&self, from: usize, to: usize, attributes: u32) -> Result<(), isize> {
        const CLONE: usize = 1;
        let source = fd(open_plain(AT_CWD, from, PATH_ONLY))?;
        let is_dir = Facts::of(source)?.is_dir;
        let flags = CLONE | CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE;
        let tree = fd(call(nr::OPEN_TREE, [source, empty(), flags]))?;
        close(source);
        fd(set_attributes(tree, attributes, AT_RECURSIVE))?;
        let place = self.place(to, is_dir)?;
        self.mount(tree, place)
    }

    fn tmpfs(&mut self, mode: usize, to: usize, attributes: u32) -> Result<(), isize> {
        let place = self.place(to, true)?;
        let mount = fd(new_tmpfs(mode, attributes))?;
        fd(self.own(mount))?;
        self.mount(mount, place)
    }

    fn devpts(&self, to: usize) -> Result<(), isize> {
        let options = [(c"newinstance", 0), (c"ptmxmode", text(c"0666")), (c"mode", text(c"0620"))];
        let place = self.place(to, true)?;
        self.mount(fd(new(c"devpts", &options, NO_SET_ID | NO_EXEC))?, place)
    }

    /// Puts a mount at an open place; closes both.
    pub(crate) fn mount(&self, mount: usize, place: usize) -> Result<(), isize> {
        let answer = attach(mount, place, empty());
        close(mount);
        close(place);
        fd(answer).map(drop)
    }

    fn link(&self, from: usize, to: usize) -> Result<(), isize> {
        // A link is made in the root or a directory of its own that is there already.
        fd(call(nr::SYMLINKAT, [from, self.root, to])).map(drop)
    }

    /// Opens a path in the view; on a file system of ours it is made.
    pub(crate) fn place(&self, path: usize, is_dir: bool) -> Result<usize, isize> {
        match open_plain(self.root, path, PATH_ONLY) {
            ENOENT => self.make(path, is_dir),
            answer => {
                let found = fd(answer)?;
                match Facts::of(found)?.is_dir == is_dir {
                    true => Ok(found),
                    false => Err(ENOTDIR),
                }
            }
        }
    }

    /// Goes down the path, and makes what is missing of it.
    fn make(&self, path: usize, is_dir: bool) -> Result<usize, isize> {
        let mut name = [0u8; 256];
        let (mut dir, mut len, end) = (self.root, 0, length(path));
        for place in 0..=end {
            let letter = if place == end { b'/' } else { byte(path + place) };
            if letter != b'/' {
                *name.get_mut(len).ok_or(calls::ENAMETOOLONG)? = letter;
                len += 1;
                continue;
            }
            *name.get_mut(len).ok_or(calls::ENAMETOOLONG)? = 0;
            let next = self.step(dir, at(&name), is_dir || place < end)?;
            if dir != self.root {
                close(dir);
            }
            (dir, len) = (next, 0);
        }
        Ok(dir)
    }

    /// Opens what has this name in the directory, and makes it if that is on a file system of ours.
    fn step(&self, dir: usize, name: usize, is_dir: bool) -> Result<usize, isize> {
        match open_plain(dir, name, PATH_ONLY) {
            ENOENT => {}
            answer => return fd(answer),
        }
        let device = Facts::of(dir)?.device;
        if !self.ours.iter().take(self.count).any(|&ours| ours == device) {
            return Err(ENOENT);
        }
        fd(match is_dir {
            true => call(nr::MKDIRAT, [dir, name, 0o755]),
            false => call(nr::MKNODAT, [dir, name, REGULAR_FILE]),
        })?;
        fd(open_plain(dir, name, PATH_ONLY))
    }
}

/// A file without any right.
pub(crate) const REGULAR_FILE: usize = 0o100_000;

pub(crate) fn fd(answer: isize) -> Result<usize, isize> {
    if answer < 0 { Err(answer) } else { Ok(answer.cast_unsigned()) }
}

fn done(result: Result<(), isize>) -> isize {
    result.err().unwrap_or(0)
}

pub(crate) fn empty() -> usize {
    text(c"")
}

pub(crate) fn text(text: &'static core::ffi::CStr) -> usize {
    text.as_ptr().expose_provenance()
}

pub(crate) fn new_tmpfs(mode: usize, attributes: u32) -> isize {
    new(c"tmpfs", &[(c"mode", mode)], attributes | NO_SET_ID | NO_DEVICES)
}

/// Makes a new file system; the fd of a mount of it that is nowhere yet. An option without a value
/// is a flag.
pub(crate) fn new(
    kind: &'static core::ffi::CStr,
    options: &[(&'static core::ffi::CStr, usize)],
    attributes: u32,
) -> isize {
    const FLAG: usize = 0;
    const STRING: usize = 1;
    const CREATE: usize = 6;
    const CLOSE_ON_EXEC: usize = 1;
    let context = call(nr::FSOPEN, [text(kind), CLOSE_ON_EXEC]);
    if context < 0 {
        return context;
    }
    let context = context.cast_unsigned();
    let configure = |what, key, value| call(nr::FSCONFIG, [context, what, key, value]);
    let mut answer = 0;
    for &(key, value) in options {
        let what = if value == 0 { FLAG } else { STRING };
        answer = if answer < 0 { answer } else { configure(what, text(key), value) };
    }
    answer = if answer < 0 { answer } else { configure(CREATE, 0, 0) };
    if answer >= 0 {
        answer = call(nr::FSMOUNT, [context, CLOSE_ON_EXEC, attributes as usize]);
    }
    close(context);
    answer
}

/// Sets attributes of a mount, and makes it private: what the host mounts later is not in the view.
pub(crate) fn set_attributes(mount: usize, attributes: u32, flags: usize) -> isize {
    const PRIVATE: u64 = 1 << 18;
    let mut set = [attributes as u64, 0, PRIVATE, 0];
    let args = [mount, empty(), AT_EMPTY_PATH | flags, into(&mut set), size_of_val(&set), 0];
    call(nr::MOUNT_SETATTR, args)
}

/// Attaches a mount that is nowhere yet; with an empty path to the open place itself.
pub(crate) fn attach(mount: usize, dir: usize, path: usize) -> isize {
    const FROM_EMPTY_PATH: usize = 4;
    const TO_EMPTY_PATH: usize = 0x40;
    let flags = FROM_EMPTY_PATH | if length(path) == 0 { TO_EMPTY_PATH } else { 0 };
    call(nr::MOVE_MOUNT, [mount, empty(), dir, path, flags])
}
