//! Process 1 of a sandbox. Every signal from inside is nothing to it, those from outside are
//! blocked; no process inside may look into it or trace it. Orphans are reaped by the kernel, since
//! it ignores SIGCHLD. It ends when nothing else is left, so that the cgroup becomes empty then.

use crate::bare::poll;
use crate::calls::{call, close, dispose, exit, into, nr, prctl};
use crate::namespaces::Common;
use crate::view;

/// Makes what is the command's own in the mounts of a template. Waits until the pipe ends, which
/// says that main has executed or failed; then for main's end; then for that of all orphans.
pub(crate) extern "C" fn live(common: &Common<'_>) -> ! {
    let &Common { orders, plan, lowers, joins, hold, ref view } = common;
    const SET_DUMPABLE: usize = 4;
    const SET_NAME: usize = 15;
    const SIGCHLD: usize = 17;
    const IGNORE: usize = 1;
    if joins && let Err(fault) = view::own(orders, plan, lowers) {
        orders.tell(&fault);
        // Main, which waits for the view, ends with this process.
        exit(127);
    }
    prctl(SET_DUMPABLE, 0);
    prctl(SET_NAME, c"tidy-init".as_ptr().expose_provenance());
    call(nr::SETSID, [0; 6]);
    dispose(SIGCHLD, IGNORE);
    // Else it would keep the host's file system in use.
    call(nr::CHDIR, [c"/".as_ptr().expose_provenance()]);
    // The streams are main's, and the line ends with main's exec.
    call(nr::CLOSE_RANGE, [0, hold.wrapping_sub(1)]);
    call(nr::CLOSE_RANGE, [hold + 1, u32::MAX as usize]);
    view.tell();
    call(nr::READ, [hold, into(&mut [0u8; 1]), 1]);
    close(hold);
    give_up_rights();
    wait_for_main();
    // Where SIGCHLD is ignored this fails when there is no child left. Whatever runs then has a
    // living parent, and the topmost of those is a child of this process. It returns before for an
    // orphan that had ended before the signal was ignored.
    const ALL: usize = 0x4000_0000;
    const NO_CHILD: isize = -10;
    while call(nr::WAIT4, [-1isize as usize, 0, ALL]) != NO_CHILD {}
    exit(0)
}

/// Main is the second process of the namespace. Without a handle on it, it has ended already.
fn wait_for_main() {
    let main = call(nr::PIDFD_OPEN, [2]);
    if main >= 0 {
        poll([main as i32], None);
        close(main.cast_unsigned());
    }
}

/// Sets all capabilities to none.
pub(crate) fn give_up_rights() -> isize {
    const VERSION: u32 = 0x2008_0522;
    let header = [VERSION, 0];
    let none = [0u32; 6];
    call(nr::CAPSET, [crate::calls::at(&header), crate::calls::at(&none)])
}
