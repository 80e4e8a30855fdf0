//! What a status, a report and an error say is so.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command as StdCommand;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serial_test::{parallel, serial};
use tidy_process::{Limits, Log, Stdio, Supervisor, Tree};

use crate::support::{Alone, SOON, Stage, read_ready};

/// It catches the stop signal and exits with 0.
#[test]
#[parallel]
fn the_status_of_a_command_that_timed_out_is_no_success() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        let mut command = stage.sh("trap 'exit 0' TERM; while :; do sleep 0.01; done");
        command.timeout(Duration::from_millis(300)).grace(SOON);
        let error = command.status().unwrap_err();
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
        drop(command);
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn output_is_collected_and_logged() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        for log in [Log::unnamed().unwrap(), Log::bounded(4096, 4096)] {
            let mut command = stage.sh("echo out; echo err >&2; printf end");
            let output = command.log(&log).output().unwrap();
            assert_eq!((&*output.stdout, &*output.stderr), (&b"out\nend"[..], &b"err\n"[..]));
            let text = log.text().to_string();
            assert!(text.len() == 11 && text.contains("out\n") && text.contains("err\n"), "{text}");
            let output = command.stdout(Stdio::piped()).output().unwrap();
            assert_eq!((&*output.stdout, &*output.stderr), (&b"out\nend"[..], &b"err\n"[..]));
            assert_eq!(log.text().to_string().len(), 15, "a stream that is set is not logged");
        }
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn what_is_no_signal_is_an_error_everywhere() {
    for stage in [Stage::set, Stage::of_keepers] {
        let Some(stage) = stage() else { continue };
        for odd in [-1, 65, 999] {
            let mut command = stage.sh("echo ready; sleep 20");
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            read_ready(child.stdout.take().unwrap());
            let tree = child.tree();
            let errors = [
                child.signal(odd).unwrap_err(),
                child.signal_all(odd).unwrap_err(),
                tree.signal(odd).unwrap_err(),
                tree.stop(odd, SOON).unwrap_err(),
                stage.command("true").stop_signal(odd).spawn().unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
                assert!(error.hint().is_some_and(|hint| hint.contains("1 to 64")), "{error}");
            }
            assert_eq!(child.try_wait().unwrap(), None, "it was not stopped");
        }
        stage.close(Alone::No);
    }
}

#[test]
#[parallel]
fn cpu_time_where_nothing_watches_it_is_refused() {
    let Some(stage) = Stage::set() else { return };
    let limits = Limits::new().cpu_time(SOON);
    let child = stage.command("sleep").arg("20").spawn().unwrap();
    let errors = [
        Supervisor::builder()
            .base(stage.supervisor.path().unwrap())
            .limits(limits.clone())
            .build()
            .err(),
        Tree::limited(&stage.supervisor, None, &limits).err(),
        child.tree().set_limits(&limits).err(),
    ];
    for error in errors {
        let error = error.unwrap();
        assert!(error.is_limit() && error.hint().is_some(), "{error}");
        assert!(error.to_string().starts_with("limit cpu time: 20s"), "{error}");
    }
    drop(child);
    stage.close(Alone::No);
}

/// There is a cgroup to be had, but no fd, or none more of them for now.
#[test]
#[serial]
fn what_has_run_out_is_no_lack_of_cgroups() {
    let Some(stage) = Stage::set() else { return };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    let errors = (stage.command("true").spawn().err(), Supervisor::builder().build().err());
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let (error, other) = (errors.0.unwrap(), errors.1.unwrap());
    for error in [error, other] {
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
        assert!(!error.is_no_cgroup(), "{error}");
    }
    fs::write(stage.supervisor.path().unwrap().join("cgroup.max.descendants"), "0").unwrap();
    let error = stage.command("true").spawn().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
    assert!(!error.is_no_cgroup(), "{error}");
    stage.close(Alone::Yes);
}

#[test]
#[serial]
fn an_enrolled_command_holds_no_fd_of_the_tree() {
    let Some(stage) = Stage::set() else { return };
    let fds = || -> BTreeSet<_> {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok()).collect()
    };
    let before = fds();
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    let mut commands = [(); 3].map(|()| StdCommand::new("true"));
    for command in &mut commands {
        tree.enroll(command).unwrap();
        assert!(command.status().unwrap().success());
    }
    drop(tree);
    let new: Vec<_> = fds().difference(&before).cloned().collect();
    assert_eq!(new, Vec::<std::path::PathBuf>::new());
    assert!(commands[0].status().is_err(), "the tree is gone, so nothing may start");
    stage.close(Alone::Yes);
}

/// A process chooses its name and its directory; neither need be UTF-8.
#[cfg(feature = "serde")]
#[test]
#[parallel]
fn a_report_can_be_serialized_whatever_a_leftover_is_called() {
    let Some(stage) = Stage::set() else { return };
    let script =
        "d=$(mktemp -d) && cd $d && mkdir \"$(printf '\\377')\" && cd \"$(printf '\\377')\"
        (exec sleep 20) & until grep -q sleep /proc/$!/comm; do :; done; rm -r $d; exit 3";
    let output = stage.sh(script).output().unwrap();
    let json = serde_json::to_value(&output).unwrap();
    let report = &json["report"];
    assert_eq!((&json["status"]["code"], &report["status"]["code"]), (&3.into(), &3.into()));
    assert_eq!((&report["cause"], &report["mechanism"]), (&"exited".into(), &"cgroup".into()));
    let cwd = report["leftovers"][0]["cwd"].as_str().unwrap();
    assert!(cwd.contains('\u{fffd}'), "{cwd}");
    assert_eq!(report["usage"]["missing"][0]["field"], "oom_kills");
    let tree = Tree::within(&stage.supervisor, None).unwrap();
    assert_eq!(serde_json::to_value(tree.finish().unwrap()).unwrap()["mechanism"], "cgroup");
    drop(tree);
    let killed = stage.sh("kill -9 $$").run().unwrap();
    let json = serde_json::to_value(&killed).unwrap();
    assert_eq!((&json["status"]["signal"], &json["cause"]["signaled"]), (&9.into(), &9.into()));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_report_in_words_names_a_few_and_counts_the_rest() {
    let Some(stage) = Stage::set() else { return };
    let script = "for n in $(seq 40); do sleep 20 & done; exit 3";
    let text = stage.sh(script).run().unwrap().to_string();
    assert!(text.starts_with("exit status: 3 after 0.") && text.ends_with(" more"), "{text}");
    assert!(text.contains(" s, killed 40 leftovers: ") && text.len() < 300, "{text}");
    stage.close(Alone::No);
}
