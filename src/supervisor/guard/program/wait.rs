//! The wait for the owner's end. Two things tell of it: the line comes to its end when nobody holds
//! the other one (the owner may have executed something else), and the owner's pidfd when the
//! process has ended (a fork of it may hold the line for longer).

use core::ffi::CStr;

use super::calls::{self, EAGAIN, EINTR};
use super::ending::RunRootFds;
use super::{LINE, OWNER};

/// Returns what it holds of the run root by then: what the owner has sent once it had made it.
pub(super) fn until_owner_is_gone(name: &CStr) -> RunRootFds {
    let mut held = RunRootFds::default();
    loop {
        let [message, gone] = calls::poll(LINE, OWNER);
        if message {
            match calls::receive(LINE) {
                (EAGAIN | EINTR, _) => {}
                (1.., fds) => {
                    held.take(fds);
                    held.open(name);
                }
                _ => return held,
            }
        } else if gone {
            return held;
        }
    }
}
