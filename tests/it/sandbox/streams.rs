//! Streams, terminals and runtimes: in a sandbox as without it.

use serial_test::serial;
use tidy_process::{Sandbox, Stdio};

use super::{boxed, stage};
use crate::support::Alone;

#[test]
#[serial]
fn streams_are_the_commands_own_and_other_fds_are_not() {
    let Some(stage) = stage() else { return };
    let sandbox = Sandbox::new().system();
    let script =
        "cat; echo err >&2; ls /proc/self/fd | wc -l; test -e /proc/self/fd/3 || echo none";
    let mut command = boxed(&stage, script, &sandbox);
    let output = command.stdin(Stdio::bytes("in\n")).output().unwrap();
    // ls has one open on the directory.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in\n4\nnone\n");
    assert_eq!(output.stderr, b"err\n");
    drop((command, output));
    let (reader, writer) = std::io::pipe().unwrap();
    use std::os::fd::AsRawFd;
    let number = writer.as_raw_fd();
    let kept = sandbox.clone().inherit_fds([number]);
    // dash knows fds of one digit only.
    let script = format!("bash -c 'echo through >&{number}'");
    boxed(&stage, &script, &kept).run().unwrap();
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "through\n");
    drop((kept, sandbox));
    stage.close(Alone::Yes);
}

/// `/proc/self/fd/0/..` would be the host's.
#[test]
#[serial]
fn a_directory_is_no_stream_and_no_kept_fd() {
    use std::os::fd::AsRawFd;
    let Some(stage) = stage() else { return };
    let dir = || std::fs::File::open("/usr").unwrap();
    let script = "ls /proc/self/fd/0/../root";
    let mut command = stage.sh(script);
    assert!(command.stdin(dir()).output().is_ok(), "it is one elsewhere");
    let sandbox = Sandbox::new().system();
    let held = dir();
    let kept = sandbox.clone().inherit_fds([held.as_raw_fd()]);
    for (mut command, name) in [
        (boxed(&stage, script, &sandbox), "stream 0"),
        (boxed(&stage, script, &kept), "inherit_fds"),
    ] {
        let stdin = if name == "stream 0" { Stdio::from(dir()) } else { Stdio::null() };
        let error = command.stdin(stdin).output().unwrap_err();
        let text = error.to_string();
        assert!(error.is_invalid_input() && text.contains(name), "{text}");
        assert!(text.contains("it is a directory or opened with O_PATH"), "{text}");
    }
    drop((command, kept, sandbox, held));
    stage.close(Alone::Yes);
}

/// One of a cgroup's, by which it would leave.
#[test]
#[serial]
fn an_fd_of_a_cgroup_is_not_kept() {
    use std::os::fd::AsRawFd;
    let Some(stage) = stage() else { return };
    let own = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = own.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    let procs = std::path::Path::new(mount.split(' ').nth(4).unwrap()).join("cgroup.procs");
    let file = std::fs::File::open(procs).unwrap();
    for level in [Sandbox::fence(), Sandbox::new().system()] {
        let error = boxed(&stage, "true", &level.inherit_fds([file.as_raw_fd()])).run();
        let text = error.unwrap_err().to_string();
        assert!(text.contains("of a cgroup file system"), "{text}");
    }
    drop(file);
    stage.close(Alone::Yes);
}

#[cfg(feature = "tokio")]
#[test]
#[serial]
fn a_runtime_waits_and_drops_as_ever() {
    use crate::async_child::{current_thread, multi_thread};
    let Some(stage) = stage() else { return };
    for runtime in [current_thread, multi_thread] {
        let runtime = runtime();
        let sandbox = Sandbox::new().system();
        let mut command = boxed(&stage, "sleep 60 & echo out; exit 4", &sandbox);
        let output = runtime.block_on(command.output_async()).unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(4), &b"out\n"[..]));
        assert_eq!(output.report.leftover_count, 1);
        let mut command = boxed(&stage, "sleep 60", &sandbox);
        let child = runtime.block_on(async { command.spawn_async() }).unwrap();
        runtime.block_on(async { drop(child) });
        drop(runtime);
        stage.assert_clean("dropped in a runtime");
    }
    stage.close(Alone::No);
}

#[cfg(feature = "cli")]
mod terminals {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;

    use super::*;
    use crate::support::{Stage, tool};
    use crate::terminal::{CTRL_C, CTRL_Z, Terminal};

    const LEVELS: [&str; 2] = ["--sandbox", "--fence"];

    #[test]
    #[serial]
    fn ctrl_c_reaches_the_command_and_we_end_as_it_does() {
        let Some(stage) = stage() else { return };
        for level in LEVELS {
            ends_as_it_does(&stage, level);
        }
        stage.close(Alone::No);
    }

    fn ends_as_it_does(stage: &Stage, level: &str) {
        let args = ["run", level, "-C", "/", "sh", "-c"];
        for (script, code, signal) in [
            (
                "trap 'echo clean; exit 6' INT; echo ready; while :; do sleep 0.01; done",
                Some(6),
                None,
            ),
            ("echo ready; exec sleep 60", None, Some(2)),
        ] {
            let mut terminal = Terminal::open(stage, &[&[tool()], &args[..], &[script]].concat());
            terminal.shows("ready\r\n");
            terminal.types(CTRL_C);
            let (status, _) = terminal.ends();
            assert_eq!((status.code(), status.signal()), (code, signal), "{level}");
        }
    }

    #[test]
    #[serial]
    fn a_prompt_outlives_ctrl_c_at_each_level() {
        let Some(stage) = stage() else { return };
        for level in LEVELS {
            let line = [tool(), "run", level, "-k", "0.1", "-C", "/", "/usr/bin/python3", "-q"];
            let mut terminal = Terminal::open(&stage, &line);
            terminal.shows(">>> ");
            // Python shows its prompt a moment before it is ready for a Ctrl-C there.
            std::thread::sleep(Duration::from_millis(500));
            terminal.types(CTRL_C);
            terminal.shows("KeyboardInterrupt");
            terminal.shows(">>> ");
            terminal.types("print(6 * 7)\n");
            terminal.shows("42\r\n");
            terminal.types("exit(7)\n");
            assert_eq!(terminal.ends().0.code(), Some(7), "{level}");
            stage.assert_clean("after the prompt");
        }
        stage.close(Alone::No);
    }

    #[test]
    #[serial]
    fn a_shell_stops_the_job_and_takes_it_up_again() {
        let Some(stage) = stage() else { return };
        for level in LEVELS {
            stops_and_goes_on(&stage, level);
        }
        stage.close(Alone::No);
    }

    fn stops_and_goes_on(stage: &Stage, level: &str) {
        let mut terminal = Terminal::open(stage, &["bash", "--norc", "--noprofile", "-i"]);
        terminal.shows("prompt> ");
        let script = "-C / sh -c 'echo re\"\"ady; read x; echo g\"\"ot $x; exit 9'\n";
        terminal.types(&format!("$T run {level} {script}"));
        terminal.shows("ready\r\n");
        terminal.types(CTRL_Z);
        terminal.shows("Stopped");
        terminal.shows("prompt> ");
        terminal.types("fg\n");
        terminal.shows("$T run");
        terminal.types("hello\n");
        terminal.shows("got hello");
        terminal.shows("prompt> ");
        terminal.types("echo status $?; exit\n");
        terminal.shows("status 9");
        terminal.ends();
    }

    #[test]
    #[serial]
    fn the_tool_takes_options_and_a_profile_and_says_the_plan() {
        let Some(stage) = stage() else { return };
        let dir = super::super::open_dir("profile");
        std::fs::write(dir.join("box.toml"), "write = '.'\nkeep-env = 'KEPT'\n").unwrap();
        let (file, own) = (dir.join("box.toml"), dir.display().to_string());
        let file = file.to_str().unwrap();
        let script = "echo $KEPT >made; echo $LOST; cat made; ls /proc | grep -c '^[0-9]'";
        let mut run = stage.tool(&["run", "-q", "--profile", file, "-C", &own, "sh", "-c", script]);
        let output = run.env("KEPT", "kept").env("LOST", "lost").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("\nkept\n"), "{said} {:?}", output.stderr);
        let options = ["run", "--sandbox", "--plan", "--read", "/opt", "--net", "host", "true"];
        let output = stage.tool(&options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("read-only \"/opt\"") && !said.contains("network-namespace"),
            "{said}"
        );
        for wrong in [&["--read", "/opt"][..], &["--sandbox", "--fence"], &["--profile", "/none"]] {
            let output = stage.tool(&[&["run"], wrong, &["--", "true"]].concat()).output().unwrap();
            assert_eq!(output.status.code(), Some(125), "{wrong:?}");
        }
        // Not in the view.
        let output = stage.tool(&["run", "--sandbox", "-C", &own, "true"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(125) && said.contains("--read or --write"), "{said}");
        // Beside servers.
        let server = "$PY -m http.server --bind 127.0.0.1 8765".replace("$PY", "/usr/bin/python3");
        let args = ["with", "-q", "--sandbox", "-C", "/", "--net", "host", "--server", &server];
        let args = [&args[..], &["--ready", "tcp", "--", "true"]].concat();
        let output = stage.tool(&args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        std::fs::remove_dir_all(dir).unwrap();
        stage.close(Alone::No);
    }
}
