//! The set-up process: makes the namespaces and the two processes that live in them.
//!
//! # Safety
//! Those two share this process's memory; `birth.rs` says what that asks for.
#![expect(unsafe_code, reason = "starts the two processes")]

use core::convert::Infallible;

use crate::birth::{Stacks, born_beside};
use crate::calls::{AT_CWD, CLOEXEC, call, close, exit, into, nr, number as fd_number, prctl};
use crate::layout::{network, news, number};
use crate::lower::Lowers;
use crate::orders::{Fault, Orders, Plan, map_of, write_file};
use crate::view::text;
use crate::view_news::ViewNews;
use crate::{confine, init};

const SET_DUMPABLE: usize = 4;

pub(crate) const NEW_MOUNTS: usize = 0x2_0000;
const NEW_CGROUP: usize = 0x200_0000;
const NEW_UTS: usize = 0x400_0000;
pub(crate) const NEW_IPC: usize = 0x800_0000;
const NEW_USER: usize = 0x1000_0000;
const NEW_PIDS: usize = 0x2000_0000;
const NEW_NET: usize = 0x4000_0000;

/// Returns only what has failed.
pub(crate) fn set_up(orders: &Orders) -> Result<Infallible, Fault> {
    const SET_NAME: usize = 15;
    prctl(SET_NAME, c"tidy-set-up".as_ptr().expose_provenance());
    let plan = Plan::map(orders.fd(number::PLAN));
    let plan = plan.map_err(|errno| Fault { step: news::PLAN, errno, index: 0 })?;
    let mut lowers = Lowers::default();
    if orders.number(number::DROP) == 1 {
        lowers.open(orders, &plan)?;
        become_other(orders)?;
    }
    let group = orders.number(number::GROUP);
    if group > 0 {
        // Only here the group's number is known; a new group is main's own to make.
        orders.check(news::GROUP, call(nr::SETPGID, [0, group.cast_unsigned()]))?;
    }
    let joins = enter_template(orders)?;
    if !joins {
        orders.check(news::USER, unshare(NEW_USER))?;
        // Its own files in /proc are root's otherwise. While it is so, another process of the user
        // that it has become can trace it, and speak for it.
        orders.check(news::MAP, prctl(SET_DUMPABLE, 1))?;
        map_ids(orders)?;
        // Init and main, too, until exec.
        orders.check(news::MAP, prctl(SET_DUMPABLE, 0))?;
    }
    if plan.head.network != network::HOST {
        enter_network(orders, joins)?;
    }
    if joins {
        let mounts = set_namespace(orders.fd(number::MOUNTS_NAMESPACE), NEW_MOUNTS);
        orders.check(news::TEMPLATE, mounts)?;
    }
    // That of IPC, which takes longest, main makes for itself.
    let rest = NEW_MOUNTS | NEW_CGROUP | NEW_UTS | NEW_PIDS;
    orders.check(news::NAMESPACES, unshare(rest))?;
    if makes_template(orders) {
        hand_out(orders, news::USER_NAMESPACE, text(c"/proc/self/ns/user"))?;
        hand_out(orders, news::MOUNTS_NAMESPACE, text(c"/proc/self/ns/mnt"))?;
        hand_out(orders, news::MOUNTS, text(c"/proc/self/mountinfo"))?;
    }
    give_birth(&plan, orders, &lowers, joins)
}

pub(crate) fn unshare(flags: usize) -> isize {
    call(nr::UNSHARE, [flags])
}

fn set_namespace(fd: usize, kind: usize) -> isize {
    call(nr::SETNS, [fd, kind])
}

pub(crate) fn makes_template(orders: &Orders) -> bool {
    orders.has_task(number::MAKES_TEMPLATE)
}

/// Enters the user namespace of a template, if there is one.
fn enter_template(orders: &Orders) -> Result<bool, Fault> {
    if orders.number(number::USER_NAMESPACE) < 0 {
        return Ok(false);
    }
    // No process in there may look into it from now on.
    orders.check(news::MAP, prctl(SET_DUMPABLE, 0))?;
    let entered = set_namespace(orders.fd(number::USER_NAMESPACE), NEW_USER);
    orders.check(news::TEMPLATE, entered).map(|_| true)
}

/// Enters the empty network that it is lent, or makes one.
fn enter_network(orders: &Orders, joins: bool) -> Result<(), Fault> {
    if joins && orders.number(number::NETWORK_NAMESPACE) >= 0 {
        let entered = set_namespace(orders.fd(number::NETWORK_NAMESPACE), NEW_NET);
        return orders.check(news::TEMPLATE, entered).map(drop);
    }
    orders.check(news::NETWORK, unshare(NEW_NET))?;
    // It belongs to the template's user namespace, or it can never be entered again.
    let is_of_template = joins || makes_template(orders);
    if is_of_template && orders.has_task(number::LENDS_NETWORK) {
        hand_out(orders, news::NETWORK_NAMESPACE, text(c"/proc/self/ns/net"))?;
        hand_out(orders, news::SOCKETS, text(c"/proc/self/net/sockstat"))?;
    }
    Ok(())
}

/// Hands a file about a namespace of this process to the supervisor.
fn hand_out(orders: &Orders, which: u32, path: usize) -> Result<(), Fault> {
    let opened = call(nr::OPENAT, [AT_CWD, path, CLOEXEC]);
    let fd = orders.check(news::TEMPLATE, opened)?;
    let sent = orders.send([which, 0, 0], Some(fd as i32));
    close(fd);
    orders.check(news::TEMPLATE, sent).map(drop)
}

/// As root: a user that owns nothing, without any group of root's.
fn become_other(orders: &Orders) -> Result<(), Fault> {
    let (uid, gid) = (orders.fd(number::UID), orders.fd(number::GID));
    orders.check(news::IDENTITY, call(nr::SETGROUPS, [0; 6]))?;
    orders.check(news::IDENTITY, call(nr::SETRESGID, [gid, gid, gid]))?;
    orders.check(news::IDENTITY, call(nr::SETRESUID, [uid, uid, uid])).map(drop)
}

fn map_ids(orders: &Orders) -> Result<(), Fault> {
    let mut buffer = [0; 64];
    orders.check(news::MAP, write_file(text(c"/proc/self/setgroups"), b"deny"))?;
    let maps = [(c"/proc/self/uid_map", number::UID), (c"/proc/self/gid_map", number::GID)];
    for (file, id) in maps {
        let len = map_of(orders.fd(id), orders.fd(id), &mut buffer);
        let map = buffer.get(..len).unwrap_or_default();
        orders.check(news::MAP, write_file(text(file), map))?;
    }
    Ok(())
}

/// What init and main read. It is in this process's memory for as long as they are.
pub(crate) struct Common<'a> {
    pub(crate) orders: &'a Orders,
    pub(crate) plan: &'a Plan,
    pub(crate) lowers: &'a Lowers,
    /// Whether they are in the mounts of a template: then init makes what is the command's own.
    pub(crate) joins: bool,
    /// Ends when main has executed or ended: only then has the second process of the namespace its
    /// number for init.
    pub(crate) hold: usize,
    pub(crate) view: ViewNews,
}

/// Starts init and main, and ends. It does not return: both read what is in this frame and above.
fn give_birth(plan: &Plan, orders: &Orders, lowers: &Lowers, joins: bool) -> ! {
    let mut pipe = [0i32; 2];
    let made = call(nr::PIPE2, [into(&mut pipe), CLOEXEC]);
    let [hold, go] = pipe.map(fd_number);
    let common = Common { orders, plan, lowers, joins, hold, view: ViewNews::default() };
    match orders.check(news::BIRTH, made).and_then(|_| births(&common, go)) {
        Ok(()) => exit(0),
        Err(fault) => {
            orders.tell(&fault);
            exit(127)
        }
    }
}

fn births(common: &Common<'_>, go: usize) -> Result<(), Fault> {
    let (orders, mut pidfd) = (common.orders, -1);
    let stacks = Stacks::map().map_err(|errno| Fault { step: news::BIRTH, errno, index: 0 })?;
    // SAFETY: the caller never returns, and no one writes to what init reads.
    let init = unsafe { born_beside(stacks.init, init::live, common, &mut pidfd) };
    announce(orders, news::INIT, orders.check(news::BIRTH, init)?, pidfd)?;
    close(common.hold);
    // SAFETY: the same, of main.
    let main = unsafe { born_beside(stacks.main, confine::live, common, &mut pidfd) };
    announce(orders, news::MAIN, orders.check(news::BIRTH, main)?, pidfd)?;
    close(go);
    Ok(())
}

fn announce(orders: &Orders, which: u32, pid: usize, pidfd: i32) -> Result<(), Fault> {
    orders.check(news::BIRTH, orders.send([which, pid as u32, 0], Some(pidfd)))?;
    close(fd_number(pidfd));
    Ok(())
}
