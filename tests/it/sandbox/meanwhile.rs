//! Init makes the view while main gives up its rights: that the command sees all of it, and no more
//! of init than before.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::unistd::geteuid;
use serial_test::serial;
use tidy_process::{Network, Sandbox};

use super::template::{WARM, warm};
use super::{boxed, open_dir, said, stage};
use crate::support::Alone;

#[test]
#[serial]
fn main_executes_when_the_view_is_whole() {
    let Some(stage) = stage() else { return };
    const DIRS: usize = 40;
    let own = |sandbox: Sandbox, number| sandbox.private(format!("/own/{number}"));
    let sandbox = (0..DIRS).fold(Sandbox::new().system(), own);
    let script = "grep -c ' /own/' /proc/self/mountinfo; \
        for dir in /own/* /tmp /dev/shm; do echo x >$dir/x || echo no $dir; done";
    for round in 0..30 {
        assert_eq!(said(&stage, script, &sandbox), format!("{DIRS}\n"), "{round}");
    }
    drop(sandbox);
    stage.close(Alone::Yes);
}

/// Everybody reads these files of a process, whatever it is closed to.
#[test]
#[serial]
fn by_init_no_more_is_seen_than_by_main() {
    let Some(stage) = stage() else { return };
    let name = format!("tidy-outside-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixListener::bind_addr(&address).unwrap();
    let sockets = |text: &str| text.lines().filter(|line| line.contains(&name)).count();
    assert_eq!(sockets(&fs::read_to_string("/proc/self/net/unix").unwrap()), 1);
    let script = |files| {
        format!(
            "cat /proc/1/net/unix; for file in net/dev net/route cgroup {files}; do \
             [ \"$(cat /proc/1/$file)\" = \"$(cat /proc/$$/$file)\" ] || echo differs: $file; done"
        )
    };
    for network in [Network::None, Network::Loopback] {
        let sandbox = Sandbox::new().system().network(network);
        for round in 0..=WARM {
            // The init of the one that makes the template is in the mounts that it makes.
            let files = if round + 1 == WARM { "" } else { "mountinfo" };
            let said = said(&stage, &script(files), &sandbox);
            assert!(said.starts_with("Num "), "{network}, {round}: {said}");
            let differs = said.contains("differs");
            assert!(sockets(&said) == 0 && !differs, "{network}, {round}: {said}");
        }
    }
    drop(socket);
    stage.close(Alone::Yes);
}

/// Main is ready long before so many file systems are: it waits for the last of them.
#[test]
#[serial]
fn main_begins_in_the_whole_view() {
    let Some(stage) = stage() else { return };
    let root = std::env::temp_dir().join(format!("tidy-view-{}", std::process::id()));
    let dirs: Vec<_> = (0..60).map(|number| root.join(format!("d{number}"))).collect();
    let mut sandbox = Sandbox::new().system().read_only(&root);
    for dir in &dirs {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("secret"), "").unwrap();
        sandbox = sandbox.private(dir);
    }
    let script = format!(
        "for file in {0}/*/secret; do test ! -e $file || echo $file; done; ls {0} | wc -l",
        root.display()
    );
    for round in 0..=WARM + 10 {
        assert_eq!(said(&stage, &script, &sandbox).trim(), "60", "{round}");
    }
    drop(sandbox);
    fs::remove_dir_all(root).unwrap();
    stage.close(Alone::Yes);
}

/// The filter is installed early only where it lets through what main does after it.
#[test]
#[serial]
fn a_call_that_is_denied_may_be_one_of_the_set_up() {
    let Some(stage) = stage() else { return };
    for call in ["futex", "chdir", "rt_sigaction", "rt_sigprocmask"] {
        let sandbox = Sandbox::new().system().deny_syscall(call);
        for round in 0..=WARM + 1 {
            let report = boxed(&stage, "exit 7", &sandbox).run().unwrap();
            assert_eq!(report.status.code(), Some(7), "{call}, {round}");
        }
    }
    stage.close(Alone::Yes);
}

/// The same for the first command and for those in a template.
#[test]
#[serial]
fn the_directory_is_entered_with_the_commands_own_rights() {
    let Some(stage) = stage() else { return };
    const USER: u32 = 4242;
    let is_root = geteuid().is_root();
    let dir = open_dir("closed");
    let closed = dir.join("closed");
    fs::create_dir(&closed).unwrap();
    if is_root {
        chown(&closed, Some(USER), Some(USER)).unwrap();
    }
    let sandbox = Sandbox::new().system().read_only(&dir);
    let try_it = |mode: u32| {
        fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = boxed(&stage, "exit 7", &sandbox);
        command.current_dir(&closed);
        if is_root {
            command.uid(USER).gid(USER);
        }
        command.run()
    };
    for round in 0..=WARM {
        let error = try_it(0).unwrap_err().to_string();
        let named = error.starts_with("chdir in the sandbox to") && error.contains("EACCES");
        assert!(named, "{round}: {error}");
    }
    for round in 0..=WARM {
        assert_eq!(try_it(0o700).unwrap().status.code(), Some(7), "{round}");
        assert!(try_it(0).is_err(), "{round}");
    }
    fs::remove_dir_all(&dir).unwrap();
    drop(sandbox);
    stage.close(Alone::Yes);
}

/// A command in a template whose view cannot be made: main, which waits for it, goes with init.
#[test]
#[serial]
fn a_view_that_cannot_be_made_ends_main_too() {
    let Some(stage) = stage() else { return };
    let dir = open_dir("gone");
    fs::create_dir(dir.join("place")).unwrap();
    // It is in the user's directory, so it has to be there.
    let sandbox = Sandbox::new().system().read_only(&dir).private(dir.join("place"));
    warm(&stage, &sandbox);
    for _ in 0..10 {
        fs::remove_dir(dir.join("place")).unwrap();
        let error = boxed(&stage, "true", &sandbox).run().unwrap_err().to_string();
        assert!(error.contains("/place\""), "{error}");
        stage.assert_clean("without a place");
        fs::create_dir(dir.join("place")).unwrap();
        assert!(boxed(&stage, "true", &sandbox).run().unwrap().success());
    }
    fs::remove_dir_all(&dir).unwrap();
    drop(sandbox);
    stage.close(Alone::Yes);
}
