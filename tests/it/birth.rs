//! What a child gets from its birth, and what its birth leaves alone.

use std::fs::{self, File};

use nix::unistd::{getegid, geteuid};
use serial_test::{parallel, serial};
use tidy_process::Placement;

use crate::support::{Alone, Stage};

/// That user could get into this process through the memory.
#[test]
#[parallel]
fn a_child_of_another_user_or_group_shares_no_memory() {
    let Some(stage) = Stage::set() else { return };
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    for (other_uid, other_gid) in [(true, false), (false, true), (true, true)] {
        let mut command = stage.command("true");
        if other_uid {
            command.uid(uid);
        }
        if other_gid {
            command.gid(gid);
        }
        let placement = command.run().map(|report| report.placement);
        // An ordinary user may set no groups.
        if geteuid().is_root() {
            assert_eq!(placement.unwrap(), Placement::Joined, "{other_uid} {other_gid}");
        }
    }
    stage.close(Alone::No);
}

/// Standard output is fd 1 on both sides of a fork.
#[test]
#[parallel]
fn a_spawn_that_fails_writes_nothing_to_a_stream() {
    for stage in [Stage::set(), Stage::of_keepers()].into_iter().flatten() {
        let path = std::env::temp_dir().join(format!("tidy-birth-{}", std::process::id()));
        for joined in [false, true] {
            let mut command = stage.command("/no/such");
            command.stdout(File::create(&path).unwrap()).force_join(joined);
            command.spawn().unwrap_err();
            assert_eq!(fs::read(&path).unwrap(), b"", "{joined}");
        }
        fs::remove_file(path).unwrap();
        stage.close(Alone::No);
    }
}

#[cfg(feature = "cli")]
mod by_tool {
    use std::os::unix::process::CommandExt;

    use nix::errno::Errno;
    use nix::unistd::{Gid, geteuid, setgroups};
    use serial_test::{parallel, serial};

    use crate::kept::refuse;
    use crate::support::{Alone, Stage, lacks};

    #[test]
    #[serial]
    fn the_tool_writes_nothing_of_its_own_to_standard_output() {
        let Some(stage) = Stage::set() else { return };
        let ways: [&[&str]; 3] = [&[], &["--force-join"], &["--containment", "keeper"]];
        for way in ways {
            for forked_guard in [false, true] {
                let mut tool = stage.tool(&["run", "-q"]);
                if forked_guard {
                    // SAFETY: two system calls.
                    #[expect(unsafe_code, reason = "a filter of the child's")]
                    unsafe {
                        tool.pre_exec(|| {
                            refuse(libc::SYS_memfd_create, Errno::EACCES);
                            Ok(())
                        });
                    }
                }
                let output = tool.args(way).args(["echo", "hi"]).output().unwrap();
                assert_eq!(output.stdout, b"hi\n", "{way:?} {forked_guard}: {output:?}");
            }
        }
        stage.close(Alone::No);
    }

    /// They go with a change of the user alone.
    #[test]
    #[parallel]
    fn groups_stay_unless_the_user_changes() {
        if !geteuid().is_root() {
            return lacks("users", "only root sets groups");
        }
        let Some(stage) = Stage::set() else { return };
        let mut tool = stage.tool(&["run", "-q", "id", "-G"]);
        // SAFETY: one system call.
        #[expect(unsafe_code, reason = "groups of the child's")]
        unsafe {
            tool.pre_exec(|| Ok(setgroups(&[Gid::from_raw(4242)])?));
        }
        let output = tool.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.split_whitespace().any(|group| group == "4242"), "{output:?}");
        stage.close(Alone::No);
    }
}

#[expect(unsafe_code, reason = "nix cannot ask without setting")]
fn action_of(signal: libc::c_int) -> libc::sighandler_t {
    // SAFETY: a plain struct of integers, and a handler that may be null.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: it is written to.
    unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut now) };
    now.sa_sigaction
}

/// A handler of the caller's would run in the child, on a copy of its memory.
#[test]
#[serial]
fn no_handler_of_the_caller_is_left_in_a_child() {
    extern "C" fn heard(_: libc::c_int) {}
    let Some(stage) = Stage::set() else { return };
    let set = |action: libc::sighandler_t| {
        // SAFETY: the handler does nothing.
        #[expect(unsafe_code, reason = "a handler is what is tested")]
        unsafe {
            libc::signal(libc::SIGUSR2, action)
        }
    };
    let before = set(heard as *const () as libc::sighandler_t);
    for join in [false, true] {
        let mut command = stage.command("true");
        let look = || match action_of(libc::SIGUSR2) == libc::SIG_DFL {
            true => Ok(()),
            false => Err(std::io::Error::from_raw_os_error(libc::EADV)),
        };
        // SAFETY: sigaction(2) is async-signal-safe.
        #[expect(unsafe_code, reason = "the closure keeps pre_exec's rules")]
        unsafe {
            command.pre_exec(look)
        };
        assert!(command.force_join(join).run().unwrap().status.success(), "{join}");
    }
    set(before);
    stage.close(Alone::Yes);
}
