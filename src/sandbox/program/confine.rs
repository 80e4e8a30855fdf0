//! The main process until its exec: it gives up what it may do, and becomes the command in a view
//! that it has built, or init for it.

use core::convert::Infallible;

use crate::calls::{
    EACCES, ENODEV, ENOENT, ENOTDIR, ESTALE, ETIMEDOUT, at, call, dispose, exit, into, nr, prctl,
};
use crate::init::give_up_rights;
use crate::layout::{network, news, number};
use crate::namespaces::{Common, NEW_IPC, unshare};
use crate::orders::{Fault, Orders, Plan};
use crate::view;

pub(crate) extern "C" fn live(common: &Common<'_>) -> ! {
    let Err(fault) = become_command(common);
    common.orders.tell(&fault);
    exit(127)
}

/// What needs the view comes as late as it can: init may be building it meanwhile.
fn become_command(common: &Common<'_>) -> Result<Infallible, Fault> {
    let &Common { orders, plan, lowers, joins, ref view, .. } = common;
    let is_early = plan.head.early == 1;
    orders.check(news::NAMESPACES, unshare(NEW_IPC))?;
    if matches!(plan.head.network, network::LOOPBACK | network::FORWARD) {
        orders.check(news::NETWORK, bring_loopback_up())?;
    }
    if plan.head.network == network::FORWARD {
        orders.check(news::FORWARD, hand_listener_out(orders, plan.head.port as u16))?;
    }
    if !joins {
        view::enter(orders, plan, lowers)?;
    }
    if orders.number(number::GROUP) == 0 {
        orders.check(news::GROUP, call(nr::SETPGID, [0; 6]))?;
    }
    give_up(orders)?;
    if is_early {
        filter(orders, plan)?;
    }
    if joins {
        orders.check(news::TEMPLATE, await_word(orders))?;
        view.wait();
    }
    orders.check(news::CHDIR, call(nr::CHDIR, [orders.directory()]))?;
    reset_signals(orders)?;
    if !is_early {
        filter(orders, plan)?;
    }
    Err(execute(orders))
}

/// Waits until the supervisor has seen that the paths of the host are still those of the template.
/// It looks while this process is being set up; without its word the line ends.
fn await_word(orders: &Orders) -> isize {
    match call(nr::READ, [orders.fd(number::CHANNEL), into(&mut [0u8; 1]), 1]) {
        0 => ESTALE,
        answer => answer,
    }
}

/// The interface `lo`, which a new network namespace has, but down.
fn bring_loopback_up() -> isize {
    const INET: usize = 2;
    const DATAGRAM_CLOEXEC: usize = 2 | 0o2_000_000;
    const SET_FLAGS: usize = 0x8914;
    const UP_LOOPBACK_RUNNING: u8 = 0x1 | 0x8 | 0x40;
    let socket = call(nr::SOCKET, [INET, DATAGRAM_CLOEXEC]);
    if socket < 0 {
        return socket;
    }
    let mut request = [0u8; 40];
    for (to, from) in request.iter_mut().zip(b"lo") {
        *to = *from;
    }
    // Sixteen bytes of name, then the flags.
    if let Some(flags) = request.get_mut(16) {
        *flags = UP_LOOPBACK_RUNNING;
    }
    let answer = call(nr::IOCTL, [socket.cast_unsigned(), SET_FLAGS, into(&mut request)]);
    crate::calls::close(socket.cast_unsigned());
    answer
}

/// Listens on 127.0.0.1 in the new network, and hands the socket to the supervisor: connections to
/// it are accepted outside.
fn hand_listener_out(orders: &Orders, port: u16) -> isize {
    const INET: u16 = 2;
    const STREAM_CLOEXEC: usize = 1 | 0o2_000_000;
    const MOST_WAITING: usize = 128;
    let socket = call(nr::SOCKET, [INET as usize, STREAM_CLOEXEC]);
    if socket < 0 {
        return socket;
    }
    let fd = socket.cast_unsigned();
    let [family, port] = [INET.to_ne_bytes(), port.to_be_bytes()];
    let mut address = [0u8; 16];
    let all = family.iter().chain(&port).chain(&[127, 0, 0, 1]);
    address.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
    let mut answer = call(nr::BIND, [fd, at(&address), size_of_val(&address)]);
    if answer >= 0 {
        answer = call(nr::LISTEN, [fd, MOST_WAITING]);
    }
    if answer >= 0 {
        answer = orders.send([news::LISTENER, 0, 0], Some(fd as i32));
    }
    crate::calls::close(fd);
    answer
}

/// The secure bits by which uid 0 is a user like others, and what keeps them so (capabilities(7)).
/// With no_new_privs no exec gives a capability anyway. To empty the bounding set says no more, and
/// takes a call for each capability, 3 % of a sandbox's cost.
const NO_RIGHTS_BY_UID_LOCKED: usize = 0xef;

/// Capabilities, privileges to come, core dumps, and every fd but the streams.
fn give_up(orders: &Orders) -> Result<(), Fault> {
    const SET_NO_NEW_PRIVILEGES: usize = 38;
    const SET_SECURE_BITS: usize = 28;
    orders.check(news::RIGHTS, prctl(SET_SECURE_BITS, NO_RIGHTS_BY_UID_LOCKED))?;
    orders.check(news::RIGHTS, give_up_rights())?;
    orders.check(news::RIGHTS, prctl(SET_NO_NEW_PRIVILEGES, 1))?;
    orders.check(news::RIGHTS, dump_no_core())?;
    keep_fds(orders)?;
    let ruleset = orders.fd(number::RULESET);
    let answer = call(nr::LANDLOCK_RESTRICT_SELF, [ruleset]);
    orders.check(news::LANDLOCK, answer).map(drop)
}

/// A limit of 1 keeps the kernel from a handler behind a pipe too (core(5)), which 0 does not; a
/// hard limit of 0 stays.
fn dump_no_core() -> isize {
    const CORE: usize = 4;
    let mut now = [0u64; 2];
    let answer = call(nr::PRLIMIT64, [0, CORE, 0, into(&mut now)]);
    let [_, hard] = now;
    let least = [hard.min(1); 2];
    if answer < 0 { answer } else { call(nr::PRLIMIT64, [0, CORE, at(&least)]) }
}

/// Marks all fds but the streams to be closed by exec, then takes the mark from those to keep.
fn keep_fds(orders: &Orders) -> Result<(), Fault> {
    const MARK: usize = 4;
    const SET_FLAGS: usize = 2;
    let all = u32::MAX as usize;
    orders.check(news::FDS, call(nr::CLOSE_RANGE, [3, all, MARK]))?;
    for fd in orders.kept() {
        orders.check(news::FDS, call(nr::FCNTL, [fd, SET_FLAGS]))?;
    }
    Ok(())
}

/// SIGPIPE and SIGXFSZ, which Rust and Python ignore, become the default; then all signals are let
/// in again.
fn reset_signals(orders: &Orders) -> Result<(), Fault> {
    const PIPE: usize = 13;
    const FILE_SIZE: usize = 25;
    const SET_MASK: usize = 2;
    orders.check(news::SIGNALS, dispose(PIPE, 0))?;
    orders.check(news::SIGNALS, dispose(FILE_SIZE, 0))?;
    let none = 0u64;
    let answer = call(nr::RT_SIGPROCMASK, [SET_MASK, at(&none), 0, 8]);
    orders.check(news::SIGNALS, answer).map(drop)
}

/// The seccomp filter: it forbids most of what came before. Its listener goes to the supervisor,
/// and is closed here by exec.
fn filter(orders: &Orders, plan: &Plan) -> Result<(), Fault> {
    const SET_FILTER: usize = 1;
    const NEW_LISTENER: usize = 8;
    const WAIT_KILLABLE: usize = 32;
    #[repr(C)]
    struct Program {
        len: u16,
        first: usize,
    }
    let first = plan.address(plan.head.filter_at);
    let program = Program { len: plan.head.filter as u16, first };
    let set = |flags| call(nr::SECCOMP, [SET_FILTER, flags, at(&program)]);
    if plan.head.listens == 0 {
        return orders.check(news::FILTER, set(0)).map(drop);
    }
    let listener = orders.check(news::LISTEN, set(NEW_LISTENER | WAIT_KILLABLE))?;
    let sent = orders.send([news::NOTICES, 0, 0], Some(listener as i32));
    orders.check(news::LISTEN, sent).map(drop)
}

/// Tries each path in turn, as execvp(3): a refusal by permissions is remembered.
fn execute(orders: &Orders) -> Fault {
    let (mut errno, mut place) = (ENOENT, 0);
    while let Some(path) = orders.candidate(place) {
        let args = [path, orders.arguments(), orders.environment, 0, 0, 0];
        place += 1;
        match call(nr::EXECVE, args) {
            other @ (EACCES | ENOENT | ENOTDIR | ESTALE | ENODEV | ETIMEDOUT) => {
                errno = if errno == EACCES { EACCES } else { other };
            }
            other => {
                errno = other;
                break;
            }
        }
    }
    Fault { step: news::EXEC, errno, index: 0 }
}
