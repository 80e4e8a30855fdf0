//! What a command takes over from its caller: fds, session, umask, ignored signals.

use std::io::{Read, pipe};
use std::os::fd::{AsRawFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serial_test::serial;
use tidy_process::{Command, Containment, Placement, Stdio, Supervisor};

use crate::support::{Alone, Stage};

/// Cgroups with both paths of a spawn, and keepers.
fn each_path(test: impl Fn(&Stage, bool)) {
    for stage in [Stage::set, Stage::of_keepers] {
        for join in [false, true] {
            let Some(stage) = stage() else { continue };
            test(&stage, join);
            stage.close(Alone::Yes);
        }
    }
}

fn unmark(fd: &impl std::os::fd::AsFd) {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
}

/// The fds that a child sees, that of its looking among them.
fn seen(command: &mut Command) -> Vec<RawFd> {
    let output = command.arg("/proc/self/fd").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut fds: Vec<RawFd> = text.split_whitespace().map(|fd| fd.parse().unwrap()).collect();
    fds.sort_unstable();
    fds
}

#[test]
#[serial]
fn a_child_has_the_fds_that_are_listed_and_no_others() {
    each_path(|stage, join| {
        let (marked, leaking) = pipe().unwrap();
        unmark(&leaking);
        let (leak, keep) = (leaking.as_raw_fd(), marked.as_raw_fd());
        let command = || {
            let mut command = stage.command("ls");
            command.force_join(join);
            command
        };
        assert!(
            seen(&mut command()).contains(&leak),
            "by default it goes to the child, as with std"
        );
        assert_eq!(seen(command().inherit_fds([])), [0, 1, 2, 3], "join: {join}");
        let kept = seen(command().inherit_fds([keep]));
        assert!(kept.contains(&keep) && kept.len() == 5, "join: {join}: {kept:?}");
    });
}

#[test]
#[serial]
fn a_supervisor_that_closes_fds_does_it_for_each_command() {
    for containment in [Containment::Cgroup, Containment::Keeper] {
        let made = Supervisor::builder().containment(containment).close_fds(true).build();
        let Ok(supervisor) = made else { continue };
        let (_reader, leaking) = pipe().unwrap();
        unmark(&leaking);
        let leak = leaking.as_raw_fd();
        assert_eq!(seen(&mut supervisor.command("ls")), [0, 1, 2, 3]);
        assert!(seen(supervisor.command("ls").inherit_fds([leak])).contains(&leak));
    }
}

#[test]
#[serial]
fn an_fd_that_is_not_open_fails_the_spawn() {
    each_path(|stage, join| {
        let error = stage.command("true").force_join(join).inherit_fds([900]).spawn().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        assert_eq!(error.to_string(), "inherit fds 900: Bad file number (EBADF)");
    });
}

#[test]
#[serial]
fn a_child_leads_a_session_and_has_a_umask_without_a_fork() {
    let script = "import os; print(os.getsid(0) == os.getpid(), os.umask(0))";
    each_path(|stage, join| {
        let mut command = stage.command("python3");
        command.args(["-c", script]).force_join(join).setsid(true).umask(0o137);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"True 95\n");
        let placement = output.report.placement;
        assert!(join || placement != Placement::Joined, "{placement:?}");
    });
}

/// Python ignores both and Rust the first; a program that meets them ignored does not end by them.
#[test]
#[serial]
fn signals_that_runtimes_ignore_are_the_default_in_a_child() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    #[expect(unsafe_code, reason = "handlers that run no code")]
    let set = |number, handler| {
        // SAFETY: these handlers run no code.
        let _ = unsafe { signal(number, handler) }.unwrap();
    };
    set(Signal::SIGPIPE, SigHandler::SigIgn);
    set(Signal::SIGXFSZ, SigHandler::SigIgn);
    each_path(|stage, join| {
        let mut command = stage.command("grep");
        let mut child = command
            .args(["SigIgn", "/proc/self/status"])
            .force_join(join)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let ignored = u64::from_str_radix(text.split_whitespace().nth(1).unwrap(), 16).unwrap();
        let bits = 1 << (libc::SIGPIPE - 1) | 1 << (libc::SIGXFSZ - 1);
        assert_eq!(ignored & bits, 0, "join: {join}: {text}");
    });
    set(Signal::SIGXFSZ, SigHandler::SigDfl);
}

#[test]
#[serial]
fn an_error_says_the_step_the_path_and_whether_a_byte_is_at_fault() {
    let Some(stage) = Stage::set() else { return };
    for join in [false, true] {
        let failed = |command: &mut Command| command.force_join(join).spawn().unwrap_err();
        let error = failed(&mut stage.command("/no/such"));
        assert_eq!((error.step(), error.path()), (Some("exec"), Some("/no/such".as_ref())));
        assert!(!error.is_bad_directory() && !error.is_nul());
        let error = failed(stage.command("true").current_dir("/no/dir"));
        assert_eq!((error.step(), error.path()), (Some("chdir"), Some("/no/dir".as_ref())));
        assert!(error.is_bad_directory() && !error.is_not_found());
        let error = failed(stage.command("true").arg("a\0b"));
        assert!(error.is_nul(), "{error}");
        assert_eq!(error.path(), None);
    }
    stage.close(Alone::Yes);
}

/// A caller that closes one of its streams, as daemons do, gets its number for the next fd.
#[test]
#[serial]
fn no_handle_of_a_child_takes_the_place_of_a_stream() {
    use std::os::fd::AsFd;
    each_path(|stage, join| {
        let held = nix::unistd::dup(std::io::stdin()).unwrap();
        nix::unistd::close(0).unwrap();
        let child = stage.command("sleep").arg("60").force_join(join).spawn().unwrap();
        let number = child.as_fd().as_raw_fd();
        let free = fcntl(&held, FcntlArg::F_DUPFD(0)).unwrap();
        if free != 0 {
            nix::unistd::close(free).unwrap();
            nix::unistd::dup2_stdin(&held).unwrap();
        }
        child.finish().unwrap();
        assert!(number > 2, "join: {join}: {number}");
        assert_eq!(free, 0, "join: {join}: another fd of the library's took the place");
    });
}

#[cfg(feature = "tokio")]
#[test]
#[serial]
fn the_same_is_true_in_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_reader, leaking) = pipe().unwrap();
    unmark(&leaking);
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let mut command = stage.command("sh");
        let script = "ls /proc/self/fd; umask; ps -o sid= -p $$";
        command.args(["-c", script]).inherit_fds([]).setsid(true).umask(0o137);
        let output = runtime.block_on(command.output_async()).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words[..5], ["0", "1", "2", "3", "0137"]);
        assert_ne!(words[5], nix::unistd::getsid(None).unwrap().to_string());
        drop(command);
        stage.close(Alone::No);
    }
}

/// The copy's fds of what is its parent's: the lease, the line to the guard, trees.
#[test]
#[serial]
fn a_fork_forgets_the_global_supervisor_and_kills_nothing() {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, alarm, fork};
    let Ok(supervisor) = Supervisor::global() else { return };
    let Some(root) = supervisor.path().map(std::path::Path::to_owned) else { return };
    let child = supervisor.command("sleep").arg("60").spawn().unwrap();
    child.detach();
    drop(supervisor);
    let held = || {
        let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let links = all.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.starts_with(&root)).count()
    };
    assert!(held() > 0);
    #[expect(unsafe_code, reason = "a fork of a process whose other threads wait")]
    // SAFETY: no other test runs beside this one, and an alarm ends a fork that meets a held lock.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            alarm::set(10);
            Supervisor::after_fork();
            let code = i32::from(held() > 0 || !root.exists());
            #[expect(unsafe_code, reason = "ends the fork alone")]
            // SAFETY: nothing of the parent's is to run.
            unsafe {
                libc::_exit(code)
            }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
    let pids = std::fs::read_to_string(root.join("0/cgroup.procs"));
    assert!(held() > 0 && root.exists(), "{pids:?}");
    Supervisor::after_fork(); // In the process that made it: nothing.
    assert!(root.exists());
    Supervisor::global().unwrap().close().unwrap();
    assert!(!root.exists());
}
