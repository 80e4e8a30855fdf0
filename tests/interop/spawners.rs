//! Whoever builds on std's `Command` can do the spawning: the real libraries, each with a daemon
//! that outlives their own kill.

use std::io::Read;
use std::process::{Command as StdCommand, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serial_test::parallel;
use tidy_process::Tree;

use crate::support::{Alone, SOON, Stage};

/// A child, and a daemon that is below nobody of ours, and says so once it is in a session of its
/// own.
const SCRIPT: &str = "(setsid sh -c 'echo ready; exec sleep 20 > /dev/null 2>&1' &); exec sleep 20";

/// `spawn_and_kill` spawns the command with the library, reads `ready`, and kills and reaps the
/// child the library's way.
fn daemon_dies_with_the_tree(spawn_and_kill: impl FnOnce(&Arc<Tree>, StdCommand)) {
    let Some(stage) = Stage::set() else { return };
    let tree = Arc::new(Tree::within(&stage.supervisor, None).unwrap());
    let mut command = StdCommand::new("sh");
    stage.mark_std(command.args(["-c", SCRIPT]).stdout(Stdio::piped()));
    spawn_and_kill(&tree, command);
    // Who has forked the daemon may still be about to exit.
    let deadline = Instant::now() + SOON;
    let daemon = loop {
        let left = tree.processes();
        if let [daemon] = left.as_slice() {
            break daemon.clone();
        }
        assert!(!left.is_empty() && Instant::now() < deadline, "not the daemon alone: {left:?}");
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(stage.alive(), [daemon.pid.cast_signed()]);
    assert_ne!(daemon.ppid, std::process::id());
    let report = tree.finish().unwrap();
    assert_eq!(report.leftovers.iter().map(|left| left.pid).collect::<Vec<_>>(), [daemon.pid]);
    stage.close(Alone::No);
}

fn read(mut stdout: impl Read) {
    let mut line = [0; 6];
    stdout.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ready\n");
}

#[test]
#[parallel]
fn std_spawns_into_a_tree() {
    daemon_dies_with_the_tree(|tree, mut command| {
        tree.enroll(&mut command).unwrap();
        let mut child = command.spawn().unwrap();
        read(child.stdout.take().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
#[parallel]
fn tokio_spawns_into_a_tree() {
    use tokio::io::AsyncReadExt;
    daemon_dies_with_the_tree(|tree, command| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut command = tokio::process::Command::from(command);
            tree.enroll(command.as_std_mut()).unwrap();
            let mut child = command.spawn().unwrap();
            let mut line = [0; 6];
            child.stdout.take().unwrap().read_exact(&mut line).await.unwrap();
            assert_eq!(&line, b"ready\n");
            child.kill().await.unwrap();
        });
    });
}

#[test]
#[parallel]
fn async_process_spawns_into_a_tree() {
    use futures_lite::AsyncReadExt;
    daemon_dies_with_the_tree(|tree, mut command| {
        tree.enroll(&mut command).unwrap();
        async_io::block_on(async {
            let mut command = async_process::Command::from(command);
            // It takes every stream that was not set by itself for one to be inherited.
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut line = [0; 6];
            child.stdout.take().unwrap().read_exact(&mut line).await.unwrap();
            assert_eq!(&line, b"ready\n");
            child.kill().unwrap();
            child.status().await.unwrap();
        });
    });
}

#[test]
#[parallel]
fn duct_spawns_into_a_tree() {
    daemon_dies_with_the_tree(|tree, command| {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<_> = words.map(ToOwned::to_owned).collect();
        let mut expression = duct::cmd(&words[0], &words[1..]);
        for (name, value) in command.get_envs() {
            expression = expression.env(name, value.unwrap());
        }
        let tree = Arc::clone(tree);
        let enrolled = expression.before_spawn(move |command| Ok(tree.enroll(command)?));
        let mut reader = enrolled.unchecked().reader().unwrap();
        read(&mut reader);
        reader.kill().unwrap();
        // The end of the pipe is that of the child.
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0);
    });
}

#[test]
#[parallel]
fn process_wrap_spawns_into_a_tree() {
    use process_wrap::std::{CommandWrap, ProcessSession};
    daemon_dies_with_the_tree(|tree, mut command| {
        tree.enroll(&mut command).unwrap();
        let mut command = CommandWrap::from(command);
        // A session of its own: what this library kills by, and what a daemon leaves.
        let mut child = command.wrap(ProcessSession).spawn().unwrap();
        read(child.stdout().take().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    });
}
