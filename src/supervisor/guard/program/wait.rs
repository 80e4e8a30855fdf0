//! Waits for the owner's end. The line reaches end of file when no process holds the other end
//! (also after the owner's exec of another program); the owner's pidfd becomes readable when the
//! process has ended (a fork of it may hold the line for longer).

use core::ffi::CStr;

use super::calls::{self, EAGAIN, EINTR};
use super::ending::RunRootFds;
use super::{LINE, OWNER};

/// Returns the run root's fds, which the owner sends after making it.
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
